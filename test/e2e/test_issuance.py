"""From an empty volume to measured HTTPS, and on to restarts and renewals, with real parts."""

import datetime
import os
import pwd
import re
import signal
import stat

import pki
import pytest
from loopback import wait_until
from processes import read_proc
from stack import IS_ROOT, certbot_user, holders_of
from test_resilience import kill_nginx

STARTING = "Service starting, certificate being provisioned"


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    """A container that has obtained its certificate; tests only look at it."""
    from conftest import logs_of
    from stack import Stack

    with Stack(ca, variables={"LOG_LEVEL": "debug"}) as stack:
        logs_of(request.node)["the container that the tests of this file share"] = stack.log
        mark = ca.log.mark()
        stack.start().wait_for_https()
        wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
        stack.orders = ca.orders(mark)
        yield stack


def account_url(stack):
    return stack.log.wait_for(r"ACME account (https://\S+/my-account/\w+)")[1]


def snapshot(path):
    """What tells a file from one that was put in its place."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes()


# What is served


def test_leaf_is_issued_by_the_ca_for_the_domain(served):
    assert served.https_get("/health").status == 200  # chain and name verified
    leaf = served.served_leaf()
    assert pki.names(leaf) == [served.domain]
    assert pki.issuer_name(leaf).startswith("Pebble Intermediate CA")
    assert served.orders == 1


def test_files_hold_what_is_served(served):
    chain = served.stored_chain()
    assert chain[0] == served.served_leaf()
    assert len(chain) == 2 and chain[0].issuer == chain[1].subject


def test_key_on_disk_is_the_derived_one(served):
    assert served.key_file.read_text() == pki.key_pem(served.tls_key)
    assert pki.same_key(served.served_leaf(), served.tls_key)


def test_files_have_the_modes_of_the_contract(served):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(served.chain_file) == 0o644
    assert mode(served.key_file) == 0o600
    assert mode(served.state) == 0o700
    assert mode(served.folder["run_dir"] / "ekm.secret") == 0o600


def test_one_event_names_the_served_leaf(served):
    assert served.agent.measured() == [pki.sha256(served.served_leaf())]


def test_ekm_secret_is_the_hex_text_of_the_derived_bytes(served):
    text = (served.folder["run_dir"] / "ekm.secret").read_text()
    assert text == served.secrets()["EKM secret"].hex()


def test_http_redirects_and_https_is_healthy(served):
    answer = served.http_get("/some/path?query=1")
    target = f"https://{served.domain}:{served.https_port}/some/path?query=1"
    assert (answer.status, answer.headers["location"]) == (301, target)
    health = served.https_get("/health")
    assert (health.status, health.body) == (200, "healthy\n")
    assert health.headers["content-type"] == "text/plain"


def test_challenge_files_of_others_are_served_on_port_80(served):
    folder = served.folder["webroot"] / ".well-known/acme-challenge"
    (folder / "token-of-another").write_text("content")
    (folder / "token-of-another").chmod(0o644)
    answer = served.http_get("/.well-known/acme-challenge/token-of-another")
    assert (answer.status, answer.body) == (200, "content")
    assert served.http_get("/.well-known/acme-challenge/unknown").status == 404


def test_certbot_leaves_nothing_behind(served):
    assert not served.shared_memory.exists()
    assert not (served.folder["run_dir"] / "certbot").exists()
    tokens = (served.folder["webroot"] / ".well-known/acme-challenge").iterdir()
    assert [path.name for path in tokens if path.name != "token-of-another"] == []


def test_log_lines_have_the_form_of_the_contract(served):
    served.log.wait_for("HTTPS serves")
    ours = served.log.find_all(r"^\[cert-manager\] (.*)")
    form = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (DEBUG|INFO|WARNING|ERROR|FATAL) - \S"
    assert ours and all(re.match(form, line[1]) for line in ours)
    others = {line.split(" ")[0] for line in served.log.lines()} - {"[cert-manager]", "[nginx]"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", word) for word in others), others  # supervisord


# What is kept secret


def test_no_secret_is_in_log_processes_or_files(served):
    for use, material in served.secrets().items():
        texts = pki.traces(material)
        assert not [text for text in texts if text in served.log.text()], use
        assert not holders_of(texts, served.session()), use
        holders = [
            path.relative_to(served.root)
            for path in served.root.rglob("*")
            if path.is_file() and any(text in path.read_text("latin-1") for text in texts)
        ]
        home = {"TLS key": served.key_file, "EKM secret": served.folder["run_dir"] / "ekm.secret"}
        kept = {home[use].relative_to(served.root)} if use in home else set()
        assert set(holders) == kept, use


def test_certbot_is_unprivileged_and_sees_no_secret(new_stack):
    stack = new_stack(variables={"LOG_LEVEL": "debug"}).start()
    certbot = wait_until(stack.certbot, "certbot runs")
    wait_until(lambda: b"certbot" in read_proc(certbot.pid, "cmdline"), "certbot has begun")
    user = pwd.getpwnam(certbot_user()).pw_uid if IS_ROOT else os.getuid()
    assert certbot.user() == user
    assert {entry.split(b"=")[0] for entry in certbot.environment() if entry} == {
        *(b"PATH", b"LANG", b"TMPDIR", b"XDG_CONFIG_HOME", b"REQUESTS_CA_BUNDLE")
    }
    assert "--account" in certbot.command and "--agree-tos" not in certbot.command
    for use, material in stack.secrets().items():
        assert not holders_of(pki.traces(material), stack.session()), use
    work = stack.shared_memory
    # Only ours to change: what lies beside certbot's own folders is believed after a crash.
    assert stat.S_IMODE(work.stat().st_mode) == (0o710 if IS_ROOT else 0o700)
    assert work.stat().st_uid == os.getuid() and (work / "out").stat().st_uid == user
    tls_key = pki.traces(stack.secrets()["TLS key"])
    for path in filter(lambda path: path.is_file(), work.rglob("*")):
        assert not [text for text in tls_key if text in path.read_text("latin-1")], path
    stack.wait_for_https()


def test_certbot_works_in_the_run_folder_when_that_is_a_tmpfs(new_stack):
    stack = new_stack(parent="/dev/shm").start()
    certbot = wait_until(stack.certbot, "certbot runs")
    work = stack.folder["run_dir"] / "certbot"
    assert str(work / "config") in certbot.command and work.is_dir()
    stack.wait_for_https()
    assert not work.exists()


# The order of things


def test_https_waits_until_the_certificate_is_measured(new_stack):
    stack = new_stack(settings={"agent.timeout": "30s"})
    fault = stack.agent.fault(preset="hang", method="EmitEvent")
    stack.start()
    assert stack.agent.wait(method="EmitEvent", timeout_s=30)
    answer = stack.http_get("/any/path?query")
    assert (answer.status, answer.body) == (503, STARTING)
    assert int(answer.headers["retry-after"]) > 0
    assert stack.served_leaf() is None and stack.agent.measured() == []
    stack.agent.clear(fault=fault)
    leaf = stack.wait_for_https()
    assert stack.agent.measured() == [pki.sha256(leaf)]
    wait_until(lambda: stack.http_get("/").status == 301, "HTTP redirects")


def test_two_containers_with_the_same_keys_are_one_account(ca, new_stack):
    mark = ca.log.mark()
    first = new_stack().start()
    first_leaf = first.wait_for_https()
    first.stop()
    second = new_stack(domain=first.domain).start()  # another volume, another agent, same seed
    second_leaf = second.wait_for_https()
    assert first_leaf != second_leaf and pki.same_key(first_leaf, second_leaf)
    assert account_url(first) == account_url(second)
    assert ca.accounts(mark) == 1 and ca.orders(mark) == 2
    # All calls of newAccount are ours: ask whether it exists, make it, and the second time ask.
    assert ca.account_calls(mark) == 3


def test_restart_keeps_leaf_orders_and_events(ca, stack):
    leaf = stack.start().wait_for_https()
    files = snapshot(stack.chain_file), snapshot(stack.key_file)
    mark = ca.log.mark()
    stack.restart()
    assert stack.wait_for_https() == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert (ca.orders(mark), ca.account_calls(mark)) == (0, 0)
    assert (snapshot(stack.chain_file), snapshot(stack.key_file)) == files


def test_restart_after_a_reboot_of_the_machine_measures_again(ca, stack):
    leaf = stack.start().wait_for_https()
    stack.stop()
    stack.agent.reboot()
    assert stack.agent.measured() == []
    mark = ca.log.mark()
    assert stack.start().wait_for_https() == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 0


def test_restart_of_the_daemon_alone_disturbs_nothing(ca, stack):
    leaf = stack.start().wait_for_https()
    stack.log.wait_for("HTTPS serves")
    daemon, master, mark = stack.daemon(), stack.nginx_master(), ca.log.mark()
    log = stack.log.mark()
    os.kill(daemon.pid, signal.SIGKILL)
    stack.expected_trouble = r"exited: cert-manager \(terminated by SIGKILL; not expected\)"
    stack.log.wait_for("HTTPS serves", since=log)
    assert stack.daemon().pid != daemon.pid and stack.nginx_master().pid == master.pid
    assert stack.served_leaf() == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 0


def test_nginx_that_died_comes_back_with_https(stack):
    leaf = stack.start().wait_for_https()
    wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
    log = stack.log.mark()
    kill_nginx(stack)
    stack.log.wait_for(r"exited: nginx", since=log)
    assert stack.wait_for_https() == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)]


def test_read_only_image_has_its_configuration_behind_a_link(stack):
    target = stack.folder["run"] / "default.conf"

    def make_link():
        (stack.folder["sites"] / "default.conf").symlink_to(target)

    stack.alter_image = make_link
    stack.start().wait_for_https()
    assert (stack.folder["sites"] / "default.conf").is_symlink()
    assert "ssl_certificate" in target.read_text()


# Renewal


def test_renewal_replaces_only_the_chain(ca, new_stack):
    stack = new_stack(settings={"agent.timeout": "30s"})
    stored = pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY)
    stack.put_pair(stored, stack.tls_key)
    key, old_leaf = snapshot(stack.key_file), stack.stored_chain()[0]
    fault = stack.agent.fault(preset="hang", method="EmitEvent", skip=1)
    stack.start()
    assert stack.wait_for_https() == old_leaf  # within its window, and served at once
    assert stack.agent.wait(method="EmitEvent", count=2, timeout_s=30)
    assert stack.served_leaf() == old_leaf  # the new one is not measured yet
    stack.agent.clear(fault=fault)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != old_leaf, "the renewed leaf is served")
    assert pki.issuer_name(leaf).startswith("Pebble") and stack.https_get("/health").status == 200
    assert stack.agent.measured() == [pki.sha256(old_leaf), pki.sha256(leaf)]
    assert stack.stored_chain()[0] == leaf
    assert snapshot(stack.key_file) == key
    assert stat.S_IMODE(stack.chain_file.stat().st_mode) == 0o644


def test_short_lived_certificate_is_renewed_at_half_of_its_life(new_ca, new_stack):
    ca = new_ca(validity_s=14)
    stack = new_stack(ca).start()
    first = stack.wait_for_https()
    key = snapshot(stack.key_file)
    second = stack.wait_for_leaf(lambda leaf: leaf != first, "a second leaf is served")
    now = datetime.datetime.now(datetime.timezone.utc)
    assert now < pki.expires(first), "renewed too late"
    assert stack.agent.measured()[:2] == [pki.sha256(first), pki.sha256(second)]
    assert snapshot(stack.key_file) == key
    assert ca.accounts() == 1
