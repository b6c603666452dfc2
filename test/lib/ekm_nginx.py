"""nginx with the EKM module, a backend that tells what it got, and clients that know their exporter."""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import select
import socket
import socketserver
import ssl
import subprocess
import threading
from pathlib import Path

import pki
import tls13
from bare_nginx import BUILD, BareNginx
from http2 import Http2

MODULES = ["ngx_http_ekm_module"]
PROBE = BUILD / "test/ekm_probe.so"
HEADER = "X-TLS-EKM-Channel-Binding"
LABEL = "EXPORTER-Channel-Binding"
LENGTH = 32
VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors.json").read_text())["ekm"]
SECRET, OTHER_SECRET = (vector["secret"] for vector in reversed(VECTORS))
FORM = re.compile(r"[0-9a-f]{64}:[0-9a-f]{64}")
TIMEOUT_S = 15


def binding(exporter_hex, secret=SECRET):
    """The header's value: the key of the HMAC is the text of the secret, also where that looks like hex."""
    mac = hmac.new(secret.encode(), bytes.fromhex(exporter_hex), hashlib.sha256).hexdigest()
    return f"{exporter_hex}:{mac}"


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


class Backend(socketserver.ThreadingTCPServer):
    """Answers every request with what arrived, as JSON, and remembers it; /held has to wait for `free`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BackendHandler)
        self.port = self.server_address[1]
        self.seen = []
        self.reached, self.free = threading.Event(), threading.Event()

    def to(self, path):
        return [request for request in self.seen if request["path"] == path]


class BackendHandler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT_S

    def handle(self):
        path = self.rfile.readline().decode("latin-1").split()[1]
        headers, length = [], 0
        while header := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            name, text = header.split(":", 1)
            headers.append([name, text.strip()])
            length = int(text) if name.lower() == "content-length" else length
        request = {"path": path, "headers": headers, "body": self.rfile.read(length).decode("latin-1")}
        self.server.seen.append(request)
        self.server.reached.set()
        if path == "/held":
            self.server.free.wait(TIMEOUT_S)
        body = json.dumps(request).encode()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@contextlib.contextmanager
def running_backend():
    with Backend() as backend:
        thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield backend
        finally:
            backend.free.set()
            backend.shutdown()
            thread.join()


class EkmNginx(BareNginx):
    """One that serves a.test and b.test on `tls`, whatever it is asked for on `plain`, and has a secret."""

    def __init__(self, backend=None, **options):
        super().__init__(MODULES, **({"workers": 1, "listeners": 2} | options))
        self.tls, self.plain = self.listeners[0].place, self.listeners[-1].place
        self.backend = backend
        self.environment.pop("EKM_SHARED_SECRET", None)
        key = pki.new_key()
        self.write("key.pem", pki.key_pem(key))
        self.write("cert.pem", pki.Authority().issue("a.test", key))
        self.secret = self.write("secret", SECRET)

    def write(self, name, text, mode=0o600):
        """Puts a file in place by renaming it."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.chmod(mode)
        return new.rename(self.folder / name)

    def write_conf(self, http_text, main_text=""):
        """More words in capitals stand for what differs from run to run."""
        for word, replacement in {
            "TLS_PORT": "LISTEN ssl",
            "PLAIN_PORT": "LISTEN2",
            "BINDING": f"proxy_set_header {HEADER} $ekm_channel_binding;",
            "BACKEND": f"http://127.0.0.1:{self.backend.port}" if self.backend else "",
            "SECRET_FILE": "ekm_secret_file FOLDER/secret;",
        }.items():
            http_text = re.sub(rf"\b{word}\b", replacement, http_text)
        certificate = "ssl_certificate FOLDER/cert.pem; ssl_certificate_key FOLDER/key.pem;"
        super().write_conf(f"{certificate} ssl_protocols TLSv1.2 TLSv1.3; {http_text}", main_text)

    def probe(self, exporter=""):
        """Preloads test/lib/ekm_probe.c, with 64 hex digits or "none" in place of each exporter."""
        self.write("probed", "", 0o666)
        self.environment["LD_PRELOAD"] = str(PROBE)
        self.environment["EKM_PROBE_LOG"] = str(self.folder / "probed")
        self.environment["EKM_PROBE_EXPORTER"] = exporter

    def probed(self, what=""):
        """What the probe has told, a line each."""
        return [line for line in (self.folder / "probed").read_text().splitlines() if what in line]

    def complaints(self):
        found = [line for line in self.log() if re.search(r"\[(alert|crit)\]|exited on signal|fatal code", line)]
        return found + self.log(SECRET) + self.log(OTHER_SECRET)


@contextlib.contextmanager
def ready_nginx(**options):
    """Not started yet. Whatever is done to it, it must have nothing to complain about, and keep its secrets."""
    with running_backend() as backend, EkmNginx(backend, **options) as nginx:
        yield nginx
        nginx.stop()
        complaints = nginx.complaints()
        assert not complaints, complaints


class Client(http.client.HTTPConnection):
    """HTTP/1.1 on one connection. json() asserts that it still is the same one."""

    def __init__(self, place, tls=True, name=None, max_version=None):
        super().__init__(*place, timeout=TIMEOUT_S)
        self.auto_open = 0
        self.connect()
        self.keys = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if max_version:
                context.maximum_version = max_version
            self.keys = tls13.KeyLog(context)
            self.sock = context.wrap_socket(self.sock, server_hostname=name)

    @property
    def exporter(self):
        assert self.sock.cipher()[0] == tls13.SUITE
        return tls13.exporter(self.keys["EXPORTER_SECRET"], LABEL.encode(), LENGTH).hex()

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
        if self.keys:
            self.keys.close()


class TlsProgram:
    """A program that connects its standard input and output by TLS, and shows the exporter of the connection.

    An answer is found in the output by `ANSWER`, whatever else may be there.
    """

    ANSWER = re.compile(rb"HTTP/1\.1 200 OK\r\n.*?Content-Length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output, self.position = b"", 0

    def more(self):
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        assert ready, f"timed out: {self.output}"
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data
        return data

    def search(self, pattern, start=0):
        while not (match := re.compile(pattern, re.DOTALL).search(self.output, start)):
            assert self.more(), f"no {pattern}: {self.output}"
        return match

    def send(self, path="/"):
        self.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())

    def sendall(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def recv(self, most):
        """What there is from where HTTP/2 begins, which is with SETTINGS."""
        if self.position == 0:
            self.position = self.search(rb"\x00\x00.\x04\x00\x00\x00\x00\x00").start()
        while self.position == len(self.output):
            if not self.more():
                return b""
        data = self.output[self.position :][:most]
        self.position += len(data)
        return data

    def response(self):
        """The next response, which is JSON."""
        head = self.search(self.ANSWER.pattern, self.position)
        self.position = head.end() + int(head.group(1))
        while len(self.output) < self.position:
            assert self.more(), f"the answer is not complete: {self.output}"
        return json.loads(self.output[head.end() : self.position])

    def json(self, path="/"):
        self.send(path)
        return self.response()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class OpensslClient(TlsProgram):
    def __init__(self, place, *arguments, alpn="http/1.1"):
        host, port = place
        super().__init__(
            ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", "a.test", "-alpn", alpn]
            + ["-keymatexport", LABEL, "-keymatexportlen", str(LENGTH), *arguments]
        )

    @property
    def exporter(self):
        return self.search(rb"Keying material: ([0-9A-F]{64})").group(1).decode().lower()


class GnutlsClient(TlsProgram):
    def __init__(self, place, *arguments, alpn="http/1.1"):
        host, port = place
        super().__init__(
            ["stdbuf", "-oL", "gnutls-cli", "--insecure", "--port", str(port), host, "--sni-hostname", "a.test"]
            + ["--alpn", alpn, "--keymatexport", LABEL, "--keymatexportsize", str(LENGTH), *arguments]
        )

    @property
    def exporter(self):
        return self.search(rb"Key material: ([0-9a-f]{64})").group(1).decode()


class Client2(Http2):
    """HTTP/2 in plain text, or by TLS sealed by ourselves."""

    def __init__(self, place, tls=True):
        self.cleanup = contextlib.ExitStack()
        if tls:
            transport = self.cleanup.enter_context(tls13.RecordClient(place, TIMEOUT_S, "h2"))
        else:
            transport = self.cleanup.enter_context(socket.create_connection(place, TIMEOUT_S))
        super().__init__(transport)

    @property
    def exporter(self):
        return tls13.exporter(self.transport.log["EXPORTER_SECRET"], LABEL.encode(), LENGTH).hex()

    def json(self, stream, *arguments, **options):
        self.ask(stream, *arguments, **options)
        return json.loads(self.answer(stream))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cleanup.close()


class Gate:
    """Relays one TCP connection, but lets nothing of the server's through before an event."""

    def __init__(self, place, event):
        self.event = event
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = self.listener.getsockname()
        self.server = socket.create_connection(place, TIMEOUT_S)
        self.threads = [threading.Thread(target=self.from_client), threading.Thread(target=self.from_server)]
        self.client, self.sent = None, b""

    def from_client(self):
        self.client, _ = self.listener.accept()
        self.threads[1].start()
        self.relay(self.client, self.server)

    def from_server(self):
        self.event.wait(TIMEOUT_S)
        self.relay(self.server, self.client)

    def relay(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is self.client:
                    self.sent += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        self.listener.settimeout(TIMEOUT_S)
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.threads[0].join()
        if self.client:
            self.threads[1].join()
            self.client.close()
        self.listener.close()
        self.server.close()
