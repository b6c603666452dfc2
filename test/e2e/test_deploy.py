"""A certificate that somebody brings: `cert-manager deploy`, with a daemon and without.

Exit code and line are right, and afterwards served leaf, last event and disk are one, whatever was
brought, and whatever went wrong.
"""

import os
import signal
import subprocess
from pathlib import Path

import pki
import pytest
from loopback import wait_until
from processes import environment
from rotation import SETTLED, LeafWatch, Rotation, assert_at_rest, assert_measured, serve
from stack import BUILD, PROGRAM, REPOSITORY

HOOK = REPOSITORY / "hooks/deploy"
LIMIT_S = 120


def environment_of(stack, **more):
    path = f"{BUILD}:{environment()['PATH']}"
    return environment(CERT_MANAGER_CONFIG=str(stack.config), PATH=path, **stack.variables, **more)


def begin(stack, *arguments):
    return subprocess.Popen(
        [PROGRAM, "deploy", *map(str, arguments)],
        env=environment_of(stack),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """Exit code, and the lines of both outputs."""
    output, complaints = process.communicate(timeout=LIMIT_S)
    return process.returncode, output.splitlines(), complaints.splitlines()


def deploy(stack, *arguments):
    return end(begin(stack, *arguments))


def refused(stack, *arguments):
    """Why, in its one line."""
    code, output, complaints = deploy(stack, *arguments)
    assert (code, output) == (1, []) and len(complaints) == 1, (code, output, complaints)
    assert complaints[0].startswith("cert-manager deploy: ")
    return complaints[0].removeprefix("cert-manager deploy: ")


def served(stack, leaf, *arguments):
    """It says so in one line. What it logs: nothing while a daemon does it."""
    code, output, complaints = deploy(stack, *arguments)
    assert code == 0 and len(output) == 1, (code, output, complaints)
    assert f"HTTPS serves {stack.domain} with leaf {pki.sha256(leaf)}, valid until" in output[0]
    assert "attested" in output[0]
    return output[0], complaints


class Lineage:
    """Files as certbot lays them out: live/ has links into archive/."""

    def __init__(self, folder, name="app"):
        self.live, self._archive = folder / "live" / name, folder / "archive" / name
        self._number = 0
        for path in (self.live, self._archive):
            path.mkdir(parents=True)

    def put(self, chain, key):
        self._number += 1
        leaf, *rest = pki.read_chain(chain)
        texts = {
            "cert": pki.certificate_pem(leaf),
            "chain": pki.certificate_pem(*rest),
            "fullchain": chain,
            "privkey": pki.key_pem(key),
        }
        for what, text in texts.items():
            file = self._archive / f"{what}{self._number}.pem"
            file.write_text(text)
            link = self.live / f"{what}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../../archive") / self._archive.name / file.name)
        return leaf


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
