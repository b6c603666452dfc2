#!/usr/bin/env python3
"""A certificate from a real CA through real parts, on loopback: what `make demo` shows.

Without --once it stays up until Ctrl-C. With --once it checks itself and exits with 0 or 1.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Nothing has to be cleaned up before main(), so that Ctrl-C simply ends it.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import pki  # noqa: E402
from pebble import Pebble  # noqa: E402
from stack import PROGRAM, Stack  # noqa: E402

DOMAIN = "demo.example.test"
PATIENCE_S = 60
LOG_TAIL = 40


class Screen:
    """Writes lines; on a terminal in colour, and the line of the step in progress over itself."""

    def __init__(self, stream):
        self._stream, self._is_terminal = stream, stream.isatty()
        self._has_colour = self._is_terminal and not os.environ.get("NO_COLOR")
        self._start = time.monotonic()
        self._is_ending = False

    def bold(self, text):
        return f"\033[1m{text}\033[0m" if self._has_colour else text

    def green(self, text):
        return f"\033[32m{text}\033[0m" if self._has_colour else text

    def red(self, text):
        return f"\033[31m{text}\033[0m" if self._has_colour else text

    def dim(self, text):
        return f"\033[2m{text}\033[0m" if self._has_colour else text

    def line(self, text=""):
        self._write(f"{text}\n")

    def wait(self, what):
        """The step in progress; without a terminal it only shows when it is done."""
        if self._is_terminal and not self._is_ending:
            self._write(self.dim(f"  {self._elapsed()}  {what} …"))

    def done(self, what):
        self._write(f"  {self.dim(self._elapsed())}  {what}\n")

    def ending_line(self, text):
        """For a signal handler, which may have cut into a write: no step is shown after it."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            os.write(self._stream.fileno(), f"\n{text}\n".encode())

    def _elapsed(self):
        return f"{time.monotonic() - self._start:4.1f} s"

    def _write(self, text):
        over = "\r\033[K" if self._is_terminal else ""
        self._stream.write(over + text)
        self._stream.flush()


class Interrupted(Exception):
    """Somebody has asked for the end."""


class Interruption:
    """Ctrl-C or SIGTERM: acknowledged at once, raised only by pause().

    So it never comes while something has been started and not been written down yet, nor while it
    is cleaned up.
    """

    def __init__(self, screen):
        self._screen, self._has_come = screen, False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, *_):
        if not self._has_come:
            self._has_come = True
            self._screen.ending_line("  cleaning up …")

    def pause(self, seconds=0.1):
        if not self._has_come:
            time.sleep(seconds)
        if self._has_come:
            raise Interrupted


def watch(screen, stack, interruption):
    """Show each step of an issuance when it can be seen from outside, up to HTTPS."""
    ca, agent = stack.ca, stack.agent
    steps = (
        ("nginx answers HTTP", lambda: answers(stack)),
        ("keys derived by the guest agent", lambda: has_answered(agent, "GetKey", 3)),
        ("ACME account made from its key", ca.accounts),
        ("certificate ordered, certbot at work", ca.orders),
        ("challenge fetched by the CA", lambda: ca.log.find("set VALID")),
        ("certificate issued", ca.issued),
        ("certificate measured into RTMR3", agent.measured),
        ("HTTPS serves the certificate", stack.served_leaf),
    )
    deadline = time.monotonic() + PATIENCE_S
    for what, is_reached in steps:
        while not is_reached():
            screen.wait(what)
            if not stack.is_running:
                raise Failure("the container has ended")
            if time.monotonic() > deadline:
                raise Failure(f"waited {PATIENCE_S} s in vain: {what}")
            interruption.pause()
        screen.done(what)


def answers(stack):
    with contextlib.suppress(OSError):
        return stack.http_get("/").status
    return None


def has_answered(agent, method, count):
    return agent.wait(method=method, count=count, answered=True, timeout_s=0)


class Failure(Exception):
    """The demonstration does not work, for this reason."""


def checks(stack):
    """What must hold now, each with whether it does."""
    leaf = stack.served_leaf()
    health = stack.https_get("/health")  # verifies chain and name against Pebble's root
    redirect = stack.http_get("/some?path")
    target = f"https://{stack.domain}:{stack.https_port}/some?path"
    return {
        "the certificate is for the domain": pki.names(leaf) == [stack.domain],
        "it was issued by Pebble": pki.issuer_name(leaf).startswith("Pebble"),
        "its key is the derived one": pki.same_key(leaf, stack.tls_key),
        "the last event names it": stack.agent.measured()[-1:] == [pki.sha256(leaf)],
        "HTTP redirects": (redirect.status, redirect.headers.get("location")) == (301, target),
        "/health answers": (health.status, health.body) == (200, "healthy\n"),
    }


def wait_for_checks(stack, interruption):
    """Workers of the HTTP-only configuration may answer for a moment longer."""
    deadline = time.monotonic() + 5
    while True:
        found = checks(stack)
        if all(found.values()) or time.monotonic() > deadline:
            return found
        interruption.pause()


def show(screen, stack, log_file=None):
    """What there is to see, and with `log_file` what there is to try while it stays up."""
    leaf = stack.served_leaf()
    account = stack.log.find(r"https://\S+/my-account/[^\s,;)]+")
    url = f"https://{stack.domain}:{stack.https_port}"
    facts = {
        "HTTPS": screen.bold(url),
        "leaf": f"issued by {pki.issuer_name(leaf)}, valid until {pki.expires(leaf).date()}",
        "account": account[0] if account else "not in the log",
        "event": f"New TLS Certificate {stack.agent.measured()[-1]}",
    }
    if log_file:
        root = stack.root / "root.pem"
        root.write_text(stack.ca.root())
        root.chmod(0o644)
        place = f"{stack.domain}:{stack.https_port}:{stack.address}"
        curl = f"curl --cacert {root} --resolve {place} {url}/health"
        facts |= {"log": log_file, "try": screen.bold(curl)}
    screen.line()
    for name, text in facts.items():
        screen.line(f"  {name:<8} {text}")
    screen.line()


def demonstrate(screen, interruption, cleanup, stacks, log_file, is_once):
    """What is started is registered for the cleaning up before it starts."""
    ca = Pebble()
    cleanup.callback(ca.close)
    ca.start()
    interruption.pause(0)
    screen.done(f"Pebble is the CA, {ca.directory}")
    stack = Stack(ca, domain=DOMAIN)
    cleanup.callback(stack.close)
    stacks.append(stack)
    stack.log.copy_to(log_file)
    stack.start()
    interruption.pause(0)
    screen.done("supervisord, nginx, cert-manager and a simulated guest agent started")
    watch(screen, stack, interruption)
    found = wait_for_checks(stack, interruption)
    if not all(found.values()):
        raise Failure("; ".join(f"not so: {what}" for what in found if not found[what]))
    if is_once:
        show(screen, stack)
        for what in found:
            screen.line(f"  {screen.green('ok'):<8} {what}")
    else:
        show(screen, stack, log_file)
        screen.line("  Ctrl-C ends it.")
        while stack.is_running:
            interruption.pause()
        raise Failure("the container has ended")
    screen.wait("cleaning up")


def run(screen, is_once):
    """The exit code. Who ends by Ctrl-C what runs until Ctrl-C has seen no failure."""
    interruption, stacks = Interruption(screen), []
    handle, name = tempfile.mkstemp(prefix="cert-manager-demo-", suffix=".log")
    os.close(handle)
    log_file = Path(name)
    screen.line(screen.bold("cert-manager: a certificate from a real CA, on loopback"))
    try:
        with contextlib.ExitStack() as cleanup:
            demonstrate(screen, interruption, cleanup, stacks, log_file, is_once)
        code = 0
    except Interrupted:
        code = 130 if is_once else 0
    except (Failure, AssertionError, OSError, subprocess.SubprocessError) as problem:
        report(screen, problem, stacks)
        screen.line(f"the whole log: {log_file}")
        return 1
    log_file.unlink()
    screen.line()
    return code


def report(screen, problem, stacks):
    screen.line()
    screen.line(f"{screen.red('failed')}: {problem}")
    for stack in stacks:
        screen.line(screen.dim(f"the last {LOG_TAIL} lines of the log:"))
        for line in stack.log.lines()[-LOG_TAIL:]:
            # Only what is printable: programs' output may hold anything.
            screen.line(f"  {re.sub(r'[^ -~]', '?', line)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="check and end, with exit code 0 or 1")
    arguments = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is missing: run make first")
    return run(Screen(sys.stdout), arguments.once)


if __name__ == "__main__":
    sys.exit(main())
