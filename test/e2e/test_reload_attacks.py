"""Reloads at bad moments, and of settings that change what everything hangs on: what is served goes on,
nothing is ordered or measured without need, and no connection is lost."""

import json
import os
import random
import signal
import socket
import time

import pki
import pytest
from loopback import is_listening, wait_until
from rotation import LeafWatch, Load, Rotation, assert_adds_up, assert_at_rest, serve
from test_control import ask, metrics_of
from test_reload import hang_up, is_over, lives_of, reload, request_of, settle
from test_resilience import kill_nginx

IN_FORCE = "with other settings"


def hsts_of(stack, root=None):
    header = stack.https_get("/health", root=root).headers.get("strict-transport-security")
    return int(header.split(";")[0].removeprefix("max-age=")) // 86400 if header else 0


def begin_reload(stack, **settings):
    """Asked for; its number."""
    number = request_of(stack)["id"] + 1
    settle(stack, **settings)
    hang_up(stack)
    wait_until(lambda: request_of(stack)["id"] == number, "it is taken up")
    return number


def end_reload(stack, number):
    return wait_until(lambda: is_over(stack, number), "the reload is over", 60.0)["state"]


# Moments.


def test_while_certbot_runs_the_order_is_finished_first(stack):
    stack.start()
    certbot = wait_until(stack.certbot, "certbot runs", 30.0)
    os.kill(certbot.pid, signal.SIGSTOP)
    number = begin_reload(stack, nginx__hsts_days=7)
    wait_until(lambda: "order" in request_of(stack)["text"], "it says what it waits for")
    assert not stack.log.find(IN_FORCE)
    os.kill(certbot.pid, signal.SIGCONT)
    assert end_reload(stack, number) == "done"
    stack.wait_for_https()
    wait_until(lambda: hsts_of(stack) == 7, "the new settings are served")
    assert stack.ledger_outcomes() == ["issued"]
    assert stack.agent.measured() == [pki.sha256(stack.served_leaf())]
    assert_adds_up(stack)


def test_between_measure_and_promote_the_apply_is_finished_first(stack):
    rotation = Rotation(stack)
    serve(stack)
    hangs = stack.agent.fault(method="EmitEvent", hang=True, perform="first")
    rotation.put()
    stack.agent.wait(method="EmitEvent", count=2)
    number = begin_reload(stack, nginx__hsts_days=7)
    wait_until(lambda: "applied" in request_of(stack)["text"], "it says what it waits for")
    stack.agent.clear(fault=hangs)
    assert end_reload(stack, number) == "done"
    assert hsts_of(stack, root=pki.certificate_pem(rotation.authority.certificate)) == 7
    assert stack.agent.measured() == rotation.names
    assert_at_rest(stack, rotation.leaf)


def test_a_certificate_that_waits_goes_on_waiting(stack):
    rotation = Rotation(stack)
    serve(stack)
    first = rotation.leaf
    stack.agent.fault(method="EmitEvent", status=500)
    rotation.put()
    stack.log.wait_for("EmitEvent")
    reload(stack, nginx__hsts_days=7)
    assert stack.served_leaf() == first
    stack.agent.clear()
    stack.wait_for_leaf(lambda leaf: leaf == rotation.leaf, "the one that waited is served")
    assert hsts_of(stack, root=pki.certificate_pem(rotation.authority.certificate)) == 7
    assert not (stack.state / "ledger.json").exists(), "something was ordered"


def test_without_the_agent_https_goes_on_with_new_settings(stack):
    leaf = serve(stack)
    before = lives_of(stack)
    stack.agent.vanish()
    with LeafWatch(stack) as watch:
        assert reload(stack, nginx__hsts_days=7)["state"] == "done"
        assert hsts_of(stack) == 7
        assert watch.seen == [leaf]
    stack.agent.reappear()
    assert lives_of(stack) == before


def test_while_nginx_is_started_again(stack):
    stack.expected_trouble = r"exited: nginx \(terminated by SIGKILL; not expected\)"
    serve(stack)
    before = lives_of(stack)
    number = begin_reload(stack, nginx__hsts_days=7)
    os.kill(stack.nginx_master().pid, signal.SIGKILL)
    end_reload(stack, number)
    wait_until(lambda: stack.served_leaf() and hsts_of(stack) == 7, "new settings are served", 60.0)
    assert lives_of(stack) | {"nginx": 0} == before | {"nginx": 0}


def test_asked_over_the_socket_while_no_nginx_runs(stack):
    """Nothing has to be waited for then, and the life ends within the request: it gets its answer."""
    stack.expected_trouble = r"exited: nginx \(terminated by SIGKILL; not expected\)"
    serve(stack)
    daemon = stack.daemon().pid
    os.kill(stack.pid, signal.SIGSTOP)  # who would start it again
    kill_nginx(stack)
    wait_until(lambda: not stack.status().get("activity"), "nothing is at work")
    settle(stack, nginx__hsts_days=7)
    status, _, text = ask(stack, "POST", "/v1/reload")
    assert (status, json.loads(text)["id"]) == (202, 1)
    os.kill(stack.pid, signal.SIGCONT)
    stack.log.wait_for(IN_FORCE)
    wait_until(lambda: stack.served_leaf() and hsts_of(stack) == 7, "new settings are served", 60.0)
    assert stack.daemon().pid == daemon


def test_stopped_in_the_middle_it_stops(stack):
    stack.expected_trouble = r"exited: cert-manager \(exit status 0; not expected\)"
    serve(stack)
    for days in range(3):
        settle(stack, nginx__hsts_days=days + 1)
        hang_up(stack)
        os.kill(stack.daemon().pid, signal.SIGHUP)
    os.kill(stack.daemon().pid, signal.SIGTERM)
    stack.log.wait_for("INFO - stopped")


def test_at_random_moments_from_the_first_on(stack):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    stack.start()
    wait_until(stack.daemon, "the daemon runs")
    stack.log.wait_for(r"cert-manager \d")
    for days in range(1, 30):
        settle(stack, nginx__hsts_days=days)
        hang_up(stack)
        time.sleep(dice.random() * 0.6)
    stack.wait_for_https()
    wait_until(lambda: hsts_of(stack) == 29, "the last settings are served", 60.0)
    assert stack.ledger_outcomes() == ["issued"]
    assert stack.agent.measured() == [pki.sha256(stack.served_leaf())]
    assert_adds_up(stack)


def test_connections_are_not_lost(stack):
    serve(stack)
    with Load(stack, rate=100, connections=8) as load:
        for days in range(1, 5):
            assert reload(stack, nginx__hsts_days=days)["state"] == "done"
        for _ in range(3):
            assert reload(stack)["state"] == "done"
        found = load.end()
    assert found["failed"] == 0 and found["refused"] == 0, found


# Settings.


def test_another_folder_gets_what_is_served(stack, tmp_path):
    leaf = serve(stack)
    before = lives_of(stack)
    assert reload(stack, tls__dir=tmp_path)["state"] == "done"
    chain = tmp_path / "cert.pem"
    wait_until(lambda: chain.exists() and pki.read_chain(chain.read_text())[0] == leaf, "it is there")
    wait_until(lambda: str(tmp_path) in (stack.folder["sites"] / "default.conf").read_text(), "nginx knows")
    assert stack.served_leaf() == leaf
    assert lives_of(stack) == before


def test_what_another_folder_has_is_served(stack, tmp_path):
    leaf = serve(stack)
    chain = pki.Authority().issue(stack.domain, stack.tls_key)
    (tmp_path / "cert.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(pki.key_pem(stack.tls_key))
    with LeafWatch(stack) as watch:
        reload(stack, tls__dir=tmp_path)
        watch.wait_for(pki.read_chain(chain)[0])
        assert watch.seen == [leaf, pki.read_chain(chain)[0]]
    assert len(stack.agent.measured()) == 2


def test_other_ports(stack):
    leaf = serve(stack)
    before, old = lives_of(stack), stack.https
    stack.https_port = stack.address.port(9443)
    assert reload(stack, nginx__https_port=stack.https_port)["state"] == "done"
    assert stack.served_leaf() == leaf
    wait_until(lambda: not is_listening(*old), "the old port is closed")
    assert lives_of(stack) == before


def test_a_port_that_is_taken_changes_nothing(stack):
    serve(stack)
    before = lives_of(stack)
    with socket.socket() as taken:
        taken.bind((str(stack.address), 0))
        taken.listen()
        request = reload(stack, nginx__https_port=taken.getsockname()[1])
        assert request["state"] == "failed" and "could not listen" in request["text"], request
    assert lives_of(stack) == before


@pytest.fixture(name="by_file")
def fixture_by_file(new_stack):
    """A container whose environment says nothing of the domain."""
    stack = new_stack(variables={"DOMAIN": ""})
    stack.settings["domain"] = stack.domain
    return stack


def test_another_domain_is_served_when_its_certificate_is_there(by_file, ca):
    stack = by_file
    leaf = serve(stack)
    before = lives_of(stack)
    stack.domain = f"other-{stack.domain}"
    ca.point(stack.domain, stack.address)
    with LeafWatch(stack) as watch:
        reload(stack, domain=stack.domain)
        wait_until(lambda: len(watch.seen) > 1, "another one is served", 60.0)
        new = watch.seen[-1]
        assert watch.seen == [leaf, new]
    assert stack.agent.measured() == [*before["events"], pki.sha256(new)]
    assert stack.ledger_outcomes() == [*before["orders"], "issued"]
    assert stack.daemon().pid == before["daemon"] and stack.nginx_master().pid == before["nginx"]
    wait_until(lambda: stack.key_file.read_text() == pki.key_pem(stack.tls_key), "with its own key")


def test_one_more_name(by_file, ca):
    stack = by_file
    leaf = serve(stack)
    more = f"more-{stack.domain}"
    ca.point(more, stack.address)
    with LeafWatch(stack) as watch:
        reload(stack, domains=[more])
        wait_until(lambda: len(watch.seen) > 1, "another one is served", 60.0)
        assert watch.seen[0] == leaf and None not in watch.seen
    assert len(stack.ledger_outcomes()) == 2


def test_the_end_of_staging(new_stack):
    stack = new_stack(settings={"acme.staging": True})
    authority = pki.Authority("(STAGING) Test Authority")
    stack.put_pair(authority.issue(stack.domain, stack.tls_key), stack.tls_key)
    leaf = serve(stack)
    with LeafWatch(stack) as watch:
        reload(stack, acme__staging=None)
        wait_until(lambda: len(watch.seen) > 1, "another one is served", 60.0)
        assert watch.seen[0] == leaf and None not in watch.seen
    assert stack.ledger_outcomes() == ["issued"]
    assert stack.agent.measured() == [pki.sha256(leaf), pki.sha256(stack.served_leaf())]


def test_development_and_back(stack):
    leaf = serve(stack)
    reload(stack, dev_mode=True)
    stack.wait_for_leaf(lambda now: now != leaf and now.issuer == now.subject, "it is self-signed")
    reload(stack, dev_mode=None)
    stack.wait_for_leaf(lambda now: now.issuer != now.subject, "it is the CA's")
    # Nobody ever measured the key that everybody knows.
    assert stack.agent.measured()[0] == pki.sha256(leaf)
    assert stack.agent.measured()[-1] == pki.sha256(stack.served_leaf())
    assert len(stack.agent.measured()) == 2
    assert_adds_up(stack)


def test_keys_of_others_and_back(stack):
    serve(stack)
    reload(stack, tls__key="external")
    key = pki.new_key()
    stack.put_pair(pki.Authority().issue(stack.domain, key), key)
    foreign = pki.read_chain(stack.chain_file.read_text())[0]
    stack.wait_for_leaf(lambda now: now == foreign, "theirs is served")
    reload(stack, tls__key=None)
    stack.wait_for_leaf(lambda now: now != foreign, "ours is served", 60.0)
    assert stack.agent.measured()[-1] == pki.sha256(stack.served_leaf())
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)


def test_another_agent_that_is_not_there(stack, tmp_path):
    leaf = serve(stack)
    before, agent = lives_of(stack), stack.settings["agent.socket"]
    with LeafWatch(stack) as watch:
        assert reload(stack, agent__socket=tmp_path / "none.sock", nginx__hsts_days=7)["state"] == "done"
        assert hsts_of(stack) == 7
        # A pair of somebody else must not get in while the keys are not known.
        mark, key = stack.log.mark(), pki.new_key()
        stack.put_pair(pki.Authority().issue(stack.domain, key), key)
        stack.log.wait_for("put back", since=mark)
        assert reload(stack, agent__socket=agent)["state"] == "done"
        stack.log.wait_for("has derived the TLS key", since=mark)
        assert watch.seen == [leaf]
    assert lives_of(stack) == before
    assert_at_rest(stack, leaf)


def test_a_setting_that_kept_the_ca_away_is_mended(stack):
    directory = stack.settings["acme.directory"]
    stack.settings["acme.directory"] = f"https://{stack.address}:9/dir"
    stack.start()
    stack.log.wait_for("next in")
    assert reload(stack, acme__directory=directory)["state"] == "done"
    stack.wait_for_https()
    assert stack.agent.measured() == [pki.sha256(stack.served_leaf())]


def test_evidence_is_shown_when_it_is_wanted_and_stays(stack):
    serve(stack)
    reload(stack, evidence__enabled=True)
    stack.log.wait_for("is served at /evidences/")
    mark = stack.log.mark()
    assert reload(stack, nginx__hsts_days=7)["state"] == "done"
    assert stack.https_get("/evidences/sha256sum.txt").status == 200
    assert not stack.log.find("evidence of leaf|withdrawn", since=mark)


def test_the_live_chain_goes_and_comes(stack):
    serve(stack)
    before = lives_of(stack)
    include = stack.folder["run_dir"] / "nginx-http.conf"
    for wanted in (False, True):
        assert reload(stack, nginx__live_chain=wanted)["state"] == "done"
        wait_until(lambda: ("live_chain" in include.read_text()) == wanted, f"it is {wanted}")
    assert lives_of(stack) == before


def test_counters_go_on(stack):
    serve(stack)
    before = metrics_of(stack)
    reload(stack, log__level="debug")
    after = metrics_of(stack)
    for name in (
        ("issues_total", 'result="ok"'),
        ("agent_requests_total", 'method="EmitEvent",result="ok"'),
    ):
        assert after[name] == before[name] >= 1
    start = next(name for name in before if "start_time" in name[0])
    assert after[start] == before[start]
    stack.log.wait_for("DEBUG")
