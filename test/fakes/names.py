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
    """`known` has the IPv4 addresses of each name, and may change at any time.

    Other names do not exist. `asked` are all that somebody wanted to know, in their order.
    """

    def __init__(self, known, address):
        self.known, self.asked = dict(known), []
        self._address, self._transport = str(address), None

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
        name = ".".join(labels)
        addresses, answers = self.known.get(name), []
        for address in addresses if addresses and wanted == TYPE_A else ():
            packed = socket.inet_aton(str(address))
            head = (NAME_OF_THE_QUESTION, TYPE_A, CLASS_IN, TTL_S, len(packed))
            answers.append(struct.pack("!HHHIH", *head) + packed)
        flags = NO_SUCH_NAME if addresses is None else NO_ERROR
        counts = struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
        self._transport.sendto(data[:2] + counts + question + b"".join(answers), peer)
        self.asked.append(name)
