"""A renewal that a person asks for, and how much is logged, while the daemon runs."""

import contextlib
import json

import pytest
from commands import command
from conftest import logs_of
from loopback import wait_until
from rotation import assert_adds_up, serve
from stack import Stack
from test_control import Socket, control_of


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container whose certificate is renewed"] = stack.log
        serve(stack)
        yield stack


def test_what_is_not_due_stays(served):
    leaf, orders = served.served_leaf(), served.ledger_outcomes()
    result = command(served, "renew", "--wait")
    assert result.code == 0 and "the next renewal is due on" in result.out
    assert (served.served_leaf(), served.ledger_outcomes()) == (leaf, orders)


def test_what_is_not_due_is_renewed_by_force(served):
    leaf, orders = served.served_leaf(), served.ledger_outcomes()
    result = command(served, "renew", "--force", "--wait")
    assert (result.code, result.err) == (0, "")
    assert "HTTPS serves leaf" in result.out.splitlines()[-1]
    assert len(result.out.splitlines()) >= 2, "progress is told"
    assert served.served_leaf() != leaf and len(served.ledger_outcomes()) == len(orders) + 1
    assert len(served.agent.measured()) == 2
    assert_adds_up(served)


def wait_until_planned(stack):
    """HTTPS serves a leaf a moment before all that belongs to a renewal is over."""
    reason = "the next renewal is due on"
    wait_until(lambda: (stack.status()["next_action"]["why"] or "").startswith(reason), "it is planned again")


def wait_for_another_leaf(stack):
    leaf = stack.served_leaf()
    stack.wait_for_leaf(lambda now: now != leaf, "it is tried again, and succeeds")
    wait_until_planned(stack)


def test_without_waiting_it_says_where_to_look(served):
    leaf = served.served_leaf()
    result = command(served, "renew", "--force")
    assert result.code == 0 and "on its way" in result.out
    wait_until(lambda: served.status()["requests"]["renew"]["state"] == "done", "it is done", 40.0)
    assert served.served_leaf() != leaf


def test_limits_of_the_ca_are_kept_by_force_as_well(ca):
    with Stack(ca, settings={"acme.limit_certificates": "1/7d"}) as stack:
        serve(stack)
        leaf = stack.served_leaf()
        result = command(stack, "renew", "--force", "--wait")
        assert result.code == 1 and "no order before" in result.err, result
        assert stack.served_leaf() == leaf and len(stack.ledger_outcomes()) == 1
        # What comes next is what would have come without that.
        wait_until_planned(stack)


def test_what_fails_is_told(served):
    served.ca.point(served.domain, "127.255.255.254")
    try:
        result = command(served, "renew", "--force", "--wait")
    finally:
        served.ca.point(served.domain, served.address)
    assert result.code == 1 and "tried again in" in result.err, result
    wait_for_another_leaf(served)


def test_asking_again_while_it_is_tried_again_does_not_end_that(served):
    served.ca.point(served.domain, "127.255.255.254")
    try:
        assert command(served, "renew", "--force", "--wait").code == 1
        for arguments in ((), ("--force",)):
            result = command(served, "renew", *arguments)
            assert "not due" not in result.out and "()" not in result.out, result
    finally:
        served.ca.point(served.domain, served.address)
    wait_for_another_leaf(served)


def test_nobody_renews_what_is_somebody_elses(ca):
    with Stack(ca, settings={"tls.key": "external"}) as stack:
        stack.start()
        stack.wait_for_http()
        stack.log.wait_for("somebody else who brings one")
        result = command(stack, "renew", "--force")
        assert result.code == 1 and "tls.key is external" in result.err


def test_the_level_of_the_log_changes_until_the_next_reload(served):
    assert command(served, "log-level").out == "info\n"
    assert command(served, "log-level", "debug").out == "debug\n"
    assert command(served, "log-level").out == "debug\n"
    assert command(served, "reload").code == 0
    assert command(served, "log-level").out == "info\n"
    assert command(served, "log-level", "loud").code == 2
    told = [line for line in served.log.lines() if "the log's level is DEBUG" in line]
    assert len(told) == 1, told


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/renew", '{"force": 1}'),
        ("/v1/renew", '{"forced": true}'),
        ("/v1/renew", "[true]"),
        ("/v1/renew", "{"),
        ("/v1/log-level", '{"level": "loud"}'),
        ("/v1/log-level", '{"level": 7}'),
        ("/v1/log-level", ""),
    ],
)
def test_what_nobody_understands_is_refused(served, path, body):
    leaf, orders = served.served_leaf(), served.ledger_outcomes()
    with contextlib.closing(Socket(control_of(served))) as connection:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        assert answer.status == 400 and "the body is to be" in json.load(answer)["error"]
    assert (served.served_leaf(), served.ledger_outcomes()) == (leaf, orders)


def test_a_renewal_outlives_a_reload(served):
    leaf, orders = served.served_leaf(), served.ledger_outcomes()
    assert command(served, "renew", "--force").code == 0
    assert command(served, "reload").code == 0
    wait_until(lambda: served.status()["requests"]["renew"]["state"] == "done", "it is done", 40.0)
    assert served.served_leaf() != leaf
    assert len(served.ledger_outcomes()) == len(orders) + 1
