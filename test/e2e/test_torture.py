"""The Nth call of the daemon fails, once, on its way to the first certificate and to the next one.

Allocations and calls of the system, by test/torture/faults.c, which is preloaded. Afterwards all is as if
nothing had been: the served leaf is the last event, the pair on disk is whole and belongs to it, and
nothing was ordered that the ledger does not have. The daemon has lived on, or supervisord has started
another one. TORTURE_RUNS says how many calls of each kind fail, TORTURE_SEED which. A build with sanitizers
has an allocator of its own, so there the calls of the system fail alone.
"""

import os
import random
import re
import subprocess

import pki
import pytest
from dstack_machine import replay
from loopback import wait_until
from preload import is_sanitized, preload
from stack import PROGRAM
from test_failures import put_due_pair

RUNS = int(os.environ.get("TORTURE_RUNS", "0"))  # 0: a handful, to see that it works
SEED = int(os.environ.get("TORTURE_SEED") or 20261127)
# About as many calls as there are until a first certificate is served.
CALLS = {"memory": 40000, "system": 3000}
# Those that decide what is on the volume, and whom we reach, each so many times.
DECISIVE = {"fsync": 24, "rename": 12, "write": 60, "open|openat": 80, "mkostemp": 12, "fork": 4}
DECISIVE |= {"connect": 12, "unlink": 16, "mkdir": 16, "epoll_ctl": 30, "fchmod": 16, "flock": 4}
HANDFUL = ("fsync", "rename", "fork")

# A daemon that has no memory for what must not fail says so and ends; libuv and OpenSSL do without a word.
DIED = r"exited: cert-manager \((terminated by SIG(ABRT|SEGV)|exit status 1); not expected\)"
DIED += r"|Assertion .* failed|can't find command|spawn error"
# Whose calls may end the process, and those of ours that do so on purpose: they could not even tell of it.
OF_OTHERS = re.compile(r"/lib(uv|crypto|ssl|curl|cares|jansson|yaml|nss)[-.\w]*\.so")
ON_PURPOSE = {"process_start", "http_start", "watch_close", "nginx_worker_group"}
AT_REST = "INFO - the next renewal is due on"


def cases():
    """A failure at the start is one like any other, so more of them are early ones."""
    chance = random.Random(SEED)
    for kind, calls in CALLS.items():
        if kind == "memory" and is_sanitized():
            continue
        for _ in range(RUNS or 1):
            number = int(calls ** chance.uniform(0.2, 1.0))
            yield pytest.param(kind, None, number, id=f"{kind} number {number}")
    for call, calls in DECISIVE.items():
        if RUNS or call in HANDFUL:
            count = min(calls, max(1, RUNS // 2))
            for number in sorted(chance.sample(range(1, calls + 1), count)):
                yield pytest.param("system", call, number, id=f"{call} number {number}")


def tell(stack, kind, call, number):
    mark = stack.root / "failed"
    stack.expected_trouble = DIED
    preload(
        stack, "faults", FAULT_KIND=kind, FAULT_CALL=call, FAULT_AT=str(number), FAULT_MARK=mark
    )
    return mark


def assert_ends_well(stack, accepts):
    def look():
        leaf = stack.served_leaf()
        agree = leaf and stack.agent.measured()[-1:] == [pki.sha256(leaf)]
        return leaf if agree and accepts(leaf) else None

    leaf = wait_until(look, "a leaf is served and is the one that was measured last", 60)
    stack.log.wait_for(AT_REST, 40)
    assert stack.stored_chain()[0] == stack.served_leaf() == leaf
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
    state = stack.agent.state()
    assert replay(state["event_log"]).hex() == state["rtmr"][3] and state["emit_peak"] == 1
    assert stack.daemon()


def assert_failed(mark, kind, call, number):
    """And what, for whoever reads of a failed test. Late ones may not come to it: so many calls are not made."""
    if mark.exists():
        print(re.sub(r"^(\S+)$", r"failed: \1", mark.read_text(), count=1, flags=re.M))
    assert mark.exists() or call or number > CALLS[kind] // 4


def function_before(offset):
    """A return address is that of the next instruction, which behind abort() is another function's."""
    command = ["addr2line", "--functions", "--exe", PROGRAM, hex(int(offset, 16) - 1)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split("\n", 1)[0]


def assert_no_death_of_our_own(mark):
    """The innermost frame, but for libc's and what tells of it, is a library's or is there on purpose."""
    death = mark.read_text().partition("died by signal")[2] if mark.exists() else ""
    frames = [one for one in death.splitlines()[1:] if not re.search(r"/(libc|faults)\.so", one)]
    if frames and not OF_OTHERS.search(frames[0]):
        offset = re.search(r"\(\+?(0x[0-9a-f]+)\)", frames[0])
        name = function_before(offset[1]).partition(".")[0] if offset else ""  # watch_close.cold
        assert "cert-manager" in frames[0] and name in ON_PURPOSE, death


@pytest.mark.parametrize("kind, call, number", cases())
def test_first_certificate(new_ca, new_stack, kind, call, number):
    ca = new_ca()
    stack = new_stack(ca, settings={"acme.limit_certificates": "50/1h"})
    mark = tell(stack, kind, call, number)
    stack.start()
    assert_ends_well(stack, lambda leaf: True)
    assert_failed(mark, kind, call, number)
    assert_no_death_of_our_own(mark)
    assert ca.orders() <= len(stack.ledger_outcomes())
    assert ca.issued() - len(stack.agent.measured()) <= int(mark.exists())


@pytest.mark.parametrize("kind, call, number", cases())
def test_renewal(new_ca, new_stack, kind, call, number):
    ca = new_ca()
    stack = new_stack(ca, settings={"acme.limit_certificates": "50/1h"})
    former = put_due_pair(stack)
    mark = tell(stack, kind, call, number)
    stack.start()
    assert_ends_well(stack, lambda leaf: leaf != former)
    assert_failed(mark, kind, call, number)
    assert_no_death_of_our_own(mark)
    assert ca.orders() <= len(stack.ledger_outcomes())
