"""`cert-manager deploy` beside a container, and what it is given."""

import os
import signal
import subprocess
from pathlib import Path

import pki
from commands import environment_in
from loopback import wait_until
from processes import environment, is_alive
from stack import BUILD, PROGRAM

LIMIT_S = 240


def environment_of(stack, **more):
    """As a shell in the container has it: the program is found, and the settings."""
    path = f"{BUILD}:{environment()['PATH']}"
    return environment_in(stack, {"PATH": path} | more)


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


def stop_daemon(stack):
    """supervisord, which would start it again, stops as well, until start_daemon()."""
    daemon = stack.daemon()
    os.kill(stack.pid, signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(daemon.pid), "the daemon ends")
    stack.expected_trouble = r"exited: cert-manager \(exit status 0; not expected\)"


def start_daemon(stack):
    os.kill(stack.pid, signal.SIGCONT)
