"""Compressed life: certificates of a minute, while everything around the daemon fails at random.

    with Life(stack, ca, seed) as life:
        life.go_on(3600)

What happens follows from the seed. What must hold is looked at all the time, by Watch: a breach is a
line in `breaches`, with the trouble that was going on.
"""

import contextlib
import datetime
import json
import os
import random
import re
import signal
import threading
import time

import pki
from loopback import wait_until
from processes import read_proc

LOOK_INTERVAL_S = 0.25
# For so long HTTPS may be away after somebody has killed nginx, and the served leaf differ from the last
# event without a word about it in the status, on a busy machine.
RECOVERY_S = 15.0
BEHIND_S = 5.0
# Of the daemon, once its allocator has come to rest.
WARM_UP_S = 60.0
MOST_GROWTH_KIB = 2048
MOST_MORE_FILES = 6
LEAST_LOOKS = 80

KILL = "the daemon is killed"

# What becomes of calls of the agent. One that says that it has made an event and has made none, or derives
# other keys, is another story.
AGENT_FAULTS = (
    *("slow", "hang", "server-error", "unavailable", "closed", "lost-answer", "late-answer"),
    *("not-http", "not-json", "not-object", "truncated", "oversized"),
    *("key-zero", "key-short", "key-missing", "tcb-info-not-json", "event-log-missing"),
)

KILLED = r"exited: (cert-manager|nginx) \(terminated by SIGKILL; not expected\)"
EXPECTED = KILLED + r"|exited on signal 9|\[(alert|emerg)\] .*(bind\(\)|still could not bind|signal)"


class Life:
    """`stack` is one whose CA has a door, and serves already."""

    def __init__(self, stack, ca, seed):
        self.stack, self.ca = stack, ca
        self.random, self.told = random.Random(seed), []
        self.watch = Watch(stack, ca)
        self._troubles = {
            "the agent fails": self._agent_fails,
            "the agent is away": self._agent_is_away,
            "the CA refuses": self._ca_refuses,
            "the CA says nothing": self._ca_says_nothing,
            "the domain does not resolve": self._dns_is_broken,
            "a worker of nginx is killed": self._worker_is_killed,
            "nginx is killed": self._nginx_is_killed,
            "nginx stands still": self._nginx_stands_still,
            KILL: self._daemon_is_killed,
            "the settings are read again": self._settings_are_read,
        }

    def __enter__(self):
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.watch.end()

    def go_on(self, seconds):
        """One trouble after the other, with a rest behind each.

        In the second half of the time the daemon lives, so that it can be seen whether it grows.
        """
        begin, names = time.monotonic(), []
        while (passed := time.monotonic() - begin) < seconds:
            # Each of them comes, in an order of its own each time.
            names = names or self.random.sample(sorted(self._troubles), len(self._troubles))
            name = names.pop()
            if name == KILL and passed > seconds / 2:
                continue
            self.told.append(name)
            self.watch.trouble = name
            self._troubles[name](self.random.uniform(0.5, 5.0))
            self.watch.trouble = f"after: {name}"
            time.sleep(self.random.uniform(0.5, 4.0))

    # What can happen. Whatever it is, it is over when the call returns.

    def _agent_fails(self, seconds):
        number = self.stack.agent.fault(preset=self.random.choice(AGENT_FAULTS))
        time.sleep(seconds)
        self.stack.agent.clear(fault=number)

    def _agent_is_away(self, seconds):
        self.stack.agent.vanish()
        time.sleep(seconds)
        self.stack.agent.reappear()

    def _ca_refuses(self, seconds):
        self.ca.shut()
        time.sleep(seconds)
        self.ca.open()

    def _ca_says_nothing(self, seconds):
        self.ca.pause()
        time.sleep(seconds)
        self.ca.resume()

    def _dns_is_broken(self, seconds):
        self.ca.break_dns(self.stack.domain)
        time.sleep(seconds)
        self.ca.mend_dns(self.stack.domain)

    def _worker_is_killed(self, _):
        if workers := self.stack.nginx_workers():
            self._kill(self.random.choice(workers))

    def _nginx_is_killed(self, _):
        if master := self.stack.nginx_master():
            self._kill(master)

    def _nginx_stands_still(self, seconds):
        self.watch.nginx_was_touched()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for worker in self.stack.nginx_workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)
            time.sleep(min(seconds, 2.0) if number == signal.SIGSTOP else 0)

    def _daemon_is_killed(self, _):
        if daemon := self.stack.daemon():
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGKILL)

    def _settings_are_read(self, _):
        if daemon := self.stack.daemon():
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGHUP)

    def _kill(self, process):
        self.watch.nginx_was_touched()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


class Watch:
    """Looks at what has to hold, all the time."""

    def __init__(self, stack, ca):
        self._stack, self._ca = stack, ca
        self.trouble, self.breaches, self.samples = "nothing yet", [], 0
        self.leaves, self.memory, self._entered = [], {}, set()
        self._touched_at = self._answered_at = self._agreed_at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def start(self):
        self._thread.start()

    def end(self):
        self._over.set()
        self._thread.join()

    def nginx_was_touched(self):
        self._touched_at = time.monotonic()

    def _look_on(self):
        while not self._over.wait(LOOK_INTERVAL_S):
            try:
                self._look()
            except Exception as problem:  # a look that fails is a finding, not the end of looking
                self._breach(f"cannot look: {problem!r}")

    def _breach(self, what):
        line = f"{what} ({self.trouble}, sample {self.samples})"
        if not self.breaches or self.breaches[-1].partition(" (")[0] != what:
            self.breaches.append(line)

    def _look(self):
        now = time.monotonic()
        self.samples += 1
        expected = self._stack.agent.measured()[-1:]
        try:
            leaf = self._stack.served_leaf()
        except (TimeoutError, OSError):
            leaf = None
        expected += self._stack.agent.measured()[-1:]
        self._mind_https(leaf, now)
        if leaf is not None:
            self._mind_leaf(leaf, expected, now)
        self._mind_ledger()
        self._mind_daemon(now)

    def _mind_https(self, leaf, now):
        if leaf is not None:
            self._answered_at = now
        elif now - self._touched_at > RECOVERY_S and now - self._answered_at > 2.0:
            self._breach("HTTPS does not answer")

    def _mind_leaf(self, leaf, expected, now):
        if not self.leaves or self.leaves[-1] != pki.sha256(leaf):
            self.leaves.append(pki.sha256(leaf))
        if pki.sha256(leaf) in expected or self._status_says_why():
            self._agreed_at = now
        elif now - max(self._agreed_at, self._touched_at) > BEHIND_S:
            self._breach("the served leaf is not the last event, and the status does not say why")
        ended = pki.expires(leaf) < datetime.datetime.now(datetime.timezone.utc)
        if ended and not self._status_says_why():
            self._breach("the served leaf has expired, and the status does not say why")

    def _status_says_why(self):
        status = self._stack.status()
        return bool(status.get("attention")) or not status.get("measurement", {}).get("attested")

    def _mind_ledger(self):
        """Nothing is ordered that was not in the ledger, which forgets what counts no more.

        The CA's books are read first.
        """
        orders = self._ca.orders()
        with contextlib.suppress(FileNotFoundError):
            ledger = json.loads((self._stack.state / "ledger.json").read_text())
            self._entered |= {entry["at"] for entry in ledger["entries"]}
            if orders > len(self._entered):
                self._breach(f"{orders} orders, {len(self._entered)} were in the ledger")

    def _mind_daemon(self, now):
        daemon = self._stack.daemon()
        if daemon is None or self._stack.certbot():
            return
        status = read_proc(daemon.pid, "status")
        try:
            files = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        except FileNotFoundError:
            return
        if resident := re.search(rb"VmRSS:\s+(\d+) kB", status):
            begun, looks = self.memory.setdefault(daemon.pid, (now, []))
            looks.append((now - begun, int(resident[1]), files))

    def assert_flat(self):
        """Medians of the time after the warm-up and of the end, of each daemon that lived for long enough.

        How many those were.
        """
        judged = 0
        for pid, (_, looks) in self.memory.items():
            warm = [look for look in looks if look[0] > WARM_UP_S]
            if len(warm) < LEAST_LOOKS:
                continue
            judged += 1
            part = len(warm) // 4
            first, last = warm[:part], warm[-part:]
            grown = _median(last, 1) - _median(first, 1)
            assert grown <= MOST_GROWTH_KIB, f"daemon {pid} has grown by {grown} KiB"
            more = _median(last, 2) - _median(first, 2)
            assert more <= MOST_MORE_FILES, f"daemon {pid} has {more} more open files"
            print(f"daemon {pid}: {len(warm)} looks, {grown} KiB and {more} open files more at the end")
        return judged


def _median(looks, index):
    return sorted(look[index] for look in looks)[len(looks) // 2]


def wait_for_next_leaf(stack, timeout=90.0):
    """When nothing fails any more the next renewal comes by itself, is measured, and is at rest."""
    known = stack.served_leaf()

    def look():
        leaf = stack.served_leaf()
        is_new = leaf and leaf != known and stack.agent.measured()[-1:] == [pki.sha256(leaf)]
        return leaf if is_new else None

    return wait_until(look, "another leaf is served, and is the last event", timeout)
