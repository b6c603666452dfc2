#!/usr/bin/env python3
"""A dstack guest agent for tests: HTTP/1.1 with JSON on a unix socket, and no hardware behind it.

It runs in the test's own process or as a child, with the same operations (see OPERATIONS):

    with GuestAgent(path, seed="seed") as agent:        # or ChildAgent(path, seed="seed")
        agent.fault(preset="lost-answer", method="EmitEvent", times=1)
        …
        assert agent.measured() == [sha256_of_leaf] and agent.state()["emit_peak"] == 1

From a shell, `guest_agent.py --socket PATH --seed TEXT` prints `ready ENDPOINT CONTROL` once it
listens. CONTROL is a second unix socket (PATH.control unless given) that no fault touches:

    POST /_control  {"op": "fault", "preset": "slow", "method": "GetKey"}  answers {"result": 1}
    GET  /_log      the calls so far
    GET  /_state    event log, registers, concurrency

Not simulated: GetTlsKey, Sign, Verify, Attest and the /v1 surface; and no protobuf bodies: the real
agent takes a POST that does not declare JSON for protobuf, so here it is refused.
"""

import argparse
import functools
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import asdict

from dstack_faults import NO_FAULT, PRESETS, Fault
from dstack_machine import DIGESTS, Machine, Refused
from http_sockets import Listener, call, decode, has_hung_up, http_answer

CERTIFICATE_EVENT = "New TLS Certificate"
READY_TIMEOUT_S = 10

# The methods of GuestAgent that ChildAgent and POST /_control offer too.
OPERATIONS = (
    *("fault", "clear", "vanish", "reappear"),
    *("reboot", "rotate_keys", "emit"),
    *("wait", "log", "state", "measured", "forget"),
)


class GuestAgent:
    """The agent in this process. Operations take keywords only and return what JSON can carry."""

    def __init__(
        self,
        endpoint,
        seed="seed",
        *,
        control=None,  # unix path of the control socket
        state=None,  # file in which event log, registers and key epoch outlive this object
        app_name="simulated-app",
        event_digests="v1",
        version="0.5.7",
        key_epoch="",
        faults=(),  # arguments of fault(), a dictionary each
    ):
        self.endpoint, self.control_path = str(endpoint), str(control or f"{endpoint}.control")
        self._machine = Machine(
            seed,
            app_name,
            version=version,
            event_digests=event_digests,
            key_epoch=key_epoch,
            state_file=state,
        )
        # Guards everything below and the machine; notified whenever somebody's wait may be over.
        self._changed = threading.Condition()
        self._listener = self._control = None
        self._faults, self._numbers = {}, itertools.count(1)
        self.forget()
        for fields in faults:
            self.fault(**fields)

    def start(self):
        self._control = Listener(self.control_path, self._serve_control)
        self.reappear()
        return self

    def stop(self):
        self.vanish()
        if self._control:
            self._control.close()
            self._control = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # Operations: what goes wrong.

    def fault(self, *, preset=None, **fields):
        """Add a fault: the fields of Fault, over those of a preset. Returns its number.

        The oldest fault that concerns a call hits it, and no other one.
        """
        if preset is not None:
            fields = PRESETS[preset] | fields
        fault = Fault(**fields)
        with self._changed:
            number = next(self._numbers)
            self._faults[number] = fault
            return number

    def clear(self, *, fault=None):
        """End one fault, or all of them. Calls that wait in it are answered now, in its shape."""
        with self._changed:
            for number in list(self._faults) if fault is None else [fault]:
                self._faults.pop(number).cleared = True
            self._changed.notify_all()

    def vanish(self, *, leave_file=False):
        """The agent is gone, connections cut; with leave_file a dead socket stays that refuses."""
        with self._changed:
            listener, self._listener = self._listener, None
            self._changed.notify_all()
        if listener:
            listener.close(leave_file)

    def reappear(self):
        with self._changed:
            if not self._listener:
                self._listener = Listener(self.endpoint, self._serve_agent)
                self.endpoint = self._listener.endpoint

    # Operations: what happens in the machine.

    def reboot(self, *, version=None, event_digests=None):
        """Registers and event log begin anew, perhaps under another release. The socket stays."""
        with self._changed:
            self._machine.install(version, event_digests)
            self._machine.boot()

    def rotate_keys(self, *, epoch):
        """From now on every path gives another key; epoch "" gives the first keys back."""
        with self._changed:
            self._machine.key_epoch = epoch
            self._machine.save()

    def emit(self, *, event, payload=""):
        """Somebody else in the machine adds an event, payload in hex: not a call, never faulty."""
        with self._changed:
            self._machine.emit(event, bytes.fromhex(payload))

    # Operations: what has been seen.

    def wait(self, *, method, count=1, answered=False, timeout_s=10):
        """Wait until so many calls of a method have come in, or been answered. False: too late."""

        def is_reached():
            calls = [entry for entry in self._calls if entry["method"] == method]
            return sum(not answered or entry["answered"] is not None for entry in calls) >= count

        with self._changed:
            return self._changed.wait_for(is_reached, timeout_s)

    def log(self):
        """The calls in order of arrival.

        Each has n, method, request, received and answered (seconds since 1970; answered is None
        while in progress), status (None without an HTTP answer), fault (number of the one that hit
        it, or None).
        """
        with self._changed:
            return [dict(entry) for entry in self._calls]

    def state(self):
        """The machine, the faults, and how many EmitEvent calls were in progress at once at most.

        emit_peak counts those whose clients were still waiting, emit_peak_abandoned also those that
        the agent was still working on after their client had given up.
        """
        with self._changed:
            return {
                "version": self._machine.version,
                "key_epoch": self._machine.key_epoch,
                "event_log": list(self._machine.event_log),
                "rtmr": [register.hex() for register in self._machine.rtmr],
                "emit_peak": self._emit_peak,
                "emit_peak_abandoned": self._emit_peak_abandoned,
                "faults": {str(number): asdict(fault) for number, fault in self._faults.items()},
            }

    def measured(self, *, event=CERTIFICATE_EVENT):
        """The payloads of all events of this name in RTMR3, oldest first, as text."""
        with self._changed:
            entries = [e for e in self._machine.event_log if (e["imr"], e["event"]) == (3, event)]
            return [bytes.fromhex(e["event_payload"]).decode("latin-1") for e in entries]

    def forget(self):
        """Empty the log of calls and begin to count concurrency anew."""
        with self._changed:
            self._calls, self._emitting = [], {}
            self._emit_peak = self._emit_peak_abandoned = 0

    # Serving the agent's socket.

    def _serve_agent(self, exchange, body):
        """One call: note it, perform it when its fault says so, answer in the fault's shape."""
        listener, status, data = exchange.server, None, b""
        entry, fault = self._begin(exchange, body)
        try:
            answer = self._perform(exchange, body) if fault.perform == "first" else (200, {})
            if self._pause(fault, listener, None if fault.hang else fault.delay_s):
                if fault.perform == "last":
                    answer = self._perform(exchange, body)
                status, data = fault.shape(*answer)
        finally:
            self._end(entry, status)
        if not data or fault.ends_connection:
            exchange.close_connection = True
        if not fault.drip_s:
            exchange.wfile.write(data)
            return
        head, separator, text = data.partition(b"\r\n\r\n")
        exchange.wfile.write(head + separator)
        for byte in text:
            if not self._pause(fault, listener, fault.drip_s):
                return
            exchange.wfile.write(bytes([byte]))

    def _begin(self, exchange, body):
        """Note a call. Returns its entry in the log, and its fault."""
        method, query = split_path(exchange.path)
        with self._changed:
            number, fault = self._take_fault(method)
            entry = {
                "n": next(self._numbers),
                "method": method,
                "request": query if exchange.command == "GET" else decode(body),
                "received": time.time(),
                "answered": None,
                "status": None,
                "fault": number,
            }
            self._calls.append(entry)
            if method.endswith("EmitEvent"):
                self._emitting[entry["n"]] = exchange.connection
                waiting = [c for c in self._emitting.values() if not has_hung_up(c)]
                self._emit_peak = max(self._emit_peak, len(waiting))
                self._emit_peak_abandoned = max(self._emit_peak_abandoned, len(self._emitting))
            self._changed.notify_all()
            return entry, fault

    def _take_fault(self, method):
        for number, fault in self._faults.items():
            if fault.method not in ("*", method) or fault.times == 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
            return number, fault
        return None, NO_FAULT

    def _perform(self, exchange, body):
        """Let the call have its effect. Returns status and document of the right answer."""
        method, request = split_path(exchange.path)
        try:
            if exchange.command == "POST":
                request = decode(body)
                if exchange.headers.get_content_type() != "application/json":
                    raise Refused(400, "expected Content-Type: application/json")
                if not isinstance(request, dict):
                    raise Refused(400, "expected a JSON object")
            with self._changed:
                return 200, self._machine.answer(method, request)
        except Refused as refusal:
            return refusal.status, {"error": str(refusal)}

    def _pause(self, fault, listener, seconds):
        """Wait, without a time until the fault is cleared. False: the agent has gone meanwhile."""
        with self._changed:
            if seconds != 0:
                self._changed.wait_for(
                    lambda: fault.cleared or self._listener is not listener, seconds
                )
            return self._listener is listener

    def _end(self, entry, status):
        """Comes before the answer is sent: a client that has its answer finds its call ended."""
        with self._changed:
            entry["answered"], entry["status"] = time.time(), status
            self._emitting.pop(entry["n"], None)
            self._changed.notify_all()

    # Serving the control socket.

    def _serve_control(self, exchange, body):
        status, document = 200, None
        request = f"{exchange.command} {exchange.path}"
        if request == "POST /_control":
            try:
                document = {"result": self._operate(**json.loads(body))}
            except (KeyError, OSError, TypeError, ValueError) as problem:
                status, document = 400, {"error": f"{type(problem).__name__}: {problem}"}
        elif request == "GET /_log":
            document = self.log()
        elif request == "GET /_state":
            document = self.state()
        else:
            status, document = 404, {"error": f"nothing at {request}"}
        exchange.wfile.write(http_answer(status, document))

    def _operate(self, *, op, **arguments):
        if op not in OPERATIONS:
            raise ValueError(f"op: {op!r} is none of {', '.join(OPERATIONS)}")
        return getattr(self, op)(**arguments)


def split_path(path):
    """Name of the method, and the request that a GET carries in its query."""
    url = urllib.parse.urlsplit(path)
    return url.path.removeprefix("/"), dict(urllib.parse.parse_qsl(url.query))


class ChildAgent:
    """The agent as a program of its own: arguments, operations and endpoints are GuestAgent's."""

    def __init__(self, endpoint, seed="seed", *, python=sys.executable, faults=(), **options):
        self._command = [python, os.path.abspath(__file__)]
        for name, value in {"socket": endpoint, "seed": seed, **options}.items():
            if value is not None:
                self._command.append(f"--{name.replace('_', '-')}={value}")
        self._command += [f"--fault={json.dumps(fields)}" for fields in faults]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        ready, _, _ = select.select([self.process.stdout], [], [], READY_TIMEOUT_S)
        words = self.process.stdout.readline().split() if ready else []
        if len(words) != 3:
            self.kill()
            raise RuntimeError(f"the guest agent did not start: {' '.join(self._command)}")
        _, self.endpoint, self.control_path = words
        return self

    def stop(self):
        """SIGTERM. Returns the exit code, 0 after a clean end."""
        self.process.terminate()
        return self._reap()

    def kill(self):
        """SIGKILL: the sockets' files stay, as after a crash."""
        self.process.kill()
        return self._reap()

    def _reap(self):
        self.process.stdout.close()
        return self.process.wait(READY_TIMEOUT_S)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

    def __getattr__(self, name):
        if name not in OPERATIONS:
            raise AttributeError(name)
        return functools.partial(self._control, name)

    def _control(self, op, **arguments):
        patience_s = READY_TIMEOUT_S + arguments.get("timeout_s", READY_TIMEOUT_S)
        status, answer = call(self.control_path, "_control", {"op": op} | arguments, patience_s)
        if status != 200:
            raise ValueError(answer["error"])
        return answer["result"]


def parse_arguments():
    parser = argparse.ArgumentParser(description="Simulates the dstack guest agent.")
    option = functools.partial(parser.add_argument, default=argparse.SUPPRESS)
    option("--socket", required=True, metavar="PATH", help="unix path, or http://host:port")
    option("--control", metavar="PATH", help="control socket, by default PATH.control")
    option("--seed", metavar="TEXT", help="origin of all keys and identities")
    option("--key-epoch", metavar="TEXT", help="changes all keys")
    option("--state", metavar="FILE", help="keeps event log and registers over a restart")
    option("--app-name", metavar="NAME")
    option("--event-digests", choices=list(DIGESTS))
    option("--version", metavar="X.Y.Z", help="release of dstack to behave like")
    option(
        "--fault",
        dest="faults",
        action="append",
        type=json.loads,
        metavar="JSON",
        help='a fault from the start, such as {"preset": "emit-removed"}; may be repeated',
    )
    options = vars(parser.parse_args())
    if options["socket"].startswith("http:") and "control" not in options:
        parser.error("--socket http://… needs --control")
    return options.pop("socket"), options


def main():
    endpoint, options = parse_arguments()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with GuestAgent(endpoint, **options) as agent:
        print("ready", agent.endpoint, agent.control_path, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
