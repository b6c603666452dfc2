#!/usr/bin/env python3
"""For how long the leaf that is served is not the last event: `make bench-rotation`.

From the agent's answer to EmitEvent until the first handshake behind which none gets the former leaf
any more, with a client that makes one handshake right after the other. Under load: 400 requests a
second over kept connections, and four streams that are open over each rotation. Twice: renewals, whose
chain nginx's workers take by themselves, and the same by reload, as when the key changes, too.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST / "lib"), str(TEST / "e2e"), str(TEST / "fakes")]

from backends import Backends  # noqa: E402
from pebble import Pebble  # noqa: E402
from rotation import Gap, Load, Rotation, serve  # noqa: E402
from stack import Stack  # noqa: E402
from test_rotation_load import STREAMS, Streams, assert_nothing_failed  # noqa: E402

# Milliseconds.
LIVE_MEDIAN, LIVE_WORST, RELOAD_MEDIAN = 3, 25, 150
QUIET_MS = 300  # without the former leaf: longer than two generations of workers accept together


def gaps(ca, backends, rounds, **settings):
    """Milliseconds, one for each rotation, and what the load found."""
    place = {
        "UPSTREAM_HOST": str(backends.address),
        "UPSTREAM_PORT": str(backends.vllm.port),
    }
    found = []
    with Stack(ca, variables=place, settings=settings) as stack:
        stack.backends = backends
        rotation = Rotation(stack)
        serve(stack)
        with Load(stack) as load, Gap(stack, QUIET_MS) as gap:
            for _ in range(rounds):
                streams = Streams(stack, STREAMS)
                gap.begin()
                rotation.put_and_wait()
                emitted = [e for e in stack.agent.log() if e["method"] == "EmitEvent"][-1]
                found.append((gap.end()["next"] - emitted["answered"]) * 1000)
                streams.go_on("still there")
                streams.end()
            load_found = load.end()
        assert_nothing_failed(load_found)
        assert stack.agent.measured() == rotation.names
    return found, load_found


def limit(what, value, most):
    return {"what": what, "value": value, "most": most, "holds": value <= most}


def measure(rounds, reloads):
    with Pebble() as ca, Backends() as backends:
        live, live_load = gaps(ca, backends, rounds)
        reload, reload_load = gaps(ca, backends, reloads, **{"nginx.live_chain": False})
    return {
        "renewal, ms": live,
        "by reload, ms": reload,
        "load": {"renewal": live_load, "by reload": reload_load},
        "limits": [
            limit("renewal, median ms", statistics.median(live), LIVE_MEDIAN),
            limit("renewal, worst ms", max(live), LIVE_WORST),
            limit("by reload, median ms", statistics.median(reload), RELOAD_MEDIAN),
        ],
    }


def show(result):
    print(f"{'attestation gap, ms':<28}{'rotations':>10}{'median':>10}{'min':>10}{'max':>10}")
    for name in ("renewal", "by reload"):
        each = result[f"{name}, ms"]
        cells = statistics.median(each), min(each), max(each)
        print(f"{name:<28}{len(each):>10}" + "".join(f"{cell:>10.2f}" for cell in cells))
    for name, load in result["load"].items():
        print(f"load, {name}: {load['requests']} requests, {load['failed']} failed, port refused {load['refused']}")
    for one in result["limits"]:
        print(f"{one['what']:<28}{one['value']:>10.2f}   <= {one['most']:<6}{'holds' if one['holds'] else 'FAILS'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--rounds", type=int, default=50, help="rotations by the live chain")
    parser.add_argument("--reloads", type=int, default=50, help="rotations by reload")
    options = parser.parse_args()
    began = time.monotonic()
    result = measure(options.rounds, options.reloads)
    result["seconds"] = time.monotonic() - began
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(one["holds"] for one in result["limits"]) else 1


if __name__ == "__main__":
    sys.exit(main())
