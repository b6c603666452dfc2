"""ngx_http_live_chain_module in a real nginx.

Python's ssl is the client; test/lib/chain_swaps.c is the one that has to keep its pace.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pki
import pytest
from bare_nginx import BUILD, MODULES_DIR, REPOSITORY, BareNginx, version
from cryptography.hazmat.primitives.asymmetric import rsa
from http2 import DATA, END_STREAM, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Http2
from loopback import is_listening, wait_until

TIMEOUT_S = 20
# Handshakes after a change, at least: each worker has to have its turn.
LOOKS, MOST_LOOKS = 4, 100
MODULES = ["ngx_http_live_chain_module"]
KEPT = "the chain served so far is kept"

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Chains:
    """A key and chains for it: intermediates differ, too."""

    def __init__(self):
        self.key = pki.new_key()

    def new(self, name="a.test", key=None):
        return pki.Authority().issue(name, key or self.key)


class Live(BareNginx):
    """nginx with a certificate that was copied there, and a live chain."""

    def __init__(self, **options):
        super().__init__(MODULES, **options)
        self.chains = Chains()
        self.file = self.folder / "live.pem"
        self.write("key.pem", pki.key_pem(self.chains.key), 0o600)
        self.copied = self.chains.new()
        self.write("cert.pem", self.copied)
        self.first = self.swap()

    def write(self, name, text, mode=0o644):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def swap(self, chain=None, name="live.pem"):
        """Puts a chain in place as cert-manager does; its leaf."""
        chain = chain or self.chains.new()
        os.replace(self.write("new.pem", chain), self.folder / name)
        return leaf_of(chain)

    def leaves(self, **options):
        """What handshakes with all workers are answered with."""
        found, workers = set(), set()
        for look in range(MOST_LOOKS):
            seen = handshake(self.place, **options)
            found.add(seen.leaf)
            workers.add(seen.worker)
            if look + 1 >= LOOKS and len(workers) == len(self.workers() or [self.process]):
                return found
        raise AssertionError(f"{MOST_LOOKS} connections did not reach all workers")

    def serves(self, leaf, **options):
        assert self.leaves(**options) == {leaf}


def tick():
    """A worker looks at the file for a response, too, but once in a tick of its clock."""
    coarse = 6  # CLOCK_MONOTONIC_COARSE
    start = time.clock_gettime(coarse)
    wait_until(lambda: time.clock_gettime(coarse) != start, "the clock ticks")


def leaf_of(chain):
    return pki.read_chain(chain)[0].public_bytes(pki.DER)


def client_context(version=None, alpn=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


class Handshake:
    def __init__(self, secured, answer):
        self.leaf = secured.getpeercert(binary_form=True)
        self.worker = re.search(rb"Worker: (\d+)", answer)[1]
        self.reused, self.session = secured.session_reused, secured.session
        self.protocol = secured.version()


def handshake(place, name="a.test", context=None, session=None):
    """A connection with one request, so that a ticket of TLS 1.3 has arrived, too."""
    with socket.create_connection(place, TIMEOUT_S) as plain:
        secured = (context or client_context()).wrap_socket(plain, server_hostname=name, session=session)
        with secured:
            secured.sendall(f"GET / HTTP/1.0\r\nHost: {name or 'none'}\r\n\r\n".encode())
            answer = b""
            while data := secured.recv(4096):
                answer += data
            assert answer.startswith(b"HTTP/1.1 200"), answer
            return Handshake(secured, answer)


class Client(http.client.HTTPConnection):
    """HTTP/1.1 that stays on its connection."""

    def __init__(self, place, name="a.test"):
        super().__init__(*place, timeout=TIMEOUT_S)
        self.connect()
        self.auto_open = 0
        self.sock = client_context().wrap_socket(self.sock, server_hostname=name)

    def begin(self, path="/"):
        self.request("GET", path, headers={"Host": "a.test"})
        return self.getresponse()

    def get(self, path="/"):
        answer = self.begin(path)
        return answer.status, answer.read().decode(), answer.getheader("Connection")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


TLS = """
    ssl_certificate FOLDER/cert.pem;
    ssl_certificate_key FOLDER/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    add_header Worker $pid;
"""
# So that the kernel gives each worker its share of the connections.
SHARE = "reuseport"
PATHS = """
    location / { return 200 "[$live_chain_stale]"; }
    location = /slow { root FOLDER; limit_rate 200k; limit_rate_after 16k; }
"""
SERVER = f"server {{ listen LISTEN ssl http2 {SHARE}; {PATHS} }}"
LIVE = f"{TLS} live_chain FOLDER/live.pem; {SERVER}"


@pytest.fixture(scope="session", autouse=True)
def fixture_tools():
    for name in MODULES:
        assert (MODULES_DIR / f"{name}.so").is_file(), f"build {name} first: make modules"


@pytest.fixture(name="make")
def fixture_make():
    """Makes an nginx. Whatever was done to it, it must have nothing to complain about."""
    with contextlib.ExitStack() as cleanup:
        made = []

        def make(**options):
            made.append(cleanup.enter_context(Live(**options)))
            return made[-1]

        yield make
        for nginx in made:
            nginx.stop()
            bad = [line for line in nginx.log() if re.search(r"\[(alert|crit|emerg)\]", line)]
            assert not [line for line in bad if "exited on signal 9" not in line]


@pytest.fixture(name="nginx")
def fixture_nginx(make):
    return make()


# A new chain


def test_new_chain_is_served_from_the_next_handshake_on(nginx):
    nginx.start(LIVE)
    nginx.serves(nginx.first)
    for _ in range(5):
        nginx.serves(nginx.swap())
    assert len(nginx.log("is served from now on")) == 1 + 2 * 5
    assert not nginx.log("[error]")


def test_whole_chain_is_served(nginx):
    nginx.start(LIVE)
    chain = nginx.chains.new()
    nginx.swap(chain)
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{nginx.port}", "-showcerts"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    ).stdout
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", shown, re.DOTALL)
    assert pki.read_chain("".join(blocks[:2])) == pki.read_chain(chain)


def test_file_wins_over_the_certificate_of_the_configuration(nginx):
    """Whatever is copied there, also before nginx starts another time."""
    nginx.start(LIVE)
    nginx.serves(nginx.first)
    nginx.write("cert.pem", nginx.chains.new())
    nginx.reload()
    nginx.serves(nginx.first)
    nginx.write("cert.pem", nginx.chains.new())
    nginx.restart()
    nginx.serves(nginx.first)


def test_swaps_under_load(nginx):
    """Every handshake that begins after the rename gets the new leaf, and none fails."""
    nginx.start(LIVE)
    result = chain_swaps(nginx, swaps=1000, interval_us=20_000, rate=400)
    assert result["failed"] == 0 and result["stale"] == 0 and result["early"] == 0, result
    # Other tests may run beside this one, on two cores.
    assert result["handshakes"] >= 0.5 * 400 * result["seconds"], result
    assert not nginx.log("[error]")


def chain_swaps(nginx, swaps, interval_us, rate, threads=16):
    command = [BUILD / "test/chain_swaps", nginx.folder / "key.pem", nginx.file, nginx.port]
    command += [swaps, interval_us, rate, threads]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and not run.stderr, run.stderr
    return json.loads(run.stdout)


def test_memory_and_descriptors_stay_flat(nginx):
    nginx.start(LIVE)
    chain_swaps(nginx, swaps=500, interval_us=4_000, rate=400)
    before = [usage(pid) for pid in nginx.workers()]
    chain_swaps(nginx, swaps=1000, interval_us=4_000, rate=400)
    for (kib, files), (kib_now, files_now) in zip(before, map(usage, nginx.workers()), strict=True):
        assert kib_now - kib < 1024, (kib, kib_now)
        assert files_now == files
    assert sum(usage(pid)[1] for pid in nginx.workers()) == 2


def usage(pid):
    """RSS in KiB, and how often the live chain is open, once the connections have gone."""

    def descriptors():
        found = []
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(entry))
        return found

    rss = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    return rss, sum("live.pem" in name or "new.pem" in name for name in descriptors())


def test_chain_that_is_copied_over_itself_changes_nothing(nginx):
    nginx.start(LIVE)
    with Client(nginx.place) as client:
        client.get()
        chain = nginx.file.read_text()
        nginx.swap(chain)
        nginx.file.chmod(0o600)
        nginx.file.chmod(0o644)
        nginx.serves(nginx.first)
        assert client.get() == (200, "[]", "keep-alive")
    assert len(nginx.log("is served from now on")) == 1


# Handshakes that are under way


class Slow:
    """A handshake that is fed by hand."""

    def __init__(self, place, version):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context(version).wrap_bio(self.incoming, self.outgoing, server_hostname="a.test")
        self.socket = socket.create_connection(place, TIMEOUT_S)

    def step(self):
        """What the client has to say now, if it is not done."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def receive(self):
        data = self.socket.recv(65536)
        assert data, "the server closed the connection"
        self.incoming.write(data)

    def finish(self):
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if data := self.outgoing.read():
                    self.socket.sendall(data)
                self.receive()
        return self.tls.getpeercert(binary_form=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_handshake_that_had_begun_gets_the_new_leaf(nginx, version):
    """nginx has its SSL, a copy of what was valid then, when the first byte has arrived."""
    nginx.start(LIVE)
    with Slow(nginx.place, version) as client:
        hello = client.step()
        client.socket.sendall(hello[:20])
        time.sleep(0.2)
        leaf = nginx.swap()
        client.socket.sendall(hello[20:])
        assert client.finish() == leaf


@pytest.mark.parametrize("live", ["live_chain FOLDER/live.pem;", ""])
def test_handshake_with_a_second_client_hello_gets_the_new_leaf(nginx, live):
    """After a HelloRetryRequest, with the SSL_CTX of the server that the name leads to."""
    nginx.start(f"""
        {TLS} ssl_ecdh_curve secp384r1;
        server {{ listen LISTEN ssl default_server reuseport; {live} {PATHS} }}
        server {{ listen LISTEN ssl; server_name a.test; live_chain FOLDER/live.pem; {PATHS} }}
    """)
    with Slow(nginx.place, TLS13) as client:
        client.socket.sendall(client.step())
        client.receive()
        leaf = nginx.swap()
        assert client.finish() == leaf


# What is no chain


def encrypted(chain):
    begin = "-----BEGIN CERTIFICATE-----\n"
    head = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n"
    return chain.replace(begin, begin + head)


def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def intermediate_first(chain):
    return pki.certificate_pem(*reversed(pki.read_chain(chain)))


BAD = {
    "empty": lambda chains, chain: "",
    "half a leaf": lambda chains, chain: chain[:400],
    "half an intermediate": lambda chains, chain: chain[:-300],
    "garbage": lambda chains, chain: "\0\1\2garbage" * 1000,
    "too large": lambda chains, chain: chain + "#" * (1024 * 1024),
    "foreign key": lambda chains, chain: chains.new(key=pki.new_key()),
    "foreign RSA key": lambda chains, chain: chains.new(key=rsa_key()),
    "intermediate first": lambda chains, chain: intermediate_first(chain),
    "private key alone": lambda chains, chain: pki.key_pem(chains.key),
    "private key behind the chain": lambda chains, chain: chain + pki.key_pem(chains.key),
    "encrypted": lambda chains, chain: encrypted(chain),
    "bad base64": lambda chains, chain: chain.replace("\nMII", "\n!!!", 1),
    "bad DER": lambda chains, chain: chain.replace("\nMII", "\nAII", 1),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("in_place", [False, True])
def test_bad_content_keeps_the_chain(nginx, bad, in_place):
    nginx.start(LIVE)
    leaf = nginx.swap()
    nginx.serves(leaf)
    text = bad(nginx.chains, nginx.chains.new())
    if in_place:
        nginx.file.write_text(text)
    else:
        os.replace(nginx.write("new.pem", text), nginx.file)
    nginx.serves(leaf)
    errors = nginx.log("[error]")
    assert len(errors) == 2 and all(KEPT in line for line in errors), errors
    nginx.serves(nginx.swap())


def remove(nginx):
    nginx.file.unlink()


def become_fifo(nginx):
    remove(nginx)
    os.mkfifo(nginx.file)


def become_folder(nginx):
    remove(nginx)
    nginx.file.mkdir()


def become_dangling(nginx):
    remove(nginx)
    nginx.file.symlink_to("nowhere")


def become_device(nginx):
    remove(nginx)
    nginx.file.symlink_to("/dev/zero")


def become_unreadable(nginx):
    nginx.swap()
    nginx.file.chmod(0)


ABSENT = [remove, become_fifo, become_folder, become_dangling, become_device, become_unreadable]


@pytest.mark.parametrize("spoil", ABSENT)
def test_file_that_cannot_be_read_keeps_the_chain(nginx, spoil):
    nginx.start(LIVE)
    leaf = nginx.swap()
    nginx.serves(leaf)
    spoil(nginx)
    nginx.serves(leaf)
    errors = nginx.log("[error]")
    assert len(errors) == 2 and all(KEPT in line for line in errors), errors
    if nginx.file.is_dir():
        nginx.file.rmdir()
    nginx.serves(nginx.swap())


def test_permission_that_comes_back_is_noticed(nginx):
    nginx.start(LIVE)
    nginx.serves(nginx.first)
    leaf = nginx.swap()
    nginx.file.chmod(0)
    nginx.leaves()
    nginx.file.chmod(0o644)
    nginx.serves(leaf)


def test_folder_that_is_closed_keeps_the_chain(nginx):
    folder = nginx.folder / "closed"
    folder.mkdir()
    leaf = nginx.swap(name="closed/live.pem")
    nginx.start(LIVE.replace("live.pem", "closed/live.pem"))
    folder.chmod(0)
    later = nginx.swap(name="closed/live.pem") if os.geteuid() == 0 else leaf
    nginx.serves(leaf)
    assert len(nginx.log("cannot be found")) == 2
    folder.chmod(0o755)
    nginx.serves(later)


@pytest.mark.skipif(os.geteuid() != 0, reason="the master has to be more than its workers")
def test_file_that_only_the_master_may_read_is_reported_at_once(nginx):
    nginx.file.chmod(0o600)
    nginx.start(LIVE)
    wait_until(lambda: len(nginx.log("cannot be opened")) == 2, "an error of each worker")
    nginx.serves(nginx.first)


def test_text_around_the_certificates_is_fine(nginx):
    nginx.start(LIVE)
    chain = nginx.chains.new()
    nginx.serves(nginx.swap(f"before\n{chain}behind\n"))
    assert not nginx.log("[error]")


def test_symbolic_links_are_followed(nginx):
    """The file itself, and the folder it is in."""
    nginx.start(LIVE.replace("live.pem", "link/live.pem"))
    for number in range(3):
        folder = nginx.folder / f"version-{number}"
        folder.mkdir()
        leaf = nginx.swap(name=f"version-{number}/target.pem")
        (folder / "live.pem").symlink_to("target.pem")
        (nginx.folder / "link.new").symlink_to(folder.name)
        (nginx.folder / "link.new").rename(nginx.folder / "link")
        nginx.serves(leaf)


# Sessions

CACHES = {
    "tickets": "ssl_session_cache off;",
    "tickets and shared cache": "ssl_session_cache shared:s:1m;",
    "shared cache": "ssl_session_cache shared:s:1m; ssl_session_tickets off;",
    "builtin cache": "ssl_session_cache builtin:100; ssl_session_tickets off;",
}


@pytest.fixture(name="sessions", params=CACHES.values(), ids=CACHES)
def fixture_sessions(request, make):
    """The builtin cache is one per worker."""
    nginx = make(workers=1 if "builtin" in request.param else 2)
    return nginx.start(request.param + LIVE)


def resumed(nginx, sessions, context, name="a.test"):
    """How many of the sessions are resumed; each handshake has to succeed."""
    return sum(
        handshake(nginx.place, name=name, context=context, session=session).reused for session in sessions
    )


def new_sessions(nginx, context, name="a.test"):
    made = [handshake(nginx.place, name=name, context=context) for _ in range(LOOKS)]
    assert not any(one.reused for one in made)
    return [one.session for one in made]


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_no_session_from_before_is_resumed(sessions, version):
    nginx, context = sessions, client_context(version)
    before = new_sessions(nginx, context)
    assert resumed(nginx, before, context) == LOOKS
    before = new_sessions(nginx, context)
    leaf = nginx.swap()
    assert resumed(nginx, before, context) == 0
    after = new_sessions(nginx, context)
    assert resumed(nginx, after, context) == LOOKS
    nginx.serves(leaf)


def by_copying(nginx, chain):
    nginx.swap(chain)


def by_renaming(nginx, chain):
    """The former file itself comes back, with its inode and its time of modification."""
    names = [nginx.folder / f"kept-{leaf_of(chain).hex()[-16:]}", nginx.folder / "aside"]
    if not names[0].exists():
        nginx.write(names[0].name, chain)
    for name in nginx.folder.glob("kept-*"):
        if name != names[0] and not name.exists():
            nginx.file.rename(name)
    current = nginx.file.read_text()
    nginx.file.rename(names[1])
    names[0].rename(nginx.file)
    names[1].rename(nginx.folder / f"kept-{leaf_of(current).hex()[-16:]}")


def by_linking(nginx, chain):
    """A symbolic link alternates between files that stay as they are."""
    target = nginx.folder / f"kept-{leaf_of(chain).hex()[-16:]}"
    if not target.exists():
        nginx.write(target.name, chain)
    link = nginx.folder / "link.new"
    link.symlink_to(target.name)
    link.rename(nginx.file)


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("put", [by_copying, by_renaming, by_linking])
def test_chain_that_comes_back_revives_no_session(sessions, version, put):
    nginx, context = sessions, client_context(version)
    a, b = nginx.chains.new(), nginx.chains.new()
    put(nginx, a)
    first = new_sessions(nginx, context)
    put(nginx, b)
    second = new_sessions(nginx, context)
    put(nginx, a)
    nginx.serves(leaf_of(a))
    assert resumed(nginx, first, context) == 0
    third = new_sessions(nginx, context)
    assert resumed(nginx, second, context) == 0
    put(nginx, b)
    nginx.serves(leaf_of(b))
    assert resumed(nginx, first + second + third, context) == 0


def test_early_data_of_a_session_from_before_is_refused_and_answered(nginx):
    nginx.start("ssl_early_data on;" + LIVE)
    saved, request = nginx.folder / "session", nginx.folder / "request"
    request.write_text("GET / HTTP/1.0\r\n\r\n")

    def s_client(*arguments, text):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{nginx.port}", "-ign_eof", *arguments]
        return subprocess.run(
            [str(word) for word in command], input=text, capture_output=True, text=True, timeout=TIMEOUT_S
        ).stdout

    s_client("-sess_out", saved, text=request.read_text())
    assert "Early data was accepted" in s_client("-sess_in", saved, "-early_data", request, text="")
    s_client("-sess_out", saved, text=request.read_text())
    nginx.swap()
    shown = s_client("-sess_in", saved, "-early_data", request, text=request.read_text())
    assert "Early data was rejected" in shown and "HTTP/1.1 200" in shown


def test_session_survives_a_crash_of_the_workers(nginx):
    """What replaces them agrees with those before: the value comes from the file."""
    nginx.start(LIVE)
    nginx.swap()
    context = client_context(TLS13)
    sessions = new_sessions(nginx, context)
    nginx.kill_workers()
    assert resumed(nginx, sessions, context) == LOOKS


# Connections from before


def test_next_response_closes_a_connection_from_before(nginx):
    nginx.start(LIVE)
    with Client(nginx.place) as client, Client(nginx.place) as other:
        for each in (client, other):
            assert each.get() == (200, "[]", "keep-alive")
        nginx.swap()
        for each in (client, other):
            # No handshake has told the workers.
            assert each.get() == (200, "[1]", "close")
            assert each.sock is None or each.sock.recv(1) == b""
    with Client(nginx.place) as client:
        assert client.get() == (200, "[]", "keep-alive")


def test_response_in_progress_finishes(nginx):
    """And as its header has gone, the connection ends with the one after it."""
    body = "0123456789abcdef" * 16384
    nginx.write("slow", body)
    nginx.start(LIVE)
    with Client(nginx.place) as client:
        answer = client.begin("/slow")
        assert answer.status == 200 and answer.getheader("Connection") == "keep-alive"
        nginx.swap()
        nginx.leaves()
        assert answer.read().decode() == body
        assert client.get() == (200, "[1]", "close")


def test_connection_outlives_a_bad_file(nginx):
    nginx.start(LIVE)
    with Client(nginx.place) as client:
        client.get()
        os.replace(nginx.write("new.pem", "garbage"), nginx.file)
        nginx.leaves()
        assert client.get() == (200, "[]", "keep-alive")


class Client2(Http2):
    def __init__(self, place):
        plain = socket.create_connection(place, TIMEOUT_S)
        secured = client_context(alpn="h2").wrap_socket(plain, server_hostname="a.test")
        assert secured.selected_alpn_protocol() == "h2"
        super().__init__(secured)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.transport.close()


def test_http2_connection_from_before_is_told_to_go_away(nginx):
    nginx.start(LIVE)
    with Client2(nginx.place) as client:
        client.ask(1)
        assert client.answer(1) == "[]"
        client.ask(3)
        assert client.answer(3) == "[]"
        assert not client.of(GOAWAY)
        nginx.swap()
        client.ask(5)
        assert client.answer(5) == "[1]"
        client.drain()
        ((_, _, _, payload),) = client.of(GOAWAY)
        # The last stream that was processed, and no error.
        assert payload[:8] == bytes.fromhex("0000000500000000")


def test_http2_responses_in_progress_finish(nginx):
    body = "0123456789abcdef" * 16384
    nginx.write("slow", body)
    nginx.start(LIVE)
    with Client2(nginx.place) as client:
        client.ask(1, "/slow")
        client.ask(3, "/slow")
        client.until(lambda *_: {1, 3} <= {one[2] for one in client.of(DATA)})
        nginx.swap()
        client.ask(5)
        assert client.answer(5) == "[1]"
        client.until(lambda *_: client.of(GOAWAY))
        # Flow control and pings work as before; what is new is not answered.
        client.send(PING, 0, 0, b"8 bytes.")
        client.ask(7)
        assert client.answer(1) == body and client.answer(3) == body
        client.drain()
        assert [one[3] for one in client.of(PING)] == [b"8 bytes."]
        assert len(client.of(GOAWAY)) == 1 and not client.of(RST_STREAM)
        assert 7 not in {one[2] for one in client.frames}


def test_http2_response_with_a_small_window_finishes(nginx):
    """The client opens its window after GOAWAY: frames are still read."""
    body = "0123456789abcdef" * 65536
    nginx.write("file", body)
    nginx.start(LIVE.replace("location = /slow {", "location = /file {").replace("limit_rate 200k;", ""))
    with Client2(nginx.place) as client:
        client.send(SETTINGS, 0, 0, bytes.fromhex("000400001000"))
        nginx.swap()
        tick()
        client.ask(1, "/file")
        client.until(lambda *_: client.of(GOAWAY) and client.of(DATA))
        while not any(one[0] == DATA and one[1] & END_STREAM for one in client.frames):
            client.send(WINDOW_UPDATE, 0, 1, (65536).to_bytes(4, "big"))
            assert client.read(), "the connection ended"
        assert client.body[1].decode() == body


# Servers


SNI = """
    server { listen LISTEN ssl default_server reuseport; DEFAULT location / { return 200; } }
    server {
        listen LISTEN ssl;
        server_name a.test;
        live_chain FOLDER/live.pem;
        location / { return 200; }
    }
    server {
        listen LISTEN ssl;
        server_name b.test;
        ssl_certificate FOLDER/b.pem;
        ssl_certificate_key FOLDER/b-key.pem;
        live_chain FOLDER/b-live.pem;
        location / { return 200; }
    }
"""
DEFAULTS = {"not live": "", "live": "live_chain FOLDER/live.pem;", "off": "live_chain off;"}


@pytest.fixture(name="servers", params=DEFAULTS.values(), ids=DEFAULTS)
def fixture_servers(request, nginx):
    """Names a.test and b.test with keys of their own, and a default server."""
    nginx.b = Chains()
    nginx.write("b-key.pem", pki.key_pem(nginx.b.key), 0o600)
    nginx.write("b.pem", nginx.b.new())
    nginx.swap(nginx.b.new("b.test"), "b-live.pem")
    nginx.default_is_live = "live.pem" in request.param
    return nginx.start(TLS + SNI.replace("DEFAULT", request.param))


def test_each_server_takes_its_own_file(servers):
    nginx = servers
    nginx.serves(nginx.first)
    b = leaf_of((nginx.folder / "b-live.pem").read_text())
    nginx.serves(b, name="b.test")
    a = nginx.swap()
    nginx.serves(a)
    nginx.serves(b, name="b.test")
    b = nginx.swap(nginx.b.new("b.test"), "b-live.pem")
    nginx.serves(b, name="b.test")
    nginx.serves(a)
    default = a if nginx.default_is_live else leaf_of(nginx.copied)
    nginx.serves(default, name=None)
    nginx.serves(default, name="unknown.test")
    # The other one's chain is a foreign one.
    nginx.swap(nginx.b.new("b.test"))
    nginx.serves(a)
    assert all("cannot be used by server" in line for line in nginx.log("[error]"))


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("changed", ["live.pem", "b-live.pem"])
def test_no_session_of_any_server_crosses_a_change(servers, version, changed):
    nginx, context = servers, client_context(version)
    name = "a.test" if changed == "live.pem" else "b.test"
    before = new_sessions(nginx, context, name)
    assert resumed(nginx, before, context, name) == LOOKS
    before = new_sessions(nginx, context, name)
    chains = nginx.chains if changed == "live.pem" else nginx.b
    nginx.swap(chains.new(), changed)
    assert resumed(nginx, before, context, name) == 0


def test_server_without_certificate_that_rejects_handshakes(nginx):
    nginx.start(f"""
        {TLS}
        server {{ listen LISTEN ssl default_server reuseport; ssl_reject_handshake on; }}
        server {{ listen LISTEN ssl; server_name a.test; live_chain FOLDER/live.pem; {PATHS} }}
    """)
    nginx.serves(nginx.first)
    nginx.serves(nginx.swap())
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        handshake(nginx.place, name="b.test")


@pytest.mark.parametrize("live", ["", "live_chain FOLDER/live.pem;"], ids=["not live", "live"])
def test_named_server_has_its_own_protocols_where_nginx_can_do_that(nginx, live):
    """From 1.29.2 on nginx goes to it in a client_hello callback of its own, before the version is chosen."""
    nginx.start(f"""
        {TLS} {live}
        server {{ listen LISTEN ssl default_server reuseport; {PATHS} }}
        server {{ listen LISTEN ssl; server_name b.test; ssl_protocols TLSv1.2; {PATHS} }}
    """)
    can = version() >= (1, 29, 2)
    for _ in range(2):
        leaf = nginx.swap() if live else leaf_of(nginx.copied)
        for name, protocol in (("a.test", "TLSv1.3"), ("b.test", "TLSv1.2" if can else "TLSv1.3")):
            seen = handshake(nginx.place, name)
            assert (seen.protocol, seen.leaf) == (protocol, leaf)
    if can:
        with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
            handshake(nginx.place, "b.test", client_context(TLS13))


def test_directive_reaches_plain_servers_and_tls_servers(make):
    nginx = make(listeners=2)
    nginx.start(LIVE + 'server { listen LISTEN2; location / { return 200 "[$live_chain_stale]"; } }')
    nginx.serves(nginx.swap())
    connection = http.client.HTTPConnection(*nginx.listeners[1].place, timeout=TIMEOUT_S)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.read() == b"[]" and answer.getheader("Connection") == "keep-alive"
    connection.close()


@pytest.mark.parametrize("directive", ["", "live_chain off;"])
def test_without_the_directive_a_reload_is_needed(nginx, directive):
    nginx.start(f"live_chain FOLDER/live.pem; {TLS} {SERVER}".replace("live_chain FOLDER/live.pem;", directive))
    nginx.serves(leaf_of(nginx.copied))
    with Client(nginx.place) as client:
        client.get()
        nginx.swap()
        leaf = nginx.swap(name="cert.pem")
        nginx.serves(leaf_of(nginx.copied))
        assert client.get() == (200, "[]", "keep-alive")
    nginx.reload()
    nginx.serves(leaf)


def test_server_can_leave_the_inherited_file(nginx):
    nginx.start(f"""
        {TLS} live_chain FOLDER/live.pem;
        server {{ listen LISTEN ssl default_server reuseport; {PATHS} }}
        server {{ listen LISTEN ssl; server_name b.test; live_chain off; {PATHS} }}
    """)
    leaf = nginx.swap()
    nginx.serves(leaf)
    nginx.serves(leaf_of(nginx.copied), name="b.test")


def test_file_in_two_forms_of_its_name(nginx):
    nginx.start(f"""
        {TLS}
        server {{ listen LISTEN ssl default_server reuseport; live_chain live.pem; {PATHS} }}
        server {{ listen LISTEN ssl; server_name b.test; live_chain FOLDER/live.pem; {PATHS} }}
    """)
    leaf = nginx.swap()
    nginx.serves(leaf)
    nginx.serves(leaf, name="b.test")
    assert len(nginx.log("is served from now on")) == 1 + 2


# Configuration

SEVERAL = """
    ssl_certificate FOLDER/cert.pem;
    ssl_certificate_key FOLDER/key.pem;
    ssl_certificate FOLDER/rsa.pem;
    ssl_certificate_key FOLDER/rsa-key.pem;
"""
VARIABLE = "ssl_certificate FOLDER/$ssl_server_name.pem; ssl_certificate_key FOLDER/key.pem;"
UNSUPPORTED = {"several": SEVERAL, "variable": VARIABLE}


@pytest.fixture(name="unsupported", params=UNSUPPORTED.values(), ids=UNSUPPORTED)
def fixture_unsupported(request, nginx):
    key = rsa_key()
    nginx.write("rsa-key.pem", pki.key_pem(key), 0o600)
    nginx.write("rsa.pem", nginx.chains.new(key=key))
    return nginx, request.param


def test_unsupported_server_is_refused(unsupported):
    nginx, certificates = unsupported
    code, text = nginx.test(
        f"server {{ listen LISTEN ssl; server_name x.test; {certificates} live_chain FOLDER/live.pem; }}"
    )
    assert code != 0 and '"live_chain" is not possible for server "x.test"' in text


def test_unsupported_server_is_left_out_where_the_directive_is_inherited(unsupported):
    nginx, certificates = unsupported
    nginx.write("b.test.pem", nginx.copied, 0o644)
    nginx.write("key.pem", pki.key_pem(nginx.chains.key), 0o644)
    nginx.start(f"""
        live_chain FOLDER/live.pem;
        add_header Worker $pid;
        server {{ listen LISTEN ssl default_server reuseport; {TLS} {PATHS} }}
        server {{ listen LISTEN ssl; server_name b.test; {certificates} {PATHS} }}
    """)
    assert nginx.log('[warn] ') and nginx.log('"live_chain" is not possible for server "b.test"')
    leaf = nginx.swap()
    nginx.serves(leaf)
    assert leaf not in nginx.leaves(name="b.test")


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("live_chain a; live_chain b;", "is duplicate"),
        ('live_chain "";', "has an empty path"),
        ("live_chain FOLDER/$host;", "does not support variables"),
        ("live_chain;", "invalid number of arguments"),
        ("live_chain a b;", "invalid number of arguments"),
    ],
)
def test_useless_directive_is_refused(nginx, directive, message):
    code, text = nginx.test(f"{TLS} {directive} {SERVER}")
    assert code != 0 and message in text


def test_compressed_certificates_are_refused(nginx):
    """OpenSSL would go on sending the old ones; nginx has the directive from 1.29.1 on."""
    code, text = nginx.test(f"ssl_certificate_compression on; {LIVE}")
    assert code != 0
    assert ("exclude each other" if version() >= (1, 29, 1) else "unknown directive") in text


def test_missing_file_is_an_error_but_no_obstacle(nginx):
    """What is served then comes from ssl_certificate, until there is the file."""
    nginx.file.unlink()
    code, text = nginx.test(LIVE)
    assert code == 0 and "live.pem" in text and KEPT in text
    nginx.start(LIVE)
    nginx.serves(leaf_of(nginx.copied))
    nginx.serves(nginx.swap())


# Reload and crash


def test_swap_and_reload(nginx):
    nginx.start(LIVE)
    for _ in range(3):
        leaf = nginx.swap()
        nginx.reload()
        nginx.serves(leaf)
        nginx.serves(nginx.swap())


def test_connection_from_before_a_reload_ends_with_its_next_response(nginx):
    nginx.start(LIVE)
    with Client(nginx.place) as client:
        client.get()
        nginx.swap()
        nginx.leaves()
        assert client.get()[1:] == ("[1]", "close")


def test_directive_comes_and_goes_with_reloads(nginx):
    off = f"{TLS} {SERVER}"
    nginx.start(off)
    nginx.serves(leaf_of(nginx.copied))
    for _ in range(2):
        nginx.reload(LIVE)
        nginx.serves(nginx.swap())
        nginx.reload(off)
        nginx.serves(leaf_of(nginx.copied))


def test_module_comes_and_goes_with_reloads(nginx):
    """A callback must not be called when its code has gone."""
    nginx.start(LIVE)
    for _ in range(2):
        nginx.serves(nginx.swap())
        nginx.modules = []
        nginx.reload(f"{TLS} {SERVER}".replace("$live_chain_stale", ""))
        nginx.serves(leaf_of(nginx.copied))
        nginx.modules = MODULES
        nginx.reload(LIVE)


def test_respawned_workers_serve_the_new_chain(nginx):
    nginx.start(LIVE)
    leaf = nginx.swap()
    nginx.serves(leaf)
    nginx.kill_workers()
    nginx.serves(leaf)
    nginx.serves(nginx.swap())


def test_worker_respawned_beside_a_bad_file_has_the_chain_of_the_last_load(nginx):
    nginx.start(LIVE)
    loaded = nginx.swap()
    nginx.reload()
    nginx.swap()
    nginx.file.write_text("garbage")
    nginx.kill_workers()
    nginx.serves(loaded)
    nginx.serves(nginx.swap())


def test_single_process(make):
    nginx = make(workers=0)
    nginx.start(LIVE, "master_process off;", inherit=False)
    wait_until(lambda: is_listening(*nginx.place), "nginx listens")
    nginx.serves(nginx.first)
    nginx.serves(nginx.swap())
    with Client(nginx.place) as client:
        client.get()
        nginx.swap()
        assert client.get()[1:] == ("[1]", "close")


# The template


@pytest.fixture(name="quote", params=["https.conf.tmpl", "https-dev.conf.tmpl"])
def fixture_quote(request, make):
    """The location of the quotes in our own template, and what it passes them on to."""
    nginx = make(listeners=2)
    template = (REPOSITORY / "nginx_conf" / request.param).read_text()
    settings = {
        "HTTPS_LISTEN": f"listen LISTEN ssl http2 {SHARE}; add_header Worker $pid;",
        "DOMAIN": "a.test",
        "SERVER_NAMES": "a.test",
        "TLS_DIR": "FOLDER",
        "ATTESTATION_UPSTREAM": "LISTEN2",
        "CORS_HEADERS": "add_header Vary Origin always;",
    }
    text = re.sub(r"\$\{(\w+)\}", lambda name: settings.get(name[1], ""), template)
    text = text.replace("$ekm_channel_binding", "binding")
    return nginx, text + 'server { listen LISTEN2; location / { return 200 quote; } }'


def test_quote_over_a_connection_from_before_is_misdirected(quote):
    nginx, text = quote
    nginx.start("live_chain FOLDER/live.pem;" + text)
    with Client(nginx.place) as client, Client2(nginx.place) as client2:
        assert client.get("/tdx_quote") == (200, "quote", "keep-alive")
        client2.ask(1, "/tdx_quote")
        assert client2.answer(1) == "quote"
        nginx.swap()
        answer = client.begin("/tdx_quote")
        assert answer.status == 421 and answer.getheader("Connection") == "close"
        assert answer.getheader("Content-Type") == "text/plain" and answer.getheader("Vary") == "Origin"
        assert "Open a new connection" in answer.read().decode()
        client2.ask(3, "/tdx_quote")
        assert "Open a new connection" in client2.answer(3)
        client2.drain()
        assert len(client2.of(GOAWAY)) == 1
    with Client(nginx.place) as client:
        assert client.get("/tdx_quote") == (200, "quote", "keep-alive")
        nginx.swap()
        tick()
        assert client.get("/health") == (200, "healthy\n", "close")


def test_template_needs_no_directive(quote):
    nginx, text = quote
    nginx.start(text)
    with Client(nginx.place) as client:
        nginx.swap()
        assert client.get("/tdx_quote") == (200, "quote", "keep-alive")


# Memory


def test_no_leak_and_no_invalid_access(make):
    """nginx under valgrind, through good and bad swaps, old connections, and a reload."""
    assert shutil.which("valgrind"), "valgrind is missing"
    nginx = make(workers=1)
    log = nginx.folder / "valgrind.%p"
    # The module has been unloaded when leaks are looked for.
    nginx.under = ["valgrind", "--vgdb=no", "--trace-children=yes", "--leak-check=full", "--keep-debuginfo=yes"]
    nginx.under += ["--num-callers=30", f"--log-file={log}"]
    nginx.start(LIVE)
    bad = [nginx.chains.new()[:400], "", nginx.chains.new(key=pki.new_key())]
    for number in range(12):
        with Client(nginx.place) as client, Client2(nginx.place) as client2:
            client.get()
            client2.ask(1)
            client2.answer(1)
            leaf = nginx.swap()
            assert client.get()[1:] == ("[1]", "close")
            client2.ask(3)
            assert client2.answer(3) == "[1]"
        nginx.serves(leaf)
        os.replace(nginx.write("new.pem", bad[number % len(bad)]), nginx.file)
        nginx.serves(leaf)
        nginx.swap()
    nginx.reload()
    nginx.leaves()
    nginx.stop()
    logs = [path.read_text() for path in nginx.folder.glob("valgrind.*")]
    assert len(logs) >= 3
    for text in logs:
        # nginx leaves at exit what it holds; what we have lost names us.
        records = re.split(r"\n==\d+== \n", text)
        assert not [r for r in records if re.search(r"Invalid (read|write|free)|uninitialised", r)], text
        assert not [r for r in records if "definitely lost in" in r and "live_chain" in r], text
