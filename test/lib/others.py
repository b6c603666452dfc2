"""Other servers of a domain: they present a chain over TLS, or behave badly."""

import contextlib
import socket
import ssl
import tempfile
import threading
from pathlib import Path

import pki
from loopback import LoopbackAddress

PORT = 8443
PATIENCE_S = 10
HELLO_BYTES = 65536


class Other:
    """A server on a loopback address of its own, from the start to close().

    `behave` gets each connection, which is closed afterwards. `connections` have come so far.
    """

    def __init__(self, behave, port=PORT):
        self.address, self.connections = LoopbackAddress(), 0
        self._behave, self._closed = behave, threading.Event()
        self._listener = socket.create_server((self.address.host, self.address.port(port)))
        self.place = "{}:{}".format(*self._listener.getsockname())
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            if self._closed.is_set():
                connection.close()
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._handle, args=(connection,)))
            self._threads[-1].start()

    def _handle(self, connection):
        connection.settimeout(PATIENCE_S)
        with connection, contextlib.suppress(OSError):  # ssl.SSLError is one
            self._behave(connection, self._closed)

    def close(self):
        self._closed.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), PATIENCE_S).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self.address.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# How they behave.


def presents(chain, key):
    """TLS with this chain in PEM, until the client goes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pki.key_pem(key) + chain)
        file.flush()
        context.load_cert_chain(file.name)

    def behave(connection, _):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    return behave


def says_nothing(_, closed):
    closed.wait()


def talks_nonsense(connection, _):
    connection.recv(HELLO_BYTES)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hangs_up(connection, _):
    connection.recv(HELLO_BYTES)


# Who looks at them.


def new_replica(new_stack, folder, roots, **options):
    """A container that looks around before an order, not started yet.

    `roots` in PEM are trusted. Its domain has its own address, until point() gives it another one;
    nothing is asked of the machine's resolver, which needs mounts, and so root.
    """
    folder.chmod(0o755)  # nginx and certbot have users of their own
    place = Path(tempfile.mkdtemp(prefix="replica-", dir=folder))
    place.chmod(0o755)
    hosts, resolver, trust = place / "hosts", place / "resolv.conf", place / "trust.pem"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    trust.write_text(roots)
    stack = new_stack(binds={"/etc/hosts": hosts, "/etc/resolv.conf": resolver}, **options)
    stack.hosts = hosts
    stack.settings |= {"acme.adopt": True, "acme.trust": trust}
    stack.variables["LOG_LEVEL"] = "debug"
    point(stack, stack.address)
    return stack


def point(stack, *addresses):
    """From the next start on the domain has these addresses, for the container itself."""
    lines = ("127.0.0.1 localhost", *(f"{address} {stack.domain}" for address in addresses))
    stack.hosts.write_text("".join(f"{line}\n" for line in lines))
    stack.hosts.chmod(0o644)


def peers(stack, *others):
    """The container looks at these, too."""
    stack.settings["acme.peers"] = [other.place for other in others]
