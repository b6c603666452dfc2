"""The image in a container, run by podman as a deployment would run it.

    with Pebble(usual_ports=True) as ca, Container(ca) as container:
        container.start()
        container.wait_for_https()

It shares the network of this process, where it has ports 80 and 443 of every address: see
loopback.enter_network_of_own(). The guest agent runs in the test, its socket is mounted. start()
after stop() is another container of the same image, with the same volumes.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from connection import Http1
from log import Log
from loopback import wait_until
from processes import adopted, environment, read_proc
from running import Running
from stack import yaml_of

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "test/fakes"))

from guest_agent import GuestAgent  # noqa: E402

IMAGE = os.environ.get("IMAGE", "localhost/cert-manager:test")
# runc and cgroupfs: also where no systemd runs, and where control groups are those of both versions.
PODMAN = ("podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
ENVIRONMENT = {
    "HOME": str(Path.home()),
    "CONTAINERS_CONF": str(REPOSITORY / "test/image/containers.conf"),
}
STOP_TIMEOUT_S = 10  # engines kill what has not ended by then

# What deployments may take from the container, one by one or together.
READ_ONLY = ("--read-only", "--read-only-tmpfs=false")
READ_ONLY += ("--tmpfs=/run", "--tmpfs=/tmp", "--tmpfs=/acme-challenge")
# Numbers as in linux/capability.h.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10}
FEW_CAPABILITIES = ("--cap-drop=ALL", f"--cap-add={','.join(CAPABILITIES)}")
NO_NEW_PRIVILEGES = ("--security-opt=no-new-privileges",)

# Nothing but the image is needed.
DEVELOPMENT = {"DEV_MODE": "true", "LOG_LEVEL": "info"}

_numbers = itertools.count(1)


class Container(Running):
    """`variables` are the container's environment; `settings` keys of a configuration file, with which
    it has one; `volumes` further mounts, path in the container to path here; `options` podman's.

    Without a CA it can be in development mode alone. `agent` False: there is no guest agent.
    """

    http, https = ("127.0.0.1", 80), ("127.0.0.1", 443)

    def __init__(
        self,
        ca=None,
        *,
        image=IMAGE,
        domain=None,
        seed="seed",
        agent=True,
        variables=None,
        settings=None,
        volumes=None,
        options=(),
    ):
        self.ca, self.seed, self.image, self.options = ca, seed, image, options
        self.name = f"cert-manager-test-{os.getpid()}-{next(_numbers)}"
        self.domain = domain or f"{self.name}.example.test"
        self.variables = {"DOMAIN": self.domain} | (variables or {})
        self.settings = (settings or {}) | (self._of_ca() if ca else {})
        self.log = Log()
        self.folder = Path(tempfile.mkdtemp(prefix="cert-manager-image-"))
        self.folder.chmod(0o755)
        self.volume = self.folder / "volume"  # of the TLS folder
        self.volume.mkdir()
        self.volumes = {"/etc/nginx/ssl": self.volume} | (volumes or {})
        self.agent = None
        if agent and ca:
            self.agent = GuestAgent(self.folder / "dstack.sock", seed=seed)
        if ca:
            ca.point(self.domain, self.http[0])
        self._run = self._pid = None
        self._is_adopted = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            if self.agent:
                self.agent.clear()
                self.agent.stop()
            shutil.rmtree(self.folder)
        self.assert_no_trouble()

    # Its life.

    def start(self):
        """It runs, and nothing is waited for."""
        if self.agent:
            self.agent.start()
        options = ["--name", self.name, "--network=host", "--health-interval=disable"]
        options += [f"--env={name}={value}" for name, value in self.variables.items()]
        volumes = dict(self.volumes)
        if self.agent:
            volumes["/var/run/dstack.sock"] = self.agent.endpoint
        if self.settings:
            file = self.folder / "config.yaml"
            file.write_text(yaml_of(self.settings))
            volumes["/etc/cert-manager/config.yaml"] = file
        if self.ca:
            volumes["/etc/cert-manager/ca.pem"] = self.ca.bundle
            options += [f"--dns={self.ca.address}"]
        options += [f"--volume={source}:{target}" for target, source in volumes.items()]
        pid, conmon = self.folder / "pid", self.folder / "conmon.pid"
        for file in (pid, conmon):
            file.unlink(missing_ok=True)
        options += [f"--pidfile={pid}", f"--conmon-pidfile={conmon}", *self.options]
        self._run = subprocess.Popen(
            [*PODMAN, "--log-level=fatal", "run", *options, self.image],
            env=environment(**ENVIRONMENT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.log.follow(self._run.stdout)
        wait_until(lambda: _number_in(pid) or self._run.poll() is not None, "podman starts it")
        self._pid = _number_in(pid)
        if _number_in(conmon):
            self._is_adopted.enter_context(adopted(_number_in(conmon)))
        return self

    def wait_for_exit(self, timeout=20.0):
        """The exit code of one that ends by itself."""
        code = self._run.wait(timeout)
        self._remove()
        return code

    def stop(self, meanwhile=lambda: None):
        """As the engine's `stop` does it: all of it ends by itself, and in time. The seconds it took."""
        if not self._run:
            return None
        began = time.monotonic()
        with subprocess.Popen(
            [*PODMAN, "stop", f"--time={STOP_TIMEOUT_S}", self.name],
            env=environment(**ENVIRONMENT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ):
            meanwhile()
        code = self._run.wait()
        took = time.monotonic() - began
        self._remove()
        assert code == 0, f"exit code {code} after it was stopped"
        return took

    def cut_power(self):
        """SIGKILL to all of it at once."""
        podman("kill", "--signal=KILL", self.name)
        self._run.wait()
        self._remove()

    def restart(self):
        self.stop()
        return self.start()

    def lose_volume(self):
        """That of the TLS folder is empty when it is started again."""
        shutil.rmtree(self.volume)
        self.volume.mkdir()

    def _remove(self):
        podman("rm", "--force", "--volumes", self.name)
        self.log.close()
        self._is_adopted.close()
        self._run = self._pid = None

    # What is done in it.

    def ask(self, path, method="GET", headers=(), body=b""):
        """One request over HTTPS, whose certificate is not verified."""
        with Http1(self.https, self.domain) as connection:
            return connection.request(method, path, headers, body)

    def execute(self, *command, check=True):
        """Output and errors of a command in it."""
        return podman("exec", self.name, *command, check=check)

    def kill(self, pid):
        """SIGKILL to one of its processes, which must not be anybody else's by now."""
        assert pid in [process.pid for process in self.processes()]
        os.kill(pid, signal.SIGKILL)

    def capabilities_of(self, process):
        """The effective ones, a bit each."""
        lines = read_proc(process.pid, "status").decode().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)

    def health(self):
        """The exit code of the image's own health check, as the engine runs it."""
        return podman("healthcheck", "run", self.name, check=False).returncode

    # Where it is.

    @property
    def is_running(self):
        return self._run is not None and self._run.poll() is None

    @property
    def pid(self):
        return self._pid

    @property
    def root(self):
        """Its root folder, from here."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def run_dir(self):
        return self.root / "run/cert-manager"

    @property
    def tls(self):
        return self.volume

    def _of_ca(self):
        return {"acme.directory": self.ca.directory, "acme.ca_bundle": "/etc/cert-manager/ca.pem"}


def hosts_of(backends):
    """podman's options by which a container finds the services under the names that deployments give them."""
    return [f"--add-host={service.name}:{backends.address}" for service in backends.services]


def podman(*arguments, check=True):
    """One command of the engine; what it printed is in the failure."""
    done = subprocess.run(
        [*PODMAN, *map(str, arguments)],
        env=environment(**ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"podman {arguments}: {done.stdout}{done.stderr}"
    return done


def _number_in(file):
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(file.read_text())
    return None
