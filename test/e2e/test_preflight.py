"""What is looked at before the CA is asked, and the answers to challenges while it asks us.

What is certain to make an order fail holds it back; all else is advice, in log and status.
"""

import os
import signal

import pki
import pytest
from loopback import wait_until
from stack import REPOSITORY
from test_failures import assert_recovers, assert_waiting, needs_root, put_due_pair


def findings(stack):
    """Name of each check to what was found."""
    return {one["name"]: one for one in stack.status().get("preflight", [])}


def verdicts(stack):
    return {name: one["verdict"] for name, one in findings(stack).items()}


def wait_for_finding(stack, name, verdict):
    def look():
        one = findings(stack).get(name)
        return one if one and one["verdict"] == verdict else None

    return wait_until(look, f"the status has {name!r}: {verdict}")


def resolve_through(ca, folder):
    """Files to be bound: the DNS of the CA is the only one."""
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text(f"nameserver {ca.address}\noptions timeout:1 attempts:1\n")
    return {"/etc/hosts": hosts, "/etc/resolv.conf": resolver}


def test_all_is_well(ca, stack):
    stack.start().wait_for_https()
    assert verdicts(stack) == {
        "clock": "ok",
        "disk": "ok",
        "dns": "unknown",
        "port 80": "ok",
        "address": "unknown",
        "certbot": "ok",
        "caa": "unknown",
    }
    assert "certbot" in findings(stack)["certbot"]["text"]
    assert not stack.log.find("WARNING - .*(pre-flight|challenge)")
    wait_until(
        lambda: stack.status()["challenges"]
        == {"presented": 1, "served": 1, "succeeded": 1, "failed": 0},
        "the challenge is counted",
    )
    folder = stack.folder["webroot"] / ".well-known/acme-challenge"
    assert list(folder.iterdir()) == []


# Port 80


def test_port_80_that_serves_another_folder_costs_no_order(ca, new_stack, tmp_path):
    """As with a template of the deployment's own, without answers that need no file."""
    stack = new_stack(settings={"acme.stateless": False})
    template = (REPOSITORY / "nginx_conf/base.conf.tmpl").read_text()
    assert 'root "${WEBROOT}"' in template
    broken = template.replace('root "${WEBROOT}"', f'root "{tmp_path}"')
    stack.alter_image = lambda: (stack.folder["templates"] / "base.conf.tmpl").write_text(broken)
    mark = ca.log.mark()
    stack.start().wait_for_http()
    stack.log.wait_for(r"ERROR - the CA is not asked: port 80: .*404 \(attempt 2, next in \d s\)")
    assert_waiting(stack)
    assert ca.account_calls(mark) == ca.orders(mark) == 0
    told = rf"ERROR - pre-flight check failed, port 80: .*404; .*{stack.folder['webroot']}"
    assert len(stack.log.find_all(told)) == 1
    hint = wait_for_finding(stack, "port 80", "failed")["hint"]
    assert f"out of {stack.folder['webroot']} (nginx.webroot)" in hint

    site = stack.folder["sites"] / "default.conf"
    site.write_text(site.read_text().replace(str(tmp_path), str(stack.folder["webroot"])))
    os.kill(stack.nginx_master().pid, signal.SIGHUP)
    stack.log.wait_for("INFO - pre-flight check passed, port 80")
    assert_recovers(stack)
    assert ca.orders(mark) == 1


# CAA, and the domain's address


@needs_root
def test_caa_that_forbids_is_advice_and_the_address_is_looked_at(new_ca, new_stack, tmp_path):
    ca = new_ca(usual_ports=True)
    stack = new_stack(
        ca,
        settings={"acme.check_caa": True, "acme.resolve_max_tries": 60},
        binds=resolve_through(ca, tmp_path),
    )
    ca.add_caa(stack.domain.partition(".")[2], "issue", ";")
    stack.start().wait_for_https()
    found = findings(stack)
    assert {name: one["verdict"] for name, one in found.items() if one["verdict"] != "ok"} == {
        "caa": "advice"
    }
    assert found["caa"]["text"] == 'CAA records of example.test: not permitted by: 0 issue ";"'
    assert 'add a record for example.test: CAA 0 issue "' in found["caa"]["hint"]
    assert len(stack.log.find_all("WARNING - pre-flight check, caa: .*; the CA will refuse")) == 1
    assert found["dns"]["text"] == str(stack.address)
    assert found["address"]["text"] == f"{stack.address} serves challenge files"


@needs_root
def test_domain_that_leads_elsewhere_is_advice(new_ca, new_stack, tmp_path):
    ca = new_ca(usual_ports=True)
    stack = new_stack(ca, settings={"acme.resolve_max_tries": 60}, binds=resolve_through(ca, tmp_path))
    other = new_stack(ca)
    other.start().wait_for_http()
    ca.point(stack.domain, other.address)
    stack.start()
    advice = wait_for_finding(stack, "address", "advice")
    assert advice["text"] == (
        f"{other.address} answers for the domain, but not with our file: HTTP status 404"
    )
    assert "lead here" in advice["hint"]
    stack.log.wait_for("ERROR - .*challenge failed")
    wait_until(lambda: stack.status()["challenges"]["failed"] == 1, "it is counted")


# The domain comes later


@needs_root
def test_while_the_domain_does_not_resolve_all_else_goes_on(ca, new_stack, tmp_path):
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    stack = new_stack(
        settings={"acme.resolve_max_tries": 1000, "acme.resolve_wait": "300ms"},
        binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver},
    )
    mark = ca.log.mark()
    stack.start()
    held_back = r"ERROR - the CA is not asked: dns: .*\(attempt 2, next in 1 s\)"
    stack.log.wait_for(held_back)
    # Another life waits as well, and a certificate that somebody brings is served meanwhile.
    stack.stop()
    log = stack.log.mark()
    stack.start()
    stack.log.wait_for(held_back, since=log)
    assert_waiting(stack)
    put_due_pair(stack)
    leaf = stack.wait_for_https()
    assert stack.agent.measured() == [pki.sha256(leaf)]
    log = stack.log.mark()
    stack.log.wait_for("the CA is not asked: dns", since=log)
    assert ca.account_calls(mark) == ca.orders(mark) == 0
    hosts.write_text(f"127.0.0.1 localhost\n{stack.address} {stack.domain}\n")
    stack.log.wait_for(f"INFO - pre-flight check passed, dns: {stack.address}")
    stack.wait_for_leaf(lambda new: new != leaf, "the leaf of the order is served")
    assert ca.orders(mark) == 1


@needs_root
def test_domain_that_never_resolves_here_is_asked_for_in_the_end(ca, new_stack, tmp_path):
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    stack = new_stack(
        settings={"acme.resolve_max_tries": 3, "acme.resolve_wait": "100ms"},
        binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver},
    )
    stack.start()
    assert_recovers(stack)
    assert len(stack.log.find_all("ERROR - the CA is not asked: dns")) == 2
    stack.log.wait_for("WARNING - pre-flight check, dns: .*the CA is asked all the same")
    assert verdicts(stack)["dns"] == "advice"


# Challenges


def test_challenge_that_fails_is_counted(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca, settings={"acme.retry_min": "1h", "acme.retry_max": "1h"})
    ca.break_dns(stack.domain)
    stack.start()
    stack.log.wait_for("ERROR - .*challenge failed")
    expected = {"presented": 1, "served": 1, "succeeded": 0, "failed": 1}
    wait_until(lambda: stack.status()["challenges"] == expected, "the challenge is counted")
