"""Certificates that take each other's place in a running container, and what must hold meanwhile."""

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time

import pki
from dstack_machine import replay
from loopback import wait_until
from running import SETTLED
from stack import BUILD

CLIENTS = BUILD / "test/rotation_clients"
LOOK_INTERVAL_S = 0.02


class Rotation:
    """Puts one certificate after the other onto the volume of a container, as somebody else would.

    The first one is there before the start. `leaves` are all that were put, in their order.
    """

    def __init__(self, stack, key=None, **dates):
        self.stack, self.authority = stack, pki.Authority()
        self.key, self.leaves = key or stack.tls_key, []
        stack.put_pair(self.next(**dates), self.key)

    @property
    def leaf(self):
        return self.leaves[-1]

    @property
    def names(self):
        """What the event log has to say when each was served, one after the other."""
        return [pki.sha256(leaf) for leaf in self.leaves]

    def next(self, **dates):
        chain = self.authority.issue(self.stack.domain, self.key, **dates)
        self.leaves.append(pki.read_chain(chain)[0])
        return chain

    def put(self, **dates):
        """Another chain for the same key, in one step; where the log ended before."""
        mark = self.stack.log.mark()
        replace(self.stack, "cert.pem", self.next(**dates))
        return mark

    def put_and_wait(self, timeout=20.0, **dates):
        self.stack.log.wait_for(SETTLED, timeout, since=self.put(**dates))
        return self.leaf


def replace(stack, name, text, mode=0o644):
    """In one step, so that nobody ever sees half of it."""
    stack.put(f"{name}.new", text, mode)
    os.rename(stack.tls / f"{name}.new", stack.tls / name)


def serve(stack):
    """Start it, and wait until it has come to rest; the leaf."""
    mark = stack.log.mark()
    return stack.start().wait_until_settled(mark)


def assert_measured(stack, names):
    """These are the events, and they add up."""
    assert stack.agent.measured() == names
    assert_adds_up(stack)


def assert_adds_up(stack):
    """Events were asked for one at a time, and the register is what the log says."""
    state = stack.agent.state()
    assert state["emit_peak"] <= 1
    assert replay(state["event_log"]).hex() == state["rtmr"][3]


def pending(stack):
    """What is on disk of a rotation that has not come to its end."""
    left = {path.name for path in stack.state.iterdir()} if stack.state.exists() else set()
    return left & {"intent.json", "promotion", "previous-cert.pem", "previous-key.pem"}


def wait_until_nothing_is_pending(stack):
    """Its files go one after the other, behind the first handshake with the leaf."""
    wait_until(lambda: not pending(stack), "it has come to rest")


def assert_at_rest(stack, leaf, key=None):
    """This leaf is what clients get, what was measured last and what is stored; nothing is pending."""
    assert stack.served_leaf() == leaf
    assert stack.agent.measured()[-1] == pki.sha256(leaf)
    assert_adds_up(stack)
    assert stack.stored_chain()[0] == leaf
    assert stack.key_file.read_text() == pki.key_pem(key or stack.tls_key)
    assert not pending(stack), pending(stack)


class LeafWatch:
    """Looks all the time which leaf is served.

    `seen` are the leaves in their order, None where there was no HTTPS. `behind_s` is the longest
    time for which it was not the one of the last event.
    """

    def __init__(self, stack):
        self._stack, self.seen, self.behind_s = stack, [], 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.seen, "the first look has been taken")
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def wait_for(self, leaf):
        wait_until(lambda: self.seen[-1] == leaf, "the leaf is seen")

    def _look(self):
        behind_since = None
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                expected = self._last_event()
                leaf = self._stack.served_leaf()
                expected += self._last_event()
                if not self.seen or self.seen[-1] != leaf:
                    self.seen.append(leaf)
                if leaf and pki.sha256(leaf) in expected:
                    behind_since = None
                else:
                    behind_since = behind_since or time.monotonic()
                    self.behind_s = max(self.behind_s, time.monotonic() - behind_since)
            self._over.wait(LOOK_INTERVAL_S)

    def _last_event(self):
        return self._stack.agent.measured()[-1:]


class Load:
    """Requests at a steady rate over kept connections, from a program that keeps its pace."""

    def __init__(self, stack, rate=400, connections=16):
        command = [CLIENTS, "load", *stack.https, stack.domain, rate, connections]
        self._process = start(command)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def end(self):
        """The program's findings."""
        output, complaints = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, complaints
        return json.loads(output) | {"complaints": complaints[:2000]}


class Gap:
    """Makes handshakes around a change of the leaf, one right after the other."""

    def __init__(self, stack, quiet_ms):
        self._process = start([CLIENTS, "watch", *stack.https, stack.domain, quiet_ms])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def begin(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self):
        found = json.loads(self._process.stdout.readline())
        assert found["changed"] and found["failed"] == 0, found
        return found


def start(command):
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(word) for word in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def without_repeats(values):
    return [value for value, _ in itertools.groupby(values)]
