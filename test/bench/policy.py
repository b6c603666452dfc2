"""How long it takes to decide whether a CA may be asked, by a ledger of 100,000 entries."""

import json
import subprocess

from processes import environment
from stack import BUILD

PROGRAM = BUILD / "bench/ledger"


def measure(figures):
    figures.part("a ledger of 100,000 entries")
    said = subprocess.run([PROGRAM], env=environment(), capture_output=True, text=True, check=True)
    for what, milliseconds in json.loads(said.stdout).items():
        figures.add(what, milliseconds, "ms")
