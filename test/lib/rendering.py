"""`cert-manager render`, and nginx as the judge of what it shows.

    with Rendering() as rendering:
        shown = rendering.render_files(settings={"domain": "app.example.test"})
        assert shown.code == 0 and not rendering.complaint()

Both run in a network of their own, in which no name resolves but those of /etc/hosts, nobody else
has a port, and any address can be listened on.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pki
from processes import environment, spawn, stop
from stack import BUILD, IS_ROOT, NGINX, PROGRAM, REPOSITORY

TIMEOUT_S = 20
DOMAIN = "app.example.test"
SITE, INCLUDE = "default.conf", "nginx-http.conf"
EXIT_CONFIG = 78


class Shown(NamedTuple):
    code: int
    out: str
    lines: list  # of the log, without name and time

    @property
    def fatal(self):
        return [line.removeprefix("FATAL - ") for line in self.lines if line.startswith("FATAL")]


class Rendering:
    """`folder` has the templates and a TLS folder; results with --output are in `output`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rendering-"))
        self.folder.chmod(0o755)
        self.output, self.templates = self.folder / "output", self.folder / "templates"
        self.config, self.conf = self.folder / "config.yaml", self.folder / "nginx.conf"
        self.tls, self.run_dir = self.folder / "tls", self.folder / "run"
        self._pair = None
        self._network = None
        self._enter = []

    def __enter__(self):
        try:
            self._start_network()
            self._lay_out()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._network:
            self._network.stdin.close()
            stop(self._network)
        shutil.rmtree(self.folder)

    def render(
        self,
        *arguments,
        settings=None,
        variables=None,
        yaml=None,
        program=PROGRAM,
        under=(),
        in_network=True,
    ):
        """`settings` over those that are needed here; `yaml` in place of all of them."""
        text = settings_file(self.settings() | (settings or {}))[0] if yaml is None else yaml
        self.config.write_bytes(text.encode(errors="surrogateescape"))
        network = self._enter if in_network else []
        command = [*network, *under, program, "render", "--config", self.config, *arguments]
        done = subprocess.run(
            command,
            env=environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        log = done.stderr.decode(errors="replace").splitlines()
        lines = [re.sub(r"^\[cert-manager\] \S+ \S+ - ", "", line) for line in log]
        return Shown(done.returncode, done.stdout.decode(errors="surrogateescape"), lines)

    def render_files(self, *arguments, **options):
        """Into `output`, where nginx finds them."""
        return self.render("--output", self.output, *arguments, **options)

    def settings(self):
        return {
            "domain": DOMAIN,
            "nginx.templates": str(self.templates),
            "nginx.stock_templates": str(self.templates),
            "tls.dir": str(self.tls),
            "run_dir": str(self.run_dir),
        }

    def read(self, name):
        """A file in `output`, byte by byte."""
        return (self.output / name).read_bytes().decode(errors="surrogateescape")

    def complaint(self):
        """nginx's reason to refuse what is in `output`; "" when it takes it."""
        command = [*self._enter, NGINX, "-t", "-q", "-e", "stderr", "-c", self.conf]
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
        )
        said = done.stderr.decode(errors="replace")
        fatal = [line for line in said.splitlines() if "[emerg]" in line]
        # It listens only when it has read everything, and that may need privileges.
        if not IS_ROOT and fatal and all("bind() to" in line for line in fatal):
            return ""
        return said if done.returncode else ""

    # What settings name must be there, wherever they say that it is.

    def put_templates(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in (REPOSITORY / "nginx_conf").glob("*.tmpl"):
            shutil.copy(file, folder)

    def put_pair(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self._pair.items():
            (folder / name).write_text(text)

    def put_secret(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ekm.secret").write_text("0" * 64)
        (folder / "ekm.secret").chmod(0o600)

    def _start_network(self):
        """A process that holds the network until its input ends."""
        unshare = ["unshare", "--net"] + ([] if IS_ROOT else ["--map-current-user"])
        # Any address can be listened on: a privilege, and without it nginx only says so.
        allow = "for n in 4 6; do echo 1 >/proc/sys/net/ipv$n/ip_nonlocal_bind; done 2>/dev/null"
        self._network = spawn(
            [*unshare, "sh", "-c", f"{allow}; echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with self._network.stdout as pipe:
            assert pipe.readline(), "there is no network namespace to be had"
        target = str(self._network.pid)
        self._enter = ["nsenter", "--target", target, "--net"]
        if not IS_ROOT:
            self._enter += ["--user", "--preserve-credentials"]

    def _lay_out(self):
        self.output.mkdir()
        self.put_templates(self.templates)
        key = pki.new_key()
        self.put_secret(self.run_dir)
        self._pair = {"cert.pem": pki.self_signed(DOMAIN, key), "key.pem": pki.key_pem(key)}
        self.put_pair(self.tls)
        text = (REPOSITORY / "nginx_conf/nginx.conf").read_text()
        for old, new in {
            "/usr/lib/nginx/modules/": f"{BUILD}/",
            "/run/nginx.pid": str(self.folder / "nginx.pid"),
            "/run/cert-manager/": f"{self.output}/",
            "conf.d/*.conf": str(self.output / SITE),
            "include mime.types": "include /etc/nginx/mime.types",
            "/dev/stdout": "/dev/null",
            "/tmp/nginx-": f"{self.folder}/",
        }.items():
            assert old in text
            text = text.replace(old, new)
        if not IS_ROOT:
            text = text.replace("user www-data;", "")
        self.conf.write_text(text)


def settings_file(settings):
    """Its text, and for each of its lines the key of the setting that is in it."""
    lines, owners, section = [], [], ""
    for key, value in sorted(settings.items()):
        before, (section, _, name) = section, key.rpartition(".")
        indent = "  " if section else ""
        if section and section != before:
            lines.append(f"{section}:")
            owners.append(None)
        of_setting = [f"{indent}{name}: {quoted(value)}"]
        if value and isinstance(value, list):
            of_setting = [f"{indent}{name}:", *(f"{indent}  - {quoted(item)}" for item in value)]
        lines += of_setting
        owners += [key] * len(of_setting)
    return "\n".join(lines) + "\n", owners


def quoted(value):
    """JSON is YAML, except that YAML ends lines in more ways, and reads no pairs of surrogates."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x85\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", text)


@contextlib.contextmanager
def readable_copy(program):
    """Of a program, where every user can run it."""
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        os.chmod(folder, 0o755)
        yield shutil.copy(program, folder)
