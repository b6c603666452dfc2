"""Loopback addresses and ports that nobody else uses, and waiting."""

import ctypes
import errno
import fcntl
import os
import random
import socket
import struct
import time

# Bound, never listened on: who holds it on an address holds the address.
CLAIM_PORT = 47001
ATTEMPTS = 100
POLL_S = 0.02

CLONE_NEWNET = 0x40000000  # sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, net/if.h


class LoopbackAddress:
    """An address in 127.0.0.0/8 of one's own, until close().

    Services on it can have the ports that they usually have, whatever else runs on this machine
    at the same time.
    """

    def __init__(self):
        for _ in range(ATTEMPTS):
            parts = (random.randrange(64, 128), random.randrange(256), random.randrange(1, 255))
            self.host = ".".join(map(str, (127, *parts)))
            self._claim = socket.socket()
            try:
                self._claim.bind((self.host, CLAIM_PORT))
                return
            except OSError as problem:
                self._claim.close()
                if problem.errno != errno.EADDRINUSE:
                    raise
        raise RuntimeError(f"port {CLAIM_PORT} is taken on every loopback address")

    def __str__(self):
        return self.host

    def close(self):
        self._claim.close()

    def port(self, preferred):
        """The first free port from `preferred` on: a service on all addresses may hold some."""
        for port in range(preferred, preferred + ATTEMPTS):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.host, port))
                    return port
                except OSError as problem:
                    if problem.errno != errno.EADDRINUSE:
                        raise
        raise RuntimeError(f"no free port from {preferred} on")


def enter_network_of_own():
    """From now on this thread, and those and the processes that it starts, have a loopback device that
    nobody else has, with every port free, and nothing else. Needs root. The descriptor of the network
    that was left is returned, for nsenter."""
    left = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    return left


def is_listening(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((str(host), port)) == 0


def wait_until(condition, what, timeout=20.0):
    """Wait for what gives no event; the condition's value, which is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(POLL_S)
    return value
