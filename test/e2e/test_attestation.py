"""What is served while the guest agent cannot measure it, by the policy that the settings have.

An agent makes no events (400: removed, 404: unknown), or fails to make one. With best effort HTTPS
comes up all the same, at once in the first case, after 30 s in the second, and the log says once that
it is not attested, and why. When measuring is required HTTPS waits.
"""

import os
import re
import signal
import time

import pki
import pytest
from loopback import wait_until
from rotation import SETTLED, LeafWatch, Rotation, assert_at_rest, assert_measured, serve
from test_failures import STARTING, wait_for_failure
from test_resilience import KILLED

PATIENCE_S = 30
NOT_ATTESTED = "ERROR - NOT ATTESTED: "
# Agents without events, and what the log says of each.
WITHOUT_EVENTS = {
    "emit-removed": "HTTP status 400: EmitEvent was removed",
    "unknown-method": "HTTP status 404: Service not found",
}
REQUIRED = {"measurement": "required"}


def is_attested(stack, since=0):
    """By the line that says what is served."""
    return stack.log.wait_for(rf"{SETTLED}.*, (NOT attested|attested)$", since=since)[1] == "attested"


def not_attested(stack, since=0):
    """The lines that say so."""
    return [match.string for match in stack.log.find_all(NOT_ATTESTED, since)]


def fail_to_measure(stack, preset):
    """EmitEvent and, with an agent that has gone, everything else fails from now on; how it is told."""
    if preset == "vanished":
        stack.agent.vanish()
        return "Info: "
    stack.agent.fault(preset=preset, method="EmitEvent", perform="never")
    return {"hang": "EmitEvent: .*no answer", "server-error": "HTTP status 500"}[preset]


# Agents that make no events


@pytest.mark.parametrize("preset", WITHOUT_EVENTS)
def test_best_effort_serves_at_once_and_says_why_it_is_not_attested(stack, preset):
    rotation = Rotation(stack)
    stack.agent.fault(preset=preset, method="EmitEvent")
    assert serve(stack) == rotation.leaf
    assert not is_attested(stack)
    (line,) = not_attested(stack)
    assert WITHOUT_EVENTS[preset] in line
    # Other certificates are no change of that.
    rotation.put_and_wait()
    assert not_attested(stack) == [line] and stack.agent.measured() == []
    assert stack.served_leaf() == stack.stored_chain()[0] == rotation.leaf


@pytest.mark.parametrize("preset", WITHOUT_EVENTS)
def test_required_waits_until_the_agent_makes_events(stack, preset):
    rotation = Rotation(stack)
    stack.settings |= REQUIRED
    stack.agent.fault(preset=preset, method="EmitEvent")
    stack.start().wait_for_http()
    wait_for_failure(stack, f"measure: .*{re.escape(WITHOUT_EVENTS[preset])}")
    answer = stack.http_get("/any")
    assert (answer.status, answer.body) == (503, STARTING) and stack.served_leaf() is None
    stack.agent.clear()
    assert stack.wait_for_https() == rotation.leaf
    assert is_attested(stack) and not not_attested(stack)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_agent_that_learns_to_make_events_is_asked_again_by_the_next_life(stack):
    """Without one it is asked every ten minutes."""
    rotation = Rotation(stack)
    stack.agent.fault(preset="emit-removed")
    serve(stack)
    stack.agent.clear()
    mark = stack.log.mark()
    stack.expected_trouble = KILLED
    os.kill(stack.daemon().pid, signal.SIGKILL)
    assert is_attested(stack, mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


# Agents that fail to make an event


@pytest.mark.parametrize("preset", ["server-error", "hang", "vanished"])
def test_best_effort_is_patient_for_half_a_minute(stack, preset):
    rotation = Rotation(stack)
    # The agent of the test has a slow day once the keys are there: a call of EmitEvent may take
    # ten times the limit.
    stack.settings["agent.timeout"] = "100ms"
    told = None
    if preset != "vanished":
        told = fail_to_measure(stack, preset)
    else:
        stack.agent.fault(preset="hang", method="Info")
    stack.start()
    if told is None:
        assert stack.agent.wait(method="Info")
        told = fail_to_measure(stack, preset)
    began = time.monotonic()
    wait_for_failure(stack, told)
    stack.wait_for_https(PATIENCE_S + 20)
    assert PATIENCE_S - 1 <= time.monotonic() - began
    assert not is_attested(stack) and stack.agent.measured() == []
    (line,) = not_attested(stack)
    assert re.search(told, line)
    # A failure of another kind is another reason, the same one is none.
    stack.agent.clear()
    stack.agent.reappear()
    stack.agent.fault(preset="unavailable", method="EmitEvent")
    stack.log.wait_for(f"{NOT_ATTESTED}.*HTTP status 503: try again later", 40)
    stack.agent.clear()
    wait_until(lambda: stack.agent.measured(), "the leaf is measured", 40)
    assert len(not_attested(stack)) == 2
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_required_has_no_end_of_patience(stack):
    Rotation(stack)
    stack.settings |= REQUIRED
    stack.agent.fault(preset="server-error", method="EmitEvent")
    stack.start().wait_for_http()
    wait_for_failure(stack, "measure: .*HTTP status 500")
    with LeafWatch(stack) as watch:
        # By then best effort would serve.
        stack.log.wait_for(r"ERROR - .*measure: .*\(attempt 6, ", 2 * PATIENCE_S)
        assert watch.seen == [None]
    assert stack.http_get("/any").status == 503 and not not_attested(stack)
    assert stack.agent.measured() == []


# An attested leaf, and one that could not be attested


@pytest.mark.parametrize("policy", ["best-effort", "required"])
def test_attested_leaf_is_not_given_up_for_one_without_an_event(stack, policy):
    rotation = Rotation(stack)
    stack.settings["measurement"] = policy
    attested = serve(stack)
    fault = stack.agent.fault(preset="emit-removed")
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        rotation.put()
        wait_for_failure(stack, "measure: .*HTTP status 400.*former certificate is served", mark)
        wait_for_failure(stack, r"measure: .*HTTP status 400", stack.log.mark())
        assert watch.seen == [attested]
        stack.agent.clear(fault=fault)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [attested, rotation.leaf]
    assert not not_attested(stack)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_attested_leaf_that_is_nearly_over_makes_room(stack):
    """A tenth of its life is left: clients that do not verify must not lose HTTPS."""
    rotation = Rotation(stack, start=-85 * pki.DAY)
    # Its renewal must not come first.
    stack.settings["acme.directory"] = "https://127.0.0.1:9/nobody"
    serve(stack)
    measured = stack.agent.measured()
    stack.agent.fault(preset="emit-removed")
    mark = rotation.put()
    assert not is_attested(stack, mark)
    assert len(not_attested(stack)) == 1
    assert stack.served_leaf() == rotation.leaf
    assert stack.agent.measured() == measured


def test_required_never_serves_an_unattested_leaf_however_near_the_end(stack):
    rotation = Rotation(stack, start=-85 * pki.DAY)
    stack.settings |= REQUIRED | {"acme.directory": "https://127.0.0.1:9/nobody"}
    attested = serve(stack)
    stack.agent.fault(preset="emit-removed")
    mark = rotation.put()
    wait_for_failure(stack, "measure: .*HTTP status 400", mark)
    wait_for_failure(stack, "measure: .*HTTP status 400", stack.log.mark())
    assert stack.served_leaf() == attested
    assert_measured(stack, rotation.names[:1])
