"""ngx_http_ekm_module in a real nginx: $ekm_channel_binding and $ekm.

The references for a value are independent ones: what the client's own TLS library exports on the same
connection (OpenSSL, GnuTLS, or the formula of RFC 8446, Section 7.5), and Python's hmac.
"""

import json
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
import tls13
from bare_nginx import MODULES_DIR, NGINX
from ekm_nginx import (
    HEADER,
    MODULES,
    OTHER_SECRET,
    SECRET,
    TIMEOUT_S,
    VECTORS,
    Client,
    Client2,
    Gate,
    GnutlsClient,
    OpensslClient,
    binding,
    ready_nginx,
    value,
    values,
)
from http2 import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, Http2, frame, request
from loopback import wait_until

NO_TLS13 = "it requires TLSv1.3"
NO_SECRET = "has no secret"

PROXY = """
    SECRET_FILE
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        location / { proxy_pass BACKEND; BINDING }
    }
"""
# "listen ... http2" works before and after 1.25.1; later versions only warn.
PROXY_H2 = PROXY.replace("TLS_PORT;", "TLS_PORT http2;")
BARE = PROXY.replace("BINDING", "BINDING proxy_set_header X-Bare $ekm;")
PROGRAMS = [OpensslClient, GnutlsClient]


@pytest.fixture(scope="session", autouse=True)
def fixture_tools():
    for tool in (NGINX, "openssl", "gnutls-cli", "curl"):
        assert shutil.which(tool), f"{tool} is missing"
    for name in MODULES:
        assert (MODULES_DIR / f"{name}.so").is_file(), f"build {name} first: make modules"


@pytest.fixture(name="nginx")
def fixture_nginx():
    with ready_nginx() as nginx:
        yield nginx


# The value


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["secret"] for vector in VECTORS])
def test_reference_agrees_with_known_vectors(vector):
    assert binding(vector["exporter"], vector["secret"]) == vector["header"]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["secret"] for vector in VECTORS])
def test_value_is_that_of_the_vectors(nginx, vector):
    """The exporter is not what this connection has, but what the vectors have."""
    nginx.write("secret", vector["secret"])
    nginx.probe(exporter=vector["exporter"])
    nginx.start(PROXY_H2)
    with Client(nginx.tls) as client, Client2(nginx.tls) as client2:
        assert value(client.json()) == value(client2.json(1)) == vector["header"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_value_is_the_exporter_of_the_client_and_its_hmac(nginx, program):
    nginx.start(PROXY)
    with program(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)
        assert value(client.json("/again")) == binding(client.exporter)


@pytest.mark.parametrize("program", PROGRAMS)
def test_value_of_http2_streams_is_the_exporter_of_the_client_and_its_hmac(nginx, program):
    nginx.start(PROXY_H2)
    with program(nginx.tls, alpn="h2") as client:
        http2 = Http2(client)
        for stream in range(1, 21, 2):
            http2.ask(stream, f"/{stream}")
        for stream in range(1, 21, 2):
            answer = json.loads(http2.answer(stream))
            assert answer["path"] == f"/{stream}"
            assert value(answer) == binding(client.exporter)


def test_value_is_that_of_the_formula(nginx):
    nginx.start(PROXY_H2)
    with Client(nginx.tls) as client, Client2(nginx.tls) as client2:
        assert value(client.json()) == binding(client.exporter)
        assert value(client2.json(1)) == binding(client2.exporter)


def test_ten_requests_on_a_connection_have_one_value(nginx):
    nginx.start(PROXY)
    with Client(nginx.tls) as client:
        assert len({value(client.json(f"/{i}")) for i in range(10)}) == 1


def test_three_connections_have_three_values(nginx):
    nginx.start(PROXY)
    seen = set()
    for _ in range(3):
        with Client(nginx.tls) as client:
            seen.add(value(client.json()))
    assert len(seen) == 3
    assert len({text.split(":")[0] for text in seen}) == 3


@pytest.mark.parametrize("settings", ["", "ssl_session_tickets off; ssl_session_cache shared:ekm:1m;"])
def test_resumed_connections_have_values_of_their_own(nginx, settings):
    nginx.start(PROXY.replace("SECRET_FILE", f"SECRET_FILE {settings}"))
    session, seen = nginx.folder / "session", set()
    with OpensslClient(nginx.tls, "-sess_out", str(session)) as client:
        seen.add(value(client.json()))
    for _ in range(3):
        with OpensslClient(nginx.tls, "-sess_in", str(session)) as client:
            received = value(client.json())
            assert b"Reused, TLSv1.3" in client.output
            assert received == binding(client.exporter)
            seen.add(received)
    assert len(seen) == 4


def test_ekm_is_the_bare_exporter(nginx):
    nginx.start(BARE)
    with Client(nginx.tls) as client:
        assert values(client.json(), "X-Bare") == [client.exporter]


def test_ekm_needs_no_secret(nginx):
    nginx.start(BARE.replace("SECRET_FILE", "").replace("BACKEND;", "BACKEND; proxy_set_header X-Again $ekm;"))
    with Client(nginx.tls) as client:
        for _ in range(2):
            received = client.json()
            assert values(received, "X-Bare") == values(received, "X-Again") == [client.exporter]
            assert values(received) == []
    assert len(nginx.log(NO_SECRET)) == 1


def test_value_is_computed_once_per_connection(nginx):
    """By requests one after the other and by streams at the same time; HMAC is keyed before."""
    nginx.probe()
    nginx.start(PROXY_H2.replace("BINDING", "BINDING add_header X-Value $ekm_channel_binding;"))
    keyed = nginx.probed("keyed")
    assert nginx.probed("exported") == []
    with Client(nginx.tls) as client:
        for _ in range(10):
            client.json()
    assert len(nginx.probed("exported")) == 1
    with Client2(nginx.tls) as client:
        for stream in range(1, 21, 2):
            client.ask(stream)
        for stream in range(1, 21, 2):
            client.answer(stream)
    assert len(nginx.probed("exported")) == 2
    # The inner and the outer hash.
    assert nginx.probed("keyed") == keyed and len(keyed) == 2


def test_exporter_is_asked_for_once_whatever_the_server(nginx):
    nginx.write("other", OTHER_SECRET)
    nginx.probe()
    nginx.start(SERVERS)
    with Client(nginx.tls) as client:
        for host in ("a.test", "b.test") * 2:
            client.json(host=host)
    assert len(nginx.probed("exported")) == 1


# After the handshake


@pytest.mark.parametrize("letter", [b"k", b"K"])
def test_key_update_does_not_change_the_value(nginx, letter):
    nginx.start(PROXY)
    with OpensslClient(nginx.tls) as client:
        before = value(client.json())
        client.sendall(letter + b"\n")
        client.search(b"KEYUPDATE")
        assert value(client.json()) == before == binding(client.exporter)


def test_key_update_under_way_does_not_take_the_value_away(nginx):
    """The body of the message is missing when the request asks for the value."""
    nginx.start("""
        SECRET_FILE
        server {
            listen TLS_PORT http2;
            location / { return 200 $ekm_channel_binding; }
            location = /held { proxy_pass BACKEND; }
            location = /late { auth_request /held; proxy_pass BACKEND; BINDING }
        }
    """)
    with Client2(nginx.tls) as client:
        client.ask(1)
        assert client.answer(1) == binding(client.exporter)
        client.ask(3, "/late")
        assert nginx.backend.reached.wait(TIMEOUT_S)
        update = tls13.message(tls13.KEY_UPDATE, b"\0")
        client.transport.send_record(tls13.HANDSHAKE, update[:4])
        client.transport.wait_until_read(wait_until)
        nginx.backend.free.set()
        wait_until(lambda: nginx.backend.to("/late"), "the request arrives")
        assert value(nginx.backend.to("/late")[0]) == binding(client.exporter)


def test_renegotiation_is_refused_below_tls_1_3(nginx):
    nginx.start(BARE)
    with OpensslClient(nginx.tls, "-tls1_2") as client:
        client.json()
        client.sendall(b"R\n")
        client.search(b"no renegotiation")
    with Client(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)


def test_renegotiation_ends_a_connection_of_tls_1_3(nginx):
    """A ClientHello after the handshake: RFC 8446, Section 4.1.2."""
    nginx.start(PROXY_H2)
    with Client2(nginx.tls) as client:
        assert value(client.json(1)) == binding(client.exporter)
        hello = bytes([3, 3]) + bytes(32) + b"\0" + b"\0\2\x13\2" + b"\1\0" + b"\0\0"
        client.transport.send_record(tls13.HANDSHAKE, tls13.message(tls13.CLIENT_HELLO, hello))
        with pytest.raises(ssl.SSLError, match="(?i)unexpected.message"):
            client.drain()
    with Client(nginx.tls) as client:
        assert value(client.json()) == binding(client.exporter)


def test_rehandshake_of_gnutls_does_not_change_the_value(nginx):
    """It has come to mean a KeyUpdate."""
    nginx.start(PROXY)
    with GnutlsClient(nginx.tls, "--inline-commands") as client:
        before = value(client.json())
        client.sendall(b"^renegotiate^\n")
        assert value(client.json()) == before == binding(client.exporter)


# HTTP/2


def curl(*arguments):
    common = ["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", str(TIMEOUT_S), "--http2"]
    result = subprocess.run(
        ["curl", *common, *arguments], capture_output=True, text=True, check=True, timeout=2 * TIMEOUT_S
    )
    return result.stdout.splitlines()


WRITE_OUT = "\n%{num_connects} %{http_version}\n"


def test_http2_streams_of_a_connection_have_one_value(nginx):
    nginx.start(PROXY_H2)
    url = "https://%s:%d" % nginx.tls
    first, how, second, how_again = curl("-w", WRITE_OUT, f"{url}/1", f"{url}/2")
    assert (how, how_again) == ("1 2", "0 2")
    assert value(json.loads(first)) == value(json.loads(second))
    other, _ = curl("-w", WRITE_OUT, f"{url}/3")
    assert value(json.loads(other)) != value(json.loads(first))


def test_http2_with_many_streams_at_a_time(nginx):
    nginx.start("""
        SECRET_FILE
        keepalive_requests 10000;
        server {
            listen TLS_PORT http2;
            location / { return 200 $ekm_channel_binding; }
        }
    """)
    with Client2(nginx.tls) as client:
        for first in range(1, 2000, 200):
            streams = range(first, first + 200, 2)
            client.transport.sendall(
                b"".join(frame(HEADERS, END_STREAM | END_HEADERS, stream, request()) for stream in streams)
            )
            for stream in streams:
                assert client.answer(stream) == binding(client.exporter)


def test_http2_servers_on_one_connection_sign_with_their_own_secret(nginx):
    nginx.write("other", OTHER_SECRET)
    nginx.start(SERVERS.replace("TLS_PORT", "TLS_PORT http2"))
    with Client2(nginx.tls) as client:
        for stream in range(1, 9, 4):
            client.ask(stream, authority="a.test")
            client.ask(stream + 2, authority="b.test")
        for stream in range(1, 9, 4):
            assert value(json.loads(client.answer(stream))) == binding(client.exporter, SECRET)
            assert value(json.loads(client.answer(stream + 2))) == binding(client.exporter, OTHER_SECRET)


# Where there is no value


@pytest.mark.parametrize("protocol", ["", "http2"])
def test_tls_1_2_has_no_value_and_is_logged_once_per_connection(nginx, protocol):
    nginx.start(BARE.replace("TLS_PORT", f"TLS_PORT {protocol}"))
    for connections in (1, 2):
        with Client(nginx.tls, max_version=ssl.TLSVersion.TLSv1_2) as client:
            for _ in range(3):
                received = client.json()
                assert values(received) == [] and values(received, "X-Bare") == []
        lines = nginx.log(NO_TLS13)
        assert len(lines) == connections
        assert "[error]" in lines[-1] and "TLSv1.2" in lines[-1]


def test_plain_http_has_no_value_in_silence(nginx):
    nginx.start(BARE)
    with Client(nginx.plain, tls=False) as client:
        received = client.json()
        assert values(received) == [] and values(received, "X-Bare") == []
    assert not nginx.log("[error]") and not nginx.log("EKM")


@pytest.mark.parametrize("variables", [{}, {"EKM_SHARED_SECRET": ""}])
def test_without_secret_there_is_no_value_and_it_is_logged_once_per_connection(nginx, variables):
    nginx.environment.update(variables)
    nginx.start(PROXY.replace("SECRET_FILE", ""))
    for connections in (1, 2):
        with Client(nginx.tls) as client:
            for _ in range(3):
                assert values(client.json()) == []
        lines = nginx.log(NO_SECRET)
        assert len(lines) == connections
        assert "[error]" in lines[-1] and "ekm_secret_file" in lines[-1]


def test_without_exporter_there_is_no_value_and_it_is_logged_once_per_connection(nginx):
    """OpenSSL's error must not be left to whoever asks for one next, which would end the connection."""
    nginx.probe(exporter="none")
    nginx.start(BARE)
    for connections in (1, 2):
        with Client(nginx.tls) as client:
            for _ in range(3):
                received = client.json()
                assert values(received) == [] and values(received, "X-Bare") == []
        lines = nginx.log("SSL_export_keying_material() failed")
        assert len(lines) == connections and "[error]" in lines[-1]
    assert not nginx.log("stale")


# Early data

EARLY = BARE.replace("SECRET_FILE", "SECRET_FILE ssl_early_data on;").replace(
    "BINDING", "BINDING proxy_set_header X-Early $ssl_early_data;"
)


class Early:
    """A client whose early data is at the backend before the server can know the end of the handshake."""

    def __init__(self, nginx, data, alpn="http/1.1"):
        self.nginx, self.alpn = nginx, alpn
        self.session, self.early = nginx.folder / "session", nginx.folder / "early"
        self.early.write_bytes(data)
        with OpensslClient(nginx.tls, "-sess_out", str(self.session), alpn=alpn) as client:
            if alpn == "h2":
                Http2(client).until(lambda *last: last[0] == SETTINGS)
            else:
                client.json()

    def connect(self, event):
        """Event is what the client waits for before it finishes the handshake."""
        gate = Gate(self.nginx.tls, event)
        arguments = ["-sess_in", str(self.session), "-early_data", str(self.early)]
        return gate, OpensslClient(gate.place, *arguments, alpn=self.alpn)


def test_early_data_has_no_value_the_request_after_it_has(nginx):
    nginx.start(EARLY)
    early = Early(nginx, b"GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n")
    nginx.backend.reached.clear()
    gate, client = early.connect(nginx.backend.reached)
    with gate, client:
        received = client.response()
        assert received["path"] == "/early" and values(received, "X-Early") == ["1"]
        assert values(received) == values(received, "X-Bare") == []
        received = client.json("/late")
        assert values(received, "X-Early") == []
        assert value(received) == binding(client.exporter)
    assert not nginx.log("[error]")


def test_early_data_of_http2_has_no_value_the_stream_after_it_has(nginx):
    nginx.start(EARLY.replace("TLS_PORT;", "TLS_PORT http2;"))
    sent = PREFACE + frame(SETTINGS, 0, 0, b"")
    sent += frame(HEADERS, END_STREAM | END_HEADERS, 1, request("/early"))
    early = Early(nginx, sent, "h2")
    nginx.backend.reached.clear()
    gate, client = early.connect(nginx.backend.reached)
    with gate, client:
        http2 = Http2(client, is_begun=True)
        received = json.loads(http2.answer(1))
        assert values(received, "X-Early") == ["1"]
        assert values(received) == values(received, "X-Bare") == []
        http2.ask(3, "/late")
        received = json.loads(http2.answer(3))
        assert values(received, "X-Early") == []
        assert value(received) == binding(client.exporter)


def test_replayed_early_data_has_no_value(nginx):
    """Whoever has recorded the first flight can send it again, but cannot finish the handshake."""
    nginx.start(EARLY)
    early = Early(nginx, b"GET /early HTTP/1.1\r\nHost: a.test\r\n\r\n")
    nginx.backend.reached.clear()
    is_recorded = threading.Event()
    gate, client = early.connect(is_recorded)
    with gate, client:
        assert nginx.backend.reached.wait(TIMEOUT_S)
        flight = gate.sent
        is_recorded.set()
        client.response()
        assert value(client.json("/late")) == binding(client.exporter)
    before = len(nginx.backend.to("/early"))
    with socket.create_connection(nginx.tls, TIMEOUT_S) as thief:
        thief.sendall(flight)
        wait_until(lambda: len(nginx.backend.to("/early")) > before, "the replayed request arrives")
    for received in nginx.backend.to("/early"):
        assert values(received) == values(received, "X-Bare") == []


def test_request_that_began_as_early_data_has_the_value_when_the_handshake_is_complete(nginx):
    """The rest of it shows that it is no replay (RFC 8470, Section 3)."""
    asks_early = """
        location = /_auth { proxy_pass BACKEND; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
        location / { auth_request /_auth; set $first "[$ekm_channel_binding]"; proxy_set_header X-First $first;
    """
    nginx.start(EARLY.replace("location / {", asks_early))
    early = Early(nginx, b"POST /begun HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n")
    nginx.backend.reached.clear()
    gate, client = early.connect(nginx.backend.reached)
    with gate, client:
        assert client.exporter
        client.sendall(b"rest")
        received = client.response()
        assert received["path"] == "/begun" and received["body"] == "rest"
        assert values(received, "X-First") == ["[]"]
        assert value(received) == binding(client.exporter)


# Several servers

SERVERS = """
    SECRET_FILE
    server { listen TLS_PORT; server_name a.test; location / { proxy_pass BACKEND; BINDING } }
    server {
        listen TLS_PORT;
        server_name b.test;
        ekm_secret_file FOLDER/other;
        location / { proxy_pass BACKEND; BINDING }
    }
"""


def test_servers_sign_with_their_own_or_the_inherited_secret(nginx):
    nginx.write("other", OTHER_SECRET)
    nginx.start(SERVERS)
    for name in ("a.test", "b.test", None):
        with Client(nginx.tls, name=name) as client:
            for host, secret in (("b.test", OTHER_SECRET), ("a.test", SECRET)) * 2:
                assert value(client.json(host=host)) == binding(client.exporter, secret)


def test_servers_that_name_the_same_file_have_the_same_value(nginx):
    nginx.start("""
        server { listen TLS_PORT; server_name a.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT; server_name b.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
    """)
    with Client(nginx.tls) as client:
        assert value(client.json(host="a.test")) == value(client.json(host="b.test"))


def test_a_server_without_secret_beside_one_that_has_it(nginx):
    nginx.start("""
        server { listen TLS_PORT; server_name a.test; SECRET_FILE location / { proxy_pass BACKEND; BINDING } }
        server { listen TLS_PORT; server_name b.test; location / { proxy_pass BACKEND; BINDING } }
    """)
    with Client(nginx.tls) as client:
        before = value(client.json(host="a.test"))
        assert values(client.json(host="b.test")) == []
        assert value(client.json(host="a.test")) == before
    assert len(nginx.log('server "b.test" has no secret')) == 1


# Where nginx evaluates variables

EVERYWHERE = """
    SECRET_FILE
    map $ekm_channel_binding $mapped { default "mapped $ekm"; "" none; }
    log_format ekm "$uri $ekm_channel_binding";
    server {
        listen TLS_PORT;
        listen PLAIN_PORT;
        access_log FOLDER/access.log ekm;
        location / { proxy_pass BACKEND; BINDING }
        location /protected { auth_request /_auth; proxy_pass BACKEND; BINDING }
        location = /_auth { internal; proxy_pass BACKEND/auth; proxy_pass_request_body off; BINDING }
        location = /auth-only { auth_request /_auth; return 200; }
        location /rewritten { rewrite ^ /target last; }
        location /redirected { error_page 418 = @named; return 418; }
        location @named { proxy_pass BACKEND; BINDING }
        location /mapped { return 200 $mapped; }
        location /added { add_header X-Value $ekm_channel_binding; add_header X-Bare $ekm; return 200; }
        location /condition { if ($ekm_channel_binding) { return 200 yes; } return 200 no; }
    }
"""


def test_auth_request_has_the_value_of_the_connection(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        assert value(client.json("/protected", [(HEADER, "forged")])) == binding(client.exporter)
        (subrequest,) = nginx.backend.to("/auth")
        assert value(subrequest) == binding(client.exporter)


def test_auth_request_without_tls_has_no_forged_header(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.plain, tls=False) as client:
        assert not values(client.json("/protected", [(HEADER, "forged")]))
    (subrequest,) = nginx.backend.to("/auth")
    assert not values(subrequest)


@pytest.mark.parametrize("path", ["/rewritten", "/redirected"])
def test_internal_redirects_keep_the_value(nginx, path):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        assert value(client.json(path, [(HEADER, "forged")])) == binding(client.exporter)


def test_map_add_header_if_and_log_format(nginx):
    nginx.start(EVERYWHERE)
    with Client(nginx.tls) as client:
        expected = value(client.json())
        assert client.text("/mapped") == f"mapped {client.exporter}"
        response, _ = client.answer("/added")
        assert response.getheader("X-Value") == expected
        assert response.getheader("X-Bare") == client.exporter
        assert client.text("/condition") == "yes"
    with Client(nginx.plain, tls=False) as client:
        assert client.text("/mapped") == "none"
        response, _ = client.answer("/added")
        assert response.getheader("X-Value") is None and response.getheader("X-Bare") is None
        assert client.text("/condition") == "no"
    access_log = nginx.folder / "access.log"
    # A line is written after its response; this is the last one.
    wait_until(lambda: access_log.read_text().count("/condition") == 2, "the access log is complete")
    lines = access_log.read_text().splitlines()
    assert lines[:4] == [f"{path} {expected}" for path in ("/", "/mapped", "/added", "/condition")]
    assert lines[4:] == [f"{path} -" for path in ("/mapped", "/added", "/condition")]
