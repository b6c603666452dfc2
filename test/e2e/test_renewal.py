"""When a certificate is renewed: as its CA says, else by its lifetime; and whatever the clock does."""

import datetime

import pki
import pytest
from loopback import wait_until
from preload import preload

HOUR = datetime.timedelta(hours=1)
BY_LIFETIME = "lifetime"
BY_CA = "renewal information"


class WallClock:
    """The daemon's own, ahead of everybody else's. Its monotonic clock is the machine's."""

    def __init__(self, stack):
        self._stack, self._file = stack, stack.root / "wall-clock"
        self._file.write_text("0")
        preload(stack, "wall_clock", WALL_CLOCK=self._file)

    def set_ahead(self, ahead):
        """It looks at once: at the latest it does so in a minute, and earlier when nginx is touched."""
        text = str(int(ahead.total_seconds()))
        following = self._file.with_suffix(".next")
        following.write_text(text)
        following.rename(self._file)
        touched = self._stack.folder["sites"] / "touched"
        touched.touch()
        touched.unlink()


def renewal(stack):
    return stack.status().get("renewal") or {}


def wait_for_answer(stack):
    """What the status says of the renewal, once the CA has said something."""
    wait_until(lambda: renewal(stack).get("asked_at"), "the CA has been asked")
    return renewal(stack)


def seconds(when):
    return int(when.timestamp())


def test_ca_decides_and_what_it_said_is_kept(new_ca, new_stack):
    ca = new_ca(newer=True)
    stack = new_stack(ca)
    clock = WallClock(stack)
    first = stack.start().wait_for_https()
    said = wait_for_answer(stack)
    assert said["rule"] == BY_CA
    assert said["window"]["start"] <= said["at"] < said["window"]["end"]
    assert 6 * 3600 <= said["ask_at"] - said["asked_at"] <= 6.6 * 3600

    # A restart neither moves the instant nor asks again.
    mark = stack.log.mark()
    stack.restart()
    assert stack.wait_for_https() == first
    stack.log.wait_for("the next renewal is due on .*, as its CA suggests", since=mark)
    assert wait_for_answer(stack) == said and ca.renewal_info_calls() == 1

    # The CA is in a hurry, which is seen with the next question.
    now = datetime.datetime.now(datetime.timezone.utc)
    ca.suggest_renewal(first, now - 2 * HOUR, now - HOUR)
    mark = stack.log.mark()
    clock.set_ahead(7 * HOUR)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != first, "the renewed leaf is served")
    stack.log.wait_for("INFO - the CA suggests to renew the certificate between", since=mark)
    assert stack.agent.measured() == [pki.sha256(first), pki.sha256(leaf)]
    wait_until(lambda: ca.renewal_info_calls() == 3, "the CA is asked about the new leaf, too")
    assert wait_for_answer(stack)["at"] > seconds(now + 7 * HOUR)
    assert ca.orders() == 2


@pytest.mark.parametrize("newer", [True, False], ids=["who does not know it", "without any"])
def test_ca_that_says_nothing_leaves_it_to_the_lifetime(new_ca, new_stack, newer):
    ca = new_ca(newer=newer)
    stack = new_stack(ca)
    clock = WallClock(stack)
    chain = pki.Authority().issue(
        stack.domain, stack.tls_key, start=-50 * pki.DAY, names_issuer=True
    )
    stack.put_pair(chain, stack.tls_key)
    stored = stack.stored_chain()[0]
    assert stack.start().wait_for_https() == stored
    told = "does not say when to renew" if newer else "gives no renewal information"
    stack.log.wait_for(f"the CA {told}")
    stack.log.wait_for("the next renewal is due on .*, by its lifetime")
    wait_until(lambda: renewal(stack).get("ask_at"), "the status has what came of the question")
    assert renewal(stack)["rule"] == BY_LIFETIME
    assert renewal(stack)["at"] == seconds(pki.expires(stored) - 30 * pki.DAY)
    assert stack.served_leaf() == stored and ca.orders() == 0
    clock.set_ahead(10 * pki.DAY)
    stack.wait_for_leaf(lambda leaf: leaf != stored, "the renewed leaf is served")


def test_wall_clock_that_jumps(ca, new_stack):
    stack = new_stack()
    clock = WallClock(stack)
    chain = pki.Authority().issue(stack.domain, stack.tls_key, start=-20 * pki.DAY)
    stack.put_pair(chain, stack.tls_key)
    stored = stack.stored_chain()[0]
    mark = ca.log.mark()
    assert stack.start().wait_for_https() == stored
    stack.log.wait_for("the next renewal is due on")

    # Before the certificate's life: it stays, and somebody is told.
    clock.set_ahead(-21 * pki.DAY)
    stack.log.wait_for("WARNING - the served certificate is valid from .* is this machine's clock")
    wait_until(lambda: "clock right?" in stack.status()["next"], "the status says so, too")
    assert stack.served_leaf() == stored and ca.orders(mark) == 0
    since = stack.log.mark()
    clock.set_ahead(pki.DAY * 0)
    stack.log.wait_for("the next renewal is due on", since=since)

    # As after a long sleep: due, and renewed. Back again, nothing more is.
    clock.set_ahead(41 * pki.DAY)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != stored, "the renewed leaf is served")
    since = stack.log.mark()
    clock.set_ahead(pki.DAY * 0)
    stack.log.wait_for("entries of the ledger of orders are from the future", since=since)
    assert stack.served_leaf() == leaf and ca.orders(mark) == 1
    assert stack.agent.measured() == [pki.sha256(stored), pki.sha256(leaf)]


def test_operator_who_wants_it_earlier(ca, new_stack):
    debug = {"LOG_LEVEL": "debug"}
    stack = new_stack(settings={"acme.renew_before": "40d"}, variables=debug)
    chain = pki.Authority().issue(stack.domain, stack.tls_key, start=-51 * pki.DAY)
    stack.put_pair(chain, stack.tls_key)
    stored = stack.stored_chain()[0]
    assert stack.start().wait_for_https() == stored
    stack.wait_for_leaf(lambda leaf: leaf != stored, "the renewed leaf is served")
    stack.log.wait_for(r"the certificate expires on .*; due since .*, by acme\.renew_before")
