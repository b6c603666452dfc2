"""An HTTP proxy for TLS connections (CONNECT, RFC 9110 section 9.3.6) on a loopback address."""

import asyncio
import contextlib
import threading

from balancer import copy
from loopback import LoopbackAddress

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


class ConnectProxy:
    """It alone knows where hosts are: `places` has an address and a port for each "host:port".

    `tunnels` are those that were asked for: the "host:port" and what the client calls itself.
    """

    def __init__(self, places):
        self.address, self.places, self.tunnels = LoopbackAddress(), places, []
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._port = self.address.port(3128)
        self.url = f"http://{self.address}:{self._port}"
        opening = asyncio.start_server(self._serve, self.address.host, self._port)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.address.close()

    async def _end(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        broken = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*broken):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split()
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            self.tunnels.append((target, fields.get("user-agent", "")))
            if method != "CONNECT" or target not in self.places:
                writer.write(REFUSED)
                return
            there_reader, there_writer = await asyncio.open_connection(*self.places[target])
            with contextlib.closing(there_writer):
                writer.write(ESTABLISHED)
                await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
