"""Commands of the program, as somebody in the container of a stack would give them."""

import json
import os
import pty
import re
import subprocess
from typing import NamedTuple

from processes import environment
from stack import PROGRAM

TIMEOUT_S = 60


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def environment_in(stack, variables=None):
    """That of a shell in the container: its settings, and these variables over them."""
    given = {"CERT_MANAGER_CONFIG": str(stack.config)} | stack.variables | (variables or {})
    return environment(**given)


def command(stack, *words, variables=None, program=PROGRAM, under=(), **options):
    """What it says, with the settings of the stack and the container's environment."""
    options = {"stdin": subprocess.DEVNULL} | options
    if "input" in options:
        del options["stdin"]
    done = subprocess.run(
        [*under, program, *map(str, words)],
        env=environment_in(stack, variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        **options,
    )
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def command_at_terminal(stack, *words, answers=(), variables=None):
    """The same at a terminal; each answer is typed when something is asked. Both outputs are in `out`."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *map(str, words)],
        env={"TERM": "xterm"} | environment_in(stack, variables),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    answers, seen, asked_at = list(answers), b"", 0
    try:
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # the other end is closed: it has ended
                break
            seen += part
            if answers and re.search(rb"[?:] $", seen[asked_at:]):
                asked_at = len(seen)
                os.write(leader, f"{answers.pop(0)}\n".encode())
        return Said(process.wait(TIMEOUT_S), seen.decode(errors="replace"), "")
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()
