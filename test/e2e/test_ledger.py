"""What a CA is asked for is written down first, and what it allows is never exceeded.

Pebble allows everything, so its limits are settings here, and its own log shows how often it was
asked. A restart is the end of everything at once: only the volume stays.
"""

import json
import time

import pki
import pytest
from loopback import wait_until
from test_control import metrics_of
from test_failures import (
    assert_recovers,
    assert_waiting,
    needs_root,
    put_due_pair,
    wait_for_failure,
)
from test_orphan import assert_one_order, freeze_daemon_until_certbot_has_ended, kill_daemon

NO_ORDER = r"no order before \S+ \S+ UTC: "
RESTARTS = 5


def restart_again_and_again(stack, line):
    """The log has the line in each life, and the container is ended by cutting its power."""
    for _ in range(RESTARTS):
        stack.cut_power()
        mark = stack.log.mark()
        stack.start()
        stack.log.wait_for(line, since=mark)


def put_program(stack, script):
    """One in certbot's place; each order adds a line to a file, whose path is given back."""
    program, runs = stack.root / "certbot", stack.root / "runs"
    version = '[ "$1" != --version ] || exit 0'
    program.write_text(f"#!/bin/sh\n{version}\necho >> {runs}\n{script}\n")
    program.chmod(0o755)
    runs.touch()
    runs.chmod(0o666)
    stack.settings["certbot.path"] = program
    return runs


# Limits and restarts


def test_failing_challenges_of_many_restarts_stay_within_the_limit(ca, new_stack):
    stack = new_stack(settings={"acme.limit_failures": "3/1h"})
    ca.break_dns(stack.domain)
    mark = ca.log.mark()
    stack.start()
    used_up = NO_ORDER + "the CA's limit of failed challenges is used up"
    wait_until(lambda: stack.status().get("next", "").endswith("is used up"), "the limit holds")
    assert_waiting(stack)
    restart_again_and_again(stack, used_up)
    assert ca.orders(mark) == 3 and ca.issued(mark) == 0
    assert stack.ledger_outcomes() == ["challenge failed"] * 3


def test_orders_that_are_cut_off_count_as_certificates(ca, new_stack):
    stack = new_stack(settings={"acme.limit_certificates": "2/7d"})
    mark = ca.log.mark()
    for number in (1, 2):
        stack.start()
        wait_until(lambda number=number: ca.orders(mark) == number, f"order {number} is made", 30)
        stack.cut_power()
    stack.start()
    used_up = NO_ORDER + "the CA's limit of certificates for the same names is used up"
    stack.log.wait_for(used_up)
    restart_again_and_again(stack, used_up)
    assert ca.orders(mark) == 2
    assert stack.ledger_outcomes() == ["doubtful"] * 2


def test_time_that_the_ca_named_is_kept(new_stack):
    stack = new_stack()
    old_leaf = put_due_pair(stack)
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 7200))
    runs = put_program(
        stack,
        "echo 'acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: There were too many"
        f" requests :: too many certificates, retry after {until} UTC: see the documentation' >&2\n"
        "exit 1",
    )
    assert stack.start().wait_for_https() == old_leaf
    wait_for_failure(stack, rf"rate limited .*retry after {until}")
    restart_again_and_again(stack, f"{NO_ORDER}the CA has limited us")
    assert runs.read_text() == "\n" and stack.ledger_outcomes() == ["rate limited"]
    assert stack.wait_for_https() == old_leaf


def test_forced_removal_does_not_lead_into_a_limit(ca, new_stack):
    stack = new_stack(settings={"acme.limit_certificates": "1/7d"})
    mark = ca.log.mark()
    leaf = stack.start().wait_for_https()
    stack.stop()
    stack.variables["FORCE_RM_CERT_FILES"] = "true"
    stack.start()
    stack.log.wait_for("FORCE_RM_CERT_FILES cannot act, the stored pair is kept: the CA's limit")
    assert stack.wait_for_https() == leaf and ca.orders(mark) == 1
    assert stack.set_aside() == []


def test_certificate_of_a_killed_daemon_is_taken_though_the_limit_is_used_up(ca, new_stack):
    stack = new_stack(settings={"acme.limit_certificates": "1/7d"})
    mark = ca.log.mark()
    stack.start()
    freeze_daemon_until_certbot_has_ended(stack, ca, mark)
    kill_daemon(stack)
    assert_one_order(ca, stack, mark)
    assert stack.ledger_outcomes() == ["issued"]


# The file


def wake(stack):
    """The daemon looks around when something happens to nginx's pid file, and every minute."""
    (stack.folder["run"] / "touched").touch()


def test_ledger_that_cannot_be_read_holds_orders_but_not_https(ca, stack):
    old_leaf, mark = put_due_pair(stack), ca.log.mark()
    stack.state.mkdir(mode=0o700)
    (stack.state / "ledger.json").symlink_to("ledger.json")
    stack.start().wait_for_https()
    stack.log.wait_for("ERROR - nothing is ordered without the ledger of orders: .*symbolic links")
    stack.log.wait_for("; nothing is ordered while the ledger of orders cannot be read")
    assert stack.served_leaf() == old_leaf and ca.orders(mark) == 0
    (stack.state / "ledger.json").unlink()
    wake(stack)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != old_leaf, "the renewed leaf is served")
    assert stack.agent.measured() == [pki.sha256(old_leaf), pki.sha256(leaf)]
    assert len(stack.log.find_all("ERROR - nothing is ordered without the ledger")) == 1


def test_nothing_is_ordered_that_cannot_be_written_down(ca, stack):
    mark = ca.log.mark()
    stack.start(with_agent=False)
    wait_for_failure(stack, "dstack.sock")
    (stack.state / "ledger.json").mkdir(parents=True)
    stack.agent.start()
    wait_for_failure(stack, "ask ledger: the ledger of orders cannot be written: .*ledger.json")
    assert_waiting(stack)
    assert ca.orders(mark) == 0
    (stack.state / "ledger.json").rmdir()
    assert_recovers(stack)
    assert stack.ledger_outcomes() == ["issued"]


def test_damaged_ledger_leaves_one_order(ca, new_stack):
    stack = new_stack(settings={"acme.limit_certificates": "5/7d"})
    put_due_pair(stack)
    stack.state.mkdir(mode=0o700)
    stack.put(".cert-manager/ledger.json", "damaged")
    mark = ca.log.mark()
    stack.start()
    stack.log.wait_for("WARNING - the ledger of orders is damaged")
    stack.log.wait_for("HTTPS serves .*Pebble")
    assert (stack.state / "ledger.json.damaged").read_text() == "damaged"
    stack.stop()
    old_leaf = put_due_pair(stack)
    assert stack.start().wait_for_https() == old_leaf
    stack.log.wait_for(f"{NO_ORDER}the CA's limit of certificates")
    assert ca.orders(mark) == 1


def test_order_from_the_future_counts_as_made_now(ca, new_stack):
    stack = new_stack(settings={"acme.limit_certificates": "1/7d"})
    old_leaf, mark = put_due_pair(stack), ca.log.mark()
    subject = {"directory": ca.directory, "names": stack.domain, "account": "v1"}
    entry = {"subject": 0, "at": 4102444800, "outcome": "issued"}
    stack.state.mkdir(mode=0o700)
    stack.put(
        ".cert-manager/ledger.json",
        json.dumps({"version": 1, "subjects": [subject], "entries": [entry]}),
    )
    assert stack.start().wait_for_https() == old_leaf
    stack.log.wait_for("WARNING - 1 entries of the ledger of orders are from the future")
    stack.log.wait_for(f"{NO_ORDER}the CA's limit of certificates")
    assert ca.orders(mark) == 0


@pytest.mark.parametrize(
    "volume, told",
    [(None, "on the root file system"), pytest.param("size=4m", "in memory", marks=needs_root)],
    ids=["none", "tmpfs"],
)
def test_folder_that_does_not_last_is_told_once(new_stack, volume, told):
    stack = new_stack(volume=volume)
    stack.put_pair(pki.Authority().issue(stack.domain, stack.tls_key), stack.tls_key)
    stack.start().wait_for_https()
    assert len(stack.log.find_all(rf"WARNING - \S+ is {told} and not a volume")) == 1


# Rehearsals


@pytest.fixture(name="rehearsed")
def fixture_rehearsed(ca, new_ca, new_stack):
    """A container whose challenges fail at its CA and at the one for rehearsals, which is given."""
    other, stack = new_ca(), new_stack()
    bundle = stack.root / "bundle.pem"
    bundle.write_text(ca.bundle.read_text() + other.bundle.read_text())
    stack.settings |= {"acme.rehearsal_directory": other.directory, "acme.ca_bundle": bundle}
    other.point(stack.domain, stack.address)
    for one in (ca, other):
        one.break_dns(stack.domain)
    return stack, other


def test_challenge_that_failed_twice_is_rehearsed(ca, rehearsed):
    stack, other = rehearsed
    mark = ca.log.mark()
    stack.start()
    wait_for_failure(stack, "rehearsal at .*, before .* is asked again: .*challenge failed")
    failed = 'result="challenge failed"'
    wait_until(
        lambda: metrics_of(stack).get(("rehearsals_total", failed), 0) >= 2,
        "it is rehearsed again",
        40,
    )
    assert ca.orders(mark) == 2
    assert_waiting(stack)
    for one in (ca, other):
        one.mend_dns(stack.domain)
    assert_recovers(stack)
    stack.log.wait_for("INFO - the rehearsal at .* has succeeded")
    assert ca.orders(mark) == 3 and ca.issued(mark) == other.issued() == 1
    metrics = metrics_of(stack)
    assert metrics["issues_total", 'result="ok"'] == metrics["rehearsals_total", 'result="ok"'] == 1
    assert metrics["issues_total", failed] == 2


def test_rehearsal_that_fails_otherwise_holds_nothing_back(ca, rehearsed):
    stack, other = rehearsed
    other.stop()
    mark = ca.log.mark()
    stack.start()
    stack.log.wait_for("WARNING - the rehearsal at .* shows nothing about the challenge")
    wait_until(lambda: ca.orders(mark) >= 3, "the CA is asked again", 40)
    ca.mend_dns(stack.domain)
    assert_recovers(stack)


def test_rehearsal_that_is_cut_off_is_accounted_for(ca, rehearsed):
    stack, other = rehearsed
    other.mend_dns(stack.domain)
    stack.start()
    other.log.wait_for("Added order", timeout=60)
    stack.cut_power()
    stack.start()
    stack.log.wait_for(f"WARNING - it is not known what became of an order at {other.directory}")
    ca.mend_dns(stack.domain)
    assert_recovers(stack)
    assert stack.ledger_outcomes() == [
        *("challenge failed", "challenge failed", "doubtful", "issued"),
    ]
