"""SIGKILL just before and just after each step of a flow: to the daemon alone, and to everything.

The steps come from the tables that the program runs, so that none can be forgotten. Whatever the
moment: within seconds served leaf, last event and disk are one again, and nothing is ordered twice.
"""

import os
import signal
import subprocess
import time

import pki
import pytest
from dstack_machine import replay
from loopback import wait_until
from others import Other, new_replica, peers, presents
from preload import preload
from stack import BUILD, IS_ROOT
from test_failures import put_due_pair
from test_orphan import assert_nothing_left
from test_resilience import KILLED, kill_nginx

LIMIT_S = 10  # from the next start until all agree
LIMIT_WITH_AN_ORDER_S = 30

FIRST_APPLIED = "HTTPS serves"
AT_REST = "INFO - the next renewal is due on"


# Moments


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


STEPS = run(BUILD / "test/list_steps").splitlines()


def at_each_step_of(*flows, but=()):
    """Parameters of a test: a line of the log, and whether everything is killed at it.

    The end of a step is the beginning of the next one, with a line of the log between them: where
    everything is killed, only the end of a flow counts as an end.
    """
    cases = []
    for flow in flows:
        steps = [step for step in STEPS if step.startswith(f"{flow}: ") and step not in but]
        assert steps, f"the flow {flow!r} has no steps"
        moments = [f"{step}: {word}" for step in steps for word in ("begins", "ended")]
        cases += [pytest.param(moment, False, id=f"{moment}, daemon") for moment in moments]
        cases += [
            pytest.param(moment, True, id=f"{moment}, power")
            for moment in moments
            if moment.endswith("begins") or moment == moments[-1]
        ]
    return pytest.mark.parametrize("moment, power_cut", cases)


def kill_nginx_for_good(stack):
    """Supervisord, which would start it again, is stopped first."""
    os.kill(stack.pid, signal.SIGSTOP)
    kill_nginx(stack)


def remove_next_chain(stack):
    """What "switch chain" would rename."""
    (path,) = stack.folder["run_dir"].glob("live-*.pem.next")
    path.unlink()


def changes_before(moment):
    """What has to go wrong, and after which line, for a moment to come at all."""
    flow, step, _ = moment.split(": ")
    is_back = flow == "way back"
    changes = [("apply: promote: ended", remove_next_chain)] if is_back else []
    if step == "wait before the next probe":
        step = "way back: reload nginx again" if is_back else "apply: reload nginx"
        changes.append((f"{step}: ended", kill_nginx_for_good))
    return changes


class Story:
    """A container whose daemon is killed once, when its log has the line of a moment.

    Nothing counts before the first line with `after`. With `keys_get_old` the keys are no longer
    fresh from there on: they are asked for before the next order.
    """

    def __init__(self, stack, moment, power_cut, *, after=None, keys_get_old=False):
        self.stack, self.moment, self.power_cut = stack, moment, power_cut
        self.killed = stack.root / "killed"
        self._changes = changes_before(moment)
        stack.variables["LOG_LEVEL"] = "debug"
        # Supervisord starts nginx and the daemon at once, which may just set aside what nginx reads:
        # then it comes up a second later.
        unlucky = r"|cannot load certificate|exited: nginx \(exit status 1"
        both = "wait before the next probe" in moment
        stack.expected_trouble = KILLED + (unlucky if both else "")
        preload(
            stack,
            *("kill_at", "clock_jump"),
            KILL_AT=f"after write {moment}",
            KILL_MARK=self.killed,
            KILL_AFTER=after,
            KILL_PARENT="1" if power_cut else None,
            STOP_AT="|".join(line for line, _ in self._changes),
            JUMP_AT=after if keys_get_old else None,
        )

    def tell_until_killed(self):
        """Let happen what has to, until the moment has come."""
        for number, (line, change) in enumerate(self._changes, start=1):
            mark = self.killed.with_name(f"{self.killed.name}.{number}")
            daemon = wait_until(
                lambda mark=mark: mark.exists() and self._stopped_daemon(),
                f"the daemon stops at {line!r}",
            )
            change(self.stack)
            os.kill(daemon.pid, signal.SIGCONT)
        wait_until(self.killed.exists, f"the log has {self.moment!r}", 30)
        self.mark = self.stack.log.mark()

    def _stopped_daemon(self):
        daemon = self.stack.daemon()
        return daemon if daemon and daemon.state == "T" else None

    def go_on(self):
        """What was killed is started again: by supervisord, or with the volume alone by us."""
        if self.power_cut:
            wait_until(lambda: not self.stack.is_running, "the container ends")
            self.stack.cut_power()
            self.stack.start()
        else:
            os.kill(self.stack.pid, signal.SIGCONT)  # supervisord, when a change has stopped it
        self.begun = time.monotonic()

    def assert_ends_well(self, accepts, limit_s=LIMIT_S, *, has_account=True):
        """A leaf that is accepted is served, is what was measured last and what the disk has, and
        nothing else lies around or is about to happen. The leaf."""
        stack = self.stack

        def look():
            leaf = stack.served_leaf()
            agree = leaf and stack.agent.measured()[-1:] == [pki.sha256(leaf)]
            return leaf if agree and accepts(leaf) else None

        leaf = wait_until(look, "a leaf is served and is the one that was measured last", limit_s)
        print(f"agreed after {time.monotonic() - self.begun:.1f} s")
        stack.log.wait_for(AT_REST, since=self.mark)
        assert stack.served_leaf() == leaf == stack.stored_chain()[0]
        assert stack.agent.measured()[-1] == pki.sha256(leaf)
        assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
        assert stack.http_get().status == 301
        state = stack.agent.state()
        assert replay(state["event_log"]).hex() == state["rtmr"][3] and state["emit_peak"] == 1
        assert names_in(stack.tls) == {".cert-manager", "cert.pem", "key.pem"}
        kept = {"account.json", "applied.json"} if has_account else {"applied.json"}
        others = {"set-aside", "renewal.json", "ledger.json"}
        assert names_in(stack.state) - others == kept
        assert_nothing_left(stack)
        stack.cut_power()  # a slow stop would show nothing more
        return leaf


def names_in(folder):
    return {path.name for path in folder.iterdir()}


# What there is to be obtained


class Certbot:
    """A program in certbot's place, which gives chains of ours at once; each run is an order."""

    def __init__(self, stack):
        self._stack, self._folder = stack, stack.root / "ca"
        self._folder.mkdir()
        self._runs = self._folder / "runs"
        self._runs.touch()
        self._runs.chmod(0o666)
        program = self._folder / "certbot"
        program.write_text(
            '#!/bin/sh\n[ "$1" != --version ] || exit 0\n'
            f"cd {self._folder}\necho >> runs\nrun=$(wc -l < runs)\n"
            'while [ $# -gt 1 ]; do\n    case "$1" in\n'
            '    --cert-path) cat "$run.leaf" > "$2" ;;\n'
            '    --chain-path) cat "$run.rest" > "$2" ;;\n'
            '    --fullchain-path) cat "$run.leaf" "$run.rest" > "$2" ;;\n'
            "    esac\n    shift\ndone\n"
        )
        program.chmod(0o755)
        stack.settings["certbot.path"] = program

    def prepare(self, orders=1):
        """For the key that holds now. The hashes of the leaves, in the order of the orders."""
        authority, leaves = pki.Authority(), []
        for number in range(1, orders + 1):
            leaf, rest = pki.read_chain(authority.issue(self._stack.domain, self._stack.tls_key))
            (self._folder / f"{number}.leaf").write_text(pki.certificate_pem(leaf))
            (self._folder / f"{number}.rest").write_text(pki.certificate_pem(rest))
            leaves.append(pki.sha256(leaf))
        return leaves

    @property
    def orders(self):
        return len(self._runs.read_text())


# A power cut takes what certbot has obtained: its folders are a tmpfs, until the chain is kept.
ONLY_IN_MEMORY = (
    *("issue: run certbot: ended", "issue: check chain: begins"),
    *("issue: check chain: ended", "issue: keep chain: begins"),
)


def orders_of(moment, power_cut):
    return 2 if power_cut and moment in ONLY_IN_MEMORY else 1


def is_leaf(sha256):
    return lambda leaf: pki.sha256(leaf) == sha256


# An order


@at_each_step_of("keys", "issue")
def test_first_order(ca, stack, moment, power_cut):
    story, mark = Story(stack, moment, power_cut), ca.log.mark()
    stack.start()
    story.tell_until_killed()
    story.go_on()
    leaf = story.assert_ends_well(lambda leaf: True, LIMIT_WITH_AN_ORDER_S)
    assert ca.orders(mark) == ca.issued(mark) == orders_of(moment, power_cut)
    assert stack.agent.measured() == [pki.sha256(leaf)]


# What others serve is taken instead


@pytest.mark.skipif(not IS_ROOT, reason="mounts need root")
@at_each_step_of("adopt")
def test_chain_of_others(ca, new_stack, tmp_path, moment, power_cut):
    authority, mark = pki.Authority(), ca.log.mark()
    stack = new_replica(new_stack, tmp_path, pki.certificate_pem(authority.certificate))
    chain = authority.issue(stack.domain, stack.tls_key)
    leaf = pki.sha256(pki.read_chain(chain)[0])
    with Other(presents(chain, stack.tls_key)) as other:
        peers(stack, other)
        story = Story(stack, moment, power_cut)
        stack.start()
        story.tell_until_killed()
        story.go_on()
        story.assert_ends_well(is_leaf(leaf), has_account=False)
    assert stack.agent.measured() == [leaf]
    assert ca.orders(mark) == ca.account_calls(mark) == 0


# What was obtained comes live


def tell_first_certificate(stack, moment, power_cut):
    """The only leaf's hash."""
    story, certbot = Story(stack, moment, power_cut), Certbot(stack)
    (leaf,) = certbot.prepare()
    stack.start()
    story.tell_until_killed()
    story.go_on()
    story.assert_ends_well(is_leaf(leaf))
    assert certbot.orders == 1
    return leaf


@at_each_step_of("apply")
def test_first_certificate(stack, moment, power_cut):
    leaf = tell_first_certificate(stack, moment, power_cut)
    assert stack.agent.measured() == [leaf]


def tell_renewal(stack, moment, power_cut):
    """The hashes of the leaf of before and of the one that has come."""
    story, certbot = Story(stack, moment, power_cut, after=FIRST_APPLIED), Certbot(stack)
    former, orders = pki.sha256(put_due_pair(stack)), orders_of(moment, power_cut)
    leaf = certbot.prepare(orders)[-1]
    stack.start()
    story.tell_until_killed()
    story.go_on()
    story.assert_ends_well(is_leaf(leaf))
    assert certbot.orders == orders
    return former, leaf


@at_each_step_of("pre-flight", "issue", "apply")
def test_renewal(stack, moment, power_cut):
    former, leaf = tell_renewal(stack, moment, power_cut)
    assert stack.agent.measured() == [former, leaf]


def tell_rotation(stack, moment, power_cut):
    """The agent derives other keys while HTTPS is up. The hashes of the leaves."""
    story = Story(stack, moment, power_cut, after=FIRST_APPLIED, keys_get_old=True)
    certbot, former = Certbot(stack), pki.sha256(put_due_pair(stack))
    stack.settings["agent.timeout"] = "30s"
    fault = stack.agent.fault(preset="hang", method="GetKey", skip=3)
    stack.start()
    assert stack.agent.wait(method="GetKey", count=4)
    stack.agent.rotate_keys(epoch="2")
    stack.seed += "2"
    (leaf,) = certbot.prepare()
    stack.agent.clear(fault=fault)
    story.tell_until_killed()
    story.go_on()
    story.assert_ends_well(is_leaf(leaf))
    assert certbot.orders == 1
    return former, leaf


@at_each_step_of("apply")
def test_rotation(stack, moment, power_cut):
    former, leaf = tell_rotation(stack, moment, power_cut)
    assert stack.agent.measured() == [former, leaf]


# It fails, and the one of before comes back


@at_each_step_of(
    "way back",
    but=[  # of what was served before
        *("way back: probe the former", "way back: wait before the next probe"),
        *("way back: read last event again", "way back: measure the former"),
    ],
)
def test_way_back_from_the_first_certificate(stack, moment, power_cut):
    leaf = tell_first_certificate(stack, moment, power_cut)
    assert stack.agent.measured() == [leaf]


@at_each_step_of("way back")
def test_way_back_from_a_renewal(stack, moment, power_cut):
    former, leaf = tell_renewal(stack, moment, power_cut)
    assert set(stack.agent.measured()) == {former, leaf}


@at_each_step_of("way back")
def test_way_back_from_a_rotation(stack, moment, power_cut):
    former, leaf = tell_rotation(stack, moment, power_cut)
    assert set(stack.agent.measured()) == {former, leaf}
