"""ngx_http_ekm_module in a real nginx.

The reference for a value is an independent one: `openssl s_client -keymatexport` on the same connection
for the exporter (RFC 9266, Section 2), Python's hmac for the signature.

The module is not built here: EKM_MODULE_SO names it, otherwise it is the one that lib/bare_nginx.py loads.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time

import pytest
from bare_nginx import MODULES_DIR, NGINX, REPOSITORY

MODULE = REPOSITORY / os.environ.get("EKM_MODULE_SO", MODULES_DIR / "ngx_http_ekm_module.so")

HEADER = "X-TLS-EKM-Channel-Binding"
LABEL = "EXPORTER-Channel-Binding"
SECRET = "b4030a2c08847f8d93ea0f24274350158078bcb8aa4ea5f84f0ae47c83380ef6"
OTHER_SECRET = "dev-mode-ekm-placeholder-not-for-production"
FORM = re.compile(r"[0-9a-f]{64}:[0-9a-f]{64}")

TIMEOUT = 15

NO_TLS13 = "it requires TLSv1.3"
NO_SECRET = "has no secret"


def binding(exporter_hex, secret=SECRET):
    """The header value: the key of the HMAC is the text of the secret, also where that looks like hex."""
    mac = hmac.new(secret.encode(), bytes.fromhex(exporter_hex), hashlib.sha256).hexdigest()
    return f"{exporter_hex}:{mac}"


def wait_until(condition, what):
    """For what gives no event to wait for, such as a line in a log."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


def wait_for_exit(pidfd):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(TIMEOUT * 1000), "the worker did not exit"


class Backend(socketserver.ThreadingTCPServer):
    """Answers every request with what arrived, as JSON, and remembers it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BackendHandler)
        self.port = self.server_address[1]
        self.seen = []
        self.reached = threading.Event()

    def to(self, path):
        return [request for request in self.seen if request["path"] == path]


class BackendHandler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT

    def handle(self):
        line = self.rfile.readline().decode("latin-1").split()
        headers = []
        while (header := self.rfile.readline().decode("latin-1").rstrip("\r\n")):
            name, value = header.split(":", 1)
            headers.append([name, value.strip()])
        request = {"path": line[1], "headers": headers}
        self.server.seen.append(request)
        self.server.reached.set()
        body = json.dumps(request).encode()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def values(request, name=HEADER):
    """All values of a header, whatever the spelling of its name."""
    def plain(text):
        return re.sub(r"[^a-z0-9]", "-", text.lower())
    return [value for key, value in request["headers"] if plain(key) == plain(name)]


def value(request):
    """The one channel binding that a request brought to the backend."""
    found = values(request)
    assert len(found) == 1 and FORM.fullmatch(found[0]), request["headers"]
    return found[0]


class Client(http.client.HTTPConnection):
    """HTTP/1.1 on one connection. json() asserts that it still is the same one."""

    def __init__(self, listener, tls=True, name=None, max_version=None):
        super().__init__("127.0.0.1", listener.port, timeout=TIMEOUT)
        self.auto_open = 0
        self.connect()
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if max_version:
                context.maximum_version = max_version
            self.sock = context.wrap_socket(self.sock, server_hostname=name)

    def answer(self, path="/", headers=(), host="a.test"):
        self.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        self.putheader("Host", host)
        for key, text in headers:
            self.putheader(key, text)
        self.endheaders()
        response = self.getresponse()
        body = response.read()
        assert response.status == 200, body
        return response, body

    def json(self, path="/", headers=(), host="a.test"):
        return json.loads(self.answer(path, headers, host)[1])

    def text(self, path="/", headers=(), host="a.test"):
        return self.answer(path, headers, host)[1].decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class SClient:
    """openssl s_client: one connection, HTTP/1.1, and the exporter as OpenSSL's client computes it."""

    def __init__(self, listener, *arguments):
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-servername", "a.test",
             "-keymatexport", LABEL, "-keymatexportlen", "32", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""
        self.position = 0

    def search(self, pattern, start=0):
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.compile(pattern, re.DOTALL).search(self.output, start)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"timed out: {pattern} in {self.output}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"s_client ended: {pattern} in {self.output}"
            self.output += data
        return match

    @property
    def exporter(self):
        return self.search(rb"Keying material: ([0-9A-F]{64})").group(1).decode().lower()

    def send(self, path="/"):
        self.process.stdin.write(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        self.process.stdin.flush()

    def response(self):
        """The next response, which is JSON."""
        head = self.search(rb"HTTP/1\.1 200 OK\r\n.*?Content-Length: (\d+)\r\n.*?\r\n\r\n", self.position)
        self.position = head.end() + int(head.group(1))
        self.search(b"^.{%d}" % self.position)
        return json.loads(self.output[head.end():self.position])

    def json(self, path="/"):
        self.send(path)
        return self.response()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Listener:
    """A listening socket on a free port, which nginx inherits as it would from an older nginx.

    So no one else can take the port in between, and a connection waits for nginx instead of being refused.
    """

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.socket.getsockname()[1]


class Gate:
    """Relays one TCP connection, but lets nothing of the server's through before an event."""

    def __init__(self, listener, event):
        self.event = event
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = socket.create_connection(("127.0.0.1", listener.port), TIMEOUT)
        self.threads = [threading.Thread(target=self.from_client), threading.Thread(target=self.from_server)]
        self.client = None

    def from_client(self):
        self.client, _ = self.listener.accept()
        self.threads[1].start()
        self.relay(self.client, self.server)

    def from_server(self):
        self.event.wait(TIMEOUT)
        self.relay(self.server, self.client)

    @staticmethod
    def relay(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        self.listener.settimeout(TIMEOUT)
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.threads[0].join()
        if self.client:
            self.threads[1].join()
            self.client.close()
        self.listener.close()
        self.server.close()


class Nginx:
    """A folder with a configuration and, between start() and stop(), one nginx that runs it."""

    def __init__(self, folder, certificate, backend):
        self.folder = folder
        self.backend = backend
        self.certificate = certificate
        self.tls = Listener()
        self.plain = Listener()
        self.secret = folder / "secret"
        self.conf = folder / "nginx.conf"
        self.error_log = folder / "error.log"
        self.error_log.touch()
        self.process = None
        self.write_secret(SECRET)

    def write_secret(self, text, name="secret", mode=0o600):
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def write_conf(self, http_text, load_module=True):
        """In http_text, words in capitals stand for what differs from run to run."""
        text = f"""
            {f'load_module {MODULE};' if load_module else ''}
            daemon off;
            worker_processes 1;
            pid nginx.pid;
            error_log error.log info;
            events {{ worker_connections 128; }}
            http {{
                access_log off;
                client_body_temp_path body;
                proxy_temp_path proxy;
                fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi;
                scgi_temp_path scgi;
                ssl_certificate {self.certificate}/cert.pem;
                ssl_certificate_key {self.certificate}/key.pem;
                ssl_protocols TLSv1.2 TLSv1.3;
                {http_text}
            }}
        """
        for word, replacement in (("TLS_PORT", f"127.0.0.1:{self.tls.port} ssl"),
                                  ("PLAIN_PORT", f"127.0.0.1:{self.plain.port}"),
                                  ("BACKEND", f"http://127.0.0.1:{self.backend.port}"),
                                  ("BINDING", f"proxy_set_header {HEADER} $ekm_channel_binding;"),
                                  ("SECRET_FILE", f"ekm_secret_file {self.secret};"),
                                  ("FOLDER", str(self.folder))):
            text = re.sub(rf"\b{word}\b", lambda _, r=replacement: r, text)
        self.conf.write_text(text)

    def command(self):
        return [NGINX, "-p", self.folder, "-c", self.conf, "-e", self.error_log]

    def environment(self, variables=()):
        clean = {name: text for name, text in os.environ.items() if name != "EKM_SHARED_SECRET"}
        return {**clean, **dict(variables)}

    def start(self, http_text, **variables):
        self.write_conf(http_text)
        sockets = [self.tls.socket, self.plain.socket]
        descriptors = [s.fileno() for s in sockets]
        inherited = "".join(f"{fd};" for fd in descriptors)
        self.process = subprocess.Popen(
            self.command(), env=self.environment({**variables, "NGINX": inherited}), pass_fds=descriptors,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # With the last copy closed, a connection fails at once when nginx could not start.
        for s in sockets:
            s.close()
        return self

    def test(self, http_text, **variables):
        """nginx -t: its exit code and what it says."""
        self.write_conf(http_text)
        result = subprocess.run([*self.command(), "-t"], env=self.environment(variables), text=True, check=False,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=TIMEOUT)
        return result.returncode, result.stdout

    def reload(self, worker):
        """Returns when the old worker has gone, so every connection from now on is for the new one."""
        pidfd = os.pidfd_open(worker)
        try:
            self.process.send_signal(signal.SIGHUP)
            wait_for_exit(pidfd)
        finally:
            os.close(pidfd)

    def log(self, text=""):
        return [line for line in self.error_log.read_text().splitlines() if text in line]

    def stop(self):
        self.tls.socket.close()
        self.plain.socket.close()
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    assert MODULE.is_file(), f"{MODULE} is missing: build it, or name it in EKM_MODULE_SO"
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2",
                    "-subj", "/CN=a.test", "-addext", "subjectAltName=DNS:a.test,DNS:b.test"],
                   check=True, capture_output=True, timeout=TIMEOUT)
    return folder


@pytest.fixture
def backend():
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def nginx(tmp_path, certificate, backend):
    server = Nginx(tmp_path, certificate, backend)
    try:
        yield server
    finally:
        server.stop()
    bad = [line for line in server.log() if re.search(r"\[(alert|crit)\]|exited on signal|exited with fatal", line)]
    assert not bad
    assert not server.log(SECRET) and not server.log(OTHER_SECRET)


PROXY = """
    SECRET_FILE
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        location / { proxy_pass BACKEND; BINDING }
        location = /worker { return 200 $pid; }
    }
"""


# The value

def test_reference_agrees_with_known_vectors():
    exporter = bytes(range(32)).hex()
    assert binding(exporter, OTHER_SECRET).endswith(
        ":11d5b9f94031185235f667b3fe27f89c92e538c3c1071cb450eb4fef118a5123")
    assert binding(exporter, SECRET).endswith(":fda450c7ed94dbec5f9afee067a541a4462efb805ebfd991408199c06cd2364d")


def test_value_is_the_exporter_of_the_connection_and_its_hmac(nginx):
    nginx.start(PROXY)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)
        assert value(client.json("/again")) == binding(client.exporter)


def test_ten_requests_on_a_connection_have_one_value(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        assert len({value(client.json(f"/{i}")) for i in range(10)}) == 1


def test_three_connections_have_three_values(nginx):
    nginx.start(PROXY)
    seen = set()
    for _ in range(3):
        with Client(nginx.tls) as client:
            seen.add(value(client.json()))
    assert len(seen) == 3
    assert len({text.split(":")[0] for text in seen}) == 3


def test_key_update_does_not_change_the_value(nginx):
    nginx.start(PROXY)
    with SClient(nginx.tls) as client:
        before = value(client.json())
        client.process.stdin.write(b"K\n")
        client.process.stdin.flush()
        client.search(b"KEYUPDATE")
        assert value(client.json()) == before == binding(client.exporter)


def test_ekm_is_the_bare_exporter(nginx):
    nginx.start(PROXY.replace("BINDING", "BINDING proxy_set_header X-Bare $ekm;"))
    with SClient(nginx.tls) as client:
        assert values(client.json(), "X-Bare") == [client.exporter]


@pytest.mark.parametrize("text", [SECRET, SECRET + "\n", "with spaces, \N{GREEK SMALL LETTER ALPHA}", "x" * 4096])
def test_secret_is_the_text_of_the_file_less_one_newline(nginx, text):
    nginx.write_secret(text)
    nginx.start(PROXY)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, text.removesuffix("\n"))


def test_secret_file_may_be_a_relative_path_and_a_link(nginx):
    (nginx.folder / "link").symlink_to(nginx.secret)
    nginx.start(PROXY.replace("SECRET_FILE", "ekm_secret_file link;"))
    with Client(nginx.tls) as client:
        received = value(client.json())
        assert received == binding(received.split(":")[0])


# HTTP/2

def curl(*arguments):
    result = subprocess.run(["curl", "--silent", "--show-error", "--insecure", "--noproxy", "*",
                             "--max-time", str(TIMEOUT), "--http2", *arguments],
                            capture_output=True, text=True, check=True, timeout=2 * TIMEOUT)
    return result.stdout.splitlines()


# "listen ... http2" works before and after 1.25.1; later versions only warn.
PROXY_H2 = PROXY.replace("TLS_PORT;", "TLS_PORT http2;")
WRITE_OUT = "\n%{num_connects} %{http_version}\n"


def test_http2_streams_of_a_connection_have_one_value(nginx):
    nginx.start(PROXY_H2)
    url = f"https://127.0.0.1:{nginx.tls.port}"
    first, how, second, how_again = curl("-w", WRITE_OUT, f"{url}/1", f"{url}/2")
    assert (how, how_again) == ("1 2", "0 2")
    assert value(json.loads(first)) == value(json.loads(second))
    other, _ = curl("-w", WRITE_OUT, f"{url}/3")
    assert value(json.loads(other)) != value(json.loads(first))


def test_http2_forged_header_is_replaced(nginx):
    nginx.start(PROXY_H2)
    answer, how = curl("-w", WRITE_OUT, "-H", f"{HEADER}: forged", f"https://127.0.0.1:{nginx.tls.port}/")
    assert how == "1 2"
    assert value(json.loads(answer)) != "forged"


def test_http2_servers_on_one_connection_sign_with_their_own_secret(nginx):
    nginx.write_secret(OTHER_SECRET, "other")
    nginx.start("""
        SECRET_FILE
        server { listen TLS_PORT http2; server_name a.test; location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT http2; server_name b.test; ekm_secret_file FOLDER/other;
                 location / { proxy_pass BACKEND; BINDING } }
    """)
    url = f"https://127.0.0.1:{nginx.tls.port}/"
    common = ["-sk", "--noproxy", "*", "--http2", "-w", WRITE_OUT]
    first, how, second, how_again = curl("-w", WRITE_OUT, "-H", "Host: a.test", url,
                                         "--next", *common, "-H", "Host: b.test", url)
    assert (how, how_again) == ("1 2", "0 2")
    exporter = value(json.loads(first)).split(":")[0]
    assert value(json.loads(first)) == binding(exporter, SECRET)
    assert value(json.loads(second)) == binding(exporter, OTHER_SECRET)


# Where there is no value

def test_tls_1_2_has_no_value_and_is_logged_once_per_connection(nginx):
    nginx.start(PROXY.replace("BINDING", "BINDING proxy_set_header X-Bare $ekm;"))
    for connections in (1, 2):
        with Client(nginx.tls, max_version=ssl.TLSVersion.TLSv1_2) as client:
            for _ in range(3):
                request = client.json()
                assert values(request) == [] and values(request, "X-Bare") == []
        lines = nginx.log(NO_TLS13)
        assert len(lines) == connections
        assert "[error]" in lines[-1] and "TLSv1.2" in lines[-1]


def test_plain_http_has_no_value_in_silence(nginx):
    nginx.start(PROXY.replace("BINDING", "BINDING proxy_set_header X-Bare $ekm;"))
    with Client(nginx.plain, tls=False) as client:
        request = client.json()
        assert values(request) == [] and values(request, "X-Bare") == []
    assert not nginx.log("[error]") and not nginx.log("EKM")


@pytest.mark.parametrize("variables", [{}, {"EKM_SHARED_SECRET": ""}])
def test_without_secret_there_is_no_value_and_it_is_logged_once_per_connection(nginx, variables):
    nginx.start(PROXY.replace("SECRET_FILE", ""), **variables)
    for connections in (1, 2):
        with Client(nginx.tls) as client:
            for _ in range(3):
                assert values(client.json()) == []
        lines = nginx.log(NO_SECRET)
        assert len(lines) == connections
        assert "[error]" in lines[-1] and "ekm_secret_file" in lines[-1]


def test_early_data_has_no_value_the_request_after_it_has(nginx):
    nginx.start(PROXY.replace("SECRET_FILE", "SECRET_FILE ssl_early_data on;")
                .replace("BINDING", "BINDING proxy_set_header X-Early $ssl_early_data;"))
    session = nginx.folder / "session"
    early = nginx.folder / "early"
    early.write_bytes(b"GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n")
    with SClient(nginx.tls, "-sess_out", str(session)) as client:
        client.json()
    # The client cannot finish the handshake before the request has come out at the other end of nginx.
    nginx.backend.reached.clear()
    with Gate(nginx.tls, nginx.backend.reached) as gate, \
            SClient(gate, "-sess_in", str(session), "-early_data", str(early)) as client:
        request = client.response()
        assert request["path"] == "/early" and values(request, "X-Early") == ["1"]
        assert values(request) == []
        request = client.json("/late")
        assert values(request, "X-Early") == []
        assert value(request) == binding(client.exporter)
    assert not nginx.log("[error]")


# Several servers, the environment, reload

def test_servers_sign_with_their_own_or_the_inherited_secret(nginx):
    nginx.write_secret(OTHER_SECRET, "other")
    nginx.start("""
        SECRET_FILE
        server { listen TLS_PORT; server_name a.test; location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT; server_name b.test; ekm_secret_file FOLDER/other;
                 location / { proxy_pass BACKEND; BINDING } }
    """)
    for name in ("a.test", "b.test", None):
        with Client(nginx.tls, name=name) as client:
            exporter = value(client.json(host="a.test")).split(":")[0]
            for host, secret in (("b.test", OTHER_SECRET), ("a.test", SECRET)) * 2:
                assert value(client.json(host=host)) == binding(exporter, secret)


def test_servers_that_name_the_same_file_have_the_same_value(nginx):
    nginx.start("""
        server { listen TLS_PORT; server_name a.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT; server_name b.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
    """)
    with Client(nginx.tls) as client:
        assert value(client.json(host="a.test")) == value(client.json(host="b.test"))


def test_a_server_without_secret_beside_one_that_has_it(nginx):
    nginx.start("""
        server { listen TLS_PORT; server_name a.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT; server_name b.test; location / { proxy_pass BACKEND; BINDING } }
    """)
    with Client(nginx.tls) as client:
        before = value(client.json(host="a.test"))
        assert values(client.json(host="b.test")) == []
        assert value(client.json(host="a.test")) == before
    assert len(nginx.log('server "b.test" has no secret')) == 1


def test_environment_is_used_without_the_directive(nginx):
    nginx.start(PROXY.replace("SECRET_FILE", ""), EKM_SHARED_SECRET=OTHER_SECRET)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, OTHER_SECRET)


def test_the_directive_wins_over_the_environment(nginx):
    nginx.start(PROXY, EKM_SHARED_SECRET=OTHER_SECRET)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, SECRET)


def test_environment_survives_a_reload(nginx):
    nginx.start(PROXY.replace("SECRET_FILE", ""), EKM_SHARED_SECRET=OTHER_SECRET)
    with Client(nginx.tls) as client:
        worker = int(client.text("/worker"))
    nginx.reload(worker)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, OTHER_SECRET)


def test_reload_takes_a_new_secret(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        worker = int(client.text("/worker"))
        nginx.write_secret(OTHER_SECRET, "new").rename(nginx.secret)
        received = value(client.json())
        assert received == binding(received.split(":")[0], SECRET)
    nginx.reload(worker)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, OTHER_SECRET)


def test_reload_with_an_unusable_secret_keeps_the_old_one(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        worker = client.text("/worker")
    nginx.secret.chmod(0o644)
    nginx.process.send_signal(signal.SIGHUP)
    wait_until(lambda: nginx.log("[emerg]"), "the reload was not refused")
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)
    with Client(nginx.tls) as client:
        assert client.text("/worker") == worker


def test_a_respawned_worker_has_the_secret(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        worker = int(client.text("/worker"))
        client.json()
    pidfd = os.pidfd_open(worker)
    os.kill(worker, signal.SIGTERM)
    wait_for_exit(pidfd)
    os.close(pidfd)
    with SClient(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)


def test_reload_without_the_module_leaves_a_working_nginx(nginx):
    """OpenSSL must not be left with a pointer into the module's code."""
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        worker = int(client.text("/worker"))
        client.json()
    nginx.write_conf("server { listen TLS_PORT; location / { return 200 $pid; } }", load_module=False)
    nginx.reload(worker)
    pids = set()
    for _ in range(3):
        with Client(nginx.tls) as client:
            pids.add(client.text())
    assert len(pids) == 1 and str(worker) not in pids


# The secret

SECRET_PROBLEMS = {
    "missing": (lambda secret: secret.unlink(), ["No such file or directory", "create the file"]),
    "empty": (lambda secret: secret.write_text(""), ["is empty, write the secret into it"]),
    "newline": (lambda secret: secret.write_text("\n"), ["is empty"]),
    "0644": (lambda secret: secret.chmod(0o644), ["accessible to group or others", "0644", "chmod 600"]),
    "0640": (lambda secret: secret.chmod(0o640), ["accessible to group or others", "0640"]),
    "0602": (lambda secret: secret.chmod(0o602), ["accessible to group or others", "0602"]),
    "large": (lambda secret: secret.write_text(SECRET * 64 + "x"), ["larger than 4096 bytes"]),
    "crlf": (lambda secret: secret.write_text(SECRET + "\r\n"), ["control character at offset 64"]),
    "two newlines": (lambda secret: secret.write_text(SECRET + "\n\n"), ["control character at offset 64"]),
    "folder": (lambda secret: (secret.unlink(), secret.mkdir(0o700)), ["not a regular file"]),
    "fifo": (lambda secret: (secret.unlink(), os.mkfifo(secret, 0o600)), ["not a regular file"]),
    "dangling": (lambda secret: (secret.unlink(), secret.symlink_to("nowhere")), ["No such file or directory"]),
}


@pytest.mark.parametrize("where", ["http", "server"])
@pytest.mark.parametrize("problem", SECRET_PROBLEMS)
def test_unusable_secret_file_fails_the_configuration_test(nginx, problem, where):
    spoil, expected = SECRET_PROBLEMS[problem]
    spoil(nginx.secret)
    text = PROXY if where == "http" else PROXY.replace("SECRET_FILE", "").replace("server {", "server { SECRET_FILE")
    status, output = nginx.test(text)
    assert status == 1
    message = next(line for line in output.splitlines() if "[emerg]" in line)
    for part in [f'"{nginx.secret}"', *expected]:
        assert part in message
    assert SECRET not in output


def test_good_secret_passes_the_configuration_test(nginx):
    status, output = nginx.test(PROXY)
    assert status == 0, output
    assert SECRET not in output


def test_environment_secret_has_a_limit(nginx):
    status, output = nginx.test(PROXY.replace("SECRET_FILE", ""), EKM_SHARED_SECRET="x" * 4097)
    assert status == 1 and 'environment variable "EKM_SHARED_SECRET" is larger than 4096 bytes' in output


def test_duplicate_directive_fails_the_configuration_test(nginx):
    status, output = nginx.test(PROXY.replace("SECRET_FILE", "SECRET_FILE SECRET_FILE"))
    assert status == 1 and '"ekm_secret_file" directive is duplicate' in output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to read the memory of the master")
def test_text_of_the_secret_is_nowhere_in_the_memory_of_the_master(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        client.json()
    found = []
    with open(f"/proc/{nginx.process.pid}/smaps", encoding="ascii") as smaps, \
            open(f"/proc/{nginx.process.pid}/mem", "rb") as memory:
        for line in smaps:
            if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line):
                start, end = (int(text, 16) for text in header.groups())
            elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                start = end = 0
            elif line.startswith("VmFlags:") and end:
                with contextlib.suppress(OSError):
                    memory.seek(start)
                    if SECRET.encode() in memory.read(end - start):
                        found.append("dd" in line.split())
    assert not found


# A client's own header

SPELLINGS = [HEADER, HEADER.lower(), HEADER.upper(), "x-TLS-ekm-Channel-BINDING"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_forged_header_is_replaced(nginx, spelling):
    nginx.start(PROXY)
    with SClient(nginx.tls) as client:
        client.process.stdin.write(f"GET / HTTP/1.1\r\nHost: a.test\r\n{spelling}: forged\r\n\r\n".encode())
        client.process.stdin.flush()
        assert value(client.response()) == binding(client.exporter)


PASS_ALL = """
    underscores_in_headers on;
    ignore_invalid_headers off;
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        location / { proxy_pass BACKEND; }
        location /own { proxy_pass BACKEND; proxy_set_header X-Own own; }
        location /echo { return 200 "[$http_x_tls_ekm_channel_binding]"; }
    }
"""


@pytest.mark.parametrize("path", ["/", "/own"])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("spelling", [*SPELLINGS, "X_TLS_EKM_Channel_Binding", "x-tls_ekm-channel_binding",
                                      "X.TLS.EKM.Channel.Binding", "X-TLS~EKM-Channel!Binding"])
def test_forged_header_is_removed_on_every_location(nginx, path, tls, spelling):
    nginx.start(PASS_ALL)
    with Client(nginx.tls if tls else nginx.plain, tls=tls) as client:
        request = client.json(path, [("X-Before", "1"), (spelling, "forged"), ("X-After", "2")])
        assert not [pair for pair in request["headers"] if "forged" in pair]
        assert values(request, "X-Before") == ["1"] and values(request, "X-After") == ["2"]
        assert client.text("/echo", [(spelling, "forged")]) == "[]"
    assert nginx.log("removed X-TLS-EKM-Channel-Binding sent by client") and not nginx.log("forged")


@pytest.mark.parametrize("name", ["X-TLS-EKM-Channel-Bindin", "X-TLS-EKM-Channel-Bindings", "XXTLS-EKM-Channel-Binding",
                                  "X-TLS-EKM-Channel9Binding", "Y-TLS-EKM-Channel-Binding"])
def test_headers_with_a_similar_name_are_kept(nginx, name):
    nginx.start(PASS_ALL)
    with Client(nginx.plain, tls=False) as client:
        assert values(client.json(headers=[(name, "kept")]), name) == ["kept"]


# nginx keeps 20 headers to a part of its list, and Host is the first.
POSITIONS = {
    "first": {0}, "last of a part": {18}, "first of a part": {19}, "around a cut": {17, 18, 19, 20},
    "whole first part": set(range(19)), "whole second part": set(range(19, 39)), "only one in the last part": {39},
    "last two parts": set(range(19, 40)), "every second": set(range(0, 40, 2)),
    "every other second": set(range(1, 40, 2)), "all": set(range(40)), "runs": {3, 4, 5, 9, 10, 25, 26, 38, 39},
}


@pytest.mark.parametrize("forged", POSITIONS.values(), ids=POSITIONS)
def test_forged_headers_go_and_the_others_stay_wherever_they_are(nginx, forged):
    nginx.start(PASS_ALL)
    headers = [(HEADER, f"forged-{i}") if i in forged else (f"X-Kept-{i}", str(i)) for i in range(40)]
    with Client(nginx.plain, tls=False) as client:
        for _ in range(2):
            request = client.json(headers=headers)
            assert not values(request)
            received = [pair for pair in request["headers"] if pair[0].startswith("X-Kept")]
            assert received == [list(pair) for i, pair in enumerate(headers) if i not in forged]


def test_known_headers_after_a_forged_one_still_mean_what_they_say(nginx):
    nginx.start(PASS_ALL.replace("[$http", "$http_user_agent $http_cookie $cookie_two $http_x_forwarded_for [$http"))
    with Client(nginx.plain, tls=False) as client:
        assert client.text("/echo", [(HEADER, "forged"), ("User-Agent", "agent"), (HEADER, "forged"),
                                     ("Cookie", "one=1; two=2"), ("X-Forwarded-For", "192.0.2.1"),
                                     (HEADER, "forged")]) == "agent one=1; two=2 2 192.0.2.1 []"


@pytest.mark.parametrize("error_page", ["error_page 400 = /error;", "error_page 400 = @error;"])
@pytest.mark.parametrize("bad", ["", "Host: a.test\r\nHost: b.test\r\n", "Host: a.test\r\nContent-Length: x\r\n"])
def test_forged_header_of_a_refused_request_does_not_reach_the_error_page(nginx, error_page, bad):
    """nginx refuses such a request before its first phase, and yet may pass it on."""
    nginx.start(f"""
        server {{
            listen PLAIN_PORT;
            {error_page}
            set $seen "$http_x_tls_ekm_channel_binding";
            proxy_set_header X-Seen $seen;
            location = /error {{ proxy_pass BACKEND; }}
            location @error {{ proxy_pass BACKEND; }}
            location / {{ return 204; }}
        }}
    """)
    with socket.create_connection(("127.0.0.1", nginx.plain.port), TIMEOUT) as client:
        client.sendall(f"GET / HTTP/1.1\r\n{HEADER}: forged\r\nX-Kept: kept\r\n{bad}\r\n".encode())
        while client.recv(4096):
            pass
    assert len(nginx.backend.seen) == 1
    request = nginx.backend.seen[0]
    assert not values(request) and values(request, "X-Kept") == ["kept"]
    assert not values(request, "X-Seen")


# Where nginx evaluates variables

EVERYWHERE = """
    SECRET_FILE
    map $ekm_channel_binding $mapped { default "mapped $ekm"; "" none; }
    log_format ekm "$uri $ekm_channel_binding";
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        access_log FOLDER/access.log ekm;
        location / { proxy_pass BACKEND; BINDING }
        location /protected { auth_request /_auth; proxy_pass BACKEND; BINDING }
        location = /_auth { internal; proxy_pass BACKEND/auth; proxy_pass_request_body off; BINDING }
        location = /auth-only { auth_request /_auth; return 200; }
        location /rewritten { rewrite ^ /target last; }
        location /redirected { error_page 418 = @named; return 418; }
        location @named { proxy_pass BACKEND; BINDING }
        location /mapped { return 200 $mapped; }
        location /added { add_header X-Value $ekm_channel_binding; add_header X-Bare $ekm; return 200; }
        location /condition { if ($ekm_channel_binding) { return 200 yes; } return 200 no; }
    }
"""


def test_auth_request_has_the_value_of_the_connection(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        expected = value(client.json())
        request = client.json("/protected", [(HEADER, "forged")])
        assert value(request) == expected
        (subrequest,) = nginx.backend.to("/auth")
        assert value(subrequest) == expected


def test_auth_request_without_tls_has_no_forged_header(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.plain, tls=False) as client:
        assert not values(client.json("/protected", [(HEADER, "forged")]))
    (subrequest,) = nginx.backend.to("/auth")
    assert not values(subrequest)


@pytest.mark.parametrize("path", ["/rewritten", "/redirected"])
def test_internal_redirects_keep_the_value(nginx, path):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        assert value(client.json(path, [(HEADER, "forged")])) == value(client.json())


def test_map_add_header_if_and_log_format(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        expected = value(client.json())
        assert client.text("/mapped") == f"mapped {expected.split(':')[0]}"
        response, _ = client.answer("/added")
        assert response.getheader("X-Value") == expected
        assert response.getheader("X-Bare") == expected.split(":")[0]
        assert client.text("/condition") == "yes"
    with Client(nginx.plain, tls=False) as client:
        assert client.text("/mapped") == "none"
        response, _ = client.answer("/added")
        assert response.getheader("X-Value") is None and response.getheader("X-Bare") is None
        assert client.text("/condition") == "no"
    access_log = nginx.folder / "access.log"
    # A line is written after its response; this is the last one.
    wait_until(lambda: access_log.read_text().count("/condition") == 2, "the access log is incomplete")
    lines = access_log.read_text().splitlines()
    assert lines[:4] == [f"{path} {expected}" for path in ("/", "/mapped", "/added", "/condition")]
    assert lines[4:] == [f"{path} -" for path in ("/mapped", "/added", "/condition")]


def test_tools_are_installed():
    for tool in (NGINX, "openssl", "curl"):
        assert shutil.which(tool), f"{tool} is missing"
