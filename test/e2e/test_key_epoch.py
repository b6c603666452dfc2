"""The guest agent derives other keys than before: the TLS key, the account's and the EKM secret.

A daemon that runs notices it when it asks for the keys once more: daily, and before an order when
they are older than a minute, which is what this waits for.
"""

import os
import signal

import pki
from loopback import wait_until
from rotation import SETTLED, LeafWatch, Rotation, assert_at_rest, assert_measured, serve
from test_failures import wait_for_failure
from test_resilience import KILLED, kill_nginx

KEYS_FRESH_S = 60
EPOCH = "2"


def ekm_secret(stack):
    """What nginx's module signs with after its next reload."""
    return (stack.folder["run_dir"] / "ekm.secret").read_text()


def derived(seed, stack):
    """TLS key and EKM secret that belong to a seed."""
    key = pki.derived_key(seed, f"cert/letsencrypt/{stack.domain}/v1")
    return key, pki.derived_material(seed, "ekm/hmac-key/v1").hex()


def test_other_keys_are_noticed_before_an_order_and_taken_together(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    # Below ten days a leaf is due at half of its life: when the keys are old enough to be asked for.
    due = (KEYS_FRESH_S + 5) / 60 * pki.MINUTE
    rotation = Rotation(stack, start=due - 4 * pki.DAY, life=8 * pki.DAY)
    ca.stop()
    old = serve(stack)
    old_secret = ekm_secret(stack)
    key, secret = derived(f"{stack.seed}{EPOCH}", stack)
    assert old_secret == derived(stack.seed, stack)[1]

    # An agent that is being updated is away at first.
    stack.agent.vanish()
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        told = "ERROR - get TLS key: .*no such socket"
        stack.log.wait_for(told, KEYS_FRESH_S + 20, since=mark)
        stack.agent.rotate_keys(epoch=EPOCH)
        stack.agent.reappear()
        told = "WARNING - the guest agent derives another TLS key now: the served certificate stays"
        stack.log.wait_for(told, since=mark)
        wait_for_failure(stack, ca.directory, stack.log.mark())
        assert watch.seen == [old]

    # Until there is a certificate for the new key nothing changes, also when nginx has to start again.
    mark = stack.log.mark()
    stack.expected_trouble = KILLED
    kill_nginx(stack)
    stack.log.wait_for("nginx was started again", since=mark)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, old)
    assert ekm_secret(stack) == old_secret

    with LeafWatch(stack) as watch:
        mark = stack.log.mark()
        ca.start()
        stack.log.wait_for(SETTLED, 40, since=mark)
        new = stack.stored_chain()[0]
        watch.wait_for(new)
    assert set(watch.seen) == {old, new} and pki.same_key(new, key)
    assert_at_rest(stack, new, key)
    assert_measured(stack, [*rotation.names, pki.sha256(new)])
    assert ekm_secret(stack) == secret
    assert ca.issued() == 1

    # Whoever starts next finds nothing to do.
    mark = stack.log.mark()
    os.kill(stack.daemon().pid, signal.SIGKILL)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, new, key)
    assert_measured(stack, [*rotation.names, pki.sha256(new)])
    assert ca.issued() == 1
    wait_until(lambda: stack.https_get("/health").status == 200, "HTTPS is healthy")
