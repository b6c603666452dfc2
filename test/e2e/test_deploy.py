"""A certificate that somebody brings: `cert-manager deploy`, with a daemon and without.

Exit code and line are right, and afterwards served leaf, last event and disk are one, whatever was
brought, and whatever went wrong.
"""

import os
import re

import pki
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from deploying import Lineage, deploy, refused, served, start_daemon, stop_daemon
from rotation import SETTLED, LeafWatch, Rotation, assert_at_rest, assert_measured, serve

@pytest.fixture(name="lineage")
def fixture_lineage(tmp_path):
    return Lineage(tmp_path)


# With a daemon, and the derived key


def test_lineage_of_our_key_is_measured_and_served_and_again_is_nothing(stack, lineage):
    rotation = Rotation(stack)
    old = serve(stack)
    mark, leaf = stack.log.mark(), lineage.put(rotation.next(), rotation.key)
    with LeafWatch(stack) as watch:
        line, complaints = served(stack, leaf, "--lineage", lineage.live)
        assert line.endswith(", attested") and complaints == []
        watch.wait_for(leaf)
    assert watch.seen == [old, leaf]
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, leaf)
    for _ in range(2):
        assert served(stack, leaf, "--lineage", lineage.live) == (line, [])
    assert_measured(stack, rotation.names)
    assert not stack.log.find("ERROR|reload", stack.log.mark())


def test_key_may_be_left_out_when_it_is_the_derived_one(stack, tmp_path):
    rotation = Rotation(stack)
    serve(stack)
    file = tmp_path / "chain.pem"
    file.write_text(f"somebody's words\n{rotation.next()}")
    served(stack, rotation.leaf, "--fullchain", file)
    assert_at_rest(stack, rotation.leaf)
    assert_measured(stack, rotation.names)


K = pki.new_key()
BAD = {
    "another key": ("for another key than the derived one", lambda s, a: (a.issue(s.domain, K), K)),
    "a key that is not its own": (
        "fullchain.pem with .*privkey.pem: the private key does not belong to the certificate",
        lambda s, a: (a.issue(s.domain, s.tls_key), K),
    ),
    "another name": (
        "not for app.*; its DNS names: other.test",
        lambda s, a: (a.issue("other.test", s.tls_key), s.tls_key),
    ),
    "expired": (
        "was valid until",
        lambda s, a: (a.issue(s.domain, s.tls_key, start=-91 * pki.DAY), s.tls_key),
    ),
    "not valid yet": (
        "not valid before",
        lambda s, a: (a.issue(s.domain, s.tls_key, start=pki.DAY), s.tls_key),
    ),
    "older": (
        "older than the one that is served: valid from",
        lambda s, a: (a.issue(s.domain, s.tls_key, start=-2 * pki.DAY), s.tls_key),
    ),
    "self-signed": (
        "the certificate is self-signed",
        lambda s, a: (pki.self_signed(s.domain, s.tls_key), s.tls_key),
    ),
    "of a staging CA": (
        "issued by a staging CA",
        lambda s, a: (pki.Authority("(STAGING) Pear").issue(s.domain, s.tls_key), s.tls_key),
    ),
    "signed by another than the next": (
        "certificate 1 .* is not signed by certificate 2",
        lambda s, a: (
            pki.certificate_pem(
                pki.read_chain(a.issue(s.domain, s.tls_key))[0], pki.Authority("Other").certificate
            ),
            s.tls_key,
        ),
    ),
}


def test_whatever_must_not_be_served_is_refused_in_one_line(stack, tmp_path):
    rotation = Rotation(stack)
    leaf, mark = serve(stack), stack.log.mark()
    for number, (what, (why, make)) in enumerate(BAD.items()):
        lineage = Lineage(tmp_path / str(number))
        lineage.put(*make(stack, rotation.authority))
        found = refused(stack, "--lineage", lineage.live)
        assert re.search(why, found), f"{what}: {found}"
        # The command itself sees of two files that they are no pair.
        if what != "a key that is not its own":
            stack.log.wait_for(re.escape(f"WARNING - a deployment is refused: {found}"), since=mark)
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)
    assert len(stack.log.find_all("WARNING|ERROR", mark)) == len(BAD) - 1


def test_files_that_are_none_are_refused_in_one_line(stack, tmp_path):
    """Nobody waits for a FIFO, and nobody reads ten megabytes. No daemon is needed to see it."""
    stack._lay_out()
    chain = pki.Authority().issue(stack.domain, stack.tls_key)

    def look(why, fullchain, privkey):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, make in {"fullchain.pem": fullchain, "privkey.pem": privkey}.items():
            make(folder / name)
        found = refused(stack, "--lineage", folder)
        assert re.search(why, found) and str(folder) in found, found

    def text(what):
        return lambda path: path.write_text(what)

    def missing(_):
        pass

    good, key = text(chain), text(pki.key_pem(stack.tls_key))
    look("fullchain.pem: No such file", missing, key)
    look("privkey.pem: No such file", good, missing)
    look("fullchain.pem.*empty", text(""), key)
    look("damaged PEM", text(chain[: len(chain) // 3]), key)
    look("private key: no PEM block found", good, text(""))
    look("private key: ", good, text(pki.key_pem(stack.tls_key)[:100]))
    look("fullchain.pem: .*131072", text("x" * 10_000_000), key)
    look("privkey.pem: .*16384", good, text("x" * 10_000_000))
    look("regular file", os.mkfifo, key)
    look("regular file", good, os.mkfifo)
    look("a folder, expected a regular file", os.mkdir, key)
    look("No such file", lambda path: path.symlink_to("nowhere"), key)
    look("Too many levels", lambda path: path.symlink_to(path.name), key)
    look("PRIVATE KEY", text(pki.key_pem(stack.tls_key)), key)
    look("No such file|[Nn]ot a directory", missing, missing)
    assert "Not a directory" in refused(stack, "--lineage", stack.config)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--key", "x"], ["--lineage", "x", "--fullchain", "y"], ["--lineage", "x", "--key", "y"]],
)
def test_wrong_use_is_told(stack, arguments):
    code, output, complaints = deploy(stack, *arguments)
    assert (code, output) == (2, []) and "usage: cert-manager deploy" in "\n".join(complaints)


def test_settings_have_to_be_right_only_without_a_daemon(stack, lineage):
    """A hook need not have the environment of the daemon, which knows what its settings are."""
    rotation = Rotation(stack)
    serve(stack)
    leaf = lineage.put(rotation.next(), rotation.key)
    text, domain = stack.config.read_text(), stack.variables.pop("DOMAIN")
    stack.config.write_text(f"{text}nothing: 1\n")
    served(stack, leaf, "--lineage", lineage.live)
    stop_daemon(stack)
    code, output, complaints = deploy(stack, "--lineage", lineage.live)
    assert (code, output) == (78, []) and 'unknown key "nothing"' in "\n".join(complaints)
    assert "no daemon is at work" in complaints[-1]
    stack.config.write_text(text)
    stack.variables["DOMAIN"] = domain
    served(stack, leaf, "--lineage", lineage.live)
    start_daemon(stack)
    assert_at_rest(stack, leaf)


def test_development_has_its_own_key(new_stack, lineage):
    stack = new_stack(variables={"DEV_MODE": "true"})
    serve(stack)
    chain = pki.Authority().issue(stack.domain, pki.DEVELOPMENT_KEY, start=-pki.MINUTE)
    leaf = lineage.put(chain, pki.DEVELOPMENT_KEY)
    code, output, complaints = deploy(stack, "--lineage", lineage.live)
    assert code == 0 and output[0].endswith(", development"), complaints
    assert stack.served_leaf() == leaf


# Somebody else's key


@pytest.fixture(name="external")
def fixture_external(new_stack):
    return new_stack(settings={"tls.key": "external"})


def test_external_pairs_come_one_after_the_other(external, lineage):
    stack, authority = external, pki.Authority()
    first_key, second_key = pki.new_key(), rsa.generate_private_key(65537, 2048)
    stack.start().wait_for_http()
    first = lineage.put(authority.issue(stack.domain, first_key), first_key)
    served(stack, first, "--lineage", lineage.live)
    assert_at_rest(stack, first, first_key)
    second = lineage.put(authority.issue(stack.domain, second_key), second_key)
    served(stack, second, "--lineage", lineage.live)
    assert_at_rest(stack, second, second_key)
    third = lineage.put(authority.issue(stack.domain, second_key), second_key)
    served(stack, third, "--fullchain", lineage.live / "fullchain.pem")
    assert_at_rest(stack, third, second_key)
    lineage.put(authority.issue(stack.domain, first_key), first_key)
    assert "did not bring its own" in refused(
        stack, "--fullchain", lineage.live / "fullchain.pem"
    )
    assert_at_rest(stack, third, second_key)
    assert_measured(stack, [pki.sha256(leaf) for leaf in (first, second, third)])


# Without a daemon


def test_without_a_daemon_the_command_does_it(stack, lineage):
    rotation = Rotation(stack)
    old = serve(stack)
    stop_daemon(stack)
    leaf = lineage.put(rotation.next(), rotation.key)
    with LeafWatch(stack) as watch:
        _, complaints = served(stack, leaf, "--lineage", lineage.live)
        watch.wait_for(leaf)
    assert watch.seen == [old, leaf]
    assert any("no daemon is at work" in line for line in complaints)
    assert_at_rest(stack, leaf)
    _, complaints = served(stack, leaf, "--lineage", lineage.live)
    mark = stack.log.mark()
    start_daemon(stack)
    stack.log.wait_for(SETTLED, since=mark)
    assert_at_rest(stack, leaf)
    assert_measured(stack, rotation.names)
