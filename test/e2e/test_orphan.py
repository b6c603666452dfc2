"""What a killed daemon costs at the CA: nothing. Its certbot goes on, and the next one takes over.

Only where certbot itself dies in the middle of an order is there a second one.
"""

import contextlib
import json
import os
import re
import shutil
import signal

import pki
import pytest
from loopback import wait_until
from processes import all_processes, is_alive
from stack import BUILD, certbot_user, yaml_of
from test_failures import assert_waiting, needs_root, wait_for_failure

KILLED = r"exited: cert-manager \(terminated by SIGKILL; not expected\)"
STOPPED = r"exited: cert-manager \(exit status 0; not expected\)"

STEPS = (
    *("check disk", "take over an earlier certbot", "ask ledger", "get account key"),
    *("find account", "enter order", "run certbot", "check chain", "keep chain"),
)
# The end of a step is the beginning of the next one.
MOMENTS = (
    *(f"before write issue: {step}: begins\n" for step in STEPS),
    "before rename /ledger.json",
    "after rename /ledger.json",
    "after mkdir cert-manager-",  # certbot's folder, and nothing in it
    "before rename /run.json",  # certbot is held, and nobody knows of it
    "after rename /run.json",  # known, and held
    "before rename /staged-cert.pem",
    "after rename /staged-cert.pem",  # the chain is safe, and certbot's folder still there
    "before write issue: finished",
    "before write apply: stage: begins",
    "before write apply: promote: begins",
)


def work_folder(stack):
    """Certbot's, wherever it is."""
    return next(
        path
        for path in (stack.folder["run_dir"] / "certbot", stack.shared_memory)
        if path.exists()
    )


def certbots(stack):
    """All that work for this container, also when its daemon has lost them."""
    names = (str(stack.shared_memory), str(stack.root))
    return [
        one
        for one in all_processes()
        if "certonly" in one.command and any(name in one.line for name in names)
    ]


def wait_for_certbot(stack):
    """Its process, once it is certbot and no longer what holds it."""

    def look():
        return next((one for one in certbots(stack) if one.command[1] != "-c"), None)

    return wait_until(look, "certbot runs")


def kill_daemon(stack):
    stack.expected_trouble = KILLED
    mark = stack.log.mark()
    os.kill(stack.daemon().pid, signal.SIGKILL)
    stack.log.wait_for(KILLED, since=mark)


def freeze_daemon_until_certbot_has_ended(stack, ca, mark):
    """What certbot leaves is there then, and nobody has looked at it."""
    certbot, daemon = wait_for_certbot(stack), stack.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(lambda: not is_alive(certbot.pid), "certbot ends")
    assert ca.issued(mark) == 1 and (work_folder(stack) / "out/fullchain.pem").exists()
    return daemon


def assert_nothing_left(stack):
    wait_until(lambda: not certbots(stack), "no certbot runs", 5)
    assert not stack.shared_memory.exists()
    assert not (stack.folder["run_dir"] / "certbot").exists()
    challenges = stack.folder["webroot"] / ".well-known/acme-challenge"
    assert list(challenges.iterdir()) == []
    traces = pki.traces(stack.secrets()["account key"])
    for file in filter(lambda path: path.is_file(), stack.root.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a new state on its way to its place
            assert not [trace for trace in traces if trace in file.read_text("latin-1")], file
    assert not [trace for trace in traces if trace in stack.log.text()]


def assert_one_order(ca, stack, mark):
    """The leaf of the only order is measured once, stored and served; the ledger has it once."""
    leaf = stack.wait_until_settled()
    assert ca.orders(mark) == ca.issued(mark) == 1
    assert stack.ledger_outcomes().count("issued") == 1
    serial = ca.log.find(r"Issued certificate serial (\w+)", mark)[1]
    assert int(serial, 16) == leaf.serial_number
    assert leaf == stack.stored_chain()[0]
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert_nothing_left(stack)
    return leaf


# The daemon alone


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.strip())
def test_kill_at_an_exact_moment_costs_no_order(ca, new_stack, moment):
    stack = new_stack(variables={"LOG_LEVEL": "debug"})
    killed = stack.root / "killed"
    stack.variables |= {
        "LD_PRELOAD": str(BUILD / "test/kill_at.so"),
        "KILL_AT": moment,
        "KILL_MARK": str(killed),
        # A build with sanitizers wants to be the first that is loaded.
        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
    }
    stack.expected_trouble = KILLED
    mark = ca.log.mark()
    stack.start()
    stack.log.wait_for(KILLED)
    assert killed.exists()
    assert_one_order(ca, stack, mark)


SIGNS = {
    "begun": None,
    "ordered": "Added order",
    "validated": "Attempting to validate",
    "issued": "Issued certificate",
}


@pytest.mark.parametrize("moment", SIGNS)
def test_certbot_whose_daemon_is_killed_goes_on(ca, stack, moment):
    mark = ca.log.mark()
    stack.start()
    wait_for_certbot(stack)
    if SIGNS[moment]:
        ca.log.wait_for(SIGNS[moment], since=mark)
    kill_daemon(stack)
    state = "is still at work" if moment == "begun" else "is still at work|has ended"
    stack.log.wait_for(f"certbot, begun by an earlier run of this program on .*, ({state})")
    assert_one_order(ca, stack, mark)


@pytest.mark.parametrize("parent", ["/tmp", "/dev/shm"], ids=["shared memory", "run folder"])
def test_certificate_that_certbot_left_is_taken_over(ca, new_stack, parent):
    stack = new_stack(parent=parent)
    mark = ca.log.mark()
    stack.start()
    freeze_daemon_until_certbot_has_ended(stack, ca, mark)
    kill_daemon(stack)
    stack.log.wait_for("certbot, begun by an earlier run of this program on .*, has ended")
    assert_one_order(ca, stack, mark)


def test_killed_again_and_again(ca, stack):
    mark = ca.log.mark()
    stack.start()
    certbot = wait_for_certbot(stack)
    for _ in range(3):
        log = stack.log.mark()
        kill_daemon(stack)
        stack.log.wait_for("INFO - cert-manager .* for ", since=log)
    assert_one_order(ca, stack, mark)
    assert not is_alive(certbot.pid)


def test_renewal_that_goes_on_without_its_daemon(ca, stack):
    chain = pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY)
    stack.put_pair(chain, stack.tls_key)
    old_leaf, mark = stack.stored_chain()[0], ca.log.mark()
    stack.start()
    ca.log.wait_for("Added order", since=mark)
    kill_daemon(stack)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != old_leaf, "the renewed leaf is served")
    stack.log.wait_for("HTTPS serves .*Pebble")
    assert ca.orders(mark) == ca.issued(mark) == 1 and leaf == stack.stored_chain()[0]
    assert stack.agent.measured() == [pki.sha256(old_leaf), pki.sha256(leaf)]
    assert_nothing_left(stack)


@needs_root
def test_chain_that_cannot_be_stored_at_once_is_not_ordered_again(ca, new_stack):
    """The disk was proven writable before the order, and is no longer when it has come."""
    stack = new_stack(volume="size=4m")
    mark = ca.log.mark()
    stack.start()
    daemon = freeze_daemon_until_certbot_has_ended(stack, ca, mark)
    stack.remount("ro")
    os.kill(daemon.pid, signal.SIGCONT)
    wait_for_failure(stack, "keep chain: the certificate waits in certbot's folder")
    folder = work_folder(stack)
    assert (folder / "out/fullchain.pem").exists() and not (folder / "config").exists()
    assert_waiting(stack)
    stack.remount("rw")
    assert_one_order(ca, stack, mark)


def test_stop_when_certbot_is_through_does_not_lose_the_certificate(ca, stack):
    mark = ca.log.mark()
    stack.start()
    daemon = freeze_daemon_until_certbot_has_ended(stack, ca, mark)
    stack.expected_trouble = STOPPED
    os.kill(daemon.pid, signal.SIGTERM)
    os.kill(daemon.pid, signal.SIGCONT)
    stack.log.wait_for(STOPPED)
    assert_one_order(ca, stack, mark)


def test_stop_of_the_daemon_that_waits_ends_certbot(ca, stack):
    stack.start()
    certbot = wait_for_certbot(stack)
    kill_daemon(stack)
    stack.log.wait_for("is still at work")
    stack.stop()
    assert not is_alive(certbot.pid)
    assert_nothing_left(stack)


# Certbot as well


def test_certbot_that_is_killed_too_costs_one_more_order(ca, stack):
    mark = ca.log.mark()
    stack.start()
    certbot = wait_for_certbot(stack)
    ca.log.wait_for("Added order", since=mark)
    stack.expected_trouble = KILLED
    for process in (stack.daemon(), certbot):
        os.kill(process.pid, signal.SIGKILL)
    leaf = stack.wait_until_settled()
    stack.log.wait_for("it was ended before it had a certificate")
    assert ca.orders(mark) == 2 and ca.issued(mark) == 1
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert_nothing_left(stack)


@needs_root
def test_challenge_that_certbot_had_only_begun_to_write_is_removed(stack):
    """That of another client, which may be about to write it, stays."""
    folder = stack.folder["webroot"] / ".well-known/acme-challenge"
    begun, foreign = folder / ("b" * 43), folder / ("f" * 43)

    def put_challenges():
        folder.mkdir(parents=True)
        for file in (begun, foreign):
            file.touch()
        shutil.chown(begun, certbot_user())

    stack.alter_image = put_challenges
    stack.start().wait_until_settled()
    assert list(folder.iterdir()) == [foreign]


def test_failure_of_a_certbot_without_its_daemon_is_told(ca, stack):
    ca.break_dns(stack.domain)
    mark = ca.log.mark()
    stack.start()
    certbot = wait_for_certbot(stack)
    ca.log.wait_for("Added order", since=mark)
    kill_daemon(stack)
    wait_for_failure(
        stack, f"take over an earlier certbot: .*challenge failed for {re.escape(stack.domain)}"
    )
    assert not is_alive(certbot.pid)
    assert ca.orders(mark) == 1
    ca.mend_dns(stack.domain)
    stack.wait_until_settled()
    assert_nothing_left(stack)


def put_hanging_certbot(stack):
    """It ignores SIGTERM, as one does that is stuck."""
    program = stack.root / "certbot"
    program.write_text("#!/bin/sh\n[ \"$1\" != --version ] || exit 0\ntrap '' TERM\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o755)
    stack.settings["certbot.path"] = program
    return program


def test_certbot_that_hangs_is_ended_when_its_time_is_over(ca, new_stack):
    stack = new_stack(settings={"certbot.timeout": "10s"})
    program, mark = put_hanging_certbot(stack), ca.log.mark()
    stack.start()
    certbot = wait_for_certbot(stack)
    kill_daemon(stack)
    program.unlink()
    program.symlink_to(shutil.which("certbot", path="/usr/bin"))
    wait_for_failure(stack, rf"process {certbot.pid}: not finished within 10000 ms")
    assert not is_alive(certbot.pid)
    assert_one_order(ca, stack, mark)


# What belongs to something else


def test_certbot_for_another_ca_is_ended(ca, new_ca, new_stack):
    stack, other = new_stack(), new_ca()
    other.point(stack.domain, stack.address)
    put_hanging_certbot(stack)
    stack.start()
    certbot = wait_for_certbot(stack)
    del stack.settings["certbot.path"]
    stack.settings |= {"acme.directory": other.directory, "acme.ca_bundle": other.bundle}
    stack.config.write_text(yaml_of(stack.settings))
    mark = ca.log.mark()
    kill_daemon(stack)
    stack.log.wait_for("and of no use now, is still at work")
    stack.log.wait_for("INFO - certificate obtained")
    assert not is_alive(certbot.pid)
    assert other.orders() == 1 and ca.orders(mark) == 0
    stack.log.wait_for("HTTPS serves")
    assert_nothing_left(stack)


@pytest.mark.parametrize("change", ["pid", "started", "chain", "record", "owner"])
def test_what_was_tampered_with_is_not_believed(ca, stack, change):
    mark = ca.log.mark()
    stack.start()
    freeze_daemon_until_certbot_has_ended(stack, ca, mark)
    folder = work_folder(stack)
    record, chain = folder / "run.json", folder / "out/fullchain.pem"
    if change == "pid":  # it lives, and is another process
        record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": os.getpid()}))
    elif change == "started":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"started": 1}))
    elif change == "chain":
        chain.write_text(pki.Authority().issue(stack.domain, pki.new_key()))
    elif change == "record":
        record.write_text("{")
    else:
        folder.chmod(0o770)
    kill_daemon(stack)
    leaf = stack.wait_until_settled()
    # The number of a process that has ended may well be that of another one by now.
    believed = change in ("pid", "started")
    assert ca.orders(mark) == ca.issued(mark) == (1 if believed else 2)
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert_nothing_left(stack)
