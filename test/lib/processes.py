"""Child processes, and what becomes of their descendants.

This process adopts orphans (prctl PR_SET_CHILD_SUBREAPER), so that nothing that a supervisor
leaves behind can hide.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

from loopback import wait_until

PR_SET_CHILD_SUBREAPER = 36

# Nothing of the machine's own proxies, CA bundles and languages.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
# What a build with sanitizers or coverage is steered by.
PASSED_ON = ("ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS", "GCOV_PREFIX", "GCOV_PREFIX_STRIP")

_spawned = set()


class Process(NamedTuple):
    pid: int
    parent: int
    name: str  # the first 15 characters of the program's name
    state: str
    session: int
    command: tuple

    @property
    def line(self):
        return " ".join(self.command) or f"[{self.name}]"

    def environment(self):
        return read_proc(self.pid, "environ").split(b"\0")

    def user(self):
        """The effective user id."""
        lines = read_proc(self.pid, "status").decode(errors="replace").splitlines()
        return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), None)


def environment(**more):
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return ENVIRONMENT | passed_on | more


def spawn(command, **options):
    """Popen with an explicit environment, in a session of its own, so that Ctrl-C is ours alone.

    Should this process be killed, the other one gets a SIGTERM.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    options = {"env": environment(), "stdin": subprocess.DEVNULL} | options
    command = ["setpriv", "--pdeathsig", "TERM", *map(str, command)]
    process = subprocess.Popen(command, start_new_session=True, **options)
    _spawned.add(process.pid)
    return process


def read_proc(pid, name):
    """Empty when the process has gone or may not be looked at."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def all_processes():
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        stat = read_proc(entry, "stat").decode(errors="replace")
        if not stat:
            continue
        name, _, fields = stat.partition("(")[2].rpartition(") ")
        state, parent, _, session = fields.split()[:4]
        command = read_proc(entry, "cmdline").rstrip(b"\0").decode(errors="replace")
        words = tuple(command.split("\0"))
        yield Process(int(entry), int(parent), name, state, int(session), words)


def descendants(pid):
    """All processes below `pid`, parents first."""
    children = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += [process.pid for process in below]
    return found


def orphans():
    """What processes that we started and that have ended have left to us. The dead are reaped."""
    living = []
    for process in all_processes():
        if process.parent != os.getpid() or process.pid in _spawned:
            continue
        if process.state == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        # Of the session of a process that still runs: that one's stop() will look for it.
        elif process.session not in _spawned | {os.getsid(0)}:
            living.append(process)
    return living


def stop(process, timeout=20.0):
    """SIGTERM, then wait. Returns what had to be killed because it did not end by itself."""
    tree = descendants(process.pid)
    survivors = []
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        survivors += [one for one in tree + descendants(process.pid) if is_alive(one.pid)]
        process.kill()
        process.wait()
    _spawned.discard(process.pid)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not still_there(tree), "descendants end", 1.0)
    for one in {one.pid: one for one in survivors + still_there(tree)}.values():
        survivors += [one] if one not in survivors else []
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: not still_there(survivors), "killed processes end")
    return survivors


@contextlib.contextmanager
def adopted(pid):
    """Somebody else's process that may become our child, and is no orphan meanwhile."""
    _spawned.add(pid)
    try:
        yield
    finally:
        _spawned.discard(pid)


def cut(process):
    """SIGKILL to a process and to all that it has started, also when it has ended before them."""
    process.kill()
    process.wait()
    _spawned.discard(process.pid)
    while left := orphans():  # and what those leave to us
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)


def still_there(tree):
    """Those of a tree that live, and whatever they left to us."""
    left = orphans()
    known = {process.pid for process in left}
    return left + [one for one in tree if one.pid not in known and is_alive(one.pid)]


def is_alive(pid):
    stat = read_proc(pid, "stat").decode(errors="replace")
    return bool(stat) and stat.rpartition(") ")[2][0] not in "ZX"
