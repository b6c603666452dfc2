"""What clients see of a new certificate: for how long the leaf that is served is not the last event, and
what becomes of requests and streams meanwhile.

The gap is from the agent's answer to EmitEvent until the first handshake behind which none gets the former
leaf any more, with a client that makes one handshake right after the other. Under load: 400 requests a
second over kept connections, and streams that are open over each rotation. Twice: renewals, whose chain
nginx's workers take by themselves, and the same by reload, as when the key changes, too.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "e2e"))

from backends import Backends  # noqa: E402
from pebble import Pebble  # noqa: E402
from rest import Growth, programs_of  # noqa: E402
from rotation import Gap, Load, Rotation, serve  # noqa: E402
from stack import Stack  # noqa: E402
from test_rotation_load import STREAMS, Streams  # noqa: E402

WARM_UP, RENEWALS, RELOADS = 10, 100, 20
QUIET_MS = 300  # without the former leaf: longer than two generations of workers accept together


class Rotations:
    def __init__(self, stack, backends):
        self.stack, self.gaps, self.lost = stack, [], 0
        stack.backends = backends
        self.rotation = Rotation(stack)
        serve(stack)

    def rotate(self, count):
        """One after the other, with streams over each."""
        with Gap(self.stack, QUIET_MS) as gap:
            for _ in range(count):
                streams = Streams(self.stack, STREAMS)
                gap.begin()
                self.rotation.put_and_wait()
                emitted = [e for e in self.stack.agent.log() if e["method"] == "EmitEvent"][-1]
                self.gaps.append((gap.end()["next"] - emitted["answered"]) * 1000)
                self.look_after(streams)

    def look_after(self, streams):
        try:
            streams.go_on("still there")
            streams.end()
        except (AssertionError, OSError):
            self.lost += STREAMS

    def rotate_under_load(self, count):
        """What the load found."""
        with Load(self.stack) as load:
            self.rotate(count)
            found = load.end()
        assert self.stack.agent.measured() == self.rotation.names
        return found


def add(figures, what, rotations, load):
    figures.add(f"{what}: requests answered", load["requests"] - load["failed"])
    figures.add(f"{what}: requests failed", load["failed"], most=0)
    figures.add(f"{what}: requests asked again", load["crossed"])
    figures.add(f"{what}: connections refused", load["refused"], most=0)
    figures.add(f"{what}: streams lost", rotations.lost, most=0)


def measure(figures):
    figures.part("a new certificate under load")
    with Pebble() as ca, Backends() as backends:
        place = {"UPSTREAM_HOST": str(backends.address), "UPSTREAM_PORT": str(backends.vllm.port)}
        with Stack(ca, variables=place) as stack:
            renewals = Rotations(stack, backends)
            renewals.rotate(figures.some(WARM_UP))
            renewals.gaps.clear()
            growth = Growth(programs_of(stack))
            load = renewals.rotate_under_load(figures.some(RENEWALS))
            figures.add("renewal: attestation gap", renewals.gaps, "ms", most=3)
            figures.add("renewal: its worst", max(renewals.gaps), "ms", most=25)
            add(figures, "renewal", renewals, load)
            growth.add(figures, f"{RENEWALS} rotations")
        with Stack(ca, variables=place, settings={"nginx.live_chain": False}) as stack:
            reloads = Rotations(stack, backends)
            load = reloads.rotate_under_load(figures.some(RELOADS))
            figures.add("by reload: attestation gap", reloads.gaps, "ms", most=150)
            add(figures, "by reload", reloads, load)
