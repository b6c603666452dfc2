"""What is in the memory of other processes, as somebody would read it who is root on the machine.

Only root may: /proc/PID/mem of a process that is not dumpable is closed to its own user.
"""

import base64
import contextlib
import os
import re
import signal
from typing import NamedTuple

from loopback import wait_until

OF_THE_KERNEL = ("[vvar", "[vsyscall")  # and nobody may read them so
PIECE_BYTES = 12  # nothing that long is there by chance


class Region(NamedTuple):
    start: int
    end: int
    name: str  # of the file, or [heap], [stack]; empty for anonymous memory
    flags: frozenset  # of smaps: "lo" is locked, "dd" is left out of core dumps

    def __str__(self):
        return f"{self.name or 'anonymous memory'} at {self.start:x}"


class Find(NamedTuple):
    form: str
    region: Region

    def __str__(self):
        return f"{self.form} in {self.region}"


def regions(pid):
    """All mappings that can be read and may have bytes of the process."""
    header = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (.)\S* \S+ \S+ \S+\s*(.*)")
    current = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            if match := header.match(line):
                current = match
            elif line.startswith("VmFlags:") and current[3] == "r":
                start, end = int(current[1], 16), int(current[2], 16)
                region = Region(start, end, current[4].strip(), frozenset(line.split()[1:]))
                # Of files, what was never written to has nothing but the file's bytes.
                if "wr" in region.flags or not region.name.startswith("/"):
                    yield region


def find(pid, patterns):
    """Where any of `patterns` (form to bytes) stands; one find for a form and a region.

    The process stands still meanwhile, so that all that it has mapped is seen.
    """
    found = []
    with _stopped(pid), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for region in regions(pid):
            if not region.name.startswith(OF_THE_KERNEL):
                content = _read(memory, region)
                found += [Find(form, region) for form, text in patterns if text in content]
    return found


@contextlib.contextmanager
def _stopped(pid):
    """One that somebody else has stopped stays so."""
    was_stopped = _is_stopped(pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _is_stopped(pid), f"process {pid} stands still")
        yield
    finally:
        if not was_stopped:
            os.kill(pid, signal.SIGCONT)


def _is_stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0] in "TZ"  # or has ended


def _read(memory, region):
    """All of it: what could not be read would count as without secrets."""
    memory.seek(region.start)
    content = bytearray()
    while len(content) < region.end - region.start:
        more = memory.read(region.end - region.start - len(content))
        if not more:
            raise ProcessLookupError("it ended meanwhile")
        content += more
    return bytes(content)


def pieces(material):
    """32 secret bytes in every form that they take on their way, cut into pieces.

    malloc() puts its own notes over the first bytes of what is freed, and a line of PEM ends anywhere:
    what is left of a secret need not be all of it.
    """
    forms = {"raw": material, "number": material[::-1]}  # OpenSSL's numbers begin with the low end
    for form, data in forms.items():
        for begin in range(0, len(material) - PIECE_BYTES + 1, 4):
            yield f"{form}[{begin}:]", data[begin : begin + PIECE_BYTES]
    for form, text in (("hex", material.hex()), ("HEX", material.hex().upper())):
        for begin in range(0, len(text) - 2 * PIECE_BYTES + 1, 8):
            yield f"{form}[{begin}:]", text[begin : begin + 2 * PIECE_BYTES].encode()
    for before in range(3):  # bytes in the same group of base64, as in the DER of a key
        for form, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            text = encode(bytes(before) + material)[4 if before else 0 : -4]
            for begin in range(0, len(text) - 16 + 1, 4):
                yield f"{form}+{before}[{begin}:]", text[begin : begin + 16]
