"""Other settings in a running daemon: after SIGHUP, or when it is asked over the control socket."""

import contextlib
import http.client
import json
import os
import signal

import pytest
from commands import command
from conftest import logs_of
from loopback import wait_until
from rotation import assert_adds_up, serve
from stack import Stack, yaml_of
from test_control import ask, metrics_of
from test_rotation_load import usage


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
    # One that the former life has accepted is not answered any more; nobody is refused.
    with contextlib.suppress(ConnectionResetError, http.client.RemoteDisconnected):
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


def test_the_command_waits_until_they_are_in_force(served):
    settle(served, nginx__hsts_days=31)
    result = command(served, "reload")
    assert (result.code, result.err) == (0, "")
    assert "in force" in result.out
    assert served.https_get("/health").headers["strict-transport-security"].startswith("max-age=2678400")


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("domian: x.example.test\nlog:\n  level: loud\n", ["domian", "log.level"]),
        ("a: [\n", [":"]),
        ("", ["run_dir"]),
        ("run_dir: /somewhere\nnginx:\n  pid_file: /else\n", ["run_dir", "nginx.pid_file"]),
    ],
    ids=["two-errors", "no-yaml", "empty", "other-places"],
)
def test_bad_settings_change_nothing_and_each_error_is_told(served, text, errors):
    before, good = lives_of(served), served.config.read_text()
    mark = served.log.mark()
    write(served, text)
    try:
        result = command(served, "reload", "--set", f"run_dir={served.folder['run_dir']}")
        status, _, answer = ask(served, "POST", "/v1/reload")
        told = json.loads(answer)["errors"]
        hang_up(served)
        wait_until(
            lambda: len(served.log.find_all("not reloaded: ", since=mark)) == 3 * len(told),
            "each error is told, three times",
        )
    finally:
        write(served, good)
    assert (result.code, status) == (78, 422)
    assert len(told) >= len(errors)
    for error in errors:
        assert any(error in one for one in told) and error in result.err, (told, result.err)
    assert "nothing was changed" in result.err
    assert lives_of(served) == before


def test_a_file_that_is_gone_changes_nothing(served):
    before, good = lives_of(served), served.config.read_text()
    os.unlink(served.config)
    try:
        assert ask(served, "POST", "/v1/reload")[0] == 422
    finally:
        write(served, good)
    assert lives_of(served) == before


def test_what_nginx_refuses_changes_nothing(served):
    before = lives_of(served)
    request = reload(served, nginx__extra_locations="location /x { no_such_directive on; }")
    assert request["state"] == "failed" and "no_such_directive" in request["text"]
    assert served.status()["nginx"]["configuration"] == "full"
    settle(served)
    result = command(served, "reload")
    assert result.code == 1 and "no_such_directive" in result.err
    assert lives_of(served) == before
    assert reload(served, nginx__extra_locations=None)["state"] == "done"


def test_a_storm_of_signals_is_one_reload_after_the_other(served):
    before = lives_of(served)
    reloads = metrics_of(served)["nginx_reloads_total", 'result="ok"']
    files = usage(served.daemon().pid)[1]
    for days in range(100):
        settle(served, nginx__hsts_days=100 + days)
        hang_up(served)
    number = request_of(served)["id"]
    wait_until(lambda: is_over(served, number), "the reload is over", 30.0)
    wait_until(lambda: usage(served.daemon().pid)[1] <= files, "no descriptor is left open")
    assert not served.log.find("was left open")
    header = served.https_get("/health").headers["strict-transport-security"]
    assert header.startswith(f"max-age={199 * 86400}")
    assert lives_of(served) == before
    assert metrics_of(served)["nginx_reloads_total", 'result="ok"'] - reloads <= 10
