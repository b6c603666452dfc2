"""A shell in a container, as `docker exec` opens one: whoever reads documentation types there.

    with Operator(stack) as operator:
        code, output = operator.run("cert-manager status")

Paths are those of the image: a file system of its own has the folders of the stack in their places,
and everything else from the machine. Names lead to the stack, at port 80 and 443 when it has those.
That needs root. Messages of the daemon, which runs outside, have its paths replaced.

usual(stack) gives a stack of a Pebble with `usual_ports` the other usual port.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import environment, spawn, stop
from stack import PROGRAM, REPOSITORY

TIMEOUT_S = 60
CA = "https://acme-v02.api.letsencrypt.org"
ADDRESS = "203.0.113.10"  # one of those for documentation (RFC 5737)

# $1 is the folder that becomes the root. What is not made here are links into /host.
MAKE_ROOT = r"""
set -eu
mount -t tmpfs -o mode=0755 tmpfs "$1"
cd "$1"
mkdir host
mount --rbind / host
links() {  # to all that the machine has in a folder
    mkdir -p "./$1"
    for entry in "/$1"/* "/$1"/.[!.]*; do
        [ -e "./$entry" ] || [ ! -e "$entry" ] || ln -s "/host/$entry" "./$entry"
    done
}
mkdir -p app/nginx_conf acme-challenge run/cert-manager usr/share/cert-manager/nginx_conf root var/log
cp -a /etc etc
rm -rf etc/nginx etc/supervisor etc/hosts
mkdir -p etc/nginx etc/cert-manager etc/supervisor/conf.d
links usr
links usr/share
links var
links ""
"""


def usual(stack):
    """The same container, with HTTPS at its usual port."""
    stack.https_port = stack.settings["nginx.https_port"] = stack.address.port(443)
    return stack


class Operator:
    """`folder` is the working directory, where commands may leave files."""

    def __init__(self, stack):
        self.stack = stack
        self.folder = Path(tempfile.mkdtemp(prefix="operator-"))
        self._root = self.folder / "root"
        self._holder = None

    def __enter__(self):
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """The mounts go with their namespace, and that with its only process."""
        if self._holder:
            self._holder.stdin.close()
            stop(self._holder)
        shutil.rmtree(self.folder)

    def run(self, text):
        """Exit code and output of a command, both streams as they come."""
        enter = ["nsenter", "--target", self._holder.pid, "--mount", "chroot", self._root]
        done = subprocess.run(
            [*map(str, enter), "bash", "-c", f"set -o pipefail; cd {self.folder}\n{text}"],
            env=self._environment(),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
        return done.returncode, self.as_in_image(done.stdout.decode(errors="replace"))

    def exists(self, pattern):
        return self.run(f"compgen -G {pattern!r}")[0] == 0

    def as_in_image(self, text):
        """A text of the daemon as it would be there: paths, address, and Let's Encrypt as the CA."""
        for path, place in self._places().items():
            text = text.replace(f"/host{place}", path).replace(str(place), path)
        directory = self.stack.ca.directory
        text = text.replace(directory, f"{CA}/directory")
        text = text.replace(f"{directory.removesuffix('/dir')}/my-account/", f"{CA}/acme/acct/")
        text = text.replace(str(self.stack.address), ADDRESS)
        text = re.sub("Pebble Intermediate CA [0-9a-f]+", "E7", text)
        return text.replace(str(self.stack.root), "")

    def _environment(self):
        tools = f"{self.folder}:{environment()['PATH']}"
        ca = {"CURL_CA_BUNDLE": str(self.folder / "root.pem")}
        return environment() | self.stack.variables | ca | {"PATH": tools}

    def _places(self):
        stack = self.stack
        return {
            "/etc/cert-manager/config.yaml": stack.config,
            "/etc/supervisor/conf.d/supervisord.conf": stack.supervisord_conf,
            "/etc/supervisor/supervisord.conf": stack.supervisord_conf,
            "/var/run/dstack.sock": stack.agent.endpoint,
            "/etc/nginx": stack.folder["nginx"],
            "/run/cert-manager": stack.folder["run_dir"],
            "/run/nginx.pid": stack.pid_file,
            "/acme-challenge": stack.folder["webroot"],
            "/app/nginx_conf": stack.folder["templates"],
            "/usr/share/cert-manager/nginx_conf": stack.folder["stock_templates"],
            "/usr/bin/cert-manager": PROGRAM,
        }

    def _open(self):
        self.folder.chmod(0o755)
        self._root.mkdir()
        self._tool("cert-manager", f'exec {PROGRAM} "$@"')
        self._tool("less", "exec cat")
        (self.folder / "deploy").symlink_to(REPOSITORY / "deploy")
        (self.folder / "root.pem").write_text(self.stack.ca.root())
        script = MAKE_ROOT
        for path, place in self._places().items():
            if path == "/var/run/dstack.sock":  # it may vanish, and come back
                script += f"ln -s '{place}' run/dstack.sock\n"
            elif Path(place).is_dir():
                script += f"mount --rbind '{place}' .{path}\n"
            elif not path.startswith("/usr"):
                script += f"ln -s '{place}' .{path}\n"
        names = f"127.0.0.1 localhost\n{self.stack.address} {self.stack.domain}\n"
        script += f"printf '{names}' >etc/hosts\n"
        script += "exec chroot . sh -c 'echo made; exec cat'\n"
        # A volume of the stack is to be seen in the stack's own mounts only.
        stack = self.stack
        enter = ["nsenter", "--target", stack.pid, "--mount"] if stack.is_running else []
        self._holder = spawn(
            [*enter, "unshare", "--mount", "bash", "-c", script, "bash", self._root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        said = self._holder.stdout.readline()
        assert said == b"made\n", f"no file system for the operator: {said!r}"

    def _tool(self, name, script):
        path = self.folder / name
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)
