"""gcc -fanalyzer over C files: fails for what it reports, except for what gcc-exceptions explains.

    gcc.py COMPILER [FLAG...] -- FILE...

Without optimization, so that it follows the code as it is written.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

EXCEPTIONS = Path(__file__).with_name("gcc-exceptions")
ANALYSIS = ("-O0", "-fanalyzer", "-c", "-o", os.devnull)
FUNCTION = re.compile(r"^\S+: In function '(\w+)'")
FINDING = re.compile(r"^(\S+?):\d+:\d+: warning: .*\[(-W[\w=-]+)\]$")


class Finding(NamedTuple):
    file: str
    function: str
    warning: str


def read_exceptions():
    """`FILE FUNCTION WARNING # reason` in each line."""
    exceptions = {}
    for number, line in enumerate(EXCEPTIONS.read_text().splitlines(), 1):
        fields, _, reason = line.partition("#")
        if not fields.strip():
            continue
        if len(fields.split()) != 3 or not reason.strip():
            sys.exit(f"{EXCEPTIONS}:{number}: expected FILE FUNCTION WARNING # reason")
        exceptions[Finding(*fields.split())] = reason.strip()
    return exceptions


def findings_in(output):
    """Each finding with its text: the line that names it and the path to it below."""
    function, found = "", []
    for line in output.splitlines():
        if named := FUNCTION.match(line):
            function = named[1]
        elif begun := FINDING.match(line):
            found.append((Finding(begun[1], function, begun[2]), [line]))
        elif found:
            found[-1][1].append(line)
    return found


def analyze(command, file):
    return subprocess.run(
        [*command, *ANALYSIS, file],
        env=os.environ | {"LC_ALL": "C"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def main(arguments):
    split = arguments.index("--")
    command, files = arguments[:split], arguments[split + 1 :]
    exceptions, met, bad = read_exceptions(), set(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for run in pool.map(lambda file: analyze(command, file), files):
            found = findings_in(run.stderr)
            if run.returncode != 0 or (run.stderr and not found):
                bad += 1
                print(run.stderr, end="")
            for finding, text in found:
                met.add(finding)
                if finding not in exceptions:
                    bad += 1
                    print("\n".join(text))
    # Not an error: another version of gcc may need them.
    for unmet in sorted(exceptions.keys() - met):
        if unmet.file in files:
            print(f"gcc-exceptions: {' '.join(unmet)}: this compiler does not report it")
    if bad:
        sys.exit(f"gcc -fanalyzer: {bad} findings")
    print(f"gcc -fanalyzer: {len(files)} files")


if __name__ == "__main__":
    main(sys.argv[1:])
