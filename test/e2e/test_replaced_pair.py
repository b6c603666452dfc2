"""Somebody else writes cert.pem and key.pem while the daemon runs.

Judged when they have rested for two seconds: what may be served is applied like any other
certificate; everything else is refused, told, and replaced by the pair that is served. With the
derived key that is a chain for this key; with `tls.key: external` any pair that fits together.
"""

import os
import re
import time

import pki
import pytest
from loopback import wait_until
from rotation import (
    SETTLED,
    LeafWatch,
    Rotation,
    assert_at_rest,
    assert_measured,
    replace,
    serve,
    wait_until_nothing_is_pending,
)
from test_failures import STARTING, needs_root
from test_resilience import KILLED, kill_nginx

SETTLE_S = 2
REFUSED = "ERROR - the pair in .* was replaced by one that must not be served: "


def files(stack):
    return stack.chain_file.read_text(), stack.key_file.read_text()


def assert_refused(stack, mark, why, before):
    """It says why, and puts back what was there."""
    assert re.search(why, stack.log.wait_for(f"{REFUSED}(.*)", since=mark)[1])
    wait_until(lambda: files(stack) == before, "the pair is put back")


# The derived key: chains for it


def test_another_chain_is_noticed_and_applied(stack):
    """Once it has rested: of several in a row only the last one."""
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        for _ in range(4):
            began = time.monotonic()
            mark = rotation.put()
            # The gap between them is the test's pace, not a wait for something.
            time.sleep(SETTLE_S / 4)
        stack.log.wait_for(SETTLED, since=mark)
        assert time.monotonic() - began >= SETTLE_S
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, [rotation.names[0], rotation.names[-1]])
    assert not stack.log.find("ERROR")


def test_chain_that_is_written_slowly_is_judged_when_it_is_whole(stack):
    rotation = Rotation(stack)
    old = serve(stack)
    text = rotation.next()
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        with stack.chain_file.open("w", buffering=1) as file:
            for number in range(6):
                size = len(text) // 6 + 1
                file.write(text[number * size : (number + 1) * size])
                file.flush()
                time.sleep(SETTLE_S / 4)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)
    assert not stack.log.find("ERROR", mark)


def test_chain_of_before_may_come_back(stack):
    rotation = Rotation(stack)
    first = serve(stack)
    before = stack.chain_file.read_text()
    rotation.put_and_wait()
    mark = stack.log.mark()
    replace(stack, "cert.pem", before)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, first)
    assert_measured(stack, [*rotation.names, rotation.names[0]])


def test_same_leaf_in_other_words_is_no_change(stack):
    """Neither is a key that is derived anyway."""
    Rotation(stack)
    leaf = serve(stack)
    mark = stack.log.mark()
    replace(stack, "cert.pem", f"somebody's words\n{stack.chain_file.read_text()}")
    replace(stack, "key.pem", stack.key_file.read_text(), 0o600)
    rotation = stack.agent.measured()
    # Something else that takes as long, and is seen.
    stack.put("key.pem", "", 0o600)
    stack.log.wait_for(REFUSED, since=mark)
    assert len(stack.log.find_all("ERROR|somebody has put", mark)) == 1
    assert stack.agent.measured() == rotation and stack.served_leaf() == leaf


# The derived key: everything else

# What is put there, and why it is refused.
BAD = {
    "half a chain": ("cert.pem cannot be used", lambda s: s.put("cert.pem", s.other_chain[:700])),
    "no certificate": ("cert.pem cannot be used", lambda s: s.put("cert.pem", "garbage")),
    "empty": ("cert.pem cannot be used", lambda s: s.put("cert.pem", "")),
    "for another key": (
        "the private key does not belong to the certificate",
        lambda s: s.put("cert.pem", s.foreign_chain),
    ),
    "another key": (
        "the private key does not belong to the certificate",
        lambda s: s.put("key.pem", pki.key_pem(s.foreign_key), 0o600),
    ),
    "a pair of another key": (
        "the private key is not the derived one",
        lambda s: s.put_pair(s.foreign_chain, s.foreign_key),
    ),
    "no key": ("key.pem cannot be used", lambda s: s.put("key.pem", "garbage", 0o600)),
    "for another name": (
        "does not cover the domain",
        lambda s: s.put("cert.pem", s.authority.issue("other.test", s.tls_key)),
    ),
    "self-signed": (
        "the certificate is self-signed",
        lambda s: s.put("cert.pem", pki.self_signed(s.domain, s.tls_key)),
    ),
    "of a staging CA": (
        "issued by a staging CA",
        lambda s: s.put("cert.pem", pki.Authority("(STAGING) Pear").issue(s.domain, s.tls_key)),
    ),
    "expired": (
        "expired on",
        lambda s: s.put("cert.pem", s.authority.issue(s.domain, s.tls_key, start=-91 * pki.DAY)),
    ),
    "chain deleted": ("the certificate is missing", lambda s: s.chain_file.unlink()),
    "key deleted": ("its key is missing", lambda s: s.key_file.unlink()),
    "both deleted": (
        "no certificate is stored",
        lambda s: [path.unlink() for path in (s.chain_file, s.key_file)],
    ),
}


def test_whatever_must_not_be_served_is_refused_and_put_back(stack):
    rotation = Rotation(stack)
    stack.authority = rotation.authority
    stack.foreign_key = pki.new_key()
    stack.foreign_chain = stack.authority.issue(stack.domain, stack.foreign_key)
    stack.other_chain = stack.authority.issue(stack.domain, stack.tls_key)
    leaf = serve(stack)
    before = files(stack)
    with LeafWatch(stack) as watch:
        for what, (why, put) in BAD.items():
            mark = stack.log.mark()
            put(stack)
            try:
                assert_refused(stack, mark, why, before)
            except AssertionError as problem:
                raise AssertionError(f"{what}: {problem}") from problem
    assert watch.seen == [leaf]
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_folder_in_place_of_the_chain_is_told_until_it_goes(stack):
    rotation = Rotation(stack)
    leaf = serve(stack)
    before = files(stack)
    mark = stack.log.mark()
    stack.chain_file.unlink()
    stack.chain_file.mkdir()
    stack.log.wait_for(f"{REFUSED}.*a folder, expected a regular file.*cannot be put back", since=mark)
    mark = stack.log.mark()
    stack.chain_file.rmdir()
    assert_refused(stack, mark, "the certificate is missing", before)
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_folder_that_was_replaced_as_a_whole_is_looked_at_now_and_then(stack):
    """No watch sees that. The daemon looks whenever it tries again, here to renew."""
    rotation = Rotation(stack, start=-80 * pki.DAY)
    stack.settings["acme.directory"] = "https://127.0.0.1:9/nobody"
    serve(stack)
    mark = stack.log.mark()
    stack.tls.rename(stack.root / "etc/nginx/before")
    stack.tls.mkdir()
    stack.put_pair(rotation.next(), stack.tls_key)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


@needs_root
def test_pair_that_cannot_be_put_back_is_put_back_later(new_stack):
    stack = new_stack(volume="size=4m")
    rotation = Rotation(stack)
    leaf = serve(stack)
    before = files(stack)
    mark = stack.log.mark()
    stack.put("cert.pem", "garbage")
    stack.remount("ro")
    stack.log.wait_for(f"{REFUSED}.*cannot be put back: .*Read-only", since=mark)
    stack.remount("rw")
    assert_refused(stack, stack.log.mark(), "cert.pem cannot be used", before)
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_nginx_that_dies_beside_a_foreign_pair_never_shows_it(stack):
    """It starts before the pair has been judged: with port 80 alone, for a moment."""
    rotation = Rotation(stack)
    leaf = serve(stack)
    key = pki.new_key()
    stack.put_pair(rotation.authority.issue(stack.domain, key), key)
    with LeafWatch(stack) as watch:
        mark = stack.log.mark()
        kill_nginx(stack)
        stack.expected_trouble = KILLED
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(leaf)
    assert set(watch.seen) <= {leaf, None}
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_pair_that_is_spoilt_while_another_one_waits_is_judged(stack):
    rotation = Rotation(stack)
    leaf = serve(stack)
    before = files(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    with LeafWatch(stack) as watch:
        mark = rotation.put()
        stack.log.wait_for("ERROR - measure: ", since=mark)
        stack.put("cert.pem", "garbage")
        assert_refused(stack, mark, "cert.pem cannot be used", before)
        assert watch.seen == [leaf]
        stack.agent.clear(fault=fault)
        watch.wait_for(rotation.leaf)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_one_more_certificate_takes_the_place_of_one_that_waits(stack):
    rotation = Rotation(stack)
    serve(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    stack.log.wait_for("ERROR - measure: ", since=rotation.put())
    mark = rotation.put()
    stack.log.wait_for("INFO - somebody has put another certificate", since=mark)
    stack.agent.clear(fault=fault)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, [rotation.names[0], rotation.names[-1]])


# A key that is somebody else's


@pytest.fixture(name="external")
def fixture_external(new_stack):
    return new_stack(settings={"tls.key": "external"})


def put_pair(stack, authority, key, **dates):
    chain = authority.issue(stack.domain, key, **dates)
    mark = stack.log.mark()
    replace(stack, "key.pem", pki.key_pem(key), 0o600)
    replace(stack, "cert.pem", chain)
    return mark, pki.read_chain(chain)[0]


def test_external_pair_appears_is_replaced_and_refused(ca, external):
    stack, authority = external, pki.Authority()
    orders = ca.log.mark()
    stack.start().wait_for_http()
    stack.log.wait_for("no usable pair is stored; tls.key is external")
    answer = stack.http_get("/any")
    assert (answer.status, answer.body) == (503, STARTING) and stack.served_leaf() is None

    first_key, second_key = pki.new_key(), pki.new_key()
    mark, first = put_pair(stack, authority, first_key)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, first, first_key)

    with LeafWatch(stack) as watch:
        mark, second = put_pair(stack, authority, second_key)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(second)
    assert None not in watch.seen and watch.seen[0] == first
    assert_at_rest(stack, second, second_key)

    # The same key, another chain: no reload.
    workers = {one.pid for one in stack.nginx_workers()}
    mark, third = put_pair(stack, authority, second_key)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, third, second_key)
    assert workers == {one.pid for one in stack.nginx_workers()}

    before = files(stack)
    with LeafWatch(stack) as watch:
        mark = stack.log.mark()
        stack.put("key.pem", pki.key_pem(first_key), 0o600)
        assert_refused(stack, mark, "does not belong to the certificate", before)
        (kept,) = (stack.state / "set-aside").glob("*/key.pem")
        assert kept.read_text() == pki.key_pem(first_key), "the only copy, maybe"
        mark = stack.log.mark()
        stack.key_file.unlink()
        assert_refused(stack, mark, "key is missing", before)
        mark = stack.log.mark()
        stack.put("cert.pem", authority.issue("other.test", second_key))
        assert_refused(stack, mark, "does not cover the domain", before)
    assert watch.seen == [third]
    assert_at_rest(stack, third, second_key)
    assert_measured(stack, [pki.sha256(leaf) for leaf in (first, second, third)])
    assert ca.orders(orders) == 0


def test_external_pair_of_another_key_that_cannot_be_measured_waits(external):
    """It is on disk already; nginx that is started meanwhile must not show it."""
    stack, authority = external, pki.Authority()
    first_key, second_key = pki.new_key(), pki.new_key()
    _, first = put_pair(stack, authority, first_key)
    serve(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    mark, second = put_pair(stack, authority, second_key)
    with LeafWatch(stack) as watch:
        stack.log.wait_for("ERROR - measure: .*the former certificate is served", since=mark)
        kill_nginx(stack)
        stack.expected_trouble = KILLED
        stack.log.wait_for("ERROR - prestart: .*key.pem is another one", since=mark)
        watch.wait_for(first)
        assert second not in watch.seen
        stack.agent.clear(fault=fault)
        wait_until(lambda: watch.seen[-1] == second, "the second one is served", 40)
    wait_until_nothing_is_pending(stack)
    assert_at_rest(stack, second, second_key)
    assert_measured(stack, [pki.sha256(first), pki.sha256(second)])


def test_external_pair_is_not_renewed_by_us(ca, external):
    orders = ca.log.mark()
    key = pki.new_key()
    _, leaf = put_pair(external, pki.Authority(), key, start=-80 * pki.DAY)
    assert serve(external) == leaf
    external.log.wait_for("tls.key is external, so it is somebody else who renews it")
    assert ca.orders(orders) == 0
    assert_at_rest(external, leaf, key)
    assert os.stat(external.key_file).st_mode & 0o777 == 0o600
