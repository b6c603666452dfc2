"""A DNS server for the few names of one test."""

import asyncio
import socket
import struct

PORT = 53  # a resolv.conf cannot name another one

HEADER_BYTES = 12
TYPE_A, CLASS_IN = 1, 1
NO_ERROR, NO_SUCH_NAME = 0x8180, 0x8183
NAME_OF_THE_QUESTION = 0xC000 | HEADER_BYTES  # a pointer to it (RFC 1035 §4.1.4)
TTL_S = 1


class Names(asyncio.DatagramProtocol):
    """All names are of one IPv4 address; others do not exist. `known` may change at any time."""

    def __init__(self, known, address):
        self.known, self._address = set(known), str(address)
        self._transport = None

    async def start(self):
        """Fails with OSError when the port may not be had."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, (self._address, PORT))

    def stop(self):
        if self._transport:
            self._transport.close()

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, peer):
        end, labels = HEADER_BYTES, []
        while length := data[end]:
            labels.append(data[end + 1 : end + 1 + length].decode().lower())
            end += 1 + length
        (wanted,) = struct.unpack_from("!H", data, end + 1)
        question = data[HEADER_BYTES : end + 5]
        is_known, answer = ".".join(labels) in self.known, b""
        if is_known and wanted == TYPE_A:
            packed = socket.inet_aton(self._address)
            head = (NAME_OF_THE_QUESTION, TYPE_A, CLASS_IN, TTL_S, len(packed))
            answer = struct.pack("!HHHIH", *head) + packed
        flags = NO_ERROR if is_known else NO_SUCH_NAME
        counts = struct.pack("!HHHHH", flags, 1, bool(answer), 0, 0)
        self._transport.sendto(data[:2] + counts + question + answer, peer)
