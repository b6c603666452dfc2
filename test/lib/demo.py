#!/usr/bin/env python3
"""A certificate from a real CA through real parts, on loopback: what `make demo` shows.

Without --once it stays up until Ctrl-C. With --once it checks itself and exits with 0 or 1.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import time

import pki
from pebble import Pebble
from stack import PROGRAM, Stack

DOMAIN = "demo.example.test"
PATIENCE_S = 60
LOG_TAIL = 40


class Screen:
    """Writes lines; on a terminal in colour, and the line of the step in progress over itself."""

    def __init__(self, stream):
        self._stream, self._is_terminal = stream, stream.isatty()
        self._has_colour = self._is_terminal and not os.environ.get("NO_COLOR")
        self._start = time.monotonic()

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
        if self._is_terminal:
            self._write(self.dim(f"  {self._elapsed()}  {what} …"))

    def done(self, what):
        self._write(f"  {self.dim(self._elapsed())}  {what}\n")

    def _elapsed(self):
        return f"{time.monotonic() - self._start:4.1f} s"

    def _write(self, text):
        over = "\r\033[K" if self._is_terminal else ""
        self._stream.write(over + text)
        self._stream.flush()


def watch(screen, stack):
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
            time.sleep(0.1)
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


def wait_for_checks(stack):
    """Workers of the HTTP-only configuration may answer for a moment longer."""
    deadline = time.monotonic() + 5
    while True:
        found = checks(stack)
        if all(found.values()) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def show(screen, stack):
    leaf = stack.served_leaf()
    account = stack.log.find(r"https://\S+/my-account/[^\s,;)]+")
    root = stack.root / "root.pem"
    root.write_text(stack.ca.root())
    root.chmod(0o644)
    url = f"https://{stack.domain}:{stack.https_port}"
    curl = f"curl --cacert {root} --resolve {stack.domain}:{stack.https_port}:{stack.address}"
    screen.line()
    for name, text in (
        ("HTTPS", screen.bold(url)),
        ("leaf", f"issued by {pki.issuer_name(leaf)}, valid until {pki.expires(leaf).date()}"),
        ("account", account[0] if account else "not in the log"),
        ("event", f"New TLS Certificate {stack.agent.measured()[-1]}"),
        ("log", stack.root / "log"),
        ("try", screen.bold(f"{curl} {url}/health")),
    ):
        screen.line(f"  {name:<8} {text}")
    screen.line()


def demonstrate(screen, is_once):
    screen.line(screen.bold("cert-manager: a certificate from a real CA, on loopback"))
    with contextlib.ExitStack() as cleanup:
        stack = None
        try:
            ca = cleanup.enter_context(Pebble())
            screen.done(f"Pebble is the CA, {ca.directory}")
            stack = cleanup.enter_context(Stack(ca, domain=DOMAIN))
            # From the end of this block on nothing may cut the cleaning up short.
            cleanup.callback(ignore_signals)
            stack.log.copy_to(stack.root / "log")
            stack.start()
            screen.done("supervisord, nginx, cert-manager and a simulated guest agent started")
            watch(screen, stack)
            found = wait_for_checks(stack)
            if not all(found.values()):
                raise Failure("; ".join(f"not so: {what}" for what in found if not found[what]))
            show(screen, stack)
            if is_once:
                for what in found:
                    screen.line(f"  {screen.green('ok'):<8} {what}")
            else:
                screen.line("  Ctrl-C ends it.")
                stay_up(screen, stack)
            screen.wait("cleaning up")
        except (Failure, AssertionError, OSError) as problem:
            report(screen, problem, stack)
            return 1
    screen.line()
    return 0


def ignore_signals():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def stay_up(screen, stack):
    with contextlib.suppress(KeyboardInterrupt):
        while stack.is_running:
            time.sleep(0.5)
        raise Failure("the container has ended")
    screen.line()


def report(screen, problem, stack):
    screen.line()
    screen.line(f"{screen.red('failed')}: {problem}")
    if stack:
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return demonstrate(Screen(sys.stdout), arguments.once)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
