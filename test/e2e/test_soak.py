"""An hour of compressed life (make soak), or the first minute of it: see test/lib/soak.py.

SOAK_SECONDS says for how long; SOAK_SEED repeats what a printed seed led to.
"""

import os
import random

import pki
from rotation import assert_adds_up, serve
from soak import EXPECTED, Life, wait_for_next_leaf
from stack import NEWER_CERTBOT

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
LIFE_S = 60
LONG_ENOUGH_S = 300  # for a daemon to live until it can be judged
RENEWED_AFTER_S = 10  # the CA suggests it


def test_invariants_hold_whatever_fails(new_ca, new_stack):
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SOAK_SEED={seed}")
    ca = new_ca(newer=True, validity_s=LIFE_S, has_door=True, rejected_nonces=2)
    ca.hurry(after_s=RENEWED_AFTER_S)
    # More than the hour brings.
    settings = {"acme.limit_certificates": "5000/1h", "acme.limit_failures": "5000/1h"}
    stack = new_stack(ca, certbot=NEWER_CERTBOT, settings=settings)
    stack.expected_trouble = EXPECTED
    serve(stack)
    with Life(stack, ca, seed) as life:
        life.go_on(SECONDS)
        life.watch.trouble = "nothing any more"
        leaf = wait_for_next_leaf(stack)
    watch = life.watch
    print(f"{watch.samples} samples, {len(watch.leaves)} leaves, {ca.orders()} orders")
    print("\n".join(life.told))
    assert not watch.breaches, "\n".join([f"SOAK_SEED={seed}", *watch.breaches])
    judged = watch.assert_flat()
    assert judged or SECONDS < LONG_ENOUGH_S
    assert_adds_up(stack)
    assert stack.served_leaf() == leaf and stack.stored_chain()[0] == leaf
    assert pki.sha256(leaf) == stack.agent.measured()[-1]
    # What was issued came live, but for what a kill, or a failure, took along; nobody hammers the CA.
    assert ca.accounts() == 1
    assert ca.orders() <= len(watch.leaves) + len(life.told) + 2
