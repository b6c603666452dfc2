"""How much of orchestrator/ the counters of a coverage build say was run.

    coverage.py BUILD OUT

Prints a table by folder and the least covered files; OUT/index.html shows each line.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

AIM_LINES, AIM_BRANCHES = 90.0, 80.0
LEAST = 15


class Cover(NamedTuple):
    """What there is of lines and branches, and what of it was run."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    def __add__(self, other):
        return Cover(*(a + b for a, b in zip(self, other)))

    def percent_of_lines(self):
        return 100.0 * self.lines_run / self.lines if self.lines else 100.0

    def percent_of_branches(self):
        return 100.0 * self.branches_run / self.branches if self.branches else 100.0

    def row(self, name):
        return (
            f"{name:<44}{self.lines:>7}{self.percent_of_lines():>7.1f} %"
            f"{self.branches:>8}{self.percent_of_branches():>7.1f} %"
        )


def run_gcovr(build, out):
    # A failing assertion ends the process, so that its branch can never be counted.
    subprocess.run(
        ["gcovr", "--root", ".", "--filter", "orchestrator/", "--object-directory"]
        + [f"{build}/obj", "--exclude-branches-by-pattern", r".*\bassert\("]
        + ["--json-summary", f"{out}/summary.json", "--json", f"{out}/counters.json"]
        + ["--html-details", f"{out}/index.html"]
        + [f"{build}/obj/orchestrator"],
        check=True,
    )
    return json.loads(Path(out, "summary.json").read_text())["files"]


def main(build, out):
    Path(out).mkdir(parents=True, exist_ok=True)
    files = {
        entry["filename"]: Cover(
            entry["line_total"],
            entry["line_covered"],
            entry["branch_total"],
            entry["branch_covered"],
        )
        for entry in run_gcovr(build, out)
    }
    folders = defaultdict(Cover)
    for name, cover in files.items():
        folders[str(Path(name).parent)] += cover
    total = sum(files.values(), Cover())
    print(f"{'':<44}{'lines':>7}{'run':>9}{'branches':>8}{'taken':>9}")
    for name in sorted(folders):
        print(folders[name].row(name))
    print(total.row("all"), end="\n\n")
    least = sorted(files, key=lambda name: files[name].percent_of_lines())[:LEAST]
    print(f"The {len(least)} files of whose lines the least was run:")
    for name in least:
        print(files[name].row(name))
    print(f"\nline by line: {out}/index.html")
    if total.percent_of_lines() < AIM_LINES or total.percent_of_branches() < AIM_BRANCHES:
        sys.exit(f"the aim is {AIM_LINES:.0f} % of lines and {AIM_BRANCHES:.0f} % of branches")


if __name__ == "__main__":
    main(*sys.argv[1:])
