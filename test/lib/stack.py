"""A complete container without a container: the image's files in a folder, programs on loopback.

What runs is real: the repository's supervisord.conf, nginx.conf and templates with the paths of
the folder in them, cert-manager, nginx and certbot. Only the guest agent is simulated.

    with Pebble() as ca, Stack(ca) as stack:
        stack.start()
        stack.wait_for_https()
        assert stack.agent.measured()[-1] == sha256(stack.served_leaf())

start() after stop() is another container with the same volume: everything but the TLS folder is
laid out anew. The agent and its event log are not part of the container and stay.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from log import Log
from loopback import LoopbackAddress
from processes import cut, environment, read_proc, spawn, stop
from running import Running

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "test/fakes"))

from guest_agent import GuestAgent  # noqa: E402

BUILD = REPOSITORY / os.environ.get("BUILD", "build/release")
PROGRAM = BUILD / "cert-manager"
SUPERVISORD = "/usr/bin/supervisord"
NGINX = "/usr/sbin/nginx"
CERTBOT = "/usr/bin/certbot"  # the machine's own
NEWER_CERTBOT = REPOSITORY / "build/newer-certbot/bin/certbot"  # that of the image
IS_ROOT = os.geteuid() == 0

_numbers = itertools.count(1)


class Stack(Running):
    """`settings` are keys of the configuration file, `variables` the container's environment.

    With `volume` the TLS folder is mounted: a tmpfs with those mount options, which has what was
    put there before the start and lasts as long as the container. `binds` puts files of the test
    in the place of the machine's. Both happen in a mount namespace of its own, which needs root.
    """

    def __init__(
        self,
        ca,
        *,
        domain=None,
        seed="seed",
        agent=None,
        settings=None,
        variables=None,
        volume=None,
        binds=None,
        certbot=CERTBOT,
        parent="/tmp",
    ):
        self.ca, self.seed = ca, seed
        self.domain = domain or f"app-{os.getpid()}-{next(_numbers)}.example.test"
        self.address = LoopbackAddress()
        self.http_port, self.https_port = ca.http_port, self.address.port(8443)
        ca.point(self.domain, self.address)  # may fail, and nothing has to be removed yet
        # mkdtemp makes it 0700, and certbot's user has to reach its part.
        self.root = Path(tempfile.mkdtemp(prefix="cert-manager-", dir=parent))
        self.root.chmod(0o755)
        self.folder = {
            name: self.root / path
            for name, path in {
                "nginx": "etc/nginx",
                "sites": "etc/nginx/conf.d",
                "templates": "app/nginx_conf",
                "stock_templates": "usr/share/cert-manager/nginx_conf",
                "webroot": "acme-challenge",
                "run": "run",
                "run_dir": "run/cert-manager",
                "temporary": "var/lib/nginx",
            }.items()
        }
        self._volume, self._volume_options = self.root / "etc/nginx/ssl", volume
        self._volume.mkdir(parents=True)
        self._binds = binds or {}
        self.supervisord_conf = self.root / "etc/supervisord.conf"
        self.config = self.root / "etc/cert-manager.yaml"
        self.pid_file = self.folder["run"] / "nginx.pid"
        self.settings = self._default_settings() | {"certbot.path": certbot} | (settings or {})
        self.variables = {"DOMAIN": self.domain} | (variables or {})
        self.log = Log()
        self.alter_image = lambda: None  # called when the files are there, before anything runs
        self._container = None
        self._agent_is_ours = agent is None
        self.agent = agent or GuestAgent(self.root / "dstack.sock", seed=seed)
        self.settings.setdefault("agent.socket", self.agent.endpoint)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Its life.

    def prepare(self, *, with_agent=True):
        """The container's files, and its agent; nothing runs in it."""
        if self._agent_is_ours and with_agent:
            self.agent.start()
        self._lay_out()
        self.alter_image()
        return self

    def start(self, *, with_agent=True):
        """A new container on the volume; its entry point runs, and nothing is waited for."""
        self.prepare(with_agent=with_agent)
        command = [PROGRAM, "prestart", "--boot", "--wake", self.folder["run"] / "supervisor.sock"]
        command += ["--", SUPERVISORD, "-c", self.supervisord_conf]
        self._container = spawn(
            self._in_namespace(command),
            cwd=self.root,
            env=environment(**{"CERT_MANAGER_CONFIG": str(self.config)} | self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.log.follow(self._container.stdout)
        return self

    def wait_for_exit(self, timeout=10.0):
        """The exit code of a container that ends by itself."""
        code = self._container.wait(timeout)
        self.log.close()
        self._container = None
        return code

    def stop(self):
        """SIGTERM to the container's first process; all others must end with it."""
        if not self._container:
            return
        container, self._container = self._container, None
        survivors = stop(container)
        self.log.close()
        assert not survivors, f"had to be killed: {[one.line for one in survivors]}"

    def cut_power(self):
        """SIGKILL to all of it at once. What comes after it has the volume and nothing else."""
        container, self._container = self._container, None
        cut(container)
        self.log.close()
        shutil.rmtree(self.shared_memory, ignore_errors=True)

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        """End it and remove it. Fails when anything has been left behind or is in trouble."""
        try:
            self.stop()
        finally:
            # Only now: a stop that waits for the agent must not be helped by its end.
            if self._agent_is_ours:
                self.agent.clear()
                self.agent.stop()
            self.address.close()
            shutil.rmtree(self.root)
            left = self.shared_memory.exists()
            shutil.rmtree(self.shared_memory, ignore_errors=True)
        assert not left, f"{self.shared_memory} has been left behind"
        self.assert_no_trouble()

    # Where it is.

    @property
    def http(self):
        return self.address.host, self.http_port

    @property
    def https(self):
        return self.address.host, self.https_port

    @property
    def is_running(self):
        return self._container is not None and self._container.poll() is None

    @property
    def pid(self):
        """The first process of the container."""
        return self._container.pid

    @property
    def run_dir(self):
        return self.folder["run_dir"]

    @property
    def tls(self):
        """The TLS folder, as the container sees it."""
        if self._volume_options and self.is_running:
            return Path(f"/proc/{self.pid}/root{self._volume}")
        return self._volume

    @property
    def shared_memory(self):
        """Where certbot works when the run folder is not a tmpfs."""
        tag = hashlib.sha256(str(self.folder["run_dir"]).encode()).hexdigest()[:16]
        return Path(f"/dev/shm/cert-manager-{tag}")

    def remount(self, options):
        """Mount the volume with other options."""
        mount = ["mount", "-o", f"remount,{options}", str(self._volume)]
        command = ["nsenter", "--mount", "--target", str(self.pid), *mount]
        subprocess.run(command, env=environment(), check=True)

    # How it is laid out.

    def _default_settings(self):
        folder = self.folder
        return {
            "run_dir": folder["run_dir"],
            "acme.directory": self.ca.directory,
            "acme.ca_bundle": self.ca.bundle,
            # The CA's DNS knows the domain, this machine's does not.
            "acme.resolve_max_tries": 0,
            "acme.check_caa": False,
            "acme.adopt": False,
            # Nobody listens there. Names would be asked of this machine's resolver.
            "auth.upstream": "127.0.0.1:9",
            "attestation.upstream": "127.0.0.1:9",
            "acme.retry_min": "1s",
            "acme.retry_max": "2s",
            "agent.retry_max": "500ms",
            "certbot.user": certbot_user(),
            "tls.dir": self._volume,
            "nginx.path": NGINX,
            "nginx.conf": folder["nginx"] / "nginx.conf",
            "nginx.site_conf": folder["sites"] / "default.conf",
            "nginx.pid_file": self.pid_file,
            "nginx.templates": folder["templates"],
            "nginx.stock_templates": folder["stock_templates"],
            "nginx.webroot": folder["webroot"],
            "nginx.address": self.address,
            "nginx.http_port": self.http_port,
            "nginx.https_port": self.https_port,
        }

    def _lay_out(self):
        for path in self.folder.values():
            with contextlib.suppress(FileNotFoundError):
                _empty(path, self._volume)
        for path in (*self.folder.values(), self._volume):
            for part in (path, *path.relative_to(self.root).parents):
                (self.root / part).mkdir(parents=True, exist_ok=True)
                (self.root / part).chmod(0o755)
        for file in Path("/etc/nginx").iterdir():
            if file.is_file() and file.name != "nginx.conf":
                _write(self.folder["nginx"] / file.name, file.read_bytes())
        for file in (REPOSITORY / "nginx_conf").glob("*.tmpl"):
            for folder in ("templates", "stock_templates"):
                _write(self.folder[folder] / file.name, file.read_bytes())
        self._lay_out_nginx_conf()
        self._lay_out_supervisord_conf()
        _write(self.config, yaml_of(self.settings).encode())

    def _lay_out_nginx_conf(self):
        text = (REPOSITORY / "nginx_conf/nginx.conf").read_text()
        replacements = {
            "/usr/lib/nginx/modules/": f"{BUILD}/",
            "/run/cert-manager/": f"{self.folder['run_dir']}/",
            "/run/nginx.pid": str(self.pid_file),
            "/tmp/nginx-": f"{self.folder['temporary']}/",
        }
        if not IS_ROOT:
            replacements["user www-data;"] = ""
        _write(self.folder["nginx"] / "nginx.conf", _replaced(text, replacements).encode())

    def _lay_out_supervisord_conf(self):
        text = (REPOSITORY / "supervisord.conf").read_text()
        conf = self.folder["nginx"] / "nginx.conf"
        replacements = {
            "/usr/bin/cert-manager": str(PROGRAM),
            NGINX: f"{NGINX} -e stderr -c {conf}",
            "/run/supervisord.pid": str(self.folder["run"] / "supervisord.pid"),
            "/run/supervisor.sock": str(self.folder["run"] / "supervisor.sock"),
        }
        if not IS_ROOT:
            replacements["user=root"] = ""
        _write(self.supervisord_conf, _replaced(text, replacements).encode())

    def _in_namespace(self, command):
        mounts = [f"mount --bind {source} {target}" for target, source in self._binds.items()]
        if self._volume_options:
            there, aside = self._volume, self.root / "volume"
            aside.mkdir(exist_ok=True)
            mounts += [
                f"mount -t tmpfs -o mode=0755 tmpfs {aside}",
                f"cp -a {there}/. {aside}/",
                f"mount --move {aside} {there}",
                f"mount -o remount,{self._volume_options} {there}",
            ]
        if not mounts:
            return command
        script = " && ".join(mounts) + ' && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def certbot_user():
    """The image has a user of that name; on other machines any unprivileged one will do."""
    try:
        return pwd.getpwnam("certbot").pw_name
    except KeyError:
        return "nobody"


def yaml_of(settings):
    """Dotted keys as nested mappings. Text is quoted, which JSON does as YAML reads it."""
    tree = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = value

    def lines(branch, indent):
        for key, value in branch.items():
            if isinstance(value, dict):
                yield f"{indent}{key}:"
                yield from lines(value, indent + "  ")
            else:
                is_plain = isinstance(value, (bool, int, list))
                yield f"{indent}{key}: {json.dumps(value if is_plain else str(value))}"

    return "\n".join(lines(tree, "")) + "\n"


def holders_of(secret_texts, processes):
    """Where any of these texts stands in a command line or an environment."""
    found = []
    for process in processes:
        for name in ("cmdline", "environ"):
            data = read_proc(process.pid, name).decode(errors="replace")
            found += [(process.line, name) for text in secret_texts if text in data]
    return found


def _replaced(text, replacements):
    for old, new in replacements.items():
        assert old in text, f"{old} is expected in:\n{text}"
        text = text.replace(old, new)
    return text


def _write(path, data):
    path.write_bytes(data)
    path.chmod(0o644)


def _empty(folder, kept):
    """Remove everything in a folder, except one folder in it."""
    for path in folder.iterdir():
        if path == kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
