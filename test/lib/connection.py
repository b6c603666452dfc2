"""One TLS connection as a client sees it: HTTP/1.1 or HTTP/2 over it, and its exporter.

    with Http2(stack.https, stack.domain) as connection:
        answer = connection.request("GET", "/tdx_quote")
        connection.exporter()

Headers of answers are kept as they came, repeated ones too. The server's certificate is not
verified: that is for other tests.
"""

import http.client
import io
import socket
import struct
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
from http2 import GOAWAY
from OpenSSL import SSL

TIMEOUT_S = 10
READ_BYTES = 65536
EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 §2
EXPORTER_BYTES = 32


class Answer(NamedTuple):
    status: int
    headers: list  # of pairs, names in lower case
    body: bytes

    def values(self, name):
        return [value for key, value in self.headers if key == name]

    @property
    def text(self):
        return self.body.decode()


class TlsSocket(io.RawIOBase):
    """As much of a socket as http.client needs, over pyOpenSSL, which has the exporter."""

    def __init__(self, place, name, protocol, source=None, before=b""):
        self._socket = socket.create_connection(place, TIMEOUT_S, source and (source, 0))
        self._socket.sendall(before)
        # A timeout of Python's would make the socket non-blocking, and pyOpenSSL needs it to wait.
        self._socket.settimeout(None)
        limit = struct.pack("ll", TIMEOUT_S, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, limit)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_alpn_protos([protocol])
        self._tls = SSL.Connection(context, self._socket)
        self._tls.set_tlsext_host_name(name.encode())
        self._tls.set_connect_state()
        try:
            self._tls.do_handshake()
            assert self._tls.get_alpn_proto_negotiated() == protocol
        except BaseException:
            self.end()
            raise

    def exporter(self):
        return self._tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)

    def sendall(self, data):
        try:
            self._tls.sendall(data)
        except (SSL.SysCallError, SSL.ZeroReturnError) as problem:
            raise BrokenPipeError("the server has closed the connection") from problem

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            return self._tls.recv_into(buffer)
        except SSL.ZeroReturnError:
            return 0
        except SSL.WantReadError as problem:
            raise TimeoutError(f"nothing came within {TIMEOUT_S} s") from problem

    def makefile(self, *_):
        return io.BufferedReader(self)

    def close(self):
        """http.client closes what it will not use again, which may be before it has read it."""

    def end(self):
        self._socket.close()


class Http1(http.client.HTTPConnection):
    """With `chunked` a body is sent without saying its length; `before` goes before TLS."""

    def __init__(self, place, name, source=None, before=b""):
        super().__init__(*place)
        self.auto_open = 0
        self.name = name
        self.sock = self._socket = TlsSocket(place, name, b"http/1.1", source, before)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.end()

    def exporter(self):
        return self._socket.exporter()

    def open(self, method, path, headers=(), body=b"", chunked=False):
        """The answer's head, as http.client has it; its body is read from it line by line."""
        self.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        self.putheader("Host", self.name)
        for name, value in headers:
            self.putheader(name, value)
        if chunked:
            self.putheader("Transfer-Encoding", "chunked")
        elif body:
            self.putheader("Content-Length", str(len(body)))
        try:
            self.endheaders(iter([body]) if chunked else body or None, encode_chunked=chunked)
        except BrokenPipeError:
            pass  # the answer says why
        return self.getresponse()

    def request(self, method, path, headers=(), body=b"", chunked=False):
        response = self.open(method, path, headers, body, chunked)
        pairs = [(name.lower(), value) for name, value in response.getheaders()]
        return Answer(response.status, pairs, response.read())


class Http2:
    def __init__(self, place, name, source=None, before=b""):
        self.name = name
        self._socket = TlsSocket(place, name, b"h2", source, before)
        self._streams, self._incomplete = {}, b""
        config = h2.config.H2Configuration(header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.end()

    def exporter(self):
        return self._socket.exporter()

    def open(self, method, path, headers=(), body=b""):
        """A stream whose head has come."""
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = Http2Stream(self)
        pseudo = {":method": method, ":path": path, ":scheme": "https", ":authority": self.name}
        length = [("content-length", str(len(body)))] if body else []
        self._h2.send_headers(number, [*pseudo.items(), *headers, *length], end_stream=not body)
        self._send(number, stream, body)
        while stream.status is None:
            assert not stream.has_ended, "the server has ended the stream without an answer"
            self.receive()
        return stream

    def request(self, method, path, headers=(), body=b""):
        stream = self.open(method, path, headers, body)
        return Answer(stream.status, stream.headers, stream.read())

    def _send(self, number, stream, body):
        rest = memoryview(body)
        while rest and not stream.has_ended:  # a refusal need not wait for all of it
            window = self._h2.local_flow_control_window(number)
            size = min(len(rest), window, self._h2.max_outbound_frame_size)
            if size == 0:
                self._flush()
                self.receive()
                continue
            self._h2.send_data(number, bytes(rest[:size]), end_stream=size == len(rest))
            rest = rest[size:]
        self._flush()

    def _flush(self):
        self._socket.sendall(self._h2.data_to_send())

    def _frames(self, data):
        """What is complete, without GOAWAY: streams go on behind it (RFC 9113 §6.8), h2 ends them."""
        self._incomplete += data
        complete = b""
        while len(self._incomplete) >= 9:
            end = 9 + int.from_bytes(self._incomplete[:3], "big")
            if len(self._incomplete) < end:
                break
            if self._incomplete[3] != GOAWAY:
                complete += self._incomplete[:end]
            self._incomplete = self._incomplete[end:]
        return complete

    def receive(self):
        """Wait for something from the server, and give it to the streams."""
        data = self._socket.read(READ_BYTES)
        assert data, "the server has closed the connection"
        for event in self._h2.receive_data(self._frames(data)):
            stream = self._streams.get(getattr(event, "stream_id", None))
            if stream is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                stream.start(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                stream.data += event.data
                self._h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                stream.has_ended = True
        self._flush()


class Http2Stream:
    """An answer that may still be coming."""

    def __init__(self, connection):
        self._connection = connection
        self.status, self.headers, self.data, self.has_ended = None, [], b"", False

    def start(self, headers):
        self.status = int(dict(headers)[":status"])
        self.headers = [pair for pair in headers if not pair[0].startswith(":")]

    def readline(self):
        while b"\n" not in self.data and not self.has_ended:
            self._connection.receive()
        line, end, self.data = self.data.partition(b"\n")
        return line + end

    def read(self):
        return b"".join(iter(self.readline, b""))
