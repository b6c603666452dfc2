"""What the daemon forbids itself, that what it starts lives without that, and that it works all the same."""

import os
import shutil
import signal
import subprocess

import pytest
from commands import command
from log import Log
from loopback import wait_until
from preload import is_sanitized, preload
from processes import is_alive, read_proc, spawn, stop
from stack import IS_ROOT, PROGRAM
from test_hooks import Hooks

UNUSABLE_SETTING = 78


def state_of(pid):
    """What the kernel says of it: the lines of /proc/PID/status."""
    lines = read_proc(pid, "status").decode().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def starter_of(stack):
    """The process that starts programs for the daemon."""
    return stack.find_process("^cert-manager: starts programs")


def hardening(stack):
    return wait_until(lambda: stack.status().get("hardening"), "the status says it")


confined = pytest.mark.skipif(is_sanitized(), reason="sanitizers are not confined")


@confined
def test_the_daemon_is_confined(served):
    daemon = state_of(served.daemon().pid)
    assert (daemon["NoNewPrivs"], daemon["Seccomp"]) == ("1", "2")
    assert daemon["Umask"] == "0077"
    said = hardening(served)
    assert said["no_new_privileges"] and said["seccomp"] and said["locked_memory"]
    assert said["landlock"] >= 2 and said["missing"] is None
    assert not served.log.find_all("hardening")


def test_nothing_in_the_container_dumps_core(served):
    """Not even into a pipe, for which a limit of 1 is the only one there is."""
    processes = served.processes()
    assert {served.nginx_master().pid, served.daemon().pid} < {one.pid for one in processes}
    for pid in (served.pid, *(one.pid for one in processes)):
        limits = read_proc(pid, "limits").decode()
        if not limits:  # it has ended
            assert pid not in (served.pid, served.nginx_master().pid, served.daemon().pid)
            continue
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["1", "1"], pid


@pytest.mark.parametrize("whose", ["daemon", "the process that starts programs"])
def test_no_descriptor_is_inherited_by_mistake(served, whose):
    """All of them are close-on-exec, but the three standard ones."""
    process = served.daemon() if whose == "daemon" else starter_of(served)
    if process is None:
        pytest.skip("there is none")
    for name in os.listdir(f"/proc/{process.pid}/fdinfo"):
        info = read_proc(process.pid, f"fdinfo/{name}").decode()
        flags = next((line.split()[1] for line in info.splitlines() if line.startswith("flags:")), None)
        if int(name) > 2 and flags is not None:
            target = os.readlink(f"/proc/{process.pid}/fd/{name}")
            assert int(flags, 8) & os.O_CLOEXEC, f"{name}: {target}"


@pytest.mark.skipif(not IS_ROOT or is_sanitized(), reason="needs another user")
def test_its_own_user_cannot_look_into_it(tmp_path):
    """The files of a process that is not dumpable are root's, whoever runs it."""
    nobody = 65534
    os.chown(tmp_path, nobody, nobody)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    words = [f"{key}={tmp_path}/{name}" for key, name in (("run_dir", "run"), ("tls.dir", "tls"))]
    words += [f"nginx.webroot={tmp_path}/web", f"nginx.site_conf={tmp_path}/default.conf", "dev_mode=true"]
    user = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
    (tmp_path / "tls").mkdir()
    os.chown(tmp_path / "tls", nobody, nobody)
    program = shutil.copy(PROGRAM, tmp_path / "cert-manager")
    command_line = [*user, program, "run", *(part for word in words for part in ("--set", word))]
    log = Log()
    daemon = spawn(command_line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log.follow(daemon.stdout)
    try:
        log.wait_for("development mode")
        assert state_of(daemon.pid)["Uid"].split()[1] == str(nobody)
        assert os.stat(f"/proc/{daemon.pid}/environ").st_uid == 0
    finally:
        stop(daemon)
        log.close()


@confined
def test_certbot_is_not_confined(new_stack):
    stack = new_stack().start()
    certbot = wait_until(stack.certbot, "certbot runs", 40)
    state = state_of(certbot.pid)
    assert (state["NoNewPrivs"], state["Seccomp"]) == ("0", "0")
    assert certbot.parent == stack.daemon().pid  # it is the daemon's, whoever has started it
    stack.wait_for_https()


@confined
def test_a_hook_is_not_confined(stack):
    """The daemon itself could not even run it."""
    hooks = Hooks(stack)
    hooks.folder.chmod(0o777)
    told = hooks.folder / "told"
    text = f"#!/bin/sh\ncp /proc/self/status {told}.new\nmv {told}.new {told}\n"
    stack.settings["hooks.on_applied"] = [hooks.program("tell", text)]
    stack.start().wait_for_https()
    wait_until(told.exists, "the hook has run")
    assert "NoNewPrivs:\t0\n" in told.read_text() and "Seccomp:\t0\n" in told.read_text()


@confined
def test_without_its_starter_the_daemon_starts_anew_and_https_goes_on(new_stack):
    stack = new_stack().start()
    stack.expected_trouble = "exit status 1; not expected"
    leaf = stack.wait_for_https()
    wait_until(lambda: stack.status().get("activity") is None, "the daemon is at rest")
    former = stack.daemon()
    os.kill(starter_of(stack).pid, signal.SIGKILL)
    stack.log.wait_for("the process that starts programs for cert-manager has ended")
    wait_until(lambda: not is_alive(former.pid), "the daemon has ended")
    assert stack.served_leaf() == leaf
    daemon = wait_until(stack.daemon, "another daemon runs")
    assert daemon.pid != former.pid
    wait_until(lambda: starter_of(stack), "it has a starter")
    assert stack.served_leaf() == leaf
    stack.wait_for_https()


@confined
def test_a_kernel_without_it_costs_one_warning(new_stack):
    stack = new_stack()
    preload(stack, "old_kernel")
    stack.start().wait_for_https()
    said = hardening(stack)
    assert (said["seccomp"], said["landlock"]) == (False, None)
    assert said["no_new_privileges"] and said["locked_memory"]
    assert "Landlock: Function not implemented; seccomp: Function not implemented" in said["missing"]
    assert len(stack.log.find_all("not all of the hardening is in force")) == 1


@pytest.mark.skipif(not IS_ROOT, reason="takes a capability away")
def test_too_little_locked_memory_costs_one_warning(new_stack):
    stack = new_stack()

    def alter():
        text = stack.supervisord_conf.read_text()
        less = f"setpriv --bounding-set=-ipc_lock prlimit --memlock=4096:4096 {PROGRAM} run"
        stack.supervisord_conf.write_text(text.replace(f"command={PROGRAM} run", f"command={less}"))

    stack.alter_image = alter
    stack.start().wait_for_https()
    said = hardening(stack)
    assert not said["locked_memory"] and "secrets are not in locked memory" in said["missing"]
    if not is_sanitized():
        assert len(stack.log.find_all("not all of the hardening is in force")) == 1


@confined
def test_it_can_be_switched_off(new_stack):
    stack = new_stack(settings={"hardening.sandbox": False}).start()
    stack.wait_for_https()
    daemon = state_of(stack.daemon().pid)
    assert (daemon["NoNewPrivs"], daemon["Seccomp"]) == ("0", "0")
    assert starter_of(stack) is None
    assert hardening(stack)["missing"] == "hardening.sandbox is false"
    assert not stack.log.find_all("WARNING.*hardening")


@confined
def test_settings_that_the_running_daemon_could_not_follow_are_refused(served):
    """A folder among the programs: another daemon may write there, this one may not any more."""
    before = served.config.read_text()
    served.config.write_text(before + 'health:\n  status_file: "/usr/share/health"\n')
    try:
        said = command(served, "reload")
        assert said.code == UNUSABLE_SETTING
        assert "health.status_file: the running daemon may not write to /usr/share" in said.err
    finally:
        served.config.write_text(before)


def test_check_says_what_can_be_had(served):
    rows = command(served, "check", "--offline", "--json").json["checks"]
    assert [row["verdict"] for row in rows if row["check"] == "hardening"] == ["ok"]
