"""nginx with a configuration of its own and no more, to try a module."""

import functools
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from loopback import wait_until

NGINX = os.environ.get("NGINX_BINARY", "/usr/sbin/nginx")
REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / os.environ.get("BUILD", "build")
MODULES_DIR = REPOSITORY / os.environ.get("NGINX_MODULES", BUILD)
WORKER_USER = "www-data"
TIMEOUT_S = 20


@functools.cache
def version():
    """Of nginx, as a tuple of numbers."""
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stderr
    return tuple(int(number) for number in re.search(r"nginx/([\d.]+)", said)[1].split("."))


class Listener:
    """A listening socket on a free port, which nginx inherits as it would from an older nginx.

    So no one else can take the port in between, and a connection waits for nginx instead of being
    refused.
    """

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=511, reuse_port=True)
        # Two workers may be told of one connection.
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.place = ("127.0.0.1", self.port)


class BareNginx:
    """A folder that the workers' user can look into, and in it one nginx with workers.

    Without workers, the configuration has to say `master_process off`, and nginx cannot inherit.
    """

    def __init__(self, modules=(), listeners=1, workers=2, under=()):
        self.folder = Path(tempfile.mkdtemp(prefix="nginx-"))
        self.folder.chmod(0o755)
        self.modules, self.count, self.under = modules, workers, [str(word) for word in under]
        self.environment = dict(os.environ)
        self.listeners = [Listener() for _ in range(listeners)]
        self.place, self.port = self.listeners[0].place, self.listeners[0].port
        self.error_log = self.folder / "error.log"
        self.error_log.touch()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder)

    def write_conf(self, http_text, main_text=""):
        """LISTEN and LISTEN2 in http_text stand for addresses, FOLDER for the folder."""
        text = "".join(f"load_module {MODULES_DIR}/{name}.so;\n" for name in self.modules)
        text += f"user {WORKER_USER};\n" if os.geteuid() == 0 else ""
        text += f"""
            {main_text}
            daemon off;
            worker_processes {max(self.count, 1)};
            pid nginx.pid;
            error_log error.log info;
            events {{ worker_connections 512; }}
            http {{
                access_log off;
                client_body_temp_path body;
                proxy_temp_path proxy;
                fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi;
                scgi_temp_path scgi;
                {http_text}
            }}
        """
        words = {"FOLDER": str(self.folder)}
        for number, listener in enumerate(self.listeners, 1):
            words["LISTEN" + ("" if number == 1 else str(number))] = "%s:%d" % listener.place
        for word, replacement in words.items():
            text = re.sub(rf"\b{word}\b", lambda _, r=replacement: r, text)
        (self.folder / "nginx.conf").write_text(text)

    def command(self, *arguments):
        conf = self.folder / "nginx.conf"
        return [NGINX, "-p", str(self.folder), "-c", str(conf), "-e", str(self.error_log), *arguments]

    def start(self, http_text=None, main_text="", inherit=True):
        if http_text is not None:
            self.write_conf(http_text, main_text)
        if not inherit:
            self._close_listeners()
        inherited = [listener.socket.fileno() for listener in self.listeners if inherit]
        self.process = subprocess.Popen(
            self.under + self.command(),
            env=self.environment | ({"NGINX": "".join(f"{fd};" for fd in inherited)} if inherit else {}),
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: len(self.workers()) == self.count or self.process.poll(), "workers start")
        assert self.process.poll() is None, self.error_log.read_text()
        return self

    def test(self, http_text):
        """nginx -t: its exit code and what it says."""
        self.write_conf(http_text)
        result = subprocess.run(
            [*self.command("-t")[:-2], str(self.folder / "test.log"), "-t"],
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
        return result.returncode, result.stdout

    def workers(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    def reload(self, http_text=None):
        """Returns when the old workers have gone: whatever comes now is for the new ones."""
        if http_text is not None:
            self.write_conf(http_text)
        self._replace_workers(lambda old: self.process.send_signal(signal.SIGHUP))

    def kill_workers(self, number=signal.SIGKILL):
        """As a crash would; the master starts others."""
        self._replace_workers(lambda old: [os.kill(pid, number) for pid in old])

    def _replace_workers(self, action):
        old = self.workers()
        descriptors = [os.pidfd_open(pid) for pid in old]
        try:
            action(old)
            for descriptor in descriptors:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                assert poll.poll(TIMEOUT_S * 1000), "a worker did not exit"
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        wait_until(lambda: len(set(self.workers()) - set(old)) == self.count, "new workers")

    def log(self, text=""):
        return [line for line in self.error_log.read_text().splitlines() if text in line]

    def _close_listeners(self):
        for listener in self.listeners:
            listener.socket.close()

    def stop(self):
        self._close_listeners()
        if self.process is None:
            return
        deadline = time.monotonic() + TIMEOUT_S
        try:
            # Without a master, nginx loses a signal that comes just before it waits for events.
            while self.process.poll() is None and time.monotonic() < deadline:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(TIMEOUT_S if self.count else 1)
            assert self.process.poll() is not None, "nginx does not end"
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self):
        """Another master; the listening sockets are kept for it."""
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        return self.start()
