"""Nonsense at each socket where the daemon answers: it goes on as if nothing had been said."""

import contextlib
import os
import random
import socket

import client
import pki
import pytest
from conftest import logs_of
from loopback import wait_until
from rotation import serve
from stack import Stack
from test_control import ask, control_of, metrics_of
from test_metrics import at_socket, socket_of

CLIENTS, AT_A_TIME = 400, 12
BASES = [
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD /health?attested HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b'POST /v1/log-level HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"level":"debug"}',
    b'POST /v1/deploy HTTP/1.1\r\nContent-Length: 26\r\n\r\n{"fullchain":"x","key":""}',
    b"POST /v1/none HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
]
WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\0", b" ", b":", b"/", b"?", b"\xff", b"{", b'"', b"[" * 5000),
    *(b"Content-Length: 9999999\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/2.0", b"a" * 20000),
]


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container that hears nonsense"] = stack.log
        stack.place = stack.address.host, stack.address.port(9464)
        stack.settings |= {"metrics.nginx": True, "metrics.listen": "{}:{}".format(*stack.place)}
        serve(stack)
        yield stack


@pytest.fixture(name="chance")
def fixture_chance():
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
    print(f"FUZZ_SEED={seed}")
    return random.Random(seed)


def mutated(chance):
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(3000))
    text = bytearray(chance.choice(BASES))
    for _ in range(chance.randrange(7)):
        at = chance.randrange(len(text) + 1)
        what = chance.randrange(4)
        if what == 0:
            text[at : at + 1] = chance.randbytes(1)
        elif what == 1:
            del text[at : at + chance.randrange(20)]
        elif what == 2:
            text[at:at] = chance.choice(WORDS)
        else:
            text += chance.choice(BASES)
    return bytes(text)


def connect(place):
    connection = socket.socket(socket.AF_INET if isinstance(place, tuple) else socket.AF_UNIX)
    connection.connect(place if isinstance(place, tuple) else str(place))
    return connection


def bother(place, chance):
    """Clients that send nonsense in parts, and go when they like; what each heard first."""
    heard = []
    with contextlib.ExitStack() as cleanup:
        here = []
        for _ in range(CLIENTS):
            if len(here) == AT_A_TIME:
                here.pop(chance.randrange(AT_A_TIME)).close()
            connection = cleanup.enter_context(connect(place))
            here.append(connection)
            with contextlib.suppress(ConnectionError, BlockingIOError):
                text = mutated(chance)
                connection.setblocking(False)
                for part in (text[: len(text) // 2], text[len(text) // 2 :]):
                    connection.send(part)
                if chance.random() < 0.3:
                    connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    heard.append(connection.recv(4096))
    return [answer for answer in heard if answer]


PLACES = {
    "the control socket": control_of,
    "the socket of nginx": socket_of,
    "the port": lambda stack: stack.place,
}


@pytest.mark.parametrize("place", PLACES)
def test_nonsense_changes_nothing(served, chance, place):
    daemon, leaf, status = served.daemon(), served.served_leaf(), served.status()
    before = metrics_of(served)
    heard = bother(PLACES[place](served), chance)
    assert len(heard) > CLIENTS / 10 and all(answer.startswith(b"HTTP/1.1 ") for answer in heard)

    # Everybody is still answered, by the same process, and nothing is left of it.
    assert ask(served, "GET", "/v1/status")[0] == 200
    assert at_socket(socket_of(served), "GET", "/metrics")[0] == 200
    assert client.get(served.place, "/metrics", "localhost").status == 200
    assert served.daemon().pid == daemon.pid
    fds = "process_open_fds", ""
    wait_until(lambda: metrics_of(served)[fds] <= before[fds] + 1, "connections are gone")
    assert pki.sha256(served.served_leaf()) == pki.sha256(leaf)
    assert served.status()["certificate"] == status["certificate"]
    grown = metrics_of(served)["process_resident_memory_bytes", ""]
    assert grown < before["process_resident_memory_bytes", ""] + (64 << 20)
