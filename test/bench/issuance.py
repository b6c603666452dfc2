"""What a certificate costs beside certbot: the first one, and a renewal by step."""

import re
import statistics
import subprocess
import time
from collections import defaultdict

from moments import first_answer, time_in
from pebble import Pebble
from processes import environment
from rest import cpu_ns_of, programs_of
from stack import PROGRAM, Stack

ROUNDS = 7
# Flows that take part; what they call is inside their steps.
STEP = re.compile(r"DEBUG - ((?:pre-flight|issue|apply): [^:]+): (begins|ended)$")
FIRST_CHECK, CERTBOT = "pre-flight: check machine: begins", "issue: run certbot"
SERVED = "HTTPS serves "
LEAST_MS = 0.5


class Issuance:
    """One, by its lines in the log: milliseconds of each step, all its turns together, and until it was said
    that it is served. `answered` is the moment of the first answer, Unix seconds, where it is known."""

    def __init__(self, lines, answered=None):
        self.steps, began = defaultdict(float), {}
        for line in lines:
            if step := STEP.search(line):
                if step[2] == "begins":
                    began[step[1]] = time_in(line)
                else:
                    self.steps[step[1]] += 1000 * (time_in(line) - began.pop(step[1]))
        first, last = (next(time_in(line) for line in lines if text in line) for text in (FIRST_CHECK, SERVED))
        self.whole = 1000 * (last - first)
        self.until_answer = 1000 * ((answered or last) - first)
        self.certbot = self.steps.pop(CERTBOT)


def issue_and_renew(ca):
    """The first certificate, a renewal, and milliseconds of CPU that cert-manager used for the latter."""
    with Stack(ca, settings={"log.level": "debug"}) as stack:
        stack.start()
        answered = first_answer(stack) - time.monotonic() + time.time()
        stack.wait_until_settled()
        first = Issuance(stack.log.lines(), answered)
        stack.log.wait_for("the next renewal is due")
        mark, used = stack.log.mark(), cpu_ns_of(programs_of(stack))
        subprocess.run(
            [PROGRAM, "renew", "--force", "--wait", "--config", stack.config],
            env=environment(**stack.variables),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        stack.log.wait_for(SERVED, since=mark)
        used = (cpu_ns_of(programs_of(stack)) - used) / 1e6
        return first, Issuance(stack.log.lines(mark), None), used


def add_steps(figures, issuances):
    for name in dict.fromkeys(name for one in issuances for name in one.steps):
        each = [one.steps.get(name, 0.0) for one in issuances]
        if statistics.median(each) >= LEAST_MS:
            figures.add(f"  {name}", each, "ms")


def measure(figures):
    with Pebble() as ca:
        firsts, renewals, used = zip(*(issue_and_renew(ca) for _ in range(figures.some(ROUNDS))), strict=True)
    figures.part("the first certificate, from the first check")
    figures.add("certbot", [one.certbot for one in firsts], "ms")
    figures.add("all else until HTTPS answers", [one.until_answer - one.certbot for one in firsts], "ms", most=150)
    whole = [one.whole - one.certbot for one in firsts]
    figures.add("all else until no worker is without it", whole, "ms", limit="100, nginx's pause")
    add_steps(figures, firsts)
    figures.part("a renewal, from the first check")
    figures.add("certbot", [one.certbot for one in renewals], "ms")
    figures.add("all else until every handshake has it", [one.whole - one.certbot for one in renewals], "ms", most=150)
    add_steps(figures, renewals)
    figures.add("CPU of cert-manager meanwhile", used, "ms")
