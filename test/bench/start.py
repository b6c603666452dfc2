"""How long it takes from a start to the first answer over HTTPS."""

import subprocess
import time

from moments import first_answer, time_of
from pebble import Pebble
from processes import environment, spawn, stop
from stack import PROGRAM, Stack

ROUNDS = 7
DEVELOPMENT = {"dev_mode": True}


class WithoutDaemon(Stack):
    """supervisord starts nginx only."""

    def _lay_out_supervisord_conf(self):
        super()._lay_out_supervisord_conf()
        text = self.supervisord_conf.read_text()
        section = "[program:cert-manager]\n"
        assert section in text
        self.supervisord_conf.write_text(text.replace(section, section + "autostart=false\n"))


def beside_nginx(ca):
    """Of cert-manager alone: nginx is up already."""
    with WithoutDaemon(ca, settings=DEVELOPMENT) as stack:
        stack.start(with_agent=False)
        stack.wait_for_http()
        began = time.monotonic()
        daemon = spawn(
            [PROGRAM, "run", "--config", stack.config],
            env=environment(**stack.variables),
            stdout=subprocess.DEVNULL,
        )
        try:
            return first_answer(stack) - began
        finally:
            stop(daemon)


def of_container(stack, **options):
    began = time.monotonic()
    stack.start(**options)
    return first_answer(stack) - began


def development(ca):
    with Stack(ca, settings=DEVELOPMENT) as stack:
        return of_container(stack, with_agent=False)


def production(ca):
    """The first start, certbot's part of it, and one with the certificate that it left."""
    with Stack(ca, settings={"log.level": "debug"}) as stack:
        first = of_container(stack)
        stack.wait_until_settled()
        certbot = time_of(stack.log, "issue: check chain: begins") - time_of(stack.log, "issue: run certbot: begins")
        stack.stop()
        return first, certbot, of_container(stack)


def measure(figures):
    figures.part("start to the first HTTPS 200")
    with Pebble() as ca:
        alone = [beside_nginx(ca) for _ in range(figures.some(ROUNDS))]
        figures.add("development, nginx is up already", in_ms(alone), "ms", most=100)
        whole = [development(ca) for _ in range(figures.some(ROUNDS))]
        figures.add("development, supervisord and nginx, too", in_ms(whole), "ms")
        first, certbot, stored = zip(*(production(ca) for _ in range(figures.some(ROUNDS))), strict=True)
        figures.add("stored certificate, supervisord and nginx, too", in_ms(stored), "ms")
        figures.add("first certificate", in_ms(first), "ms", limit="certbot, below")
        figures.add("  of which certbot", in_ms(certbot), "ms")


def in_ms(seconds):
    return [1000 * value for value in seconds]
