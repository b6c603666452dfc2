"""What goes wrong while a certificate is deployed, and who else is at work.

The exit code and the one line are right each time, and served leaf, last event and disk are one.
"""

import json
import os
import re
import signal

import pki
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from deploying import begin, deploy, end, refused, served, start_daemon, stop_daemon
from loopback import wait_until
from rotation import (
    SETTLED,
    LeafWatch,
    Rotation,
    assert_at_rest,
    assert_measured,
    serve,
    wait_until_nothing_is_pending,
)
from stack import yaml_of
from test_control import control_of, send
from test_failures import needs_root, put_due_pair
from test_kill_at_steps import STEPS, Story, is_leaf
from test_resilience import KILLED, kill_nginx


class Files:
    """Chains of one authority and their key, as files."""

    def __init__(self, stack, folder, key=None):
        self.authority, self._folder, self._domain = pki.Authority(), folder, stack.domain
        self.key, self._number = key or stack.tls_key, 0

    def make(self, key=None, **dates):
        """The leaf, and how `deploy` is told of it."""
        self._number += 1
        chain = self.authority.issue(self._domain, key or self.key, **dates)
        paths = [self._folder / f"{self._number}{name}.pem" for name in ("", "-key")]
        paths[0].write_text(chain)
        paths[1].write_text(pki.key_pem(key or self.key))
        return pki.read_chain(chain)[0], ["--fullchain", paths[0], "--key", paths[1]]


def requested(stack):
    return json.loads(send(stack, "GET", "/v1/status", None)[2])["requests"].get("deploy", {})


def external_stack(new_stack, **settings):
    return new_stack(settings={"tls.key": "external"} | settings)


# Others are at work


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "no daemon"])
def test_many_at_once_come_one_after_the_other(stack, tmp_path, with_daemon):
    Rotation(stack)
    serve(stack)
    if not with_daemon:
        stop_daemon(stack)
    files = Files(stack, tmp_path)
    leaves, arguments = zip(*(files.make(start=-pki.DAY + n * pki.MINUTE) for n in range(4)))
    for process, leaf in [(begin(stack, *one), leaf) for one, leaf in zip(arguments, leaves)]:
        code, output, complaints = end(process)
        print(code, output, complaints)
        if code == 0:
            assert pki.sha256(leaf) in output[0]
        else:
            assert leaf != leaves[-1] and code == 1 and output == []
            assert re.search("older than the one|another certificate has taken", complaints[-1])
    assert_at_rest(stack, leaves[-1])
    if not with_daemon:
        mark = stack.log.mark()
        start_daemon(stack)
        stack.log.wait_for(SETTLED, since=mark)
        assert_at_rest(stack, leaves[-1])


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "no daemon"])
def test_the_same_several_times_at_once_is_served_once(stack, tmp_path, with_daemon):
    rotation = Rotation(stack)
    serve(stack)
    if not with_daemon:
        stop_daemon(stack)
    leaf, arguments = Files(stack, tmp_path).make()
    for process in [begin(stack, *arguments) for _ in range(3)]:
        code, output, complaints = end(process)
        assert code == 0 and pki.sha256(leaf) in output[0], complaints
    assert_at_rest(stack, leaf)
    assert_measured(stack, [*rotation.names, pki.sha256(leaf)])
    start_daemon(stack)


def test_order_that_is_at_work_comes_first(new_ca, new_stack, tmp_path):
    """What it brings is older or younger than what was deployed meanwhile: the younger one stays."""
    ca = new_ca()
    stack = new_stack(ca, variables={"LOG_LEVEL": "debug"})
    put_due_pair(stack)
    files, mark = Files(stack, tmp_path), ca.log.mark()
    younger, arguments = files.make(start=4 * pki.MINUTE)
    ca.pause()
    serve(stack)
    stack.log.wait_for("issue: find account: begins")
    process = begin(stack, *arguments)
    wait_until(lambda: requested(stack).get("state") == "waiting", "it waits")
    assert requested(stack)["text"] == "an order is at work"
    ca.resume()
    code, output, _ = end(process)
    assert code == 0 and pki.sha256(younger) in output[0]
    assert_at_rest(stack, younger)
    assert ca.issued(mark) == 1 and len(stack.agent.measured()) == 3


def test_apply_that_is_at_work_comes_first(stack, tmp_path):
    rotation = Rotation(stack)
    serve(stack)
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    rotation.put()
    assert stack.agent.wait(method="EmitEvent", count=2)
    leaf, arguments = Files(stack, tmp_path).make()
    process = begin(stack, *arguments)
    wait_until(lambda: requested(stack).get("state") == "waiting", "it waits")
    stack.agent.clear(fault=fault)
    code, output, complaints = end(process)
    assert code == 0 and pki.sha256(leaf) in output[0], complaints
    assert_at_rest(stack, leaf)
    assert stack.agent.measured()[-1] == pki.sha256(leaf)


def test_renewal_that_is_forced_meanwhile_is_ordered_all_the_same(stack, tmp_path):
    Rotation(stack)
    serve(stack)
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    deployed, arguments = Files(stack, tmp_path).make()
    process = begin(stack, *arguments)
    assert stack.agent.wait(method="EmitEvent", count=2)
    assert send(stack, "POST", "/v1/renew", '{"force": true}')[0] == 202
    stack.agent.clear(fault=fault)
    code, output, complaints = end(process)
    assert code == 0 and pki.sha256(deployed) in output[0], complaints
    wait_until(lambda: stack.status()["requests"]["renew"]["state"] == "done", "it is done", 60)
    assert stack.ledger_outcomes() == ["issued"]
    assert stack.status()["requests"]["renew"]["text"].startswith(
        f"HTTPS serves leaf {pki.sha256(stack.served_leaf())}"
    )
    assert stack.served_leaf() != deployed


@pytest.mark.parametrize("key", ["derived", "external"])
def test_other_settings_meanwhile_lose_nothing(new_stack, tmp_path, key):
    """The next life of the daemon goes on with it."""
    stack = new_stack(settings={"tls.key": key})
    keys = [stack.tls_key] * 2 if key == "derived" else [pki.new_key(), pki.new_key()]
    rotation = Rotation(stack, keys[0])
    serve(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    leaf, arguments = Files(stack, tmp_path, keys[1]).make()
    process = begin(stack, *arguments)
    wait_until(lambda: "internal error" in requested(stack).get("text", ""), "it is tried")
    mark = stack.log.mark()
    os.kill(stack.daemon().pid, signal.SIGHUP)
    stack.log.wait_for("with other settings", since=mark)
    stack.agent.clear(fault=fault)
    code, output, complaints = end(process)
    assert code == 0 and pki.sha256(leaf) in output[0], complaints
    assert_at_rest(stack, leaf, keys[1])
    assert_measured(stack, [*rotation.names, pki.sha256(leaf)])


# What is missing: the agent


@pytest.mark.parametrize("measurement", ["required", "best-effort"])
def test_attested_leaf_stays_while_no_event_can_be_made(new_stack, tmp_path, measurement):
    stack = new_stack(settings={"measurement": measurement})
    rotation = Rotation(stack)
    old = serve(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    leaf, arguments = Files(stack, tmp_path).make()
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        found = refused(stack, *arguments, "--timeout", 2)
        assert re.search("measure: .*internal error.*; it is kept, and tried again in", found)
        assert watch.seen == [old]
        stack.agent.clear(fault=fault)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(leaf)
    assert_at_rest(stack, leaf)
    assert_measured(stack, [*rotation.names, pki.sha256(leaf)])


def test_first_leaf_waits_for_its_event_where_that_is_required(new_stack, tmp_path):
    stack = external_stack(new_stack, measurement="required")
    stack.start().wait_for_http()
    stack.log.wait_for("no usable pair is stored")
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    files = Files(stack, tmp_path, pki.new_key())
    leaf, arguments = files.make()
    assert "; it is kept, and tried again in" in refused(stack, *arguments, "--timeout", 2)
    assert stack.served_leaf() is None
    stack.agent.clear(fault=fault)
    stack.log.wait_for(SETTLED)
    assert_at_rest(stack, leaf, files.key)


def test_first_leaf_is_served_without_an_event_where_that_is_allowed(new_stack, tmp_path):
    stack = external_stack(new_stack)
    stack.start().wait_for_http()
    stack.log.wait_for("no usable pair is stored")
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    files = Files(stack, tmp_path, pki.new_key())
    leaf, arguments = files.make()
    line, _ = served(stack, leaf, *arguments)
    assert "NOT attested: " in line and "internal error" in line
    assert stack.served_leaf() == leaf == stack.stored_chain()[0]
    mark = stack.log.mark()
    stack.agent.clear(fault=fault)
    stack.log.wait_for("certificate event emitted", 60, since=mark)
    wait_until(lambda: stack.agent.measured() == [pki.sha256(leaf)], "it is measured")


def test_agent_that_is_gone_leaves_nothing_to_do_without_a_daemon(stack, tmp_path):
    rotation = Rotation(stack)
    old = serve(stack)
    stop_daemon(stack)
    stack.agent.stop()
    _, arguments = Files(stack, tmp_path).make()
    code, output, complaints = deploy(stack, *arguments, "--timeout", 2)
    assert (code, output) == (1, [])
    assert "given up, the time is over: the keys are not at hand yet" in complaints[-1]
    assert stack.served_leaf() == old
    stack.agent.start()
    mark = stack.log.mark()
    start_daemon(stack)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, old)
    assert_measured(stack, rotation.names)


# What is missing: nginx, and room on the disk


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "no daemon"])
@pytest.mark.parametrize("key", ["derived", "external"])
def test_without_nginx_it_is_kept_until_there_is_one(new_stack, tmp_path, with_daemon, key):
    """Nothing is measured that nobody serves. The next start takes it, with its key."""
    stack = new_stack(settings={"tls.key": key})
    own_key = stack.tls_key if key == "derived" else pki.new_key()
    rotation = Rotation(stack, own_key)
    old = serve(stack)
    next_key = stack.tls_key if key == "derived" else pki.new_key()
    files = Files(stack, tmp_path, next_key)
    leaf, arguments = files.make(life=91 * pki.DAY)
    if with_daemon:
        os.kill(stack.pid, signal.SIGSTOP)
    else:
        stop_daemon(stack)
    kill_nginx(stack)
    stack.expected_trouble = KILLED + "|exited: cert-manager .*not expected"
    code, output, complaints = deploy(stack, *arguments, "--timeout", 1)
    assert (code, output) == (1, [])
    again = "in " if with_daemon else "when the daemon runs"
    assert re.search(f"wait for nginx: .*; it is kept, and tried again {again}", complaints[-1])
    assert len(complaints) == 1 or not with_daemon
    assert stack.stored_chain()[0] == old
    assert_measured(stack, rotation.names)
    start_daemon(stack)
    wait_until(lambda: stack.served_leaf() == leaf, "it is served", 60)
    wait_until_nothing_is_pending(stack)
    assert_at_rest(stack, leaf, next_key)


@needs_root
def test_full_disk_is_told_and_what_is_served_stays(new_stack, tmp_path):
    stack = new_stack(volume="size=1m")
    rotation = Rotation(stack)
    old = serve(stack)
    leaf, arguments = Files(stack, tmp_path).make()
    filler = stack.tls / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"x" * 4096)
    mark = stack.log.mark()
    found = refused(stack, *arguments, "--timeout", 1)
    assert re.search("No space left.*; it is kept, and tried again in", found), found
    assert_at_rest(stack, old)
    filler.unlink()
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, leaf)
    assert_measured(stack, [*rotation.names, pki.sha256(leaf)])


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "no daemon"])
def test_leaf_that_no_client_takes_is_taken_back(new_stack, tmp_path, with_daemon):
    """TLS 1.3 has no signatures with keys of this curve. nginx does not mind, until somebody comes."""
    stack = external_stack(new_stack)
    own_key = pki.new_key()
    rotation = Rotation(stack, own_key)
    old = serve(stack)
    if not with_daemon:
        stop_daemon(stack)
    leaf, arguments = Files(stack, tmp_path).make(ec.generate_private_key(ec.SECP256K1()))
    code, output, complaints = deploy(stack, *arguments)
    assert (code, output) == (1, [])
    assert re.search(
        "probe: .*the former certificate is served again; it is kept, and tried again",
        complaints[-1],
    )
    assert_at_rest(stack, old, own_key)
    assert_measured(stack, [*rotation.names, pki.sha256(leaf), *rotation.names])
    # Another one takes its place.
    better, arguments = Files(stack, tmp_path).make(pki.new_key())
    code, output, complaints = deploy(stack, *arguments)
    assert code == 0, complaints
    assert stack.served_leaf() == better
    start_daemon(stack)


# Somebody is killed


MOMENTS = [f"{step}: begins" for step in STEPS if re.match("apply: (?!wait before)", step)]


@pytest.mark.parametrize("moment", [*MOMENTS, "apply: commit: ended"])
def test_daemon_that_is_killed_meanwhile(stack, tmp_path, moment):
    """The command goes on until it is served: by the next daemon, or without one."""
    Rotation(stack, start=-2 * pki.DAY)
    story = Story(stack, moment, power_cut=False, after="a certificate was deployed")
    serve(stack)
    leaf, arguments = Files(stack, tmp_path).make()
    process = begin(stack, *arguments)
    story.tell_until_killed()
    story.go_on()
    code, output, complaints = end(process)
    assert code == 0 and pki.sha256(leaf) in output[0], complaints
    story.assert_ends_well(is_leaf(pki.sha256(leaf)), 30, has_account=False)


def test_command_that_does_it_has_no_settings_to_read_again(stack, tmp_path):
    Rotation(stack)
    serve(stack)
    stop_daemon(stack)
    leaf, arguments = Files(stack, tmp_path).make()
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    process = begin(stack, *arguments)
    assert stack.agent.wait(method="EmitEvent", count=2)
    process.send_signal(signal.SIGHUP)
    stack.agent.clear(fault=fault)
    code, output, complaints = end(process)
    assert code == 0 and pki.sha256(leaf) in output[0], complaints
    assert_at_rest(stack, leaf)
    start_daemon(stack)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
def test_command_that_is_ended_while_it_measures_leaves_the_rest_to_the_daemon(
    stack, tmp_path, number
):
    Rotation(stack)
    serve(stack)
    stop_daemon(stack)
    leaf, arguments = Files(stack, tmp_path).make()
    fault = stack.agent.fault(preset="late-answer", method="EmitEvent")
    process = begin(stack, *arguments)
    assert stack.agent.wait(method="EmitEvent", count=2)
    wait_until(lambda: stack.agent.measured()[-1] == pki.sha256(leaf), "it is measured")
    process.send_signal(number)
    code, output, complaints = end(process)
    assert output == [] and code == (1 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert complaints[-1] == "cert-manager deploy: stopped before it was served"
    stack.agent.clear(fault=fault)
    mark = stack.log.mark()
    start_daemon(stack)
    stack.log.wait_for(SETTLED, since=mark)
    wait_until(lambda: stack.served_leaf() == leaf, "the one that was measured is served")
    stack.log.wait_for("the next renewal is due", since=mark)
    assert_at_rest(stack, leaf)


# Another place


def test_settings_of_another_place_do_not_disturb_a_daemon(stack, tmp_path):
    """Another run_dir, and the TLS folder of a daemon that is at work."""
    rotation = Rotation(stack)
    old = serve(stack)
    other = tmp_path / "other.yaml"
    other.write_text(yaml_of(stack.settings | {"run_dir": tmp_path / "run"}))
    leaf, arguments = Files(stack, tmp_path).make()
    with LeafWatch(stack) as watch:
        found = refused(stack, *arguments, "--config", other, "--timeout", 2)
        assert "another cert-manager" in found, found
    assert watch.seen == [old]
    assert_at_rest(stack, old)
    assert_measured(stack, rotation.names)
    served(stack, leaf, *arguments)
    assert_at_rest(stack, leaf)


# What is said over the socket


def test_socket_refuses_what_is_no_certificate(stack, tmp_path):
    Rotation(stack)
    leaf = serve(stack)
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    key = pki.key_pem(pki.new_key())

    def look(status, why, body):
        text = body if isinstance(body, str) else json.dumps(body)
        found, _, answer = send(stack, "POST", "/v1/deploy", text)
        assert found == status and re.search(why, answer), (found, answer)
        assert not any(line in answer for line in key.splitlines()[1:3])

    look(400, "no JSON from line 1", "")
    look(400, "no JSON from line 1", "{" + key)
    look(400, "no JSON", '{"fullchain": "a", "fullchain": "b"}')
    look(400, "expected", [])
    look(400, "expected", {"fullchain": 1})
    look(400, "expected", {"key": key})
    look(400, "expected", {"fullchain": chain, "key": None})
    look(400, "expected", {"fullchain": chain, "timeout_s": -1})
    look(400, "expected", {"fullchain": chain, "timeout_s": 1e9})
    look(422, "empty", {"fullchain": ""})
    look(422, "no certificate", {"fullchain": "x" * 100_000})
    look(422, "PRIVATE KEY", {"fullchain": key})
    look(422, "does not belong", {"fullchain": chain, "key": key})
    look(422, "private key: more than", {"fullchain": chain, "key": "x" * 20_000})
    look(413, "", "x" * 300_000)
    assert send(stack, "GET", "/v1/deploy", None)[0] == 405
    assert_at_rest(stack, leaf)


def test_key_is_in_no_log_and_no_status(new_stack, tmp_path):
    stack = external_stack(new_stack)
    stack.variables["LOG_LEVEL"] = "debug"
    stack.start().wait_for_http()
    stack.log.wait_for("no usable pair is stored")
    files = Files(stack, tmp_path, pki.new_key())
    leaf, arguments = files.make()
    line, complaints = served(stack, leaf, *arguments)
    status = send(stack, "GET", "/v1/status", None)[2]
    said = stack.log.text() + status + line + "".join(complaints)
    assert not any(part in said for part in pki.key_pem(files.key).splitlines()[1:3])
