"""What becomes of the pair that a container finds on its volume, and of settings it cannot use."""

import contextlib
import os

import pki
import pytest
from loopback import is_listening, wait_until

STARTING = "Service starting, certificate being provisioned"
GARBAGE = "-----BEGIN CERTIFICATE-----\nthis is no base64\n-----END CERTIFICATE-----\n"


# Pairs that must never be measured or served: each gives chain and key (None: no file), as a
# hostile or unlucky volume may have them, and says what the log names as the reason.

UNUSABLE = {}


def unusable(reason):
    def register(make):
        UNUSABLE[make.__name__] = (make, reason)
        return make

    return register


def issue(stack, key=None, *, authority="Test Authority", domain=None, **dates):
    return pki.Authority(authority).issue(domain or stack.domain, key or stack.tls_key, **dates)


@unusable("self-signed")
def self_signed(stack):
    return pki.self_signed(stack.domain, stack.tls_key), stack.tls_key


@unusable("staging CA")
def staging_issuer(stack):
    return issue(stack, authority="(StAgInG) Pretend Pear X1"), stack.tls_key


@unusable("does not belong to the certificate")
def key_of_another_certificate(stack):
    return issue(stack), pki.new_key()


@unusable("does not belong to the certificate")
def certificate_of_another_key(stack):
    return issue(stack, pki.new_key()), stack.tls_key


@unusable("not the derived one")
def foreign_pair(stack):
    key = pki.new_key()
    return issue(stack, key), key


@unusable("does not cover the domain")
def other_name(stack):
    return issue(stack, domain="other.example.test"), stack.tls_key


@unusable(r"cert\.pem cannot be used")
def garbage_chain(stack):
    return GARBAGE, stack.tls_key


@unusable(r"cert\.pem cannot be used")
def empty_chain(stack):
    return "", stack.tls_key


@unusable(r"cert\.pem cannot be used")
def truncated_chain(stack):
    return issue(stack)[:-100], stack.tls_key


@unusable(r"cert\.pem cannot be used")
def enormous_chain(stack):
    return issue(stack) * 2000, stack.tls_key


@unusable(r"key\.pem cannot be used")
def garbage_key(stack):
    return issue(stack), "garbage\0\xff"


@unusable("the certificate is missing")
def missing_chain(stack):
    return None, stack.tls_key


def test_missing_key_is_written_again(ca, stack):
    stack.put("cert.pem", issue(stack))
    mark = ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert leaf == stack.stored_chain()[0]
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
    assert ca.orders(mark) == 0


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_pair_is_set_aside_and_replaced(ca, stack, name):
    make, reason = UNUSABLE[name]
    chain, key = make(stack)
    stored = {}
    if chain is not None:
        stored["cert.pem"] = stack.put("cert.pem", chain).read_bytes()
    if key is not None:
        key = key if isinstance(key, str) else pki.key_pem(key)
        stored["key.pem"] = stack.put("key.pem", key, 0o600).read_bytes()
    mark = ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert pki.issuer_name(leaf).startswith("Pebble")
    assert stack.agent.measured() == [pki.sha256(leaf)]  # and nothing else ever
    assert ca.orders(mark) == 1
    line = stack.log.find(r"WARNING - .*set aside.*")
    assert line and stack.log.find(f"set aside.*{reason}"), line
    (kept,) = stack.set_aside()
    assert {name: kept[name] for name in stored} == stored
    stack.log.wait_for(f"{kept['reason'].decode().strip()}$")


def test_pair_that_is_still_being_written_is_waited_for(ca, stack):
    chain = issue(stack)
    key_file = stack.put("key.pem", pki.key_pem(stack.tls_key), 0o600)

    def is_waited_for():
        key_file.touch()
        return stack.log.find("is judged when it has rested: the certificate is missing")

    mark = ca.log.mark()
    stack.start()
    wait_until(is_waited_for, "the pair is left alone while it changes")
    stack.put("cert.pem", chain)
    assert stack.wait_for_https() == stack.stored_chain()[0] == pki.read_chain(chain)[0]
    assert (stack.set_aside(), ca.orders(mark)) == ([], 0)


def test_who_never_stops_writing_a_pair_does_not_keep_https_away(stack):
    key_file = stack.put("key.pem", "garbage", 0o600)

    def is_set_aside():
        with contextlib.suppress(FileNotFoundError):
            os.utime(key_file)
        return stack.log.find("WARNING - the stored pair is set aside")

    stack.start()
    wait_until(is_set_aside, "it is judged all the same", 30.0)
    assert stack.log.find("is judged when it has rested: key.pem cannot be used")
    assert stack.wait_for_https() == stack.stored_chain()[0]


# Pairs that are served.


@pytest.mark.parametrize(
    "dates",
    [{"start": -pki.DAY}, {"start": -90 * pki.DAY + 10 * pki.MINUTE}],
    ids=["fresh", "minutes before its end"],
)
def test_stored_pair_that_has_not_expired_is_served_at_once(new_ca, new_stack, dates):
    ca = new_ca()
    stack = new_stack(ca)
    ca.stop()  # whatever it would be asked: serving does not depend on it
    stack.put_pair(issue(stack, **dates), stack.tls_key)
    leaf = stack.stored_chain()[0]
    assert stack.start().wait_for_https(10) == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)]
    assert not stack.set_aside()


def test_https_waits_for_the_agent_when_a_pair_is_stored(stack):
    stack.put_pair(issue(stack), stack.tls_key)
    stack.start(with_agent=False).wait_for_http()
    stack.log.wait_for(r"ERROR - .*guest agent")
    assert stack.http_get().body == STARTING and stack.served_leaf() is None
    stack.agent.start()
    assert stack.wait_for_https(10) == stack.stored_chain()[0]


def test_expired_certificate_is_replaced_and_never_served(ca, stack):
    stack.put_pair(issue(stack, start=-91 * pki.DAY), stack.tls_key)
    expired, mark = stack.stored_chain()[0], ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert leaf != expired and stack.stored_chain()[0] == leaf
    assert stack.agent.measured() == [pki.sha256(leaf)] and ca.orders(mark) == 1
    stack.log.wait_for("expired on")


def test_staging_certificate_is_kept_in_staging(new_stack):
    stack = new_stack(variables={"LETSENCRYPT_STAGING": "true"})
    stack.put_pair(issue(stack, authority="(STAGING) Pretend Pear X1"), stack.tls_key)
    assert stack.start().wait_for_https() == stack.stored_chain()[0]
    stack.log.wait_for("DEBUG - ")  # what staging also means


# FORCE_RM_CERT_FILES


def test_forced_removal_acts_once_in_a_day(ca, new_stack):
    stack = new_stack(variables={"FORCE_RM_CERT_FILES": "true"})
    stack.put_pair(issue(stack), stack.tls_key)
    stored, mark = stack.chain_file.read_bytes(), ca.log.mark()
    leaf = stack.start().wait_for_https()
    assert pki.issuer_name(leaf).startswith("Pebble")
    assert [kept["cert.pem"] for kept in stack.set_aside()] == [stored]
    stack.restart()
    assert stack.wait_for_https() == leaf
    stack.log.wait_for("WARNING - FORCE_RM_CERT_FILES")
    assert ca.orders(mark) == 1 and len(stack.set_aside()) == 1


# Development


def test_development_mode_needs_neither_agent_nor_ca(ca, new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"})
    mark = ca.log.mark()
    leaf = stack.start(with_agent=False).wait_for_https(10)
    assert leaf.issuer == leaf.subject and pki.same_key(leaf, pki.DEVELOPMENT_KEY)
    assert pki.names(leaf) == [stack.domain, f"*.{stack.domain}", "localhost"]
    stack.log.wait_for(f"New TLS Certificate: {pki.sha256(leaf)}")
    assert ca.orders(mark) == ca.account_calls(mark) == 0 and stack.agent.log() == []
    wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
    health = stack.https_get("/health", root=pki.certificate_pem(leaf))
    assert (health.status, health.body) == (200, "healthy\n")
    stack.log.wait_for("DEBUG - ")
    stack.restart()
    assert stack.wait_for_https(10) == leaf


def test_development_mode_serves_localhost(new_stack):
    stack = new_stack(domain="localhost", variables={"DEV_MODE": "true"})
    leaf = stack.start(with_agent=False).wait_for_https(10)
    assert sorted(pki.names(leaf)) == ["*.localhost", "localhost"]


def test_development_pair_does_not_survive_into_production(ca, new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"})
    development = stack.start().wait_for_https(10)
    stack.stop()
    stack.variables["DEV_MODE"] = "false"
    leaf = stack.start().wait_for_https()
    assert leaf != development and pki.issuer_name(leaf).startswith("Pebble")
    assert stack.agent.measured() == [pki.sha256(leaf)]


# Settings that cannot be used


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("DOMAIN", "", "not set"),
        ("DOMAIN", "localhost", "localhost"),
        ("DOMAIN", "host", "label"),
        ("DOMAIN", "192.0.2.1", "address"),
        ("DOMAIN", "2001:db8::1", "address"),
        ("DOMAIN", "*.example.test", "wildcard"),
        ("DOMAIN", "app example.test", "remove the blank"),
        ("DOMAIN", "app.example.test; return 200", "not allowed"),
        ("NGINX_MAX_BODY_SIZE", "10 megabytes", "10 megabytes"),
        ("LOG_LEVEL", "loud", "loud"),
        ("UPSTREAM_PORT", "65536", "65536"),
        ("EMAIL", "not an address", "not an address"),
        ("LETSENCRYPT_ACCOUNT_VERSION", "../v1", "../v1"),
        ("CERT_MANAGER_CONFIG", "/nonexistent/settings.yaml", "/nonexistent/settings.yaml"),
    ],
)
def test_unusable_setting_ends_the_start_with_one_line(new_stack, variable, value, problem):
    stack = new_stack(variables={variable: value})
    assert stack.start(with_agent=False).wait_for_exit() == 78
    (line,) = stack.log.lines()  # supervisord would have said something, too
    assert line.startswith("[cert-manager] ") and " - FATAL - " in line
    assert problem in line
    assert variable in line or variable == "CERT_MANAGER_CONFIG"
    assert not is_listening(*stack.http)


def test_unusable_settings_file_is_named_with_line_and_column(new_stack):
    stack = new_stack(settings={"acme.retry_min": "soon"})
    assert stack.start(with_agent=False).wait_for_exit() == 78
    (line,) = stack.log.lines()
    assert f"{stack.config}:" in line and "acme.retry_min" in line and "soon" in line


def test_all_unusable_settings_are_named_at_once(new_stack):
    stack = new_stack(variables={"DOMAIN": "host", "LOG_LEVEL": "loud"})
    assert stack.start(with_agent=False).wait_for_exit() == 78
    assert len(stack.log.lines()) == 2
    assert stack.log.find("DOMAIN") and stack.log.find("LOG_LEVEL")
