#!/usr/bin/env python3
"""The image: how fast it starts and stops, and what it needs at rest: `make bench-image`.

Containers of it run one after the other, several rounds in one run:
- start to the first HTTPS 200: development, a certificate that is stored, and a first issuance by Pebble
- where the time of a start goes, by the lines of its log
- how long it takes to stop
- PSS at rest of all that is not nginx
- what it has above its base, by layer

A start is counted from the command to the engine, so the engine's own time is in it, and so is that of two shells
which tell the time in between (some ms). What is aimed at is for two cores that do nothing else; nothing fails here.
"""

import json
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "fakes")]

from container import IMAGE, Container, podman  # noqa: E402
from log import Log  # noqa: E402
from loopback import enter_network_of_own  # noqa: E402
from moments import answers, line_of, time_in, time_of  # noqa: E402
from pebble import Pebble  # noqa: E402
from processes import read_proc  # noqa: E402

ROUNDS = 7
POLL_S = 0.002
PAGE_BYTES, PAGE_KIB = 4096, 4
KIB_IN_MB = 1024 / 1e6
IS_PRESENT, PAGE_NUMBER = 1 << 63, (1 << 55) - 1
BASE = "docker.io/library/debian:trixie-slim"

# What tells the time on the way: the program that is become is what follows.
TELL = 'echo "moment $0 $EPOCHREALTIME"; exec "$@"'

# Words of the log that end a part of the start.
MOMENTS = {
    "the engine": r"moment container ",
    "prestart": r"moment supervisord ",
    "Python and supervisord": r"INFO supervisord started",
    "until cert-manager is started": r"INFO spawned: 'cert-manager'",
    "until it says its first line": r"cert-manager \S+ for ",
    "keys and certificate at hand": r"the stored certificate is valid|certificate made for",
    "nginx -t, measured, reloaded, probed": r"HTTPS serves ",
}


def first_https(container):
    """Seconds from the command to the engine until /health answers over HTTPS."""
    began = time.monotonic()
    container.start()
    while not answers(container):
        assert container.is_running, container.log.text()
        time.sleep(POLL_S)
    took = time.monotonic() - began
    container.log.wait_for("HTTPS serves ")
    return took


def telling():
    """Option for a container that tells when it begins, and when supervisord does."""
    command = json.loads(podman("image", "inspect", "--format={{json .Config.Cmd}}", IMAGE).stdout)
    dashes = command.index("--")
    told = ["/bin/bash", "-c", TELL, "container", *command[: dashes + 1]]
    told += ["/bin/bash", "-c", TELL, "supervisord", *command[dashes + 1 :]]
    return f"--entrypoint={json.dumps(told)}"


def start_in_parts(container):
    """Seconds of the whole, and of each part of it."""
    moment = time.time()
    parts = {"whole": first_https(container)}
    for part, pattern in MOMENTS.items():
        end = end_of_part(container.log, pattern)
        parts[part], moment = end - moment, end
    return parts


def end_of_part(log, pattern):
    line = line_of(log, pattern)
    found = re.match(r"moment \S+ ([\d.]+)$", line)
    return float(found[1]) if found else time_in(line)


class Measured:
    def __init__(self):
        self.development, self.stored, self.stops = [], [], []
        self.issuances, self.certbots, self.rests = [], [], []

    def round(self, ca):
        told = {"options": [telling()]}
        with Container(variables={"DEV_MODE": "true", "LOG_LEVEL": "info"}, **told) as container:
            self.development.append(start_in_parts(container))
            self.stops.append(container.stop())
        with Container(ca, variables={"LOG_LEVEL": "debug"}, **told) as container:
            self.issuances.append(first_https(container))
            certbot = time_of(container.log, "issue: run certbot: begins")
            self.certbots.append(time_of(container.log, "issue: check chain: begins") - certbot)
            self.rests.append(pss_of(container))
            self.stops.append(container.stop())
            container.variables["LOG_LEVEL"], container.log = "info", Log()
            self.stored.append(start_in_parts(container))
            self.stops.append(container.stop())


def pss_of(container):
    """KiB by program, of all that is not nginx: of a page that several processes of the container have, each is
    counted its part. The kernel's own figure counts the processes of other containers of the image, too."""
    programs = {container.pid: "supervisord"}
    for one in container.processes():
        prefix = "log prefix of nginx" if "prestart" in one.line else "cert-manager run"
        programs[one.pid] = None if one.line.startswith("nginx:") else prefix
    pages = {pid: pages_of(pid) for pid in programs}
    owners = Counter(page for those in pages.values() for page in those)
    found = Counter()
    for pid, program in programs.items():
        if program:
            found[program] += PAGE_KIB * sum(1 / owners[page] for page in pages[pid])
    return found


def pages_of(pid):
    """The numbers of the pages of memory that a process has in use (pagemap in proc(5))."""
    found = set()
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        for line in read_proc(pid, "maps").decode().splitlines():
            begin, end = (int(address, 16) // PAGE_BYTES for address in line.split()[0].split("-"))
            if line.endswith("[vsyscall]"):
                continue
            pagemap.seek(8 * begin)
            entries = memoryview(pagemap.read(8 * (end - begin))).cast("Q")
            found |= {entry & PAGE_NUMBER for entry in entries if entry & IS_PRESENT}
    return found


def layers_above_base():
    """(what made it, bytes), for each that has files."""
    history = json.loads(podman("history", "--no-trunc", "--format=json", IMAGE).stdout)
    of_base = json.loads(podman("history", "--no-trunc", "--format=json", BASE).stdout)
    return [(entry["CreatedBy"], entry["size"]) for entry in history[: -len(of_base)] if entry["size"]]


# What is printed.


def row(what, values, aim="", unit="ms", scale=1000.0):
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{what:<46} {middle * scale:9.1f} {low * scale:9.1f} {high * scale:9.1f}  {unit:<4} {aim}")


def rows_of_parts(what, starts):
    for part in starts[0]:
        seconds = [start[part] for start in starts]
        if part == "whole":
            row(f"{what}: start to first HTTPS 200", seconds, "≤ 1300")
        else:
            row(f"  {part}", seconds)


def show(measured):
    print(f"{'':<46} {'median':>9} {'min':>9} {'max':>9}       aim")
    rows_of_parts("development", measured.development)
    rows_of_parts("stored certificate", measured.stored)
    row("first issuance: start to first HTTPS 200", measured.issuances)
    row("  of which certbot", measured.certbots)
    others = [whole - certbot for whole, certbot in zip(measured.issuances, measured.certbots, strict=True)]
    row("  of which all else", others, "≤ 1500")
    row("stop", measured.stops, "≤ 8000")
    for name in measured.rests[0]:
        row(f"at rest, PSS: {name}", [rest[name] for rest in measured.rests], "", "MB", KIB_IN_MB)
    sums = [sum(rest.values()) for rest in measured.rests]
    row("at rest, PSS: all that is not nginx", sums, "≤ 40", "MB", KIB_IN_MB)
    layers = layers_above_base()
    for made_by, size in layers:
        print(f"layer above the base: {size / 1e6:6.1f} MB  {made_by[:70]}")
    print(f"image above the base: {sum(size for _, size in layers) / 1e6:6.1f} MB  (≤ 150)")


def main():
    if podman("image", "exists", IMAGE, check=False).returncode:
        sys.exit(f"there is no image {IMAGE}: `make image IMAGE={IMAGE}` makes it")
    enter_network_of_own()
    measured = Measured()
    with Pebble(usual_ports=True, newer=True) as ca:
        for _ in range(ROUNDS):
            measured.round(ca)
    show(measured)


if __name__ == "__main__":
    main()
