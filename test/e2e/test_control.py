"""The control socket: what the daemon says of itself, asked by whoever may."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time

import pki
import pytest
from conftest import logs_of
from loopback import wait_until
from processes import environment
from rotation import serve
from stack import PROGRAM, Stack
from test_orphan import KILLED

SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")


class Socket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        # With a time limit it would not wait, should others be waiting to be accepted.
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


def ask(stack, method, path):
    """Status, type and text of the answer."""
    with contextlib.closing(Socket(control_of(stack))) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode()


def send(stack, method, path, body):
    """The same with a body, or None; the server may answer before it has read all of it."""
    with contextlib.closing(Socket(control_of(stack))) as connection:
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode()


def control_of(stack):
    return stack.folder["run_dir"] / "control.sock"


def answers(stack):
    """Whether a daemon listens at its socket, which is there before that."""
    with contextlib.closing(Socket(control_of(stack))) as connection:
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def metrics_of(stack):
    status, kind, text = ask(stack, "GET", "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4"), (status, kind)
    return {
        (found["name"].removeprefix("cert_manager_"), found["labels"] or ""): float(found["value"])
        for line in text.splitlines()
        if not line.startswith("#")
        for found in [SAMPLE.fullmatch(line)]
    }


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container that is asked"] = stack.log
        serve(stack)
        yield stack


def test_status_is_that_of_the_file(served):
    status, kind, text = ask(served, "GET", "/v1/status")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text).keys() == served.status().keys()
    assert json.loads(text)["certificate"]["sha256"] == pki.sha256(served.served_leaf())


def test_metrics_tell_what_has_happened(served):
    metrics, leaf = metrics_of(served), served.served_leaf()
    after = leaf.not_valid_after.timestamp()
    assert abs(metrics["certificate_not_after_timestamp_seconds", ""] - after) % 3600 == 0
    assert metrics["https_up", ""] == metrics["attested", ""] == metrics["agent_up", ""] == 1
    assert metrics["issues_total", 'result="ok"'] == 1
    assert metrics["renewals_total", 'result="ok"'] == 0
    assert metrics["agent_requests_total", 'method="EmitEvent",result="ok"'] == 1
    assert metrics["nginx_reloads_total", 'result="ok"'] >= 1
    assert metrics["nginx_configuration_level", 'level="full"'] == 1
    assert metrics["nginx_configuration_level", 'level="http-only"'] == 0
    assert metrics["challenges_total", 'result="succeeded"'] >= 1
    assert metrics["preflight_ok", 'check="disk"'] == 1
    assert metrics["certbot_duration_seconds_count", ""] == 1
    assert metrics["certbot_duration_seconds_sum", ""] > 0.1
    assert metrics["step_duration_seconds_count", 'flow="apply",step="measure"'] >= 1


def test_failures_are_counted_by_kind(stack):
    stack.agent.fault(status=500, method="GetKey")
    stack.start()
    failed = ("agent_requests_total", 'method="GetKey",result="peer"')
    wait_until(lambda: answers(stack) and metrics_of(stack).get(failed), "it is counted")
    metrics = metrics_of(stack)
    assert metrics["https_up", ""] == 0
    assert metrics["failures_total", 'activity="keys",kind="peer"'] >= 1
    assert metrics["consecutive_failures", 'activity="keys"'] >= 1
    assert metrics["consecutive_failures", 'activity="issue"'] == 0
    assert metrics["next_action_timestamp_seconds", 'action="keys"'] >= time.time() - 60
    assert metrics["step_failures_total", 'flow="keys",step="get TLS key"'] >= 1
    assert ("certificate_not_after_timestamp_seconds", "") not in metrics


def test_only_root_can_connect(served):
    assert stat.S_IMODE(control_of(served).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/metrics", 405), ("GET", "/v1/status/", 404)],
)
def test_what_there_is_not_is_refused(served, method, path, status):
    assert ask(served, method, path)[0] == status


def test_silent_clients_harm_nobody(served):
    with contextlib.ExitStack() as cleanup:
        for _ in range(40):
            client = cleanup.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(control_of(served)))
        assert ask(served, "GET", "/metrics")[0] == 200
        assert served.http_get().status == 301


def test_socket_is_there_again_after_a_kill_and_gone_after_a_stop(stack):
    serve(stack)
    mark = stack.log.mark()
    stack.expected_trouble = KILLED
    os.kill(stack.daemon().pid, signal.SIGKILL)
    stack.log.wait_for("HTTPS serves", since=mark)
    assert ask(stack, "GET", "/v1/status")[0] == 200
    stack.stop()
    assert not control_of(stack).exists()


def test_command_whose_connection_is_closed_asks_once_more(tmp_path):
    """As a daemon does that takes other settings: the next one answers."""
    body = b'{"level": "info"}'
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control.sock"))
        listener.listen()
        listener.settimeout(20)
        words = [PROGRAM, "log-level", "--set", f"run_dir={tmp_path}"]
        options = {"env": environment(DOMAIN="app.example.test"), "text": True}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
    assert process.communicate(timeout=20) == ("info\n", "")
