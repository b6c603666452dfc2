"""`csr` and `account`: what a person wants to know of keys that nobody sees."""

import pki
import pytest
from cryptography import x509
from acme_client import deactivate_account
from commands import command
from conftest import logs_of
from rotation import serve
from stack import Stack

CANNOT_RUN, EXIT_CONFIG = 1, 78


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container that is asked"] = stack.log
        serve(stack)
        yield stack


# ---- csr ----


def test_request_is_for_the_derived_key_and_all_names(new_stack):
    stack = new_stack(settings={"domains": ["other.example.test"]}).prepare()
    said = command(stack, "csr")
    request = x509.load_pem_x509_csr(said.out.encode())
    assert (said.code, said.err) == (0, "")
    assert pki.same_key(request, stack.tls_key) and request.is_signature_valid
    assert pki.names(request) == [stack.domain, "other.example.test"]


def test_request_in_development_is_for_the_fixed_key(new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"}).prepare(with_agent=False)
    said = command(stack, "csr")
    assert said.code == 0
    assert pki.same_key(x509.load_pem_x509_csr(said.out.encode()), pki.DEVELOPMENT_KEY)


@pytest.mark.parametrize("words", [["csr"], ["account"]])
def test_agent_that_is_not_there_is_named(stack, words):
    stack.prepare(with_agent=False)
    said = command(stack, *words)
    assert (said.code, said.out) == (CANNOT_RUN, "")
    assert str(stack.agent.endpoint) in said.err


@pytest.mark.parametrize("words", [["csr"], ["account"]])
def test_with_an_external_key_there_is_nothing_to_show(new_stack, words):
    stack = new_stack(settings={"tls.key": "external"}).prepare()
    said = command(stack, *words)
    assert (said.code, said.out) == (EXIT_CONFIG, "")
    assert "tls.key" in said.err and "external" in said.err


# ---- account ----


def test_account_is_as_the_daemon_has_it(served):
    (expected,) = served.status()["authorities"]
    for words in ([], ["--offline"]):
        said = command(served, "account", "--json", *words)
        (found,) = said.json["authorities"]
        assert said.code == 0
        assert (found["directory"], found["account"]) == (served.ca.directory, expected["account"])
        assert found["state"] == ("unknown" if words else "valid")
        assert said.json["thumbprint"] == served.status()["nginx"]["answers_challenges_of"]


def test_account_is_shown_to_people(served):
    said = command(served, "account")
    account = served.status()["authorities"][0]["account"]
    assert said.code == 0
    assert f"\n  account      {account}\n" in said.out and "\n  state        valid\n" in said.out
    assert "\x1b" not in said.out


def test_no_account_is_made(stack):
    stack.prepare()
    mark = stack.ca.log.mark()
    said = command(stack, "account", "--json")
    (found,) = said.json["authorities"]
    assert (said.code, found["state"], found["account"]) == (0, "none", None)
    assert stack.ca.accounts(since=mark) == 0


def test_each_ca_is_asked_and_one_that_is_down_is_told(new_ca, new_stack):
    main, other = new_ca(has_door=True), new_ca()
    fallback = [{"directory": other.directory, "ca_bundle": str(other.bundle)}]
    stack = new_stack(main, settings={"acme.fallback": fallback}).prepare()
    main.shut()
    said = command(stack, "account", "--json")
    first, second = said.json["authorities"]
    assert (said.code, first["state"], second["state"]) == (CANNOT_RUN, "unknown", "none")
    assert main.directory in first["problem"] and second["problem"] is None


def test_deactivated_account_says_what_to_do(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    serve(stack)
    key = pki.derived_key(stack.seed, f"letsencrypt-account/{stack.domain}/v1")
    (account,) = stack.status()["authorities"]
    deactivate_account(ca.directory, ca.bundle, key, account["account"])
    said = command(stack, "account")
    assert said.code == 0
    assert "deactivated" in said.out and "LETSENCRYPT_ACCOUNT_VERSION" in said.out
