"""What `make bench` measures can be measured. What comes out is judged there: times need a quiet machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment
from stack import BUILD

BENCH = Path(__file__).resolve().parents[1] / "bench/bench.py"
# Those that take seconds: the modules are counted under valgrind.
PARTS = "sizes", "start", "issuance", "rest", "rotations", "policy"


@pytest.mark.parametrize("part", PARTS)
def test_part_is_measured(part, tmp_path):
    file = tmp_path / "bench.json"
    command = [sys.executable, "-B", BENCH, "--quick", "--json", file, part]
    done = subprocess.run(
        command, env=environment(BUILD=str(BUILD)), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["machine"]["cores"] and found["figures"]
    for row in found["figures"]:
        assert row["least"] <= row["median"] <= row["most"], row
        assert row["what"].strip() in done.stdout
