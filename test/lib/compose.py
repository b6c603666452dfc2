"""Deployments as the compose files in deploy/ describe them, brought up by podman-compose.

    with Engine() as engine:
        with engine.deployment("docker-compose.yml", variables={...}, override={...}) as deployment:
            deployment.start()
            deployment.cert_manager.wait_for_https()

It needs a network of the process's own (loopback.enter_network_of_own): the containers' bridges are
made in there. They reach an Address, and what is published on it, but no loopback address.
"""

import contextlib
import datetime
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import yaml
from container import ENVIRONMENT, PODMAN, REPOSITORY
from log import Log
from loopback import LoopbackAddress
from processes import adopted, environment, spawn, stop
from running import Running

DEPLOY = REPOSITORY / "deploy"
CERT_MANAGER = "nginx-cert-manager"
STOPS_WITHIN_S = 10  # of docker, when nobody says anything else

# podman keeps what it knows of networks here, for all networks of the machine at once. What it starts
# for them, a DNS server, stands in the network that it is started in.
NETWORKS = ("/run/containers/networks", "/etc/containers/networks")
HOLD = """
for folder; do mkdir -p $folder && mount -t tmpfs none $folder || exit; done
echo ready
exec sleep infinity
"""
# podman-compose calls podman with no options of ours.
OF_THE_ENGINE = """
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

_numbers = itertools.count(1)


class Address(LoopbackAddress):
    """One of this machine that containers reach, too, with every port free (RFC 2544)."""

    def __init__(self):
        self.host = f"198.18.0.{next(_numbers)}"
        self._tell("add")

    def close(self):
        self._tell("delete")

    def _tell(self, verb):
        command = ["ip", "address", verb, f"{self.host}/32", "dev", "lo"]
        subprocess.run(command, env=environment(), check=True)


class Engine:
    """podman and podman-compose, with networks that no other test sees."""

    def __init__(self):
        routes = Path("/proc/self/net/route").read_text().splitlines()
        assert len(routes) == 1, "not a network of our own: it leads elsewhere"
        self.folder = Path(tempfile.mkdtemp(prefix="compose-"))
        self._holder, self._dns = None, contextlib.ExitStack()

    def __enter__(self):
        self.folder.chmod(0o755)
        usual = Path(ENVIRONMENT["CONTAINERS_CONF"]).read_text()
        (self.folder / "containers.conf").write_text(usual + OF_THE_ENGINE)
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", HOLD, "sh", *NETWORKS]
        self._holder = spawn(command, stdout=subprocess.PIPE)
        assert self._holder.stdout.readline() == b"ready\n", "no mounts of its own"
        return self

    def __exit__(self, *_):
        self._dns.close()
        stop(self._holder)
        self._holder.stdout.close()
        shutil.rmtree(self.folder)
        left = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        assert "podman" not in left, f"a bridge has been left behind:\n{left}"

    def command(self, *words):
        """What runs these where the engine's networks are known."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *map(str, words)]

    def run(self, *words, check=True, **variables):
        done = subprocess.run(
            self.command(*words),
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}:\n{done.stdout}"
        return done

    def podman(self, *arguments, check=True):
        return self.run(*PODMAN, "--log-level=fatal", *arguments, check=check).stdout

    def environment(self, **variables):
        ours = {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return environment(**ENVIRONMENT | ours | variables)

    def adopt_dns(self):
        """The server of the containers' names, which outlives the command that has started it."""
        file = Path(f"/proc/{self._holder.pid}/root{NETWORKS[0]}/aardvark-dns/aardvark.pid")
        with contextlib.suppress(FileNotFoundError):
            self._dns.enter_context(adopted_and_awaited(int(file.read_text())))

    def deployment(self, *files, **options):
        return Deployment(self, files, **options)


class Deployment:
    """One project. `files` are names in deploy/; `variables` those of the shell; `override` is laid over
    them, in the form of a compose file; `services` are all that start, unless they are named."""

    def __init__(self, engine, files, *, variables, override=None, services=()):
        self.engine, self.variables = engine, variables
        self.project = f"cert-manager-test-{os.getpid()}-{next(_numbers)}"
        self.folder = engine.folder / self.project
        self._files, self._services, self._override = list(files), services, override or {}
        self._containers = {}

    def __enter__(self):
        # A developer's .env in deploy/ is nobody else's business.
        shutil.copytree(DEPLOY, self.folder, ignore=shutil.ignore_patterns(".env"))
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        contents = [yaml.safe_load((self.folder / name).read_text()) for name in self._files]
        if any(CERT_MANAGER in content["services"] for content in contents):
            # The name that it has there can be had once on a machine.
            own = self._override.setdefault("services", {}).setdefault(CERT_MANAGER, {})
            own["container_name"] = f"{self.project}-{CERT_MANAGER}"
        for content in contents:
            self._make_volumes(content.get("volumes", {}))
        (self.folder / "override.yml").write_text(yaml.safe_dump(self._override))
        self._files.append("override.yml")
        said = self._compose("up", "--detach", *self._services)
        self.engine.adopt_dns()
        for found in json.loads(self.engine.podman("ps", "--all", "--format=json", *self._filter)):
            name = found["Labels"]["com.docker.compose.service"]
            kind = CertManager if name == CERT_MANAGER else Container
            self._containers[name] = kind(self, found["Names"][0])
        assert self._containers, said
        return self

    def stop(self):
        """All of it, and none of its services has to be killed."""
        codes = {}
        try:
            # Not by podman-compose, which takes its time for one after the other.
            if names := [one.name for one in self._containers.values()]:
                self.engine.podman("stop", f"--time={STOPS_WITHIN_S}", *names)
            codes = {service: one.exit_code() for service, one in self._containers.items()}
        finally:
            self._remove()
            containers, self._containers = self._containers, {}
            for one in containers.values():
                one.close()
        assert not any(codes.values()), f"exit codes: {codes}"

    def __getitem__(self, service):
        return self._containers[service]

    @property
    def cert_manager(self):
        return self._containers[CERT_MANAGER]

    @property
    def logs(self):
        return {name: one.log for name, one in self._containers.items()}

    @property
    def _filter(self):
        return ("--filter", f"label=io.podman.compose.project={self.project}")

    def _remove(self):
        """All that has been made for it, however far that has come."""
        for kind in ("container", "network", "volume"):
            all_of_them = ("--all",) if kind == "container" else ()
            names = self.engine.podman(kind, "ls", "--quiet", *all_of_them, *self._filter).split()
            if names:
                self.engine.podman(kind, "rm", "--force", *names)
        # podman-compose makes one from its release 1.1 on.
        self.engine.podman("pod", "rm", "--force", "--ignore", f"pod_{self.project}")

    def _make_volumes(self, volumes):
        """Those with a driver's options, which podman-compose 1.0 does not know."""
        for name, how in volumes.items():
            if options := (how or {}).get("driver_opts"):
                words = [f"--opt={key}={value}" for key, value in options.items()]
                words.append(f"--label=io.podman.compose.project={self.project}")
                self.engine.podman("volume", "create", *words, f"{self.project}_{name}")

    def _compose(self, *words, check=True):
        files = [word for name in self._files for word in ("--file", self.folder / name)]
        command = ["podman-compose", "--project-name", self.project, *files, *words]
        return self.engine.run(*command, check=check, **self.variables).stdout


class Container:
    """One of a deployment, from when it was made."""

    def __init__(self, deployment, name):
        self.deployment, self.name = deployment, name
        self._engine, self.log = deployment.engine, Log()
        self._adopted = contextlib.ExitStack()
        self._begin_log()

    def _begin_log(self, *options):
        state = self._state()
        self.pid = state["Pid"]
        self._adopted.enter_context(adopted_and_awaited(state["ConmonPid"]))
        self._follower = spawn(
            self._engine.command(*PODMAN, "logs", "--follow", *options, self.name),
            env=self._engine.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log.follow(self._follower.stdout)

    def _end_log(self):
        """It ends by itself, when the container has ended."""
        self.log.close()
        stop(self._follower)
        self._adopted.close()

    def _state(self):
        return json.loads(self._engine.podman("inspect", "--format={{json .State}}", self.name))

    @property
    def is_running(self):
        """As it was started by us: the engine may start it again when it ends."""
        return Path(f"/proc/{self.pid}").exists()

    def exit_code(self):
        return self._state()["ExitCode"]

    def restart(self):
        """The same container once more; its log goes on."""
        self.stop()
        self._end_log()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        self._engine.podman("start", self.name)
        self._begin_log(f"--since={now}")

    def stop(self):
        self._engine.podman("stop", f"--time={STOPS_WITHIN_S}", self.name)

    def execute(self, *command, check=True):
        """What it says."""
        return self._engine.podman("exec", self.name, *command, check=check)

    def close(self):
        self._end_log()


class CertManager(Container, Running):
    """`ca`, `seed` and `agent` are told by the test, where there are any."""

    ca = agent = None
    seed = "seed"

    @property
    def domain(self):
        return self.deployment.variables["DOMAIN"]

    variables = property(lambda self: self.deployment.variables)
    http = property(lambda self: _place(self.variables["HTTP_PORT"]))
    https = property(lambda self: _place(self.variables["HTTPS_PORT"]))

    @property
    def tls(self):
        return Path(f"/proc/{self.pid}/root/etc/nginx/ssl")

    @property
    def run_dir(self):
        return Path(f"/proc/{self.pid}/root/run/cert-manager")

    def close(self):
        super().close()
        self.assert_no_trouble()


@contextlib.contextmanager
def adopted_and_awaited(pid):
    """A process of the engine's that has become our child. When it ends, podman waits for it to vanish."""

    def wait():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    threading.Thread(target=wait, daemon=True).start()
    with adopted(pid):
        yield


def _place(published):
    host, _, port = published.partition(":")
    return host, int(port)


def merged(*files, **variables):
    """What docker-compose makes of these files in deploy/, once it has nothing to complain of."""
    words = [word for name in files for word in ("--file", DEPLOY / name)]
    with tempfile.NamedTemporaryFile() as no_variables:
        done = subprocess.run(
            ["docker-compose", "--env-file", no_variables.name, *words, "config"],
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, ""), f"{files}: {done.stderr}"
    return yaml.safe_load(done.stdout)


