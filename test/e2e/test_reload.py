"""Other settings in a running daemon: after SIGHUP, or when it is asked over the control socket."""

import contextlib
import json
import os
import signal
import subprocess

import pytest
from conftest import logs_of
from loopback import wait_until
from processes import environment
from rotation import assert_adds_up, serve
from stack import PROGRAM, Stack, yaml_of
from test_control import ask, metrics_of


def settle(stack, **settings):
    """Writes the settings file, with these among the others; None takes a key out."""
    stack.settings |= {key.replace("__", "."): value for key, value in settings.items()}
    stack.settings = {key: value for key, value in stack.settings.items() if value is not None}
    write(stack, yaml_of(stack.settings))


def write(stack, text):
    new = stack.config.with_suffix(".new")
    new.write_text(text)
    os.rename(new, stack.config)


def request_of(stack):
    return json.loads(ask(stack, "GET", "/v1/status")[2])["requests"].get("reload", {"id": 0})


def hang_up(stack):
    os.kill(stack.daemon().pid, signal.SIGHUP)


def is_over(stack, number):
    with contextlib.suppress(OSError):
        request = request_of(stack)
        return request if request["id"] >= number and request["state"] in ("done", "failed") else None
    return None


def reload(stack, **settings):
    """Asks for it by SIGHUP; what came of it."""
    number = request_of(stack)["id"] + 1
    settle(stack, **settings)
    hang_up(stack)
    return wait_until(lambda: is_over(stack, number), "the reload is over", 30.0)


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container that is reloaded"] = stack.log
        serve(stack)
        yield stack


def lives_of(stack):
    """What must not change when settings do."""
    return {
        "daemon": stack.daemon().pid,
        "nginx": stack.nginx_master().pid,
        "events": stack.agent.measured(),
        "orders": stack.ledger_outcomes(),
        "leaf": stack.served_leaf(),
    }


def test_new_settings_are_served_and_nothing_else_changes(served):
    before = lives_of(served)
    assert reload(served, nginx__hsts_days=30)["state"] == "done"
    assert served.https_get("/health").headers["strict-transport-security"].startswith("max-age=2592000")
    assert lives_of(served) == before


def test_the_same_settings_leave_nginx_alone(served):
    reload(served)
    workers, reloads = served.nginx_workers(), metrics_of(served)["nginx_reloads_total", 'result="ok"']
    assert reload(served)["state"] == "done"
    assert served.nginx_workers() == workers
    assert metrics_of(served)["nginx_reloads_total", 'result="ok"'] == reloads
