"""What goes wrong around the program, by name.

In each case: a clear line in the log, port 80 goes on serving, nothing is lost that was there, and
when the cause is gone the program recovers by itself.
"""

import os
import re
import shutil
import signal

import pki
import pytest
from loopback import LoopbackAddress, wait_until
from stack import IS_ROOT

STARTING = "Service starting, certificate being provisioned"

needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounts need root")


def wait_for_failure(stack, pattern, since=0):
    """A failure is told in one line: what failed, how often, and when it is tried again."""
    return stack.log.wait_for(
        rf"ERROR - .*{pattern}.*\(attempt \d+, next in [^)]+\)", 30, since=since
    )


def assert_waiting(stack):
    """Port 80 answers, nothing is served that has not been measured."""
    answer = stack.http_get("/any")
    assert (answer.status, answer.body) == (503, STARTING)
    assert stack.served_leaf() is None


def assert_recovers(stack):
    leaf = stack.wait_for_https()
    assert pki.issuer_name(leaf).startswith("Pebble")
    assert stack.agent.measured() == [pki.sha256(leaf)]
    wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
    return leaf


def put_due_pair(stack):
    """A pair that is served, but ought to be renewed."""
    chain = pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY)
    stack.put_pair(chain, stack.tls_key)
    return stack.stored_chain()[0]


# The guest agent


@pytest.mark.parametrize("leave_file", [False, True], ids=["no socket", "refusing socket"])
def test_agent_absent_then_appearing(stack, leave_file):
    if leave_file:
        stack.agent.start().vanish(leave_file=True)
    stack.start(with_agent=False).wait_for_http()
    wait_for_failure(stack, re.escape(stack.agent.endpoint))
    assert_waiting(stack)
    stack.agent.stop()
    stack.agent.start()
    assert_recovers(stack)


# Answers to GetKey, and what the log says about each.
MALFORMED = {
    "key-0x": "66 characters",
    "key-not-hex": "not hexadecimal",
    "key-odd": "63 characters",
    "key-short": "62 characters",
    "key-long": "66 characters",
    "key-empty": "0 characters",
    "key-number": "not a string",
    "key-missing": 'no member "key"',
    "key-zero": "key for path .*(zero|range)",
    "key-order": "key for path .*(order|range)",
    "not-json": "not JSON",
    "not-object": "not an object",
    "empty-body": "not JSON",
    "truncated": "cut short",
    "oversized": "too long",
    "not-http": "not HTTP",
    "closed": "closed without an answer",
    "hang": "no answer after 500 ms",
    "server-error": "HTTP status 500: internal error",
    "unavailable": "HTTP status 503: try again later",
    "unknown-method": "HTTP status 404",
}


def test_malformed_keys_of_the_agent(new_stack):
    stack = new_stack(settings={"agent.timeout": "500ms", "agent.retry_max": "100ms"})
    stack.agent.start()
    fault = None
    for preset, told in MALFORMED.items():
        # Each is there before the one before it goes: no call gets through between them.
        following = stack.agent.fault(preset=preset, method="GetKey")
        mark = stack.log.mark()
        if fault is None:
            stack.start(with_agent=False).wait_for_http()
        else:
            stack.agent.clear(fault=fault)
        fault = following
        wait_for_failure(stack, told, mark)
        assert_waiting(stack)
    stack.agent.clear()
    assert_recovers(stack)


@pytest.mark.parametrize("preset", ["hang", "closed", "not-json", "server-error", "truncated"])
def test_event_that_cannot_be_emitted_keeps_https_off(stack, preset):
    put_due_pair(stack)
    stack.settings["agent.timeout"] = "500ms"
    stack.agent.fault(preset=preset, method="EmitEvent", perform="never")
    stack.start().wait_for_http()
    wait_for_failure(stack, "EmitEvent")
    assert_waiting(stack)
    stack.agent.clear()
    leaf = stack.wait_for_https()
    assert pki.sha256(leaf) in stack.agent.measured()


@pytest.mark.parametrize("preset", ["lost-answer", "late-answer", "truncated"])
def test_event_whose_answer_is_lost_is_not_emitted_twice(stack, preset):
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    stack.settings["agent.timeout"] = "500ms"
    stack.agent.fault(preset=preset, method="EmitEvent", times=1)
    leaf = stack.start().wait_for_https()
    wait_for_failure(stack, "EmitEvent")
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert stack.agent.state()["emit_peak_abandoned"] == 1


@pytest.mark.parametrize(
    "preset",
    ["tcb-info-object", "tcb-info-not-json", "tcb-info-missing", "event-log-text", "unavailable"],
)
def test_event_log_that_cannot_be_read_does_not_keep_https_off(stack, preset):
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    stack.agent.fault(preset=preset, method="Info")
    leaf = stack.start().wait_for_https()
    assert stack.agent.measured() == [pki.sha256(leaf)]


def test_agent_that_cannot_measure_is_served_but_not_called_attested(stack):
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    stack.agent.start()
    stack.agent.reboot(version="0.6.0")
    stack.start(with_agent=False).wait_for_https()
    stack.log.wait_for("ERROR - NOT ATTESTED")
    assert stack.log.wait_for(r"HTTPS serves .*, (\S+ ?attested)")[1] == "NOT attested"
    assert stack.agent.measured() == []


def test_agent_that_goes_takes_nothing_with_it(stack):
    leaf = stack.start().wait_for_https()
    wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
    stack.agent.vanish()
    mark = stack.log.mark()
    stack.expected_trouble = r"exited: cert-manager \(terminated by SIGKILL; not expected\)"
    os.kill(stack.daemon().pid, signal.SIGKILL)
    wait_for_failure(stack, re.escape(stack.agent.endpoint), mark)
    assert stack.served_leaf() == leaf and stack.http_get().status == 301
    stack.agent.reappear()
    stack.log.wait_for("HTTPS serves", since=mark)
    assert stack.served_leaf() == leaf and stack.agent.measured() == [pki.sha256(leaf)]


# The CA


def test_ca_down_then_up(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    ca.stop()
    stack.start().wait_for_http()
    wait_for_failure(stack, re.escape(ca.directory))
    assert_waiting(stack)
    ca.start()
    assert_recovers(stack)


def test_ca_that_goes_down_in_the_middle_of_an_order(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca).start()
    ca.log.wait_for("Added order")
    ca.stop()
    wait_for_failure(stack, "")
    assert_waiting(stack)
    mark = ca.log.mark()
    ca.start()  # without any memory: the account is gone as well
    assert_recovers(stack)
    assert ca.accounts(mark) == 1


def test_ca_that_has_lost_the_account(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    stack.start().wait_for_https()
    stack.stop()
    ca.stop()
    ca.start()
    expired = pki.Authority().issue(stack.domain, stack.tls_key, start=-91 * pki.DAY)
    stack.put_pair(expired, stack.tls_key)
    mark = ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert leaf == stack.stored_chain()[0] and pki.issuer_name(leaf).startswith("Pebble")
    stack.log.wait_for("WARNING - the CA does not accept the remembered account")
    assert ca.accounts(mark) == 1


def test_ca_that_is_down_when_a_renewal_is_due(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    old_leaf = put_due_pair(stack)
    ca.stop()
    assert stack.start().wait_for_https() == old_leaf
    wait_for_failure(stack, re.escape(ca.directory))
    wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
    assert stack.served_leaf() == old_leaf
    ca.start()
    leaf = stack.wait_for_leaf(lambda leaf: leaf != old_leaf, "the renewed leaf is served")
    assert stack.agent.measured() == [pki.sha256(old_leaf), pki.sha256(leaf)]


# The challenge


@pytest.mark.parametrize("way", ["dead address", "failing DNS"])
def test_challenge_that_cannot_be_fetched(ca, stack, way):
    if way == "dead address":
        nobody = LoopbackAddress()
        nobody.close()
        ca.point(stack.domain, nobody)
    else:
        ca.break_dns(stack.domain)
    stack.start().wait_for_http()
    line = wait_for_failure(stack, re.escape(stack.domain))[0]
    assert re.search("connection|dns|unauthorized", line) and "http" in line.lower()
    assert_waiting(stack)
    ca.mend_dns(stack.domain)
    ca.point(stack.domain, stack.address)
    assert_recovers(stack)


@needs_root
def test_domain_that_does_not_resolve_yet(ca, new_stack, tmp_path):
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    stack = new_stack(
        settings={"acme.resolve_max_tries": 60, "acme.resolve_wait": "200ms"},
        binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver},
    )
    mark = ca.log.mark()
    stack.start().wait_for_http()
    stack.log.wait_for(r"ERROR - .*the CA is not asked: dns: .* does not resolve.* \(attempt 3, ")
    assert len(stack.log.find_all("pre-flight check failed, dns: .* is the domain's A ")) == 1
    assert_waiting(stack)
    assert ca.account_calls(mark) == ca.orders(mark) == 0
    hosts.write_text(f"127.0.0.1 localhost\n{stack.address} {stack.domain}\n")
    assert_recovers(stack)


# certbot


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_certbot_killed(ca, stack, number):
    mark = ca.log.mark()
    stack.start()
    ca.log.wait_for("Added order", since=mark)
    os.kill(stack.certbot().pid, number)
    wait_for_failure(stack, rf"certbot.*signal {number.value}\b")
    assert_waiting(stack)
    assert_recovers(stack)
    folder = stack.folder["webroot"] / ".well-known/acme-challenge"
    assert list(folder.iterdir()) == [] and not stack.shared_memory.exists()


def test_certbot_that_takes_too_long(new_stack):
    stack = new_stack(settings={"certbot.timeout": "1s"})
    stack.start().wait_for_http()
    wait_for_failure(stack, "certbot.*(time limit|timed out|longer than|within)")
    assert_waiting(stack)
    assert not stack.certbot() and not stack.shared_memory.exists()


def test_certbot_missing_then_installed(new_stack):
    stack = new_stack()
    program = stack.root / "certbot"
    stack.settings["certbot.path"] = program
    stack.start().wait_for_http()
    wait_for_failure(stack, re.escape(str(program)))
    assert_waiting(stack)
    program.symlink_to(shutil.which("certbot", path="/usr/bin"))
    assert_recovers(stack)


def test_stop_in_the_middle_of_an_issuance_leaves_nothing(stack):
    stack.start()
    wait_until(stack.certbot, "certbot runs")
    stack.stop()
    assert not stack.shared_memory.exists()
    assert_recovers(stack.start())


# The volume


@needs_root
def test_disk_full(ca, new_stack):
    stack = new_stack(volume="size=4k")
    mark = ca.log.mark()
    stack.start().wait_for_http()
    wait_for_failure(stack, f"{re.escape(str(stack.settings['tls.dir']))}.*No space left")
    assert_waiting(stack)
    assert ca.orders(mark) == 0, "ordered what cannot be stored"
    stack.remount("size=4m")
    assert assert_recovers(stack) == stack.stored_chain()[0]


@needs_root
def test_disk_full_when_a_renewal_is_due(ca, new_stack):
    stack = new_stack(volume="size=16k")
    old_leaf, mark = put_due_pair(stack), ca.log.mark()
    assert stack.start().wait_for_https() == old_leaf
    wait_for_failure(stack, "No space left")
    assert stack.served_leaf() == old_leaf and ca.orders(mark) == 0
    assert stack.stored_chain()[0] == old_leaf
    stack.remount("size=4m")
    leaf = stack.wait_for_leaf(lambda leaf: leaf != old_leaf, "the renewed leaf is served")
    assert stack.agent.measured() == [pki.sha256(old_leaf), pki.sha256(leaf)]


@needs_root
def test_read_only_tls_folder(ca, new_stack):
    stack = new_stack(volume="size=4m,ro")
    mark = ca.log.mark()
    stack.start().wait_for_http()
    wait_for_failure(stack, f"{re.escape(str(stack.settings['tls.dir']))}.*Read-only")
    assert_waiting(stack)
    assert ca.orders(mark) == 0, "ordered what cannot be stored"
    stack.remount("rw")
    assert assert_recovers(stack) == stack.stored_chain()[0]


@needs_root
def test_read_only_tls_folder_with_a_good_pair_is_served(new_stack):
    stack = new_stack(volume="size=4m,ro")
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    leaf = stack.start().wait_for_https()
    assert leaf == stack.stored_chain()[0]
    assert stack.agent.measured() == [pki.sha256(leaf)]


@needs_root
def test_read_only_tls_folder_with_an_unusable_pair(new_stack):
    stack = new_stack(volume="size=4m,ro")
    stack.put_pair(pki.self_signed(stack.domain, stack.tls_key), stack.tls_key)
    stack.start().wait_for_http()
    wait_for_failure(stack, "self-signed.*Read-only|Read-only.*self-signed")
    assert_waiting(stack)
    stack.remount("rw")
    assert_recovers(stack)
    assert len(stack.set_aside()) == 1


def test_garbage_in_place_of_the_state_folder(stack):
    stack.put(".cert-manager", "not a folder")
    stack.start().wait_for_http()
    wait_for_failure(stack, re.escape(str(stack.state)))
    assert_waiting(stack)
    stack.state.unlink()
    assert_recovers(stack)


def test_garbage_in_the_state_folder(stack):
    stack.start().wait_for_https()
    stack.stop()
    for file in stack.state.iterdir():
        if file.is_file():
            file.write_bytes(b"\0garbage\xff" * 1000)
    shutil.rmtree(stack.state / "set-aside", ignore_errors=True)
    expired = pki.Authority().issue(stack.domain, stack.tls_key, start=-91 * pki.DAY)
    stack.put_pair(expired, stack.tls_key)
    leaf = stack.start().wait_for_https()
    assert leaf == stack.stored_chain()[0] and pki.issuer_name(leaf).startswith("Pebble")


def test_folders_in_place_of_the_pair(stack):
    for name in ("cert.pem", "key.pem"):
        (stack.tls / name).mkdir()
        (stack.tls / name / "content").touch()
    stack.start().wait_for_http()
    assert_recovers(stack)
    assert sorted(path.name for path in stack.tls.glob("*.pem") if path.is_file()) == [
        "cert.pem",
        "key.pem",
    ]


@pytest.mark.parametrize("point", ["nothing renamed", "key renamed"])
def test_promotion_that_was_cut_off_is_finished(ca, stack, point):
    """As a power failure leaves it: the pair in place does not match, or is the one before."""
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.start(with_agent=False)
    stack.stop()
    stack.state.mkdir(exist_ok=True)
    stack.put_pair(pki.Authority().issue(stack.domain, pki.new_key()), pki.new_key())
    stack.put(".cert-manager/staged-cert.pem", chain)
    key = "key.pem" if point == "key renamed" else ".cert-manager/staged-key.pem"
    stack.put(key, pki.key_pem(stack.tls_key), 0o600)
    stack.put(".cert-manager/promotion", "")
    mark = ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert leaf == stack.stored_chain()[0] == pki.read_chain(chain)[0]
    stack.log.wait_for("finished the promotion")
    assert ca.orders(mark) == 0 and not (stack.state / "promotion").exists()


# nginx


def test_template_that_nginx_refuses_leaves_https_without_the_application(stack):
    template = stack.folder["templates"] / "https.conf.tmpl"

    def break_template():
        template.write_text(template.read_text() + "no_such_directive;")

    stack.alter_image = break_template
    leaf = stack.start().wait_for_https()
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert stack.https_get("/health").status == 200
    assert stack.https_get("/any").status == 503
    reduced = "ERROR - nginx has a reduced configuration: .*no_such_directive"
    stack.log.wait_for(reduced)
    template.write_text(template.read_text().replace("no_such_directive;", ""))
    stack.log.wait_for("INFO - nginx has the full configuration again")
    assert stack.https_get("/any").status == 404
    assert len(stack.log.find_all(reduced)) == 1
    assert stack.agent.measured() == [pki.sha256(leaf)]
