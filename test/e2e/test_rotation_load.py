"""Fifty certificates in a row while clients are served all the time.

The load is test/lib/rotation_clients.c. Streams come from a backend, through the proxy.
"""

import contextlib
import os
import re

import pki
import pytest
from backends import Backends
from connection import Http1, Http2
from loopback import wait_until
from processes import read_proc
from rotation import CLIENTS, Load, Rotation, assert_at_rest, assert_measured, serve

RATE = 400
ROTATIONS = 50
RELOADS = 8
STREAMS = 4
# Allocators take a while to come to rest; what is lost with each rotation goes on.
WARM_UP = 15
MOST_GROWTH_KIB = 1024


@pytest.fixture(scope="module", autouse=True)
def fixture_tools():
    assert CLIENTS.is_file(), f"{CLIENTS} is missing: make e2e builds it"


@pytest.fixture(name="backends")
def fixture_backends():
    with Backends() as backends:
        yield backends


@pytest.fixture(name="new_application")
def fixture_new_application(new_stack, backends):
    """A container with an application behind it, which is known by address."""

    def make(**settings):
        place = {"UPSTREAM_HOST": backends.address, "UPSTREAM_PORT": backends.vllm.port}
        variables = {name: str(value) for name, value in place.items()}
        stack = new_stack(variables=variables, settings=settings)
        stack.backends = backends
        return stack

    return make


class Streams:
    """Answers that are still being written while the certificate changes."""

    def __init__(self, stack, count):
        self._vllm, self._closing, self._pairs = stack.backends.vllm, contextlib.ExitStack(), []
        for number in range(count):
            kind = (Http1, Http2)[number % 2]
            connection = self._closing.enter_context(kind(stack.https, stack.domain))
            answer = connection.open("GET", "/v1/chat/completions")
            source = self._vllm.next_stream()
            assert read_event(answer) == source.first
            self._pairs.append((source, answer))

    def go_on(self, data):
        for source, answer in self._pairs:
            source.send(data)
            assert read_event(answer) == data

    def end(self):
        for source, answer in self._pairs:
            source.end()
            assert answer.read() == b""
        self._closing.close()


def read_event(answer):
    line, empty = answer.readline(), answer.readline()
    assert empty == b"\n", "the stream was cut"
    return line.decode().removeprefix("data: ").removesuffix("\n")


def running(stack):
    """The daemon, and nginx with its workers."""
    return [one.pid for one in (stack.daemon(), stack.nginx_master(), *stack.nginx_workers())]


def usage(pid):
    """KiB in memory, and descriptors."""
    resident = re.search(rb"VmRSS:\s+(\d+) kB", read_proc(pid, "status"))[1]
    return int(resident), len(os.listdir(f"/proc/{pid}/fd"))


def assert_no_more_files_are_open(programs, at_rest):
    """When the last connections have gone."""

    def look():
        return all(usage(pid)[1] <= most for pid, most in zip(programs, at_rest, strict=True))

    wait_until(look, f"as few files are open as at first: {at_rest}")


def rotate(stack, rotation, streams_across):
    """One rotation, with streams that are open all the while, and one that outlives all of them."""
    streams = Streams(stack, STREAMS)
    rotation.put_and_wait()
    for each in (streams, streams_across):
        each.go_on(pki.sha256(rotation.leaf))
    streams.end()


def assert_nothing_failed(found):
    assert found["failed"] == 0 and found["refused"] == 0, found
    # Others may run beside this, on two cores.
    assert found["requests"] >= 0.5 * RATE * found["seconds"], found


def test_fifty_rotations_under_load_are_not_noticed(new_application, monkeypatch):
    # A sanitizer keeps what was freed for a while; that is not meant by growth.
    options = os.environ.get("ASAN_OPTIONS", "")
    monkeypatch.setenv("ASAN_OPTIONS", f"{options}:quarantine_size_mb=1")
    stack = new_application()
    rotation = Rotation(stack)
    serve(stack)
    programs = running(stack)
    at_rest = [usage(pid)[1] for pid in programs]
    with Load(stack, RATE) as load:
        across = Streams(stack, 2)
        for number in range(ROTATIONS):
            if number == WARM_UP:
                before = [usage(one) for one in programs]
            rotate(stack, rotation, across)
        after = [usage(one) for one in programs]
        across.end()
        found = load.end()
    assert_nothing_failed(found)
    # Without a reload nobody ends a connection that is idle.
    assert found["noticed"] == found["crossed"] == 0, found
    assert running(stack) == programs
    grown = [now[0] - then[0] for then, now in zip(before, after, strict=True)]
    assert max(grown) < MOST_GROWTH_KIB, (before, after)
    assert_no_more_files_are_open(programs, at_rest)
    assert_measured(stack, rotation.names)
    assert_at_rest(stack, rotation.leaf)
    assert not stack.log.find("ERROR")


def test_rotations_by_reload_under_load_fail_no_request(new_application):
    """As with a new key. Old workers end what is idle, which may cross with a request."""
    stack = new_application(**{"nginx.live_chain": False})
    rotation = Rotation(stack)
    serve(stack)
    master = stack.nginx_master().pid
    with Load(stack, RATE) as load:
        across = Streams(stack, 2)
        for _ in range(RELOADS):
            rotate(stack, rotation, across)
        across.end()
        found = load.end()
    assert_nothing_failed(found)
    assert found["noticed"] + found["crossed"] >= RELOADS, found
    assert stack.nginx_master().pid == master
    assert_measured(stack, rotation.names)
    assert_at_rest(stack, rotation.leaf)
    assert not stack.log.find("ERROR")
