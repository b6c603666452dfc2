"""Figures with what is aimed at: a table for people, and the same as JSON for machines."""

import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

WIDTHS = 50, 10, 10, 10, 8, 9, 26


class Figures:
    """Each is the median, the least and the most of what was measured. A target is held, or not, by
    the median; a limit is what nothing could be better than, and only said beside it. Quick ones show that all
    of it can be measured, and mean nothing."""

    def __init__(self, *, quick=False):
        self.rows, self._part, self._began, self._quick = [], "", time.monotonic(), quick
        self._machine = machine()
        print(", ".join(f"{name} {value}" for name, value in self._machine.items()))
        if self._machine["load when it began"] > 0.5:
            print("this machine has other things to do: times will be longer than they are", file=sys.stderr)

    def some(self, count):
        """As many, or a few when it has to be quick."""
        return max(1, count // 50) if self._quick else count

    def part(self, name):
        """What follows belongs to it."""
        self._part = name
        self._print("")
        self._print(name, "median", "least", "most", "", "target", "limit")

    def add(self, what, values, unit="", *, most=None, least=None, limit=None):
        """`values` is a number or several; `limit` a number or a text."""
        values = [values] if isinstance(values, int | float) else list(values)
        row = {
            "part": self._part,
            "what": what,
            "unit": unit,
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
            "times": len(values),
            "target": {"at most": most} if least is None else {"at least": least},
            "limit": limit,
        }
        if most is None and least is None:
            del row["target"]
        else:
            row["holds"] = (most is None or row["median"] <= most) and (least is None or row["median"] >= least)
        self.rows.append(row)
        self._show(row, most, least)

    def _show(self, row, most, least):
        target = f"≤ {most:g}" if most is not None else f"≥ {least:g}" if least is not None else ""
        verdict = "" if row.get("holds", True) else "  MISSED"
        numbers = [written(row[name]) for name in ("median", "least", "most")]
        limit = row["limit"]
        limit = "" if limit is None else limit if isinstance(limit, str) else written(limit)
        self._print(row["what"], *numbers, row["unit"], target, limit + verdict)

    def _print(self, *cells):
        left = 0, 4, 6
        parts = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, WIDTHS, strict=False))
        )
        print("  ".join(parts).rstrip(), flush=True)

    @property
    def missed(self):
        """What does not hold its target."""
        return [] if self._quick else [row["what"] for row in self.rows if not row.get("holds", True)]

    def write(self, path):
        found = {
            "machine": self._machine,
            "seconds": round(time.monotonic() - self._began),
            "figures": self.rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def written(value):
    """Three digits that say something, or all of a large number."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def machine():
    """What the figures hang on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpu[0].split(":")[1].strip() if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory, MiB": int(memory) // 1024,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "load when it began": round(os.getloadavg()[0], 2),
    }
