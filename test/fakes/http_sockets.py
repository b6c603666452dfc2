"""HTTP/1.1 with JSON on unix sockets, for fakes: a listener that can vanish, and a client."""

import http.client
import http.server
import json
import os
import select
import socket
import threading
import urllib.parse

MAX_REQUEST_BYTES = 4 << 20
CLIENT_TIMEOUT_S = 10


def http_answer(status, document, pad=0):
    """A response: text goes out as it is, anything else as JSON, with `pad` blanks behind it."""
    is_text = isinstance(document, str)
    body = (document if is_text else json.dumps(document)).encode() + b" " * pad
    lines = (
        f"HTTP/1.1 {status} {http.client.responses.get(status, 'Unknown')}",
        f"Content-Type: {'text/plain' if is_text else 'application/json'}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def decode(body):
    """JSON if it is JSON, else text."""
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def has_hung_up(connection):
    """Whether the peer has closed its end, without reading what it sent before."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


class Exchange(http.server.BaseHTTPRequestHandler):
    """Reads the requests of one connection; the listener's application answers each on wfile."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.application(self, b"")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
            self.close_connection = True
            status = 413 if length.isdecimal() else 411
            self.wfile.write(http_answer(status, {"error": "size of the request"}))
            return
        body = self.rfile.read(int(length))
        if len(body) == int(length):  # else the client went away
            self.server.application(self, body)

    def log_message(self, *_):
        pass


class Listener:
    """Listens at a unix path or at http://host:port, with one thread per connection.

    application(exchange, body) runs in that thread. close() ends listener and connections, and
    removes the socket's file, unless it is to stay as after a crash, or another process has taken
    the path over.
    """

    def __init__(self, endpoint, application):
        self.endpoint, self.application = endpoint, application
        self._lock, self._connections, self._is_open = threading.Lock(), set(), True
        self._inode = None
        url = urllib.parse.urlsplit(endpoint)
        if url.scheme == "http":
            self._socket = socket.create_server((url.hostname, url.port or 0))
            self.endpoint = f"http://{url.hostname}:{self._socket.getsockname()[1]}"
        else:
            if os.path.lexists(endpoint):
                os.unlink(endpoint)
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(endpoint)
            self._inode = os.stat(endpoint).st_ino
            self._socket.listen(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self, leave_file=False):
        with self._lock:
            self._is_open = False
            for connection in self._connections:
                shut_down(connection)
        shut_down(self._socket)
        self._thread.join()
        self._socket.close()
        if self._inode is not None and not leave_file:
            try:
                if os.stat(self.endpoint).st_ino == self._inode:
                    os.unlink(self.endpoint)
            except FileNotFoundError:
                pass

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # close() has shut the socket down
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            with self._lock:
                if not self._is_open:
                    return
                self._connections.add(connection)
            try:
                Exchange(connection, ("client", 0), self)
            except OSError:  # the client, or close(), has ended the connection
                pass
            finally:
                with self._lock:
                    self._connections.discard(connection)


def shut_down(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # already gone
        pass


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path, timeout=CLIENT_TIMEOUT_S):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def exchange(self, verb, path, request=None):
        """One request: the status of its answer, and the answer's JSON or else text."""
        body = None if request is None else json.dumps(request)
        self.request(verb, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self.getresponse()
        return answer.status, decode(answer.read())


def call(path, method, request=None, timeout=CLIENT_TIMEOUT_S):
    """POST one request to the agent at a unix path: status, and JSON or else text."""
    connection = UnixConnection(path, timeout)
    try:
        return connection.exchange("POST", f"/{method}", request or {})
    finally:
        connection.close()
