"""What cert-manager needs while nothing is to be done, and what it costs to ask it."""

import os
import re
import socket
import time

from pebble import Pebble
from preload import is_sanitized
from processes import read_proc
from stack import Stack

MINUTES = 3
CALM_S = 5
WARM_UP, REQUESTS = 1000, 10_000
BATCHES = 10
SETTLE_S = 0.5  # what ended last is closed a moment later
MIB = 1024  # KiB in it
GROWTH_KIB = 128


def programs_of(stack):
    """The daemon, and the helper that starts programs for it: not with the sanitizers, which no sandbox holds."""
    found = [one.pid for one in stack.processes() if re.search(r"/cert-manager run\b|^cert-manager: ", one.line)]
    assert len(found) == (1 if is_sanitized() else 2), found
    return found


def memory_of(pids):
    """KiB by kind, of all of them."""
    texts = [read_proc(pid, "smaps_rollup").decode() for pid in pids]
    kinds = "Rss", "Pss", "Private_Dirty"
    return {kind: sum(int(re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE)[1]) for text in texts) for kind in kinds}


def files_of(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def threads_of(pids, name):
    """What /proc says of each of their threads."""
    return [read_proc(pid, f"task/{thread}/{name}").decode() for pid in pids for thread in os.listdir(f"/proc/{pid}/task")]


def switches_of(pids):
    """How often any of their threads has gone to sleep by itself."""
    pattern = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
    return sum(int(pattern.search(text)[1]) for text in threads_of(pids, "status"))


def cpu_ns_of(pids):
    return sum(int(text.split()[0]) for text in threads_of(pids, "schedstat"))


class Growth:
    """What they need more than at first."""

    def __init__(self, pids):
        self._pids, self._memory, self._files = pids, memory_of(pids)["Rss"], files_of(pids)

    def add(self, figures, during):
        time.sleep(SETTLE_S)
        memory, files = memory_of(self._pids)["Rss"] - self._memory, files_of(self._pids) - self._files
        figures.add(f"memory gained in {during}", memory, "KiB", most=GROWTH_KIB)
        figures.add(f"descriptors gained in {during}", files, "", most=0)


def switches_within(seconds, pids):
    before = switches_of(pids)
    time.sleep(seconds)
    return switches_of(pids) - before


def ask(place):
    """One request with a connection of its own, as the commands make it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = bytearray()
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]


def measure_requests(figures, stack, pids):
    place = str(stack.run_dir / "control.sock")
    for _ in range(figures.some(WARM_UP)):
        ask(place)
    growth, rates, cpu = Growth(pids), [], []
    for _ in range(BATCHES):
        count, began, busy = figures.some(REQUESTS) // BATCHES, time.monotonic(), cpu_ns_of(pids)
        for _ in range(count):
            ask(place)
        rates.append(count / (time.monotonic() - began))
        cpu.append((cpu_ns_of(pids) - busy) / count / 1000)
    figures.add("status requests, one after the other", rates, "per s")
    figures.add("CPU of a status request", cpu, "us")
    growth.add(figures, f"{REQUESTS:,} status requests")


def measure(figures):
    figures.part("cert-manager at rest, beside nginx")
    with Pebble() as ca, Stack(ca) as stack:
        stack.start().wait_until_settled()
        stack.log.wait_for("the next renewal is due")
        time.sleep(figures.some(CALM_S))
        pids = programs_of(stack)
        memory = memory_of(pids)
        figures.add("RSS", memory["Rss"] / MIB, "MiB")
        figures.add("PSS", memory["Pss"] / MIB, "MiB", most=10)
        figures.add("private dirty memory", memory["Private_Dirty"] / MIB, "MiB", most=4)
        figures.add("descriptors", files_of(pids))
        switches = [switches_within(figures.some(60), pids) for _ in range(figures.some(MINUTES))]
        figures.add("voluntary context switches in a minute", switches, "", most=10, limit="one for each timer")
        measure_requests(figures, stack, pids)
