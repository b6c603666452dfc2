"""Every step of bringing a certificate live fails once: what is served, and measured, meanwhile.

The one of before stays served all the time and is the one that the last event names, also where the
new one was measured already; the failure is told; and when the cause is gone the new one is served,
without anybody's help. Most certificates come onto the volume as if somebody else renewed them.
"""

import contextlib
import os
import signal

import pki
import pytest
from loopback import wait_until
from processes import read_proc
from rotation import (
    SETTLED,
    LeafWatch,
    Rotation,
    assert_at_rest,
    assert_measured,
    serve,
    without_repeats,
)
from stack import IS_ROOT
from test_failures import needs_root, wait_for_failure
from test_resilience import KILLED, kill_nginx

NGINX_WAIT_S = 30


@contextlib.contextmanager
def folder_in_the_way(path):
    """A file of that name can neither be written nor put there."""
    aside = path.with_name(f"{path.name}.aside")
    if path.exists():
        path.rename(aside)
    path.mkdir()
    yield
    path.rmdir()
    if aside.exists():
        aside.rename(path)


@contextlib.contextmanager
def full_volume(stack):
    filler = stack.tls / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only_volume(stack):
    stack.remount("ro")
    yield
    stack.remount("rw")


@contextlib.contextmanager
def spoilt_nginx_conf(stack):
    conf = stack.folder["nginx"] / "nginx.conf"
    text = conf.read_text()
    conf.write_text(text + "no_such_directive;\n")
    yield
    conf.write_text(text)


@contextlib.contextmanager
def faulty_agent(stack, preset, method):
    fault = stack.agent.fault(preset=preset, method=method, perform="never")
    yield
    stack.agent.clear(fault=fault)


@contextlib.contextmanager
def agent_away(stack):
    stack.agent.vanish()
    yield
    stack.agent.reappear()


@contextlib.contextmanager
def stopped(*processes):
    """They do nothing, and are not gone: as when they hang."""
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda pid=process.pid: b") T " in read_proc(pid, "stat"), "it has stopped")
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


@contextlib.contextmanager
def nginx_down(stack):
    """It is killed, and cannot start."""
    with spoilt_nginx_conf(stack):
        kill_nginx(stack)
        stack.expected_trouble = rf"{KILLED}|no_such_directive|exited: nginx \(exit status 1; "
        yield


def failures(stack, since):
    """What the daemon says has failed."""
    return stack.log.find_all(r" - ERROR - (?!prestart: )", since)


def workers_file(stack):
    """Where nginx's workers find a renewed chain."""
    (path,) = stack.folder["run_dir"].glob("live-*.pem")
    return path


# Before anything is measured


def no_file_for_workers(stack):
    path = workers_file(stack)
    return folder_in_the_way(path.with_name(f"{path.name}.next"))


# The step: what is in its way, and how that is told.
BEFORE = {
    "stage, without room": (full_volume, "No space left"),
    "stage, for the workers": (no_file_for_workers, "Is a directory"),
    "compose configuration": (spoilt_nginx_conf, "no_such_directive"),
    "read last event, agent away": (agent_away, "no such socket"),
    "read last event, agent hangs": (
        lambda stack: faulty_agent(stack, "hang", "Info"),
        "Info: .*no answer",
    ),
    "write intent": (
        lambda stack: folder_in_the_way(stack.state / "intent.json"),
        "Is a directory",
    ),
}


@pytest.mark.parametrize("step", BEFORE)
def test_nothing_is_measured_when_an_early_step_fails(new_stack, step):
    cause, told = BEFORE[step]
    if cause is full_volume and not IS_ROOT:
        pytest.skip("mounts need root")
    volume = "size=64k" if cause is full_volume else None
    stack = new_stack(volume=volume, settings={"agent.timeout": "500ms"})
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        mark = rotation.put()
        with cause(stack):
            wait_for_failure(stack, f"{step.partition(',')[0]}: .*{told}", mark)
            stack.log.wait_for("attempt 2, next in", since=mark)
            assert_measured(stack, rotation.names[:1])
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


# Measuring


@pytest.mark.parametrize("preset", ["server-error", "unavailable", "hang", "closed", "not-http"])
def test_nothing_changes_when_the_event_cannot_be_made(stack, preset):
    stack.settings["agent.timeout"] = "100ms"  # ten times that for an event
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        with faulty_agent(stack, preset, "EmitEvent"):
            mark = rotation.put()
            wait_for_failure(stack, "measure: .*EmitEvent.*the former certificate is served", mark)
            stack.log.wait_for("attempt 2, next in", since=mark)
            assert_measured(stack, rotation.names[:1])
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


@pytest.mark.parametrize("preset", ["lost-answer", "late-answer", "truncated"])
def test_event_without_an_answer_is_taken_back(stack, preset):
    """It is in the log: until the new leaf is served, the last event has to name the old one."""
    stack.settings["agent.timeout"] = "100ms"
    rotation = Rotation(stack)
    old = serve(stack)
    stack.agent.fault(preset=preset, method="EmitEvent", times=1)
    with LeafWatch(stack) as watch:
        mark = rotation.put()
        wait_for_failure(stack, "measure: .*EmitEvent.*the former certificate is served", mark)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names * 2)


def test_event_that_comes_about_when_nobody_waits_for_it_any_more(stack):
    stack.settings["agent.timeout"] = "100ms"
    rotation = Rotation(stack)
    serve(stack)
    fault = stack.agent.fault(preset="hang", method="EmitEvent", times=1)
    mark = rotation.put()
    wait_for_failure(stack, "measure: .*EmitEvent.*the former certificate is served", mark)
    stack.agent.clear(fault=fault)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


@pytest.mark.parametrize("log", ["shown", "not shown"])
def test_agent_that_fails_on_the_way_back(stack, log):
    """It is repaired as soon as the agent makes events again, also when that shows no log of them."""
    rotation = Rotation(stack)
    if log == "not shown":
        stack.agent.fault(preset="tcb-info-missing")
    old = serve(stack)
    with LeafWatch(stack) as watch:
        with folder_in_the_way(workers_file(stack)):
            fault = stack.agent.fault(preset="server-error", method="EmitEvent", skip=1)
            mark = rotation.put()
            wait_for_failure(stack, "switch chain: .*Is a directory", mark)
            wait_for_failure(stack, "restore: .*Is a directory", mark)
            assert_measured(stack, rotation.names)
            stack.agent.clear(fault=fault)
            wait_until(lambda: stack.agent.measured()[-1] == pki.sha256(old), "it is repaired")
        assert_advances(stack, rotation, mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]


# Behind the event


def assert_taken_back(stack, rotation, old, mark, told):
    """The new leaf was measured and cannot be served: the old one is, and the last event names it."""
    wait_for_failure(stack, told, mark)
    wait_until(lambda: stack.agent.measured()[-1] == pki.sha256(old), "the old leaf is measured again")
    assert stack.served_leaf() == old
    # And again, however often it is tried.
    mark = stack.log.mark()
    stack.log.wait_for(r"attempt \d+, next in", since=mark)
    wait_until(lambda: stack.agent.measured()[-1] == pki.sha256(old), "the old leaf is measured again")


def assert_advances(stack, rotation, mark):
    """The cause has gone. Each event names another leaf than the one before."""
    stack.log.wait_for(SETTLED, 40, since=mark)
    assert_at_rest(stack, rotation.leaf)
    measured = stack.agent.measured()
    assert measured == without_repeats(measured) and set(measured) == set(rotation.names)


@needs_root
def test_volume_that_becomes_read_only_behind_the_event(ca, new_stack):
    """A renewal, as only that has something to promote."""
    stack = new_stack(volume="size=4m", settings={"agent.timeout": "30s"})
    rotation = Rotation(stack, start=-80 * pki.DAY)
    fault = stack.agent.fault(preset="hang", method="EmitEvent", skip=1)
    stack.start()
    old = stack.wait_for_https()
    orders = ca.log.mark()
    assert stack.agent.wait(method="EmitEvent", count=2, timeout_s=30)
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        with read_only_volume(stack):
            stack.agent.clear(fault=fault)
            assert_taken_back(stack, rotation, old, mark, "promote: .*Read-only")
            assert stack.stored_chain()[0] == old
        stack.log.wait_for(SETTLED, 40, since=mark)
        new = stack.stored_chain()[0]
        watch.wait_for(new)
    assert watch.seen == [old, new] and pki.issuer_name(new).startswith("Pebble")
    assert_at_rest(stack, new)
    assert ca.orders(orders) <= 1
    measured = stack.agent.measured()
    assert measured == without_repeats(measured)


def test_file_of_the_workers_that_cannot_be_switched(stack):
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        with folder_in_the_way(workers_file(stack)):
            mark = rotation.put()
            assert_taken_back(stack, rotation, old, mark, "switch chain: .*Is a directory")
        assert_advances(stack, rotation, mark)
        watch.wait_for(rotation.leaf)
    assert watch.seen == [old, rotation.leaf]


def test_file_that_the_workers_may_not_read_is_made_up_for_by_a_reload(stack):
    if not IS_ROOT:
        pytest.skip("workers have a user of their own only with root")
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        stack.folder["run"].chmod(0o700)
        mark = rotation.put()
        stack.log.wait_for("WARNING - nginx has not taken the new chain by itself", since=mark)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(rotation.leaf)
    # During a reload workers of before accept as well.
    assert set(watch.seen) == {old, rotation.leaf}
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_record_that_cannot_be_written_costs_the_record(stack):
    rotation = Rotation(stack)
    serve(stack)
    with folder_in_the_way(stack.state / "applied.json"):
        mark = rotation.put()
        stack.log.wait_for("WARNING - the certificate is served, but .*applied.json", since=mark)
        stack.log.wait_for(SETTLED, since=mark)
        assert stack.served_leaf() == rotation.leaf
        stack.stop()
    assert serve(stack) == rotation.leaf
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


# nginx


def test_renewal_needs_nothing_of_the_master(stack):
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch, stopped(stack.nginx_master()):
        for _ in range(2):
            rotation.put_and_wait()
            watch.wait_for(rotation.leaf)
    assert watch.seen == [old, *rotation.leaves[1:]]
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_reload_that_is_ignored(stack):
    stack.settings["nginx.live_chain"] = False
    rotation = Rotation(stack)
    old = serve(stack)
    with LeafWatch(stack) as watch:
        with stopped(stack.nginx_master()):
            mark = rotation.put()
            wait_for_failure(stack, "reload nginx: nginx was asked to reload, but did not", mark)
            # What the workers still serve is what clients have to find in the log.
            assert stack.agent.measured()[-1] == pki.sha256(old) == pki.sha256(stack.served_leaf())
        assert_advances(stack, rotation, mark)
        watch.wait_for(rotation.leaf)
    assert None not in watch.seen and set(watch.seen) == set(rotation.leaves)


def test_configuration_is_put_back_until_nginx_has_read_it(stack):
    rotation = Rotation(stack)
    serve(stack)
    site = stack.folder["sites"] / "default.conf"
    text = site.read_text()
    mark = stack.log.mark()
    with stopped(stack.nginx_master()):
        site.write_text("# of somebody else\n")
        for attempt in (1, 2):
            told = rf"ERROR - reload nginx: .*did not.*\(attempt {attempt}, "
            stack.log.wait_for(told, 30, since=mark)
            assert site.read_text() == text
        assert not stack.log.find(SETTLED, mark)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


def test_nginx_that_hangs_behind_the_event(stack):
    rotation = Rotation(stack)
    serve(stack)
    stack.settings["agent.timeout"] = "30s"
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    mark = rotation.put()
    assert stack.agent.wait(method="EmitEvent", count=2)
    with stopped(stack.nginx_master(), *stack.nginx_workers()):
        stack.agent.clear(fault=fault)
        told = "ERROR - reload nginx: .*the way back failed, too: reload nginx again: "
        stack.log.wait_for(told, 60, since=mark)
    assert_advances(stack, rotation, mark)


def test_nginx_that_dies_behind_the_event_is_waited_for(stack):
    """supervisord starts it again: no reason to go back."""
    rotation = Rotation(stack)
    serve(stack)
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    mark = rotation.put()
    assert stack.agent.wait(method="EmitEvent", count=2)
    with nginx_down(stack):
        stack.agent.clear(fault=fault)
        stack.log.wait_for("WARNING - nginx has not taken the new chain by itself", since=mark)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)
    assert not failures(stack, mark)


@pytest.mark.parametrize("how_long", ["a moment", "too long"])
def test_certificate_that_comes_while_nginx_is_down_is_kept(stack, how_long):
    rotation = Rotation(stack)
    serve(stack)
    with nginx_down(stack):
        mark = rotation.put()
        stack.log.wait_for("somebody has put another certificate", since=mark)
        if how_long == "too long":
            told = "wait for nginx: nginx is not running"
            stack.log.wait_for(rf"ERROR - .*{told}.*\(attempt 1, ", NGINX_WAIT_S + 10, since=mark)
            assert_measured(stack, rotation.names[:1])
    # nginx may come back just between two tries: then the one of before is looked after first.
    wait_until(
        lambda: stack.log.find_all(SETTLED, mark) and stack.served_leaf() == rotation.leaf,
        "the new one is served",
        40,
    )
    wait_until(lambda: not (stack.state / "intent.json").exists(), "it is over")
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)
    assert len(failures(stack, mark)) == (how_long == "too long")
