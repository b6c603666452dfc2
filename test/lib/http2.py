"""Just enough of HTTP/2 (RFC 9113) to send requests in any form, and to see frames."""

# Frame types, flags and settings.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Fields of HPACK's static table, and the first one that a connection adds (RFC 7541).
GET, POST, HTTPS = b"\x82", b"\x83", b"\x87"
FIRST_ADDED = b"\xbe"


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def integer(value, bits, first=0):
    """RFC 7541, Section 5.1; `first` has what precedes in the first octet."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    octets, value = [first | most], value - most
    while value > 127:
        octets.append(128 | value & 127)
        value >>= 7
    return bytes([*octets, value])


def text(value):
    """Not coded by Huffman."""
    return integer(len(value), 7) + value.encode()


def field(name, value, first=0):
    """A literal; `first` is 0 without indexing, 16 never indexed, 64 with indexing."""
    return bytes([first]) + text(name) + text(value)


def request(path="/", authority="a.test", headers=(), method=GET):
    """The block of a request: :path and :authority have their names from the static table."""
    block = method + HTTPS + b"\x04" + text(path)
    if authority is not None:
        block += b"\x01" + text(authority)
    return block + b"".join(field(name, value) for name, value in headers)


class Http2:
    """A connection over `transport`, which has sendall() and recv()."""

    def __init__(self, transport, is_begun=False):
        self.transport = transport
        self.buffer, self.frames, self.body = b"", [], {}
        if not is_begun:
            # SETTINGS_INITIAL_WINDOW_SIZE, and the same for the connection.
            self.transport.sendall(
                PREFACE
                + frame(SETTINGS, 0, 0, bytes.fromhex("00047fffffff"))
                + frame(WINDOW_UPDATE, 0, 0, bytes.fromhex("7fff0000"))
            )

    def send(self, kind, flags, stream, payload):
        self.transport.sendall(frame(kind, flags, stream, payload))

    def ask(self, stream, path="/", authority="a.test", headers=()):
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, request(path, authority, headers))

    def read(self):
        """The next frame, or None at the end of the connection."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            data = self.transport.recv(65536)
            if not data:
                return None
            self.buffer += data
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9:end], self.buffer[end:]
        self.frames.append((kind, flags, stream, payload))
        if kind == DATA:
            self.body[stream] = self.body.get(stream, b"") + payload
        return self.frames[-1]

    def until(self, condition):
        while not condition(*(self.frames[-1] if self.frames else (None, 0, 0, b""))):
            assert self.read(), "the connection ended"

    def answer(self, stream):
        """The body, when the whole answer is there."""
        self.until(lambda *_: self.has_ended(stream))
        return self.body.get(stream, b"").decode()

    def has_ended(self, stream):
        return any(one[2] == stream and one[1] & END_STREAM and one[0] in (DATA, HEADERS) for one in self.frames)

    def of(self, kind):
        return [one for one in self.frames if one[0] == kind]

    def drain(self):
        while self.read():
            pass
