"""A TLS 1.3 client that seals its records itself, so that it can send what no library would.

And what an exporter is, from the RFC and from no library.
"""

import hashlib
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SUITE = "TLS_AES_256_GCM_SHA384"
# Content types and messages of RFC 8446, Appendix B.
HANDSHAKE, APPLICATION_DATA = 22, 23
CLIENT_HELLO, KEY_UPDATE = 1, 24


def message(kind, body):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def expand_label(secret, label, context, length):
    """RFC 8446, Section 7.1."""
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(full)]) + full + bytes([len(context)]) + context
    return HKDFExpand(SHA384(), length, info).derive(secret)


def exporter(secret, label, length):
    """Of the exporter's secret of a connection, without a context: RFC 8446, Section 7.5."""
    nothing = hashlib.sha384().digest()
    derived = expand_label(secret, label, nothing, len(nothing))
    return expand_label(derived, b"exporter", nothing, length)


class KeyLog:
    """Gets the secrets of the one connection of a context."""

    def __init__(self, context):
        self.file = tempfile.NamedTemporaryFile(prefix="keys-")
        context.keylog_filename = self.file.name

    def __getitem__(self, name):
        lines = [line.split() for line in Path(self.file.name).read_text().splitlines()]
        (secret,) = {words[2] for words in lines if words[0] == name}
        return bytes.fromhex(secret)

    def close(self):
        self.file.close()


class RecordClient:
    """The handshake is OpenSSL's, and so is reading; each sendall() is one record."""

    def __init__(self, place, timeout_s, alpn=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if alpn:
            context.set_alpn_protocols([alpn])
        self.log = KeyLog(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="a.test")
        self.socket = socket.create_connection(place, timeout_s)
        self.repeat(self.tls.do_handshake)
        self.socket.sendall(self.outgoing.read())
        assert self.tls.cipher()[0] == SUITE
        secret = self.log["CLIENT_TRAFFIC_SECRET_0"]
        self.key = AESGCM(expand_label(secret, b"key", b"", 32))
        self.iv = int.from_bytes(expand_label(secret, b"iv", b"", 12), "big")
        self.sent = 0

    def repeat(self, operation):
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                data = self.socket.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()

    def send_record(self, kind, data):
        """RFC 8446, Section 5.2."""
        header = bytes([APPLICATION_DATA, 3, 3]) + (len(data) + 17).to_bytes(2, "big")
        nonce = (self.iv ^ self.sent).to_bytes(12, "big")
        self.socket.sendall(header + self.key.encrypt(nonce, data + bytes([kind]), header))
        self.sent += 1

    def sendall(self, data):
        self.send_record(APPLICATION_DATA, data)

    def recv(self, most):
        try:
            return self.repeat(lambda: self.tls.read(most))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def wait_until_read(self, wait_until):
        """Until the server has taken from the kernel whatever was sent to it."""
        ends = [name[1] for name in (self.socket.getsockname(), self.socket.getpeername())]

        def is_read():
            waiting = {}
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                _, local, remote, _, queues = line.split()[:5]
                sent, received = (int(queue, 16) for queue in queues.split(":"))
                waiting[int(local[-4:], 16), int(remote[-4:], 16)] = sent, received
            unsent, unread = waiting[tuple(ends)][0], waiting[tuple(reversed(ends))][1]
            return unsent == unread == 0

        wait_until(is_read, "the server reads")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.log.close()
