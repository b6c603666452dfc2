"""health.status_file: what dstack's guest agent reads to know whether this instance is to be asked."""

import os
import signal
import stat
import threading
import time

import pytest
from loopback import wait_until
from preload import preload
from rotation import serve
from test_reload import reload

LASTS_S = 60  # as dstack has it


class HealthFile:
    def __init__(self, stack):
        self.folder = stack.root / "dstack"
        self.folder.mkdir()
        self.path = self.folder / "health"
        stack.settings["health.status_file"] = self.path

    def read(self):
        """The state. What is read is always whole, and of now."""
        state, written, rest = self.path.read_text().split("\n")
        assert rest == "" and state in ("healthy", "unhealthy")
        assert abs(time.time() - int(written)) < LASTS_S
        assert stat.S_ISREG(self.path.lstat().st_mode)
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o644
        return state

    def wait_for(self, state):
        wait_until(lambda: self.path.exists() and self.read() == state, f"it says {state}")

    def write(self, state):
        self.path.write_text(f"{state}\n{int(time.time())}\n")


@pytest.fixture(name="health")
def fixture_health(stack):
    return HealthFile(stack)


def test_it_is_healthy_while_the_application_is_served_and_unhealthy_at_the_end(stack, health):
    serve(stack)
    health.wait_for("healthy")
    assert [path.name for path in health.folder.iterdir()] == ["health"]
    stack.stop()
    assert health.read() == "unhealthy"


def test_it_is_written_anew_before_it_is_too_old(stack, health):
    stack.variables["LOG_LEVEL"] = "debug"
    preload(stack, "clock_jump", JUMP_AT="challenge file jump")
    serve(stack)
    health.wait_for("healthy")
    health.path.unlink()
    (stack.folder["webroot"] / ".well-known/acme-challenge/jump").touch()
    health.wait_for("healthy")


def test_with_the_reduced_configuration_it_is_unhealthy(stack, health):
    stack.settings["nginx.extra_locations"] = "location /broken { no_such_directive; }"
    serve(stack)
    health.wait_for("unhealthy")


def test_a_daemon_that_starts_again_leaves_what_still_counts(stack, health):
    stack.expected_trouble = r"cert-manager \(terminated by SIGKILL; not expected\)"
    serve(stack)
    health.wait_for("healthy")
    stack.agent.fault(status=500, method="GetKey")
    health.write("healthy")
    mark = stack.log.mark()
    os.kill(stack.daemon().pid, signal.SIGKILL)
    stack.log.wait_for(r"\(attempt 3, next in", since=mark)
    assert health.read() == "healthy"


def test_a_reload_is_nothing_that_it_tells(stack, health):
    serve(stack)
    health.wait_for("healthy")
    seen, over = set(), threading.Event()

    def watch():
        while not over.is_set():
            seen.add(health.read())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert reload(stack, **{"nginx.hsts_days": 1})["state"] == "done"
    finally:
        over.set()
        watcher.join()
    assert seen == {"healthy"}


def test_a_start_that_takes_too_long_is_unhealthy(stack, health):
    preload(stack, "clock_jump", JUMP_AT="(attempt 1, next in")
    stack.agent.fault(status=500, method="GetKey")
    health.write("healthy")
    stack.start()
    health.wait_for("unhealthy")


def test_a_file_that_cannot_be_written_is_told_once_and_harms_nothing(stack, health):
    health.folder.rmdir()
    serve(stack)
    stack.log.wait_for(r"ERROR - health.status_file: .*/dstack/health: cannot create: .*tried again")
    health.folder.mkdir()
    wait_until(lambda: health.path.exists(), "it is tried again", 60)
    assert health.read() == "healthy"
    assert len(stack.log.find_all("ERROR - health.status_file")) == 1
    stack.log.wait_for(r"INFO - .*/dstack/health can be written again")
