"""How large and how branched the code is, and what is above the limits of docs/STYLE.md.

    report.py FILE...

Functions of C are measured by pmccabe: McCabe's cyclomatic complexity, where a switch counts as one.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

FILE_LINES, FUNCTION_LINES = 600, 80
MOST = 15
BOUNDS = (5, 10, 15, 20)
# complexity, traditional complexity, statements, first line, lines, FILE(LINE): NAME
MEASURED = re.compile(r"^(\d+)\t\d+\t\d+\t\d+\t(\d+)\t(.+)\((\d+)\): (\w+)$", re.MULTILINE)


class Function(NamedTuple):
    complexity: int
    lines: int
    file: str
    line: int
    name: str

    def row(self):
        return f"{self.complexity:>5}{self.lines:>6}  {self.file}:{self.line} {self.name}"


def measure(files):
    output = subprocess.run(["pmccabe", *files], stdout=subprocess.PIPE, text=True, check=True)
    for complexity, lines, file, line, name in MEASURED.findall(output.stdout):
        yield Function(int(complexity), int(lines), file, int(line), name)


def print_sizes(lengths):
    folders = defaultdict(list)
    for file, lines in lengths.items():
        folders[str(Path(file).parent)].append(lines)
    print(f"{'':<24}{'files':>6}{'lines':>8}{'longest':>9}")
    for folder, each in sorted(folders.items()):
        print(f"{folder:<24}{len(each):>6}{sum(each):>8}{max(each):>9}")
    every = list(lengths.values())
    print(f"{'all':<24}{len(every):>6}{sum(every):>8}{max(every):>9}")


def print_complexity(functions):
    above = ", ".join(
        f"{sum(one.complexity > bound for one in functions)} above {bound}" for bound in BOUNDS
    )
    print(f"{len(functions)} functions; cyclomatic complexity: {above}. The {MOST} highest:")
    print(f"{'':>5}{'lines':>6}")
    for one in sorted(functions, reverse=True)[:MOST]:
        print(one.row())


def main(files):
    lengths = {file: len(Path(file).read_bytes().splitlines()) for file in files}
    functions = list(measure([file for file in files if file.endswith(".c")]))
    product = [one for one in functions if not one.file.startswith("test/")]

    print_sizes(lengths)
    print()
    print_complexity(product)
    print(f"\nfunctions of more than {FUNCTION_LINES} lines:")
    for one in sorted(functions, key=lambda one: -one.lines):
        if one.lines > FUNCTION_LINES:
            print(one.row())
    print(f"\nfiles of more than {FILE_LINES} lines:")
    for file, lines in sorted(lengths.items(), key=lambda item: -item[1]):
        if lines > FILE_LINES:
            print(f"{lines:>11}  {file}")


if __name__ == "__main__":
    main(sys.argv[1:])
