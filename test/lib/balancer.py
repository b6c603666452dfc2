"""A TCP balancer on a loopback address of its own, as it stands in front of replicas or of a CA."""

import asyncio
import collections
import contextlib
import functools
import itertools
import threading

from loopback import LoopbackAddress

CHUNK = 65536


class Balancer:
    """Each connection to one of its ports is handed on to the next place of that port that takes it.

    `taken` counts the connections by place, which is an address and a port.
    """

    def __init__(self):
        self.address, self.taken = LoopbackAddress(), collections.Counter()
        self._servers, self._connections = {}, set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for port in list(self._servers):
            self.refuse(port)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.address.close()

    def serve(self, port, places):
        """From now on connections to this port go to these places in turn."""
        turns = itertools.cycle(range(len(places)))
        handler = functools.partial(self._hand_on, list(places), turns)
        opening = asyncio.start_server(handler, self.address.host, port, reuse_address=True)
        self._servers[port] = self._wait_for(opening)

    def is_open(self, port):
        return port in self._servers

    def refuse(self, port):
        """From now on nobody listens on this port, and all connections end."""
        self._wait_for(self._close(self._servers.pop(port)))

    def _wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _close(self, server):
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _hand_on(self, places, turns, reader, writer):
        task, writers = asyncio.current_task(), [writer]
        self._connections.add(task)
        try:
            if there := await self._connect(places, next(turns)):
                writers.append(there[1])
                await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
        except asyncio.CancelledError:  # refuse() ends it
            for one in writers:
                one.transport.abort()
        finally:
            self._connections.discard(task)
            for one in writers:
                one.close()

    async def _connect(self, places, first):
        for place in places[first:] + places[:first]:
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection(*place)
                self.taken[place] += 1
                return there
        return None


async def copy(reader, writer):
    """Until one side ends, and the other one is told."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
