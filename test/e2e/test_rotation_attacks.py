"""Two or more things go wrong one after the other, while certificates come and go.

Whatever they are: within seconds the leaf that new connections get is the one that the last
certificate event names, nothing is ordered twice, and no event is made that is not needed.
"""

import os
import shutil
import signal
import subprocess

import pki
import pytest
from loopback import wait_until
from preload import preload
from processes import environment
from rotation import (
    SETTLED,
    LeafWatch,
    Rotation,
    assert_adds_up,
    assert_at_rest,
    assert_measured,
    replace,
    serve,
    without_repeats,
)
from stack import PROGRAM
from test_apply_failures import (
    assert_advances,
    folder_in_the_way,
    full_volume,
    stopped,
    workers_file,
)
from test_failures import needs_root, put_due_pair, wait_for_failure
from test_kill_at_steps import AT_REST, Certbot, is_leaf
from test_replaced_pair import assert_refused, files, fixture_external, put_pair  # noqa: F401
from test_resilience import KILLED, kill, kill_nginx

OTHER_LEAF = "ab" * 32


def assert_comes_to_rest(stack, leaf, key=None):
    stack.wait_for_leaf(lambda served: served == leaf, "the leaf is served")

    def is_committed():
        return not [*stack.state.glob("intent.json"), *stack.state.glob("previous-*.pem")]

    wait_until(is_committed, "nothing is pending")
    assert_at_rest(stack, leaf, key)


def wait_until_agreed(stack, leaf):
    """Without the disk, which may be in trouble."""

    def look():
        return stack.served_leaf() == leaf and stack.agent.measured()[-1:] == [pki.sha256(leaf)]

    wait_until(look, "the leaf is served, and is the one that was measured last")


def remove(folder):
    """At once, whoever writes there."""
    aside = folder.with_name(f"{folder.name}.removed")
    folder.rename(aside)
    shutil.rmtree(aside)


# Events of others, and what others have nginx do


def emit_elsewhere(stack, payload):
    """Another program of the machine makes a certificate event."""
    stack.agent.emit(event="New TLS Certificate", payload=payload.encode().hex())


@pytest.mark.parametrize("payload", [OTHER_LEAF, "nonsense"], ids=["another leaf", "no leaf"])
def test_event_of_another_program_and_an_nginx_that_is_started_again(stack, payload):
    """A last event that names nothing is as fatal to verifiers as one that names another leaf."""
    rotation = Rotation(stack)
    leaf = serve(stack)
    emit_elsewhere(stack, payload)
    stack.expected_trouble = KILLED
    kill_nginx(stack)
    wait_until_agreed(stack, leaf)
    assert_comes_to_rest(stack, leaf)
    assert stack.agent.measured() == [*rotation.names, payload, *rotation.names]


def make_time_pass(stack):
    """A function: two minutes go by in no time, for a daemon whose log tells of challenge files."""
    stack.variables["LOG_LEVEL"] = "debug"
    preload(stack, "clock_jump", JUMP_AT="challenge file jump")

    def jump():
        # Time that goes by during the look that follows each start is not between two looks.
        stack.log.wait_for("look: finished")
        (stack.folder["webroot"] / ".well-known/acme-challenge/jump").touch()

    return jump


@pytest.mark.parametrize("event", ["another leaf", "no leaf", "none any more"])
def test_event_log_is_looked_at_now_and_then(stack, event):
    rotation, jump = Rotation(stack), make_time_pass(stack)
    leaf = serve(stack)
    mark = stack.log.mark()
    if event == "none any more":
        stack.agent.reboot()
    else:
        emit_elsewhere(stack, OTHER_LEAF if event == "another leaf" else "nonsense")
    jump()
    stack.log.wait_for("ERROR - NOT ATTESTED: ", since=mark)
    wait_until_agreed(stack, leaf)
    wait_until(lambda: stack.status()["measurement"]["attested"], "the status tells it")
    assert_adds_up(stack)
    assert stack.agent.measured().count(*rotation.names) == 1 + (event != "none any more")


def test_program_that_makes_its_own_events_again_and_again_is_not_raced(stack):
    rotation = Rotation(stack)
    serve(stack)
    emit_elsewhere(stack, "its first")
    stack.chain_file.touch()
    wait_until(lambda: stack.agent.measured()[-1] == rotation.names[0], "it is answered")
    mark = stack.log.mark()
    emit_elsewhere(stack, "its second")
    stack.chain_file.touch()
    stack.log.wait_for("ERROR - NOT ATTESTED: ", since=mark)
    wait_until(lambda: not stack.status()["measurement"]["attested"], "the status tells it")
    stack.agent.forget()
    stack.chain_file.touch()
    assert stack.agent.wait(method="Info", answered=True)
    name, first, second = rotation.names[0], "its first", "its second"
    assert stack.agent.measured() == [name, first, name, second]


def test_agent_that_takes_events_and_keeps_none_is_not_believed(stack):
    """It is asked once more, and left alone for an hour then."""
    Rotation(stack)
    jump = make_time_pass(stack)
    stack.agent.fault(preset="emit-ignored")
    serve(stack)
    stack.log.wait_for("ERROR - NOT ATTESTED: .*the agent's event log has none")
    assert stack.agent.wait(method="EmitEvent", count=2, answered=True)
    wait_until(lambda: not stack.status()["measurement"]["attested"], "the status tells it")
    stack.agent.forget()
    jump()
    assert stack.agent.wait(method="Info", answered=True)
    assert {call["method"] for call in stack.agent.log()} == {"Info"}


def test_foreign_pair_that_an_operator_has_nginx_read(stack):
    """It is refused, and has to leave nginx as well as the volume."""
    rotation = Rotation(stack)
    leaf = serve(stack)
    before, key = files(stack), pki.new_key()
    mark = stack.log.mark()
    stack.put_pair(rotation.authority.issue(stack.domain, key), key)
    os.kill(stack.nginx_master().pid, signal.SIGHUP)
    stack.wait_for_leaf(lambda served: served != leaf, "nginx has read it")
    assert_refused(stack, mark, "the private key is not the derived one", before)
    stack.log.wait_for(SETTLED, since=mark)
    assert_comes_to_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_foreign_pair_that_nginx_has_read_and_that_is_gone_again(stack):
    rotation = Rotation(stack)
    leaf = serve(stack)
    (chain, own_key), key = files(stack), pki.new_key()
    stack.put_pair(rotation.authority.issue(stack.domain, key), key)
    os.kill(stack.nginx_master().pid, signal.SIGHUP)
    stack.wait_for_leaf(lambda served: served != leaf, "nginx has read it")
    mark = stack.log.mark()
    stack.put_pair(chain, own_key)
    stack.log.wait_for(SETTLED, since=mark)
    assert_comes_to_rest(stack, leaf)
    assert_measured(stack, rotation.names)


# The folder in memory


@pytest.mark.parametrize("foreign_pair", [False, True], ids=["alone", "beside a foreign pair"])
def test_run_folder_is_removed_and_nginx_started_again(stack, foreign_pair):
    rotation = Rotation(stack)
    leaf = serve(stack)
    stack.expected_trouble = KILLED
    with LeafWatch(stack) as watch:
        remove(stack.folder["run_dir"])
        if foreign_pair:
            key = pki.new_key()
            stack.put_pair(rotation.authority.issue(stack.domain, key), key)
        mark = stack.log.mark()
        kill_nginx(stack)
        stack.log.wait_for(SETTLED, since=mark)
        watch.wait_for(leaf)
    assert set(watch.seen) <= {leaf, None}
    assert_comes_to_rest(stack, leaf)
    assert_measured(stack, rotation.names)


def test_run_folder_is_removed_and_another_certificate_comes(stack):
    rotation = Rotation(stack)
    serve(stack)
    remove(stack.folder["run_dir"])
    rotation.put()
    assert_comes_to_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)
    wait_until(stack.status, "the status is told again")


# A pair of somebody else


def test_pair_that_comes_just_before_nginx_dies_is_not_lost(external):
    """Nothing takes its place before it was judged: the volume may have the only copy of its key."""
    stack, authority = external, pki.Authority()
    first_key, second_key = pki.new_key(), pki.new_key()
    _, first = put_pair(stack, authority, first_key)
    serve(stack)
    stack.expected_trouble = KILLED
    _, second = put_pair(stack, authority, second_key)
    kill_nginx(stack)
    assert_comes_to_rest(stack, second, second_key)
    assert_measured(stack, [pki.sha256(first), pki.sha256(second)])


@needs_root
def test_pair_of_another_key_that_waits_when_a_backend_moves(new_stack, tmp_path):
    """nginx is reloaded for the backend, and must not read the pair by the way."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost backend\n")
    settings = {"tls.key": "external", "attestation.upstream": "backend:9"}
    stack = new_stack(settings=settings, binds={"/etc/hosts": hosts})
    authority, first_key, second_key = pki.Authority(), pki.new_key(), pki.new_key()
    _, first = put_pair(stack, authority, first_key)
    serve(stack)
    fault = stack.agent.fault(preset="server-error", method="EmitEvent")
    mark, second = put_pair(stack, authority, second_key)
    wait_for_failure(stack, "measure: .*the former certificate is served", mark)
    with LeafWatch(stack) as watch:
        hosts.write_text("127.0.0.1 localhost\n127.0.0.2 backend\n")
        stack.log.wait_for("upstream backend, port 9: 127.0.0.2", since=mark)
        stack.log.wait_for(r"^\[nginx\] .*\(SIGHUP\) received", since=mark)
        wait_for_failure(stack, "measure: .*the former certificate is served", stack.log.mark())
        assert watch.seen == [first]
        stack.agent.clear(fault=fault)
    assert_comes_to_rest(stack, second, second_key)
    assert_measured(stack, [pki.sha256(first), pki.sha256(second)])


def test_pair_of_another_key_that_waits_and_had_to_make_room_is_kept(external):
    stack, authority = external, pki.Authority()
    first_key, second_key = pki.new_key(), pki.new_key()
    _, first = put_pair(stack, authority, first_key)
    serve(stack)
    stack.agent.fault(preset="server-error", method="EmitEvent")
    mark, second = put_pair(stack, authority, second_key)
    wait_for_failure(stack, "measure: .*the former certificate is served", mark)
    stack.expected_trouble = KILLED
    kill_nginx(stack)
    stack.wait_for_leaf(lambda served: served == first, "the first one is served again")
    wait_until(lambda: stack.stored_chain()[0] == first, "it is put back")
    kill_daemon(stack)
    assert (stack.state / "staged-key.pem").read_text() == pki.key_pem(second_key)
    assert pki.read_chain((stack.state / "staged-cert.pem").read_text())[0] == second


# One that was obtained, and waits


def begin_renewal(stack, **agent_fault):
    """A leaf is served and due, and the event of its renewal meets a fault. The renewal's hash, the
    program in certbot's place, and the number of the fault."""
    certbot = Certbot(stack)
    put_due_pair(stack)
    (leaf,) = certbot.prepare()
    fault = stack.agent.fault(method="EmitEvent", skip=1, **agent_fault)
    stack.start()
    return leaf, certbot, fault


def kill_daemon(stack):
    """Where the log of the next one begins."""
    mark = stack.log.mark()
    kill(stack, stack.daemon())
    stack.log.wait_for("INFO - cert-manager .* for ", since=mark)
    return mark


def assert_renewed(stack, leaf, certbot, mark):
    stack.wait_for_leaf(is_leaf(leaf), "the renewal is served")
    stack.log.wait_for(AT_REST, since=mark)
    assert_comes_to_rest(stack, stack.stored_chain()[0])
    assert stack.agent.measured()[-1] == leaf and certbot.orders == 1


def test_bad_pair_beside_it_and_a_kill_cost_no_order(stack):
    leaf, certbot, fault = begin_renewal(stack, preset="server-error")
    wait_for_failure(stack, "measure: .*the former certificate is served")
    before, mark = files(stack), stack.log.mark()
    stack.put("cert.pem", "garbage")
    assert_refused(stack, mark, "cert.pem cannot be used", before)
    mark = kill_daemon(stack)
    stack.agent.clear(fault=fault)
    assert_renewed(stack, leaf, certbot, mark)
    measured = stack.agent.measured()
    assert measured == without_repeats(measured) and len(measured) == 2


def test_kill_after_the_repair_of_a_way_back_costs_no_order(stack):
    """The disk had the renewal and nothing else did, when the former one was put back over it."""
    stack.settings["agent.timeout"] = "30s"
    leaf, certbot, fault = begin_renewal(stack, preset="hang")
    assert stack.agent.wait(method="EmitEvent", count=2, timeout_s=30)
    (staged,) = stack.folder["run_dir"].glob("live-*.pem.next")
    staged.unlink()
    mark = stack.log.mark()
    with folder_in_the_way(stack.state / "previous-cert.pem"):
        stack.agent.clear(fault=fault)
        wait_for_failure(stack, "switch chain: .*the way back failed, too: restore: ", mark)
    stack.agent.fault(preset="server-error", method="EmitEvent", times=1)
    stack.log.wait_for("INFO - the former certificate is served again as it was", since=mark)
    assert_renewed(stack, leaf, certbot, kill_daemon(stack))


def test_served_leaf_stays_when_the_daemon_is_killed_beside_one_that_cannot_come_live(stack):
    stack.settings["agent.timeout"] = "30s"
    leaf, certbot, fault = begin_renewal(stack, preset="hang")
    assert stack.agent.wait(method="EmitEvent", count=2, timeout_s=30)
    mark = stack.log.mark()
    with LeafWatch(stack) as watch:
        with folder_in_the_way(workers_file(stack)):
            stack.agent.clear(fault=fault)
            wait_for_failure(stack, "switch chain: .*Is a directory", mark)
            mark = kill_daemon(stack)
            wait_for_failure(stack, "switch chain: .*Is a directory", mark)
        assert_renewed(stack, leaf, certbot, mark)
    assert None not in watch.seen


@needs_root
def test_disk_that_is_full_on_the_way_back_and_a_reload_that_comes_late(new_stack):
    """What the way back leads to was kept before the event: it needs no room."""
    stack = new_stack(volume="size=64k", settings={"nginx.live_chain": False})
    stack.settings["agent.timeout"] = "30s"
    rotation = Rotation(stack)
    old = serve(stack)
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    mark = rotation.put()
    assert stack.agent.wait(method="EmitEvent", count=2)
    with full_volume(stack):
        workers = {one.pid for one in stack.nginx_workers()}
        with stopped(stack.nginx_master()):
            stack.agent.clear(fault=fault)
            wait_for_failure(stack, "reload nginx: .*the way back failed, too", mark)
        wait_until(
            lambda: not workers & {one.pid for one in stack.nginx_workers()}, "nginx reloads"
        )
        wait_until_agreed(stack, old)
        assert stack.stored_chain()[0] == old
    assert_advances(stack, rotation, mark)


# What is written down, where the agent shows no log


def kill_while_the_event_is_made(stack, rotation, undo):
    """The new leaf's event is there, and whoever comes next finds the one of before on the volume."""
    names = rotation.names
    wait_until(lambda: stack.agent.measured()[-1] == names[-1], "the new leaf is measured")
    os.kill(stack.pid, signal.SIGSTOP)  # supervisord, which would start another daemon
    kill(stack, stack.daemon())
    stack.agent.clear()
    stack.agent.fault(preset="tcb-info-missing", method="Info")
    undo()
    mark = stack.log.mark()
    os.kill(stack.pid, signal.SIGCONT)
    stack.log.wait_for(SETTLED, since=mark)
    # And once more: nothing has to be made any more.
    stack.log.wait_for(SETTLED, since=kill_daemon(stack))
    assert stack.served_leaf() == rotation.leaves[0]
    assert_measured(stack, [names[0], names[1], names[0]])


@pytest.mark.parametrize("damage", ["{}", "", "a folder"])
def test_killed_and_its_intent_damaged(stack, damage):
    stack.settings["agent.timeout"] = "30s"
    stack.agent.fault(preset="tcb-info-missing", method="Info")
    rotation = Rotation(stack)
    serve(stack)
    before, intent = stack.chain_file.read_text(), stack.state / "intent.json"
    stack.agent.fault(preset="late-answer", method="EmitEvent")
    rotation.put()

    def undo():
        replace(stack, "cert.pem", before)
        intent.unlink()
        intent.mkdir() if damage == "a folder" else intent.write_text(damage)

    kill_while_the_event_is_made(stack, rotation, undo)


def test_killed_while_it_measures_what_it_found_at_its_start(stack):
    """Nothing is meant then that the next one would not do by itself: so there is no intent."""
    stack.settings["agent.timeout"] = "30s"
    stack.agent.fault(preset="tcb-info-missing", method="Info")
    rotation = Rotation(stack)
    serve(stack)
    before = stack.chain_file.read_text()
    stack.stop()
    rotation.put()
    stack.agent.fault(preset="late-answer", method="EmitEvent")
    stack.start()
    kill_while_the_event_is_made(stack, rotation, lambda: replace(stack, "cert.pem", before))


@needs_root
def test_reboot_that_the_kernel_does_not_tell(new_stack, tmp_path):
    boot_id = tmp_path / "boot_id"
    boot_id.touch()
    stack = new_stack(binds={"/proc/sys/kernel/random/boot_id": boot_id})
    stack.agent.fault(preset="tcb-info-missing", method="Info")
    rotation = Rotation(stack)
    serve(stack)
    stack.stop()
    stack.agent.reboot()
    serve(stack)
    assert_measured(stack, rotation.names)


# Two of them


def test_second_daemon_ends_at_once(stack):
    rotation = Rotation(stack)
    leaf = serve(stack)
    env = environment(CERT_MANAGER_CONFIG=str(stack.config), **stack.variables)
    second = subprocess.run(
        [PROGRAM, "run"], env=env, stdout=subprocess.PIPE, text=True, timeout=20, check=False
    )
    assert second.returncode == 1
    assert "FATAL - another cert-manager runs with this run_dir: " in second.stdout
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)
    rotation.put_and_wait()
    assert_at_rest(stack, rotation.leaf)
    # One that was killed is in nobody's way.
    mark = kill_daemon(stack)
    stack.log.wait_for(SETTLED, since=mark)
    assert_measured(stack, rotation.names)
