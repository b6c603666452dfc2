"""cert-manager status: how things stand, for people and programs."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pki
import pytest
from commands import command, environment_in
from conftest import logs_of
from loopback import LoopbackAddress, wait_until
from processes import read_proc
from rotation import serve
from stack import PROGRAM, Stack

WELL, CANNOT_ASK, ATTENTION = 0, 1, 3
SCREEN_LINES, SCREEN_COLUMNS = 24, 80


def asked(stack):
    said = command(stack, "status", "--json")
    assert said.code in (WELL, ATTENTION), said
    return json.loads(said.out)


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca, settings={"acme.limit_certificates": "5/168h"}) as stack:
        logs_of(request.node)["a container whose status is asked"] = stack.log
        serve(stack)
        wait_until(lambda: asked(stack)["agent"]["version"], "the agent has told its version")
        yield stack


def test_one_screen_is_enough_when_all_is_well(served):
    said = command(served, "status")
    assert said.code == WELL and not said.err
    lines = said.out.splitlines()
    print(said.out)
    assert len(lines) <= SCREEN_LINES
    assert [line for line in lines if len(line) > SCREEN_COLUMNS] == []
    assert "all is well" in lines and "\x1b" not in said.out


def test_screen_says_what_is_served_and_what_comes_next(served):
    text = command(served, "status").out
    leaf = served.served_leaf()
    for expected in (
        rf"^names +{re.escape(served.domain)}$",
        rf"^  sha256 +{pki.sha256(leaf)}$",
        r"^  port +this one, presented ",
        r"^  last event +this one, by the event log ",
        r"^  attested +yes, by emit-event$",
        r"^nginx +full configuration$",
        r"^next +order a certificate in \d+ days: the next renewal is due on",
        r"^now +nothing$",
        r"^last failure none since the start$",
        r"^  account +https://.*, valid$",
        r"^  left +certificates 4 of 5$",
        r"^agent +\S+, version 0\.5\.7, application\s+simulated-app$",
        r"^certbot +\S+, certbot \d",
    ):
        assert re.search(expected, text, re.MULTILINE), (expected, text)


def test_json_is_what_the_daemon_says(served):
    status, leaf = asked(served), pki.sha256(served.served_leaf())
    assert status["attention"] == [] and status["activity"] is None
    assert status["certificate"]["sha256"] == leaf
    assert status["served"]["sha256"] == status["last_event"]["sha256"] == leaf
    assert status["next_action"]["action"] == "issue"
    assert status["next_action"]["at"] == status["renewal"]["at"]
    assert status["last_success"]["activity"] == "apply" and status["last_failure"] is None
    limits = status["authorities"][0]["limits"]
    assert limits["certificates"]["left"] == 4
    assert limits["certificates"]["next_at"] > time.time()


def start(stack):
    """Until it can be asked."""
    stack.start()
    wait_until(lambda: command(stack, "status").code != CANNOT_ASK, "the daemon answers")


def test_failure_is_told_with_reason_hint_and_time(stack):
    stack.agent.fault(status=500, method="GetKey")
    start(stack)
    stack.log.wait_for("GetKey: HTTP status 500")
    said = command(stack, "status")
    assert said.code == ATTENTION
    assert "all is well" not in said.out
    assert "! HTTPS is not served: the keys are not at hand yet" in said.out
    failure = asked(stack)["last_failure"]
    assert (failure["activity"], failure["kind"], failure["open"]) == ("keys", "peer", True)
    assert "GetKey: HTTP status 500" in failure["reason"] and failure["hint"]
    assert failure["attempt"] >= 1 and failure["retry_at"] >= failure["at"]
    stack.agent.clear()
    stack.wait_for_https()
    assert wait_until(lambda: not asked(stack)["attention"], "all is well again") is not None
    assert asked(stack)["last_failure"]["open"] is False


def test_failed_challenge_is_told_with_what_can_be_done(stack, ca):
    with contextlib.closing(LoopbackAddress()) as nobody:
        ca.point(stack.domain, nobody)  # where nothing listens
        start(stack)
        wait_until(lambda: asked(stack)["last_failure"], "the order has failed")
        failure = asked(stack)["last_failure"]
    assert (failure["activity"], failure["open"]) == ("issue", True)
    assert stack.domain in failure["reason"]
    assert "has to reach port 80" in failure["hint"]
    screen = command(stack, "status").out
    assert "! issue failed: " in screen and re.search(r"^  hint +the CA has to", screen, re.MULTILINE)


def test_what_goes_on_is_told(stack):
    fault = stack.agent.fault(delay_s=60, method="EmitEvent")
    start(stack)
    expected = {"flow": "apply", "step": "measure"}
    wait_until(
        lambda: expected.items() <= (asked(stack)["activity"] or {}).items(),
        "the certificate is measured",
    )
    assert re.search(r"^now +apply: measure, for \d+ s$", command(stack, "status").out, re.MULTILINE)
    stack.agent.clear(fault=fault)
    stack.wait_for_https()


def test_without_a_daemon_it_says_what_to_do_and_what_was_said_last(stack):
    said = run_before_start(stack)
    assert said.code == CANNOT_ASK and not said.out
    assert "no daemon answers at" in said.err and "cert-manager run" in said.err
    serve(stack)
    stack.stop()
    said = command(stack, "status")
    assert said.code == CANNOT_ASK and "no daemon answers at" in said.err
    assert "What it said last, on 20" in said.out and "all is well" not in said.out
    assert stack.domain in said.out
    assert command(stack, "status", "--json").out == ""


def run_before_start(stack):
    """The settings are written when the container is laid out."""
    stack.config.parent.mkdir(parents=True, exist_ok=True)
    stack.config.write_text(f"run_dir: {stack.folder['run_dir']}\n")
    return command(stack, "status")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_output_that_cannot_be_written_is_an_error(served, arguments):
    line, variables = [PROGRAM, "status", *arguments], environment_in(served)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, env=variables, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == CANNOT_ASK and "standard output" in done.stderr


# Again and again.


def test_watch_into_a_pipe_tells_each_change_until_ctrl_c(served):
    line, variables = [PROGRAM, "status", "--watch", "--json"], environment_in(served)
    watch = subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, text=True)
    assert json.loads(watch.stdout.readline())["domain"] == served.domain
    watch.send_signal(signal.SIGINT)
    assert watch.wait(20) == WELL
    watch.stdout.close()


def catches(pid, number):
    """Whether the process has a handler for the signal."""
    caught = re.search(rb"^SigCgt:\t([0-9a-f]+)", read_proc(pid, "status"), re.MULTILINE)[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_ctrl_c_does_not_cut_what_is_being_written(served):
    line, variables = [PROGRAM, "status", "--watch", "--json"], environment_in(served)
    end, other_end = os.pipe()
    size = fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(other_end, b"\n" * size)  # no room is left in it
    watch = subprocess.Popen(line, env=variables, stdout=other_end, stderr=subprocess.PIPE, text=True)
    os.close(other_end)
    wait_until(lambda: b"pipe_write" in read_proc(watch.pid, "wchan"), "it cannot go on writing")
    watch.send_signal(signal.SIGINT)
    wait_until(lambda: not catches(watch.pid, signal.SIGINT), "it has heard that, and hears no other")
    with os.fdopen(end) as reader:
        assert json.loads(reader.read())["domain"] == served.domain
    assert (watch.wait(20), watch.stderr.read()) == (WELL, "")
    watch.stderr.close()


def test_watch_on_a_terminal_draws_the_screen_again(served):
    line, variables = [PROGRAM, "status", "--watch"], environment_in(served)
    process, terminal = pty.fork()
    if process == 0:
        os.execve(line[0], line, variables | {"TERM": "xterm"})
    text = b""
    while text.count(b"\x1b[H") < 3:  # it is cleared once, and drawn at least twice
        assert select.select([terminal], [], [], 20)[0], text
        text += os.read(terminal, 65536)
    os.write(terminal, b"\x03")
    while True:
        try:
            text += os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == WELL
    os.close(terminal)
    assert b"\x1b[32mall is well\x1b[0m" in text and b"\x1b[K\r\n" in text
