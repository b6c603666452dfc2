"""`cert-manager revoke`: after a compromise, never by accident."""

import pki
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from acme_client import deactivate_account
from commands import command, command_at_terminal
from rotation import serve

REVOKED, NOT_REVOKED, WRONG_USE, EXIT_CONFIG = 0, 1, 2, 78


def test_served_certificate_is_revoked(stack):
    leaf = serve(stack)
    said = command(stack, "revoke", "--yes", "--reason", "superseded")
    assert (said.code, stack.ca.status_of(leaf)) == (REVOKED, ("Revoked", 4)), said
    assert f"{leaf.serial_number:x}" in said.out and "cert-manager renew --force" in said.out
    assert stack.served_leaf() == leaf
    again = command(stack, "revoke", "--yes")
    assert again.code == REVOKED and "revoked already" in again.out


def test_it_is_asked_twice_at_a_terminal(stack):
    leaf = serve(stack)
    for answers in (["no"], ["yes", "yes"], ["yes", f"{stack.domain}.evil"], ["\x04"]):
        said = command_at_terminal(stack, "revoke", answers=answers)
        assert said.code == NOT_REVOKED and "nothing was revoked" in said.out, said.out
    assert stack.ca.status_of(leaf)[0] == "Valid"
    said = command_at_terminal(stack, "revoke", answers=["yes", stack.domain])
    assert (said.code, stack.ca.status_of(leaf)) == (REVOKED, ("Revoked", 0)), said.out


def test_without_a_terminal_nobody_can_be_asked(stack):
    leaf = serve(stack)
    said = command(stack, "revoke", input=f"yes\n{stack.domain}\n")
    assert (said.code, stack.ca.status_of(leaf)[0]) == (WRONG_USE, "Valid")
    assert "--yes" in said.err


def test_key_compromise_says_that_the_key_stays(stack):
    leaf = serve(stack)
    said = command(stack, "revoke", "--yes", "--reason", "key-compromise")
    assert (said.code, stack.ca.status_of(leaf)) == (REVOKED, ("Revoked", 1))
    assert "derives the key" in said.out


def test_other_file_is_revoked(stack):
    leaf = serve(stack)
    file = stack.root / "old.pem"
    file.write_bytes(leaf.public_bytes(Encoding.PEM))
    stack.chain_file.unlink()
    said = command(stack, "revoke", "--yes", "--cert", file)
    assert (said.code, stack.ca.status_of(leaf)[0]) == (REVOKED, "Revoked"), said
    assert "renew --force" not in said.out


def test_account_that_is_gone_is_stood_in_for_by_the_certificates_key(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    leaf = serve(stack)
    key = pki.derived_key(stack.seed, f"letsencrypt-account/{stack.domain}/v1")
    (account,) = stack.status()["authorities"]
    deactivate_account(ca.directory, ca.bundle, key, account["account"])
    said = command(stack, "revoke", "--yes")
    assert (said.code, ca.status_of(leaf)[0]) == (REVOKED, "Revoked"), said


def test_other_account_is_stood_in_for_by_the_certificates_key(stack):
    leaf = serve(stack)
    other = command(stack, "revoke", "--yes", variables={"LETSENCRYPT_ACCOUNT_VERSION": "v2"})
    assert (other.code, stack.ca.status_of(leaf)[0]) == (REVOKED, "Revoked"), other


def test_nonces_that_are_refused_are_lived_with(new_ca, new_stack):
    ca = new_ca(rejected_nonces=20)  # certbot repeats a request once: more, and it rarely gets through
    stack = new_stack(ca)
    leaf = serve(stack)
    said = command(stack, "revoke", "--yes")
    assert (said.code, ca.status_of(leaf)[0]) == (REVOKED, "Revoked"), said


def test_ca_that_has_issued_it_is_found(new_ca, new_stack):
    main, other = new_ca(has_door=True), new_ca()
    fallback = [{"directory": other.directory, "ca_bundle": str(other.bundle)}]
    stack = new_stack(main, settings={"acme.fallback": fallback})
    leaf = serve(stack)
    elsewhere = command(stack, "revoke", "--yes", "--directory", other.directory)
    assert (elsewhere.code, main.status_of(leaf)[0]) == (NOT_REVOKED, "Valid")
    assert other.directory in elsewhere.err
    unknown = command(stack, "revoke", "--yes", "--directory", "https://127.0.0.1/dir")
    assert unknown.code == EXIT_CONFIG
    assert command(stack, "revoke", "--yes").code == REVOKED
    assert main.status_of(leaf)[0] == "Revoked"


def test_certificate_that_no_ca_knows_is_not_revoked(stack):
    stack.prepare()
    stack.put_pair(pki.Authority().issue(stack.domain, stack.tls_key), stack.tls_key)
    said = command(stack, "revoke", "--yes")
    assert (said.code, said.out) == (NOT_REVOKED, "") and stack.ca.directory in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], NOT_REVOKED, "cert.pem: No such file"),
        (["--cert", "/nonexistent.pem"], NOT_REVOKED, "/nonexistent.pem: "),
        (["--cert", "/etc/hostname"], NOT_REVOKED, "/etc/hostname: "),
        (["--reason", "boredom"], WRONG_USE, "--reason: "),
    ],
)
def test_what_cannot_be_revoked_is_named(stack, words, code, text):
    said = command(stack.prepare(), "revoke", "--yes", *words)
    assert (said.code, said.out) == (code, "") and text in said.err
