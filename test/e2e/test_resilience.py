"""What must not follow from a fault: orders without end, a port that stays dead, a false line.

Where test_failures.py shows that a cause is told and that the program recovers, this file shows
what the faults cost meanwhile: at the CA, in the event log, and on both ports.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time

import pki
import pytest
from loopback import wait_until
from test_failures import (
    STARTING,
    assert_recovers,
    assert_waiting,
    needs_root,
    put_due_pair,
    wait_for_failure,
)

STOP_LIMIT_S = 8  # docker stop gives 10
SOON_S = 20  # well before the next look that is taken every minute
# Workers of a master that was killed give its ports back a moment later; nginx tries again until then.
KILLED = (
    r"exited: (nginx|cert-manager) \(terminated by SIGKILL; not expected\)"
    r"|\[emerg\].* bind\(\) to .* failed \(98: Address already in use\)"
)


def put_good_pair(stack):
    """A pair that is served, and not due for renewal."""
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    return stack.stored_chain()[0]


def kill(stack, *processes):
    stack.expected_trouble = KILLED
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # workers of before end by themselves
            os.kill(process.pid, signal.SIGKILL)


def kill_nginx(stack):
    """The master and its workers, at once."""
    kill(stack, stack.nginx_master(), *stack.nginx_workers())


def wait_for_another_master(stack, old):
    def look():
        master = stack.nginx_master()
        return master if master and master.pid != old.pid else None

    return wait_until(look, "a new nginx runs")


def wait_for_answer(stack, status):
    """Port 80 answers that; until its nginx is up it may refuse."""

    def look():
        try:
            return stack.http_get("/any").status == status
        except OSError:
            return False

    wait_until(look, f"port 80 answers {status}")


# Orders


def test_configuration_that_nginx_refuses_costs_one_order(ca, new_stack):
    stack = new_stack(variables={"EXTRA_LOCATIONS": "location /x { return 200"})
    mark = ca.log.mark()
    for _ in range(3):
        start = stack.log.mark()
        leaf = stack.start().wait_for_https()
        assert stack.https_get("/x").status == 503
        stack.log.wait_for("ERROR - nginx has a reduced configuration: ", since=start)
        stack.stop()
    stack.variables["EXTRA_LOCATIONS"] = "location /x { return 200; }"
    assert stack.start().wait_until_settled() == leaf == stack.stored_chain()[0]
    assert stack.https_get("/x").status == 200
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 1


def test_certificate_that_is_due_at_once_is_not_renewed_at_once(new_stack):
    """As with a clock that is far ahead of the CA's. The program in certbot's place gives what
    such a clock finds, so that it counts no order of a real CA against anybody."""
    stack = new_stack()
    due, runs, program = (stack.root / name for name in ("due.pem", "runs", "certbot"))
    due.write_text(pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY))
    runs.touch()
    runs.chmod(0o666)
    program.write_text(
        '#!/bin/sh\n[ "$1" != --version ] || exit 0\n'
        f"echo run >> {runs}\n"
        'while [ "$1" != --fullchain-path ]; do shift; done\n'
        f'cat {due} > "$2"\n'
    )
    for file in (due, program):
        file.chmod(0o755)
    stack.settings["certbot.path"] = program
    stack.start().wait_until_settled()
    stack.log.wait_for("WARNING - the new certificate is due for renewal already.*clock")
    stack.log.wait_for("the certificate expires on .*; after a pause")
    assert runs.read_text() == "run\n"


def test_certificate_that_has_expired_on_arrival_is_ordered_once(new_ca, new_stack):
    ca = new_ca(validity_s=1)
    stack = new_stack(ca, settings={"acme.retry_max": "1h"})
    stack.start()
    wait_for_failure(stack, "the chain that the CA issued cannot be used: .* was valid until")
    assert_waiting(stack)
    assert ca.orders() == 1 and stack.agent.measured() == []


@pytest.mark.parametrize("url", ["of nobody", "of another key", "of no kind"])
def test_wrong_url_in_the_remembered_account(ca, new_stack, url):
    other, stack = new_stack(), new_stack()
    stack.start().wait_until_settled()
    stack.stop()
    memory = stack.state / "account.json"
    remembered = json.loads(memory.read_text())
    record = remembered["accounts"][0]
    right = record["url"]
    if url == "of another key":
        other.start()
        record["url"] = other.log.wait_for(r"ACME account (\S+)")[1]
        other.stop()
    else:
        record["url"] = f"{right}00" if url == "of nobody" else "nonsense"
    memory.write_text(json.dumps(remembered))
    for file in (stack.chain_file, stack.key_file):
        file.unlink()
    mark, log_mark = ca.log.mark(), stack.log.mark()
    leaf = stack.start().wait_until_settled()
    assert pki.same_key(leaf, stack.tls_key) and leaf == stack.stored_chain()[0]
    assert ca.issued(mark) == 1 and ca.accounts(mark) == 0
    # It is not sealed with our key, so nobody is told of it.
    stack.log.wait_for(r"ACME account \S+ \(found by its key\)", since=log_mark)
    assert stack.log.find(r"ACME account at \S+: (\S+)", log_mark)[1] == right
    assert json.loads(memory.read_text())["accounts"][0]["url"] == right


# The HTTPS port


def test_held_https_port_is_told_and_taken_when_it_is_free(ca, stack):
    stack.expected_trouble = r"bind\(\) to .* failed|still could not bind"
    mark = ca.log.mark()
    with socket.create_server(stack.https):
        stack.start()
        wait_for_failure(stack, "reload nginx: nginx was asked to reload, but did not")
        assert not stack.log.find("HTTPS serves")
        answer = stack.http_get("/any")
        assert (answer.status, answer.body) == (503, STARTING)
        daemon, master = stack.daemon(), stack.nginx_master()
    leaf = stack.wait_until_settled()
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 1
    assert (stack.daemon().pid, stack.nginx_master().pid) == (daemon.pid, master.pid)


# nginx


def test_killed_nginx_comes_back_in_spite_of_spoilt_settings(ca, stack):
    leaf, mark, master = stack.start().wait_until_settled(), ca.log.mark(), stack.nginx_master()
    stack.config.write_text("acme: [\n")
    kill_nginx(stack)
    wait_for_another_master(stack, master)
    stack.log.wait_for("ERROR - prestart: .* starts with the configuration of before")
    assert stack.wait_for_https() == leaf
    wait_for_answer(stack, 301)
    assert ca.orders(mark) == 0 and stack.agent.measured() == [pki.sha256(leaf)]


def test_killed_daemon_stays_down_with_spoilt_settings_and_nginx_goes_on(stack):
    leaf, master, mark = stack.start().wait_until_settled(), stack.nginx_master(), stack.log.mark()
    stack.config.write_text("acme: [\n")
    kill(stack, stack.daemon())
    stack.log.wait_for(r"exited: cert-manager \(exit status 78; ", since=mark)
    # supervisord's word for a program that it leaves alone.
    stack.log.wait_for(r"exited: cert-manager \(exit status 78; expected\)", since=mark)
    assert len(stack.log.find_all(f" - FATAL - {re.escape(str(stack.config))}:", mark)) == 1
    assert not stack.daemon()
    assert stack.served_leaf() == leaf and stack.http_get().status == 301
    assert stack.nginx_master().pid == master.pid


def test_killed_master_of_nginx_leaves_no_workers_at_the_ports(ca, stack):
    leaf, orders = stack.start().wait_until_settled(), ca.log.mark()
    master, workers = stack.nginx_master(), stack.nginx_workers()
    kill(stack, master)
    wait_for_another_master(stack, master)
    old = {worker.pid for worker in workers}
    wait_until(
        lambda: not old & {worker.pid for worker in stack.nginx_workers()}, "old workers quit"
    )
    wait_for_answer(stack, 301)
    assert stack.wait_for_https() == leaf
    assert ca.orders(orders) == 0 and stack.agent.measured() == [pki.sha256(leaf)]


@pytest.mark.parametrize("spoilt", ["no cert.pem", "no key.pem", "another key.pem"])
def test_spoilt_pair_does_not_keep_killed_nginx_down(ca, stack, spoilt):
    # A pair that is due, and renewals that fail before they cost anything: the daemon looks around
    # whenever it tries again, and not only once in a minute.
    leaf, orders = put_due_pair(stack), ca.log.mark()
    stack.agent.fault(preset="server-error", method="GetKey", skip=3)
    assert stack.start().wait_until_settled() == leaf
    if spoilt == "another key.pem":
        stack.put("key.pem", pki.key_pem(pki.new_key()), 0o600)
    else:
        (stack.tls / spoilt.split()[1]).unlink()
    mark = stack.log.mark()
    kill_nginx(stack)
    stack.log.wait_for("ERROR - prestart: HTTPS is off until", since=mark)
    stack.wait_for_http()
    stack.log.wait_for("WARNING - .*default.conf is not the one that was installed", since=mark)
    assert stack.wait_until_settled(mark) == leaf == stack.stored_chain()[0]
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
    assert ca.orders(orders) == 0 and stack.agent.measured() == [pki.sha256(leaf)]


def test_foreign_pair_is_not_served_by_an_nginx_that_is_started_again(stack):
    leaf = stack.start().wait_until_settled()
    key = pki.new_key()
    foreign = pki.Authority().issue(stack.domain, key)
    stack.put("cert.pem", foreign)
    stack.put("key.pem", pki.key_pem(key), 0o600)
    mark = stack.log.mark()
    kill_nginx(stack)
    stack.log.wait_for("ERROR - prestart: HTTPS is off until .*another one than nginx", since=mark)
    assert stack.wait_until_settled(mark) == leaf == stack.stored_chain()[0]
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
    assert stack.agent.measured() == [pki.sha256(leaf)]


# The volume and other places that somebody else can write


@needs_root
def test_forced_removal_that_cannot_be_remembered_does_not_act(ca, new_stack):
    stack = new_stack(volume="size=4m,ro", variables={"FORCE_RM_CERT_FILES": "true"})
    leaf, mark = put_good_pair(stack), ca.log.mark()
    assert stack.start().wait_until_settled() == leaf
    stack.log.wait_for("WARNING - FORCE_RM_CERT_FILES cannot act.*Read-only")
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 0


@needs_root
def test_file_of_somebody_else_in_place_of_certbots_folder(stack):
    stack.shared_memory.write_text("not a folder")
    shutil.chown(stack.shared_memory, "nobody")
    stack.start()
    assert_recovers(stack)


def snapshot(folder):
    """Modes, owners and contents of a folder and of what is in it."""
    paths = [folder, *sorted(folder.rglob("*"))]
    facts = [(path.name, path.stat()) for path in paths]
    return (
        [(name, status.st_mode, status.st_uid, status.st_gid) for name, status in facts],
        [path.read_bytes() for path in paths if path.is_file()],
    )


def make_victim(folder):
    folder.mkdir()
    (folder / "promotion").write_text("")  # a name that the state folder uses, too
    (folder / "staged-cert.pem").write_text("content")
    (folder / "staged-key.pem").write_text("content")
    folder.chmod(0o751)
    return folder


def test_link_in_place_of_the_state_folder(ca, stack, tmp_path):
    victim = make_victim(tmp_path / "victim")
    before, mark = snapshot(victim), ca.log.mark()
    stack.state.symlink_to(victim)
    stack.start().wait_for_http()
    wait_for_failure(stack, f"{re.escape(str(stack.state))}.*not a folder")
    assert_waiting(stack)
    assert snapshot(victim) == before and ca.orders(mark) == 0
    stack.state.unlink()
    assert_recovers(stack)
    assert snapshot(victim) == before


@pytest.mark.parametrize("link", [".well-known", ".well-known/acme-challenge"])
def test_link_in_place_of_the_challenge_folder(ca, stack, tmp_path, link):
    victim = make_victim(tmp_path / "victim")
    before, mark = snapshot(victim), ca.log.mark()
    path = stack.folder["webroot"] / link

    def put_link():
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(victim)

    stack.alter_image = put_link
    stack.start().wait_for_http()
    wait_for_failure(stack, f"{re.escape(str(path))}.*not a folder")
    assert_waiting(stack)
    assert snapshot(victim) == before and ca.orders(mark) == 0
    path.unlink()
    assert_recovers(stack)
    assert snapshot(victim) == before


# The guest agent


def test_agent_slow_to_emit_is_not_asked_again_meanwhile(stack):
    """Calls of EmitEvent that overlap in the agent can spoil every later quote."""
    leaf = put_good_pair(stack)
    stack.settings["agent.timeout"] = "500ms"
    stack.agent.fault(method="EmitEvent", delay_s=2)
    assert stack.start().wait_until_settled() == leaf
    assert stack.agent.state()["emit_peak_abandoned"] == 1
    assert stack.agent.measured() == [pki.sha256(leaf)]


def test_event_that_an_agent_says_to_have_made_and_has_not(stack):
    """Found out soon, also by a log that is not shown in the first moments, and made good."""
    leaf = put_good_pair(stack)
    stack.agent.fault(preset="emit-ignored", times=1)
    unseen = stack.agent.fault(preset="unavailable", method="Info")
    assert stack.start().wait_until_settled() == leaf
    assert stack.agent.measured() == []
    stack.agent.forget()
    assert stack.agent.wait(method="Info", answered=True)
    stack.agent.clear(fault=unseen)
    wait_until(lambda: stack.agent.measured() == [pki.sha256(leaf)], "it is measured", SOON_S)
    wait_until(lambda: stack.status()["measurement"]["attested"], "the status tells it")


def test_event_that_comes_about_after_it_was_given_up_is_not_emitted_twice(stack):
    leaf = put_good_pair(stack)
    stack.settings["agent.timeout"] = "100ms"
    stack.agent.fault(preset="hang", method="EmitEvent", times=1)
    stack.start()
    wait_for_failure(stack, "EmitEvent")
    assert stack.agent.measured() == [] and stack.served_leaf() is None
    stack.agent.clear()  # now the agent does what it was asked for
    assert stack.wait_until_settled() == leaf
    assert stack.agent.state()["emit_peak_abandoned"] == 1
    assert stack.agent.measured() == [pki.sha256(leaf)]


# The end


@pytest.mark.parametrize(
    "moment", ["getting keys", "asking the CA", "in an order", "emitting", "reloading"]
)
def test_stop_at_any_moment_of_an_issuance_is_quick(ca, stack, moment):
    if moment in ("emitting", "reloading"):
        put_good_pair(stack)
    method = {"getting keys": "GetKey", "emitting": "EmitEvent"}.get(moment)
    if method:
        stack.agent.fault(preset="hang", method=method)
    with socket.create_server(stack.https) as holder:
        if moment != "reloading":
            holder.close()
        stack.expected_trouble = r"bind\(\) to .* failed|still could not bind"
        mark = ca.log.mark()
        stack.start().wait_for_http()
        if method:
            assert stack.agent.wait(method=method)
        elif moment == "asking the CA":
            ca.log.wait_for("GET /dir|POST /sign-me-up", since=mark)
        elif moment == "in an order":
            ca.log.wait_for("Added order", since=mark)
        else:
            stack.log.wait_for(r"\[emerg\] .* bind\(\) to")
        start = time.monotonic()
        stack.stop()
        assert time.monotonic() - start < STOP_LIMIT_S
    stack.agent.clear()
    leaf = stack.start().wait_until_settled()
    assert stack.agent.measured()[-1:] == [pki.sha256(leaf)]
