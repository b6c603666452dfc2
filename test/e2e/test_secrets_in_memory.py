"""Who holds which key: memory, command lines, environments, mappings and descriptors of all processes.

The account key is cert-manager's and certbot's, while an order is at work. The TLS key is cert-manager's
and nginx's. The text of the EKM secret is cert-manager's alone: what nginx's module keeps of it, it keeps
in memory that core dumps leave out (test_ekm_secret.py). Where cert-manager holds one, it is in locked
memory that core dumps leave out.
"""

import os

import memory
import pytest
from loopback import wait_until
from processes import is_alive, read_proc
from stack import IS_ROOT

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="needs to read the memory of others")

SEED = "in memory"  # no other test's secrets, which may be in this machine's pipes and pages


def kind_of(process):
    for kind, mark in (
        ("cert-manager", "/cert-manager run"),
        ("certbot", "certbot certonly"),
        ("nginx", "nginx: "),
        ("supervisord", "supervisord"),
    ):
        if mark in process.line:
            return kind
    return process.line


def may_hold(kind, use, ordering):
    if kind == "cert-manager":
        return ordering or use != "account key"
    if kind == "certbot":
        return use == "account key"
    return kind == "nginx" and use == "TLS key"


def is_guarded(kind, find):
    """cert-manager's own place for secrets. Others have none."""
    return kind != "cert-manager" or {"dd", "lo"} <= find.region.flags


def misplaced(stack, *, ordering):
    """Each find that is not where it may be."""
    wrong = []
    for use, material in stack.secrets().items():
        sought = list(memory.pieces(material))
        for process in stack.processes():
            kind = kind_of(process)
            try:
                found = memory.find(process.pid, sought)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if may_hold(kind, use, ordering):
                found = [one for one in found if not is_guarded(kind, one)]
            wrong += [f"{use} of {kind} ({process.pid}): {one}" for one in found]
            for name in ("cmdline", "environ", "maps"):
                content = read_proc(process.pid, name)
                wrong += [
                    f"{use} in {name} of {kind}: {form}" for form, text in sought if text in content
                ]
    return wrong


def holders(stack, use):
    """The kinds of programs that have it in memory. A search that finds nothing anywhere is none."""
    sought = list(memory.pieces(stack.secrets()[use]))
    return {
        kind_of(process) for process in stack.processes() if memory.find(process.pid, sought)
    }


def open_files(pid):
    """What its descriptors lead to, without its standard ones."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return {target for number, target in found.items() if number > 2}


@pytest.fixture(name="asked")
def fixture_asked(new_stack):
    """A container whose certbot is stopped in the middle of its order."""
    stack = new_stack(seed=SEED, variables={"LOG_LEVEL": "debug"})
    return stack


def test_secrets_are_only_where_they_are_documented(asked, ca):
    stack = asked
    mark = ca.log.mark()
    stack.start()
    wait_until(lambda: ca.orders(mark) == 1, "certbot has ordered", 40)
    certbot = wait_until(stack.certbot, "certbot runs")
    os.kill(certbot.pid, 19)  # SIGSTOP: looked at for as long as it takes
    try:
        assert "account key" in stack.secrets()
        assert misplaced(stack, ordering=True) == []
        assert "certbot" in holders(stack, "account key")
        shared = open_files(stack.daemon().pid) & open_files(certbot.pid)
        assert {one for one in shared if not one.startswith("anon_inode")} == set()
    finally:
        os.kill(certbot.pid, 18)
    stack.wait_for_https()
    wait_until(lambda: not is_alive(certbot.pid), "certbot has ended")
    wait_until(lambda: stack.status().get("activity") is None, "the daemon is at rest")
    assert misplaced(stack, ordering=False) == []
    assert holders(stack, "TLS key") == {"cert-manager", "nginx"}
    assert holders(stack, "EKM secret") == {"cert-manager"}
    assert holders(stack, "account key") == set()
