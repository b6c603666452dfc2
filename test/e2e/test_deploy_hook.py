"""hooks/deploy, as certbot calls it for lineages that it manages by itself."""

import os
import subprocess

import pki
import pytest
from deploying import LIMIT_S, environment_of, start_daemon, stop_daemon
from rotation import SETTLED, assert_at_rest, assert_measured, serve
from stack import REPOSITORY

HOOK = REPOSITORY / "hooks/deploy"


class Certbot:
    """One that somebody has set up beside the container, with an account and lineages of its own."""

    def __init__(self, program, stack, folder):
        self._program, self._stack, self._folder = program, stack, folder
        self.live = folder / "config/live/app"

    def run(self, *arguments):
        """Its exit code, and all that it says."""
        folders = {name: self._folder / name for name in ("config", "work", "logs")}
        places = [word for name, path in folders.items() for word in (f"--{name}-dir", path)]
        done = subprocess.run(
            [self._program, *arguments, "--non-interactive", "--max-log-backups", "0", *places],
            env=environment_of(self._stack, REQUESTS_CA_BUNDLE=str(self._stack.ca.bundle)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        print(done.stdout)
        return done.returncode, done.stdout

    def obtain(self):
        where = ["--server", self._stack.ca.directory, "--webroot", "-w"]
        where += [self._stack.folder["webroot"], "-d", self._stack.domain, "--cert-name", "app"]
        terms = ["--agree-tos", "--register-unsafely-without-email", "--key-type", "ecdsa"]
        return self.run("certonly", *where, *terms, "--deploy-hook", HOOK)

    def renew(self):
        return self.run("renew", "--force-renewal", "--no-random-sleep-on-renew")

    def leaf(self):
        return pki.read_chain((self.live / "fullchain.pem").read_text())[0]

    def assert_deployed(self):
        """Its leaf and its key are what is served."""
        key = pki.serialization.load_pem_private_key((self.live / "privkey.pem").read_bytes(), None)
        assert_at_rest(self._stack, self.leaf(), key)
        return pki.sha256(self.leaf())


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon", "no daemon"])
def test_lineage_is_served_when_it_is_issued_and_when_it_is_renewed(
    new_stack, tmp_path, certbot, with_daemon
):
    stack = new_stack(settings={"tls.key": "external"})
    lineage = Certbot(certbot, stack, tmp_path)
    stack.start().wait_for_http()
    stack.log.wait_for("no usable pair is stored; tls.key is external")
    if not with_daemon:
        stop_daemon(stack)
    code, said = lineage.obtain()
    assert code == 0 and f"HTTPS serves {stack.domain} with leaf" in said
    first = lineage.assert_deployed()
    code, said = lineage.renew()
    assert code == 0 and f"HTTPS serves {stack.domain} with leaf" in said
    second = lineage.assert_deployed()
    assert_measured(stack, [first, second])
    if not with_daemon:
        mark = stack.log.mark()
        start_daemon(stack)
        stack.log.wait_for(SETTLED, since=mark)
        assert lineage.assert_deployed() == second
        assert_measured(stack, [first, second])


def call(stack, **variables):
    environment = environment_of(stack, **variables)
    done = subprocess.run([HOOK], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_hook_without_a_lineage_says_so_in_one_line(stack):
    code, output, complaints = call(stack)
    assert (code, output) == (2, "")
    assert complaints.count("\n") == 1 and "RENEWED_LINEAGE is not set" in complaints


def test_hook_fails_with_the_line_of_the_command(stack, tmp_path):
    """certbot shows it, and goes on."""
    leaf = serve(stack)
    lineage = Certbot("/usr/bin/certbot", stack, tmp_path)
    code, said = lineage.obtain()
    assert code == 0 and "reported error code 1" in said, "the key is not the derived one"
    assert said.count("cert-manager deploy: ") == 1 and "than the derived one" in said
    assert_at_rest(stack, leaf)
    code, output, complaints = call(stack, RENEWED_LINEAGE=str(lineage.live))
    assert (code, output) == (1, "") and complaints.count("\n") == 1


def test_hook_is_a_small_script_for_any_shell():
    text = HOOK.read_text()
    assert text.startswith("#!/bin/sh\n") and os.access(HOOK, os.X_OK)
    subprocess.run(["sh", "-n", HOOK], check=True)
