"""Commands of the program, as a person in the container types them."""

import subprocess
from typing import NamedTuple

from processes import environment
from stack import PROGRAM

TIMEOUT_S = 60


class Said(NamedTuple):
    code: int
    out: str
    err: str


def command(stack, *arguments):
    """The command line in the container, with its settings; in its namespace, if it has one."""
    return [PROGRAM, arguments[0], "--config", stack.config, *arguments[1:]], environment(
        **stack.variables
    )


def run(stack, *arguments):
    line, variables = command(stack, *arguments)
    done = subprocess.run(
        line,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)
