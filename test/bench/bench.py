#!/usr/bin/env python3
"""All figures, with what is aimed at: `make bench`; some of them: `make bench BENCH="start rest"`.

docs/PERFORMANCE.md says how each is measured, and what came out.
"""

import argparse
import sys
from pathlib import Path

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "fakes")]

import issuance  # noqa: E402
import modules  # noqa: E402
import policy  # noqa: E402
import rest  # noqa: E402
import rotations  # noqa: E402
import sizes  # noqa: E402
import start  # noqa: E402
from figures import Figures  # noqa: E402

PARTS = {
    "sizes": sizes.measure,
    "start": start.measure,
    "issuance": issuance.measure,
    "rest": rest.measure,
    "rotations": rotations.measure,
    "policy": policy.measure,
    "modules": modules.measure,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="once and briefly, only to see that it works")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any: all")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures = Figures(quick=options.quick)
    for name, measure in PARTS.items():
        if name in (options.parts or PARTS):
            measure(figures)
    if options.json:
        figures.write(options.json)
    if figures.missed:
        sys.exit(f"\nmissed: {'; '.join(figures.missed)}")


if __name__ == "__main__":
    main()
