#!/usr/bin/env python3
"""How long the way to HTTPS takes, and what cert-manager needs at rest: `make bench`.

Three things, each several times, in one run:
- start of cert-manager to the first HTTPS 200, in development, with nginx up already
- one issuance through certbot and Pebble, and certbot's share of it
- RSS and PSS of cert-manager at rest afterwards
"""

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from moments import answers, time_of  # noqa: E402
from pebble import Pebble  # noqa: E402
from processes import environment, spawn, stop  # noqa: E402
from stack import PROGRAM, Stack  # noqa: E402

ROUNDS = 7


class WithoutDaemon(Stack):
    """supervisord starts nginx only."""

    def _lay_out_supervisord_conf(self):
        super()._lay_out_supervisord_conf()
        text = self.supervisord_conf.read_text()
        section = "[program:cert-manager]\n"
        assert section in text
        self.supervisord_conf.write_text(text.replace(section, section + "autostart=false\n"))


def first_https(ca):
    """Seconds from the start of cert-manager until /health answers over HTTPS."""
    with WithoutDaemon(ca, settings={"dev_mode": True}) as stack:
        stack.start(with_agent=False)
        stack.wait_for_http()
        began = time.monotonic()
        daemon = spawn(
            [PROGRAM, "run", "--config", stack.config],
            env=environment(**stack.variables),
            stdout=subprocess.DEVNULL,
        )
        try:
            while not answers(stack):
                time.sleep(0.001)
            return time.monotonic() - began
        finally:
            stop(daemon)


def issuance(ca):
    """(seconds in all, seconds of certbot, RSS in KiB, PSS in KiB)"""
    with Stack(ca, settings={"log.level": "debug"}) as stack:
        stack.start()
        stack.wait_for_https()
        stack.log.wait_for("HTTPS serves")
        began = time_of(stack.log, "pre-flight: check machine: begins")
        certbot = time_of(stack.log, "issue: run certbot: begins")
        checked = time_of(stack.log, "issue: check chain: begins")
        served = time_of(stack.log, "HTTPS serves")
        rollup = Path(f"/proc/{stack.daemon().pid}/smaps_rollup").read_text()
        memory = {name: int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", rollup)}
        return (
            served - began,
            checked - certbot,
            memory["Rss"],
            memory["Pss"],
        )


def row(what, values, unit, scale=1.0):
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{what:<44} {middle * scale:9.1f} {low * scale:9.1f} {high * scale:9.1f}  {unit}")


def main():
    with Pebble() as ca:
        starts = [first_https(ca) for _ in range(ROUNDS)]
        whole, certbot, rss, pss = zip(*(issuance(ca) for _ in range(ROUNDS)), strict=True)
    print(f"{'':<44} {'median':>9} {'min':>9} {'max':>9}")
    row("start to first HTTPS 200, development", starts, "ms", 1000)
    row("issuance: first step until served", whole, "ms", 1000)
    row("  of which certbot", certbot, "ms", 1000)
    row("  of which cert-manager and the CA's account", [w - c for w, c in zip(whole, certbot)], "ms", 1000)
    row("cert-manager at rest, RSS", rss, "MiB", 1 / 1024)
    row("cert-manager at rest, PSS", pss, "MiB", 1 / 1024)


if __name__ == "__main__":
    main()
