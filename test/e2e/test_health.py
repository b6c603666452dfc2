"""cert-manager health and GET /health: whether this container does what it is for."""

import contextlib
import json
import os
import signal

import pki
import pytest
from commands import command
from conftest import logs_of
from loopback import wait_until
from rotation import serve
from stack import Stack
from test_control import ask
from test_orphan import KILLED

HEALTHY, UNHEALTHY, WRONG_USE, UNUSABLE = 0, 1, 2, 78


def health(stack, *arguments):
    said = command(stack, "health", *arguments)
    assert len((said.out + said.err).splitlines()) == 1, said
    return said


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container whose health is asked"] = stack.log
        serve(stack)
        yield stack


def test_served_certificate_is_healthy(served):
    leaf = pki.sha256(served.served_leaf())
    assert health(served) == (HEALTHY, f"healthy: HTTPS serves leaf {leaf}\n", "")
    attested = health(served, "--attested")
    assert attested == (HEALTHY, f"healthy: HTTPS serves leaf {leaf}, attested\n", "")
    assert health(served, "--live") == (HEALTHY, "live: the daemon and port 80 answer\n", "")


def test_for_machines_it_is_json(served):
    expected = {
        "healthy": True,
        "attested": True,
        "sha256": pki.sha256(served.served_leaf()),
        "reason": "",
    }
    assert json.loads(health(served, "--attested", "--json").out) == expected
    status, kind, text = ask(served, "GET", "/health")
    assert (status, kind, json.loads(text)) == (200, "application/json", expected)


def test_questions_that_do_not_go_together_are_wrong_use(served):
    assert command(served, "health", "--live", "--attested").code == WRONG_USE


def test_without_a_certificate_it_lives_and_is_not_healthy(stack):
    stack.agent.fault(status=500, method="GetKey")
    stack.start()
    wait_until(lambda: command(stack, "health", "--live").code == HEALTHY, "it lives")
    wait_until(lambda: "the keys are not at hand yet" in health(stack).err, "it has tried")
    said = health(stack)
    assert said.code == UNHEALTHY
    assert said.err.startswith("cert-manager health: unhealthy: HTTPS does not answer: ")
    assert "(the daemon: HTTPS is not served: the keys are not at hand yet" in said.err
    status, _, text = ask(stack, "GET", "/health")
    assert status == 503 and not json.loads(text)["healthy"]
    # For machines the verdict is on standard output in either case.
    assert json.loads(health(stack, "--json").out)["healthy"] is False


def test_a_file_that_is_being_edited_makes_nobody_restart_what_serves(served):
    """The daemon goes on with the settings that it has, and could not start with those."""
    leaf = pki.sha256(served.served_leaf())
    text = served.config.read_text()
    served.config.write_text(f"{text}\ndomian: x\n")
    try:
        for question in ((), ("--attested",)):
            said = command(served, "health", *question)
            assert said.code == HEALTHY and f"HTTPS serves leaf {leaf}" in said.out, said
            assert "the settings cannot be used" in said.err and "FATAL" not in said.err, said
        assert command(served, "health", "--live").code == HEALTHY
        assert command(served, "status").code == 0
        assert command(served, "reload").code == UNUSABLE
        said = command(served, "status")
        assert said.code == 3 and '! reload failed: ' in said.out and '"domian"' in said.out, said
        # Nobody to ask: then it is what is wrong with the settings that has to be told.
        said = command(served, "health", "--set", f"run_dir={served.root}")
        assert said.code == UNUSABLE and "FATAL" in said.err and not said.out, said
    finally:
        served.config.write_text(text)
    assert command(served, "reload").code == 0 and command(served, "status").code == 0


@contextlib.contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_https_is_healthy_also_when_the_daemon_hangs_which_only_its_word_shows(served):
    with frozen(served.daemon().pid):
        assert health(served).code == HEALTHY
        for question in ("--attested", "--live"):
            said = health(served, question)
            assert said.code == UNHEALTHY and "control.sock" in said.err, said


def test_https_is_healthy_also_without_a_daemon(stack):
    serve(stack)
    stack.expected_trouble = KILLED
    with frozen(stack.pid):  # so that nobody starts it again
        os.kill(stack.daemon().pid, signal.SIGKILL)
        assert health(stack).code == HEALTHY
        for question in ("--attested", "--live"):
            said = health(stack, question)
            assert said.code == UNHEALTHY and "no daemon answers at" in said.err, said


def test_without_an_event_it_is_healthy_and_not_attested(stack):
    stack.agent.fault(preset="emit-removed", method="EmitEvent")
    serve(stack)
    assert health(stack).code == HEALTHY
    said = health(stack, "--attested")
    assert said.code == UNHEALTHY
    assert "unhealthy: not attested: " in said.err and "EmitEvent was removed" in said.err


def test_nginx_that_does_not_answer_is_told_within_seconds(stack):
    serve(stack)
    with contextlib.ExitStack() as cleanup:
        for process in (stack.nginx_master(), *stack.nginx_workers()):
            cleanup.enter_context(frozen(process.pid))
        said = health(stack)
        assert said.code == UNHEALTHY and "no TLS handshake in time" in said.err
        said = health(stack, "--live")
        assert said.code == UNHEALTHY and "port 80 does not answer" in said.err
