"""The services behind the proxy in the specification's deployment, and the names they have there.

    with Backends() as backends, Stack(ca, binds=backends.binds) as stack:
        ...
        stream = backends.vllm.next_stream()

vLLM, the authentication and the attestation service listen on a loopback address of their own and
keep every request that came. For root they have names, which a DNS server on the same address
knows, as in a network of containers; otherwise the container knows them by address.
"""

import asyncio
import hashlib
import json
import os
import queue
import shutil
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from aiohttp import WSMsgType, web
from loopback import LoopbackAddress
from names import Names

TIMEOUT_S = 10


class Request(NamedTuple):
    """As it came over the wire; names and values of headers are untouched and in their order."""

    method: str
    target: str
    version: str
    headers: list
    body_bytes: int
    body_sha256: str

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Service:
    """One HTTP server. `host` and `port` are what the container knows it by."""

    name = usual_port = None

    def __init__(self, all_requests):
        self.host = self.port = None
        self.requests, self._all_requests = [], all_requests
        self.connections = set()  # ports that they came from
        self._runner = None

    @property
    def usual_place(self):
        return f"{self.name}:{self.usual_port}"

    @property
    def place(self):
        return f"{self.host}:{self.port}"

    async def start(self, address, *, by_name):
        self.port = address.port(self.usual_port)
        self.host = self.name if by_name else str(address)
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, str(address), self.port).start()

    async def stop(self):
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, request):
        self.connections.add(request.transport.get_extra_info("peername")[1])
        size, digest = 0, hashlib.sha256()
        async for piece in request.content.iter_any():
            size += len(piece)
            digest.update(piece)
        came = Request(
            request.method,
            request.raw_path,
            f"{request.version.major}.{request.version.minor}",
            [(name.decode(), value.decode("latin-1")) for name, value in request.raw_headers],
            size,
            digest.hexdigest(),
        )
        for log in (self.requests, self._all_requests):
            log.append(came)
        return await self.answer(request, came)

    async def answer(self, request, came):
        raise NotImplementedError


def as_json(came, **options):
    """What came, told to the client. Request(**json) reads it."""
    return web.json_response(came._asdict(), **options)


class Vllm(Service):
    """Tells what came; `?status=` chooses the status, 0 hangs up without an answer.

    Chat completions are streams that the test writes, an upgrade becomes a WebSocket that echoes.
    """

    name, usual_port = "vllm", 8000

    def __init__(self, all_requests):
        super().__init__(all_requests)
        self._streams, self._new_streams = [], queue.Queue()

    def next_stream(self):
        """A chat completion that the test has asked for."""
        return self._new_streams.get(timeout=TIMEOUT_S)

    async def stop(self):
        for stream in self._streams:
            stream.end()
        await super().stop()

    async def answer(self, request, came):
        # vLLM answers each origin by itself, unless it is told not to.
        headers = {"Access-Control-Allow-Origin": "*"} if came.values("Origin") else {}
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._echo(request)
        if request.path == "/v1/chat/completions":
            stream = Stream(request, headers)
            self._streams.append(stream)
            self._new_streams.put(stream)
            return await stream.answer()
        # So does vLLM: whatever begins like this are the metrics.
        if request.path.startswith("/metrics"):
            return web.Response(text="vllm:num_requests_running 0.0\n", headers=headers)
        status = int(request.query.get("status", 200))
        if status == 0:
            request.transport.abort()
        return as_json(came, status=status or 200, headers=headers)

    async def _echo(self, request):
        socket_ = web.WebSocketResponse(protocols=("echo",))
        await socket_.prepare(request)
        async for message in socket_:
            if message.type == WSMsgType.TEXT:
                await socket_.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket_.send_bytes(message.data)
        return socket_


class Stream:
    """Server-sent events: one at once, as vLLM tells its role, others when the test says so.

    Over HTTP/2 nginx 1.22 keeps the head of an answer until something of the body has come.
    """

    first = '{"role": "assistant"}'

    def __init__(self, request, headers):
        self._request, self._loop = request, asyncio.get_running_loop()
        self._headers = {"Content-Type": "text/event-stream"} | headers
        self._events = asyncio.Queue()

    def send(self, data):
        self._loop.call_soon_threadsafe(self._events.put_nowait, data)

    def end(self):
        self.send(None)

    @property
    def client_has_gone(self):
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def answer(self):
        response = web.StreamResponse(headers=self._headers)
        await response.prepare(self._request)
        data = self.first
        while data is not None:
            await response.write(f"data: {data}\n\n".encode())
            data = await self._events.get()
        return response


class AuthService(Service):
    """Knows one token; another one breaks it."""

    name, usual_port = "auth-service", 8081
    right, breaking = "Bearer right", "Bearer breaking"

    async def answer(self, request, came):
        token = request.headers.get("Authorization")
        if request.path != "/auth":
            return web.Response(status=404)
        if token == self.breaking:
            return web.Response(status=500)
        if token == self.right:
            return web.Response()
        return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})


class AttestationService(Service):
    """Tells what came; `?chunked` leaves the length out, `?status=` chooses the status."""

    name, usual_port = "attestation-service", 8080

    async def answer(self, request, came):
        response = as_json(came, status=int(request.query.get("status", 200)))
        if "chunked" in request.query:
            response.enable_chunked_encoding()
        return response


class Backends:
    """All of them, in one event loop in a thread; `binds` is for the container's Stack.

    An `address` for them is closed with them.
    """

    def __init__(self, address=None):
        self.requests = []  # to any of them, in their order
        self.services = [kind(self.requests) for kind in (Vllm, AuthService, AttestationService)]
        self.vllm, self.auth, self.attestation = self.services
        self.names, self.binds = None, {}
        self.address = address or LoopbackAddress()
        self._folder = Path(tempfile.mkdtemp(prefix="backends-"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            self._run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self.address.close()
            shutil.rmtree(self._folder)

    async def _start(self):
        by_name = await self._start_names()
        for service in self.services:
            await service.start(self.address, by_name=by_name)

    async def _start_names(self):
        """Whether the container can find the services by name: a mount and a low port need root."""
        if os.geteuid() != 0:
            return False
        known = {service.name: [self.address] for service in self.services}
        names = Names(known, self.address)
        try:
            await names.start()
        except OSError:
            return False
        self.names = names
        resolv_conf = self._folder / "resolv.conf"
        resolv_conf.write_text(f"nameserver {self.address}\n")
        resolv_conf.chmod(0o644)
        self.binds = {"/etc/resolv.conf": resolv_conf}
        return True

    async def _stop(self):
        if self.names:
            self.names.stop()
        for service in self.services:
            await service.stop()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)
