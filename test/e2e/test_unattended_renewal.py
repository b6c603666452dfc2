"""Certificates that nobody looks after: renewed in time, whatever the CA is like meanwhile."""

import base64
import datetime
import secrets

import pki
import pytest
from loopback import wait_until
from rotation import LeafWatch, assert_at_rest, assert_measured
from stack import CERTBOT, NEWER_CERTBOT

RENEWALS = 10
SHORT_LIFE_S = 40
BEHIND_S = 1.0  # what is served may differ from the last event for that long, on a busy machine

FAILURE = r"ERROR - .*\(attempt {}, next in [^)]+\)"


def put_due_pair(stack):
    """A pair that is served, but ought to be renewed."""
    stack.put_pair(
        pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY), stack.tls_key
    )
    return stack.stored_chain()[0]


def wait_for_renewal(stack, leaf, timeout=60.0):
    """The next leaf, which has to come while this one is valid."""
    following = stack.wait_for_leaf(lambda seen: seen != leaf, "the next leaf is served", timeout)
    assert datetime.datetime.now(datetime.timezone.utc) < pki.expires(leaf), "renewed too late"
    return following


def assert_followed(watch, stack, leaves):
    """Clients were shown these and no others, each as it was measured, and the last one rests."""
    watch.wait_for(leaves[-1])
    assert watch.seen == leaves and watch.behind_s < BEHIND_S
    assert_measured(stack, [pki.sha256(leaf) for leaf in leaves])
    settled = r"INFO - HTTPS serves "
    wait_until(lambda: len(stack.log.find_all(settled)) == len(leaves), "the last one rests")
    assert_at_rest(stack, leaves[-1])


def test_ten_renewals_in_a_row(new_ca, new_stack, certbot):
    """The CA suggests to be early. After each order it is left alone for a quarter of the life."""
    ca = new_ca(newer=True, validity_s=60)
    ca.hurry(after_s=10)
    stack = new_stack(ca, certbot=certbot)
    leaves = [stack.start().wait_for_https()]
    with LeafWatch(stack) as watch:
        for _ in range(RENEWALS):
            leaves.append(wait_for_renewal(stack, leaves[-1]))
        assert_followed(watch, stack, leaves)
    assert (ca.orders(), ca.issued(), ca.accounts()) == (len(leaves), len(leaves), 1)
    assert ca.renewal_info_calls() >= RENEWALS


@pytest.mark.parametrize("way", ["refuses", "says nothing"])
def test_ca_that_is_down_for_a_while(new_ca, new_stack, way):
    ca = new_ca(validity_s=SHORT_LIFE_S, has_door=True)
    stack = new_stack(ca)
    leaves = [stack.start().wait_for_https()]
    with LeafWatch(stack) as watch:
        mark = stack.log.mark()
        if way == "refuses":
            ca.shut()
            stack.log.wait_for(FAILURE.format(2), SHORT_LIFE_S, mark)
            ca.open()
        else:
            ca.pause()
            stack.log.wait_for("INFO - asking ", SHORT_LIFE_S, mark)
            ca.resume()
        leaves.append(wait_for_renewal(stack, leaves[-1]))
        assert_followed(watch, stack, leaves)
    assert (ca.orders(), ca.accounts()) == (2, 1)


def test_validation_that_fails_and_is_then_put_right(ca, new_stack, certbot):
    stack = new_stack(certbot=certbot)
    leaves, mark = [put_due_pair(stack)], ca.log.mark()
    ca.break_dns(stack.domain)
    assert stack.start().wait_for_https() == leaves[0]
    with LeafWatch(stack) as watch:
        failure = stack.log.wait_for(FAILURE.format(2))[0]
        assert "challenge" in failure and stack.domain in failure
        ca.mend_dns(stack.domain)
        leaves.append(wait_for_renewal(stack, leaves[-1]))
        assert_followed(watch, stack, leaves)
    assert (ca.issued(mark), ca.accounts(mark)) == (1, 1)


def test_one_in_five_nonces_is_refused(new_ca, new_stack):
    """certbot gives up at the second refusal in a row, so that some runs fail."""
    ca = new_ca(newer=True, rejected_nonces=20)
    stacks = [new_stack(ca, certbot=certbot) for certbot in 2 * [CERTBOT, NEWER_CERTBOT]]
    old_leaves = [put_due_pair(stack) for stack in stacks]
    for stack in stacks:
        stack.start()
    for stack, old_leaf in zip(stacks, old_leaves):
        stack.wait_for_https()
        leaf = wait_for_renewal(stack, old_leaf)
        assert_measured(stack, [pki.sha256(old_leaf), pki.sha256(leaf)])
    assert ca.accounts() == len(stacks)


def test_another_ca_helps_out_until_the_main_one_is_back(new_ca, new_stack, certbot):
    """It wants the account to be bound to the operator's there."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    main = new_ca(newer=True, has_door=True)
    other = new_ca(newer=True, validity_s=60, account_keys={"kid-1": key}, http_port_of=main)
    other.hurry(after_s=10)
    stack = new_stack(main, certbot=certbot)
    other.point(stack.domain, stack.address)
    key_file = stack.root / "etc/binding.key"
    key_file.write_text(f"{key}\n")
    binding = {"eab_key_id": "kid-1", "eab_key_file": str(key_file)}
    place = {"directory": other.directory, "ca_bundle": str(other.bundle)}
    stack.settings["acme.fallback"] = [place | binding]

    main.shut()
    leaves = [stack.start().wait_for_https()]
    assert stack.https_get("/health", root=other.root()).status == 200  # chain and name verified
    with LeafWatch(stack) as watch:
        main.open()
        leaves.append(wait_for_renewal(stack, leaves[-1]))
        assert_followed(watch, stack, leaves)
    assert stack.https_get("/health", root=main.root()).status == 200
    assert [(ca.orders(), ca.accounts()) for ca in (main, other)] == [(1, 1), (1, 1)]
