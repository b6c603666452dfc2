"""When something happened: by an answer over HTTPS, and by the lines of a log."""

import re
import ssl
import time
from datetime import datetime, timezone

import client


def answers(site):
    """Whether /health does, over HTTPS, whoever signed its certificate."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        return client.get(site.https, "/health", site.domain, anyone).status == 200
    except OSError:
        return False


def first_answer(site):
    """time.monotonic() of it."""
    while not answers(site):
        time.sleep(0.001)
    return time.monotonic()


def line_of(log, pattern):
    """The first one that matches."""
    return next(line for line in log.lines() if re.search(pattern, line))


def time_in(line):
    """Unix seconds. Lines of supervisord and of cert-manager have theirs in the same form."""
    text = re.search(r"\d{4}-\S+ [\d:]+,\d{3}", line)[0]
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=timezone.utc).timestamp()


def time_of(log, pattern):
    return time_in(line_of(log, pattern))
