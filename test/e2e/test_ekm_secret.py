"""ngx_http_ekm_module in a real nginx: where its secret comes from, and where it is to be found."""

import json
import os
import re
import signal
import struct

import pytest
from ekm_nginx import OTHER_SECRET, SECRET, Client, Client2, binding, ready_nginx, value
from loopback import wait_until

PROXY = """
    SECRET_FILE
    server {
        listen TLS_PORT;
        location / { proxy_pass BACKEND; BINDING }
    }
"""
WITHOUT = PROXY.replace("SECRET_FILE", "")


@pytest.fixture(name="nginx")
def fixture_nginx():
    with ready_nginx() as nginx:
        yield nginx


def check(nginx, secret):
    with Client(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter, secret)


# The file

LENGTHS = [1, 31, 32, 33, 55, 56, 63, 64, 65, 127, 128, 4095, 4096]


@pytest.mark.parametrize("text", [SECRET, SECRET + "\n", "with spaces, \N{GREEK SMALL LETTER ALPHA}", " "])
def test_secret_is_the_text_of_the_file_less_one_newline(nginx, text):
    nginx.write("secret", text)
    nginx.start(PROXY)
    check(nginx, text.removesuffix("\n"))


def test_secret_of_any_length(nginx):
    """Keys are padded to a block of 64 bytes, longer ones are hashed: RFC 2104, Section 2."""
    secrets = ["".join(chr(33 + i % 90) for i in range(length)) for length in LENGTHS]
    for secret in secrets:
        nginx.write(f"secret-{len(secret)}", secret)
    servers = [
        f"server {{ listen TLS_PORT; server_name {n}.test; ekm_secret_file FOLDER/secret-{n};"
        " location / { proxy_pass BACKEND; BINDING } }"
        for n in LENGTHS
    ]
    nginx.start("\n".join(servers))
    with Client(nginx.tls) as client:
        for secret in secrets:
            assert value(client.json(host=f"{len(secret)}.test")) == binding(client.exporter, secret)


def test_secret_file_may_be_a_relative_path_and_a_link(nginx):
    (nginx.folder / "link").symlink_to(nginx.secret)
    nginx.start(PROXY.replace("SECRET_FILE", "ekm_secret_file link;"))
    check(nginx, SECRET)


def test_file_is_not_needed_any_more_when_it_was_read(nginx):
    """Not by the workers, which may not even be allowed to read it, nor by their successors."""
    nginx.start(PROXY)
    nginx.secret.unlink()
    check(nginx, SECRET)
    nginx.kill_workers(signal.SIGTERM)
    check(nginx, SECRET)


PROBLEMS = {
    "missing": (lambda secret: secret.unlink(), ["No such file or directory", "create the file"]),
    "empty": (lambda secret: secret.write_text(""), ["is empty, write the secret into it"]),
    "newline": (lambda secret: secret.write_text("\n"), ["is empty"]),
    "0644": (lambda secret: secret.chmod(0o644), ["accessible to group or others", "0644", "chmod 600"]),
    "0640": (lambda secret: secret.chmod(0o640), ["accessible to group or others", "0640"]),
    "0602": (lambda secret: secret.chmod(0o602), ["accessible to group or others", "0602"]),
    "large": (lambda secret: secret.write_text(SECRET * 64 + "x"), ["larger than 4096 bytes"]),
    "crlf": (lambda secret: secret.write_text(SECRET + "\r\n"), ["control character at offset 64"]),
    "two newlines": (lambda secret: secret.write_text(SECRET + "\n\n"), ["control character at offset 64"]),
    "folder": (lambda secret: (secret.unlink(), secret.mkdir(0o700)), ["not a regular file"]),
    "fifo": (lambda secret: (secret.unlink(), os.mkfifo(secret, 0o600)), ["not a regular file"]),
    "dangling": (lambda secret: (secret.unlink(), secret.symlink_to("nowhere")), ["No such file or directory"]),
}


@pytest.mark.parametrize("where", ["http", "server"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_unusable_secret_file_fails_the_configuration_test(nginx, problem, where):
    spoil, expected = PROBLEMS[problem]
    spoil(nginx.secret)
    text = PROXY if where == "http" else WITHOUT.replace("server {", "server { SECRET_FILE")
    status, output = nginx.test(text)
    assert status == 1
    message = next(line for line in output.splitlines() if "[emerg]" in line)
    for part in [f'"{nginx.secret}"', *expected]:
        assert part in message
    assert SECRET not in output


def test_good_secret_passes_the_configuration_test(nginx):
    status, output = nginx.test(PROXY)
    assert status == 0, output
    assert SECRET not in output


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("SECRET_FILE SECRET_FILE", '"ekm_secret_file" directive is duplicate'),
        ('ekm_secret_file "";', "has an empty path"),
        ("ekm_secret_file;", "invalid number of arguments"),
        ("ekm_secret_file a b;", "invalid number of arguments"),
    ],
)
def test_useless_directive_fails_the_configuration_test(nginx, directive, message):
    status, output = nginx.test(PROXY.replace("SECRET_FILE", directive))
    assert status == 1 and message in output


# The environment


def test_environment_is_used_without_the_directive(nginx):
    nginx.environment["EKM_SHARED_SECRET"] = OTHER_SECRET
    nginx.start(WITHOUT)
    check(nginx, OTHER_SECRET)


def test_the_directive_wins_over_the_environment(nginx):
    nginx.environment["EKM_SHARED_SECRET"] = OTHER_SECRET
    nginx.start(PROXY)
    check(nginx, SECRET)


def test_environment_survives_a_reload(nginx):
    nginx.environment["EKM_SHARED_SECRET"] = OTHER_SECRET
    nginx.start(WITHOUT)
    nginx.reload()
    check(nginx, OTHER_SECRET)


def test_environment_secret_has_a_limit(nginx):
    nginx.environment["EKM_SHARED_SECRET"] = "x" * 4097
    status, output = nginx.test(WITHOUT)
    assert status == 1 and 'environment variable "EKM_SHARED_SECRET" is larger than 4096 bytes' in output


# Reload


def test_reload_takes_a_new_secret(nginx):
    nginx.start(PROXY)
    nginx.write("secret", OTHER_SECRET)
    check(nginx, SECRET)
    nginx.reload()
    check(nginx, OTHER_SECRET)


def test_connection_from_before_a_reload_keeps_its_value(nginx):
    """A stream that waits for something lets its connection outlive the reload."""
    nginx.start("""
        SECRET_FILE
        server {
            listen TLS_PORT http2;
            location / { proxy_pass BACKEND; BINDING }
            location = /held { proxy_pass BACKEND; }
            location = /late { auth_request /held; proxy_pass BACKEND; BINDING }
        }
    """)
    with Client2(nginx.tls) as client:
        assert value(client.json(1)) == binding(client.exporter, SECRET)
        client.ask(3, "/late")
        wait_until(lambda: nginx.backend.to("/held"), "the request arrives")
        nginx.write("secret", OTHER_SECRET)
        nginx.process.send_signal(signal.SIGHUP)
        wait_until(lambda: nginx.log("gracefully shutting down"), "the old worker accepts no more")
        check(nginx, OTHER_SECRET)
        nginx.backend.free.set()
        assert value(json.loads(client.answer(3))) == binding(client.exporter, SECRET)
        client.drain()


def test_reload_with_an_unusable_secret_keeps_the_old_one(nginx):
    nginx.start(PROXY)
    workers = nginx.workers()
    nginx.secret.chmod(0o644)
    nginx.process.send_signal(signal.SIGHUP)
    wait_until(lambda: nginx.log("[emerg]"), "the reload is refused")
    check(nginx, SECRET)
    assert nginx.workers() == workers


def test_reload_without_the_module_leaves_a_working_nginx(nginx):
    """OpenSSL must not be left with a pointer into the module's code."""
    nginx.start(PROXY)
    modules = nginx.modules
    for _ in range(2):
        check(nginx, SECRET)
        nginx.modules = []
        nginx.reload("server { listen TLS_PORT; location / { return 200 without; } }")
        for _ in range(3):
            with Client(nginx.tls) as client:
                assert client.text() == "without"
        nginx.modules = modules
        nginx.reload(PROXY)


# What is left of a secret


def compress(state, block):
    """SHA-256's compression function (FIPS 180-4, Section 6.2.2)."""

    def rotated(word, bits):
        return (word >> bits | word << 32 - bits) & 0xFFFFFFFF

    words = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = rotated(words[i - 15], 7) ^ rotated(words[i - 15], 18) ^ words[i - 15] >> 3
        s1 = rotated(words[i - 2], 17) ^ rotated(words[i - 2], 19) ^ words[i - 2] >> 10
        words.append((words[i - 16] + s0 + words[i - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(CONSTANTS, words):
        s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
        first = h + s1 + (e & f ^ ~e & g) + constant + word
        s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
        second = s0 + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (first + second) & 0xFFFFFFFF, a, b, c, (d + first) & 0xFFFFFFFF, e, f, g
    return [(old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d, e, f, g, h))]


def primes(count):
    found = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def fraction(number, root):
    """The first 32 bits of the fraction of a root, found by halves: no floating point is that exact."""
    low, high = 0, number << 32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**root <= number << 32 * root else (low, middle)
    return low & 0xFFFFFFFF


CONSTANTS = [fraction(prime, 3) for prime in primes(64)]
BEGIN = [fraction(prime, 2) for prime in primes(8)]


def traces(secret):
    """What would give a secret of at most 64 bytes away, or its HMAC: text, padded keys, and their hashes."""
    block = secret.encode().ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
    states = [struct.pack("8I", *compress(BEGIN, padded)) for padded in (inner, outer)]
    return {"text": [block[:32], inner[:32], outer[:32]], "states": states}


def memory(pid):
    """Each readable part of a process's memory, and whether core dumps leave it out."""
    with open(f"/proc/{pid}/smaps", encoding="ascii") as smaps, open(f"/proc/{pid}/mem", "rb") as content:
        for line in smaps:
            if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) (.)", line):
                start, end = (int(text, 16) for text in header.groups()[:2])
                is_readable = header[3] == "r"
            elif line.startswith("VmFlags:") and is_readable:
                content.seek(start)
                try:
                    yield content.read(end - start), "dd" in line.split()
                except OSError:  # [vvar]
                    pass


def found(pid, patterns):
    return [is_left_out for part, is_left_out in memory(pid) for pattern in patterns if pattern in part]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to read the memory of others")
def test_core_dumps_of_master_and_worker_have_nothing_of_the_secret(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        for _ in range(2):
            client.json()
        sought = traces(SECRET)
        for pid in (nginx.process.pid, *nginx.workers()):
            assert found(pid, sought["text"]) == []
            # The key schedule, where it is looked for at all.
            assert found(pid, sought["states"]) == [True, True]
    # After a reload, nothing is left of the former one.
    nginx.write("secret", OTHER_SECRET)
    nginx.reload()
    check(nginx, OTHER_SECRET)
    for pid in (nginx.process.pid, *nginx.workers()):
        assert found(pid, sought["text"] + sought["states"]) == []
        assert found(pid, traces(OTHER_SECRET)["states"]) == [True, True]


def test_secret_is_wiped_by_reload_and_exit(nginx):
    nginx.write("other", OTHER_SECRET)
    nginx.probe()
    nginx.start(PROXY + PROXY.replace("SECRET_FILE", "").replace("server {", "server { ekm_secret_file FOLDER/other;"))
    check(nginx, SECRET)
    assert nginx.probed("keyed") and not nginx.probed("wiped")
    nginx.reload()
    # Two secrets of the master's and two of the worker's.
    wait_until(lambda: len(nginx.probed("wiped")) >= 4, "the secrets are wiped")
    check(nginx, SECRET)
    nginx.stop()
    assert len(nginx.probed("wiped")) == 8 and not nginx.probed("NOT WIPED")


def test_refused_secret_is_wiped(nginx):
    nginx.write("secret", SECRET + "\n\n")
    nginx.probe()
    nginx.start(WITHOUT)
    nginx.write_conf(PROXY)
    nginx.process.send_signal(signal.SIGHUP)
    wait_until(lambda: nginx.log("[emerg]") and nginx.probed("wiped"), "the reload is refused")
    assert not nginx.probed("NOT WIPED")


def test_no_log_has_the_secret_nor_its_key_schedule(nginx):
    """Fixtures look for the text after each test; this one is as talkative as nginx can be."""
    nginx.start(PROXY.replace("SECRET_FILE", "SECRET_FILE error_log FOLDER/error.log debug;"))
    check(nginx, SECRET)
    nginx.reload()
    nginx.stop()
    assert nginx.log()
