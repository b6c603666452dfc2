"""nginx at its edges: balancers in front, IPv6, headers on every answer, limits, what is logged."""

import contextlib
import ipaddress
import json
import re
import socket
import struct
import subprocess

import nginx_text
import pytest
from backends import AuthService, Backends, Request
from conftest import logs_of
from connection import TIMEOUT_S, Http1, Http2
from loopback import wait_until
from OpenSSL import SSL
from stack import REPOSITORY, Stack

BALANCER, STRANGER = "127.0.0.8", "127.0.0.9"
CLIENT, CLIENT_6, BALANCED = "192.0.2.7", "2001:db8::7", "192.0.2.1"
HSTS = "strict-transport-security"
ORIGIN = ("Origin", "https://app.example")
BODY_LIMIT = 1000


# ---- containers in development, where no CA is asked ----


@contextlib.contextmanager
def container(request, ca, what, settings):
    with Backends() as backends:
        vllm = backends.vllm.place
        routes = [
            {"path": "/guarded", "upstream": vllm, "auth": True},
            {"path": "/down", "upstream": "127.0.0.1:9"},
            {"path": "/no-cors", "upstream": vllm, "cors": False},
            {"path": "/", "upstream": vllm},
        ]
        settings = {
            "routes": routes,
            "cors.origins": ["^https://app[.]example$"],
            "auth.upstream": backends.auth.place,
            "attestation.upstream": backends.attestation.place,
            "nginx.max_body_size": str(BODY_LIMIT),
        } | settings
        variables = {"DEV_MODE": "true"}
        with Stack(ca, settings=settings, variables=variables, binds=backends.binds) as stack:
            logs_of(request.node)[what] = stack.log
            stack.backends = backends
            stack.start()
            stack.log.wait_for("HTTPS serves")  # by a handshake of its own
            yield stack


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    settings = {
        "nginx.proxy_protocol": True,
        "nginx.trusted_proxies": [f"{BALANCER}/32", "fd00::/8"],
        "nginx.hsts_days": 30,
    }
    with container(request, ca, "a container behind a balancer", settings) as stack:
        yield stack


@pytest.fixture(scope="module", name="served_on_ipv6")
def fixture_served_on_ipv6(request, ca):
    """On [::1] alone, and with nothing that is off by itself."""
    ports = free_ports("::1", 2)
    if not ports:
        pytest.skip("this machine has no IPv6")
    settings = {
        "nginx.address": "::1",
        "nginx.http_port": ports[0],
        "nginx.https_port": ports[1],
    }
    with container(request, ca, "a container on IPv6", settings) as stack:
        stack.https_6, stack.http_6 = ("::1", ports[1]), ("::1", ports[0])
        yield stack


def free_ports(host, count):
    """As many as nobody has now; none when the machine does not have the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as cleanup:
        try:
            servers = [socket.create_server((host, 0), family=family) for _ in range(count)]
        except OSError:
            return []
        for server in servers:
            cleanup.enter_context(server)
        return [server.getsockname()[1] for server in servers]


def seen(answer):
    """The request as the backend that answered saw it."""
    return Request(**json.loads(answer.text))


# ---- the PROXY protocol ----


def version_1(client):
    family = "TCP6" if ":" in client else "TCP4"
    balanced = "2001:db8::1" if ":" in client else BALANCED
    return f"PROXY {family} {client} {balanced} 40000 443\r\n".encode()


def version_2(client):
    balanced = "2001:db8::1" if ":" in client else BALANCED
    family = 0x21 if ":" in client else 0x11
    addresses = b"".join(ipaddress.ip_address(one).packed for one in (client, balanced))
    return header_of_version_2(0x21, family, addresses + struct.pack("!HH", 40000, 443))


def header_of_version_2(command, family, addresses):
    head = struct.pack("!BBH", command, family, len(addresses))
    return b"\r\n\r\n\0\r\nQUIT\n" + head + addresses


LOCAL = header_of_version_2(0x20, 0, b"")
UNKNOWN = b"PROXY UNKNOWN\r\n"


def http_get(place, source, before, path):
    """What comes back over plain HTTP, however it ends."""
    with socket.create_connection(place, TIMEOUT_S, (source, 0)) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(before + f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
            return b"".join(iter(lambda: connection.recv(4096), b""))
    return b""


def logged_address(stack, path):
    """The client of a request, as the access log has it."""
    return stack.log.wait_for(rf'^\[nginx\] (\S+) - .*"GET {re.escape(path)} HTTP')[1]


@pytest.mark.parametrize("client", [CLIENT, CLIENT_6])
@pytest.mark.parametrize("header", [version_1, version_2])
@pytest.mark.parametrize("kind", [Http1, Http2])
def test_client_behind_the_balancer_is_told_to_backends_and_log(served, kind, header, client):
    path = f"/{kind.__name__}/{header.__name__}/{client}"
    with kind(served.https, served.domain, BALANCER, header(client)) as connection:
        forged = [("X-Real-IP", "198.51.100.1"), ("X-Forwarded-For", "198.51.100.2")]
        came = seen(connection.request("GET", path, forged))
    assert came.values("X-Real-IP") == [client]
    assert came.values("X-Forwarded-For") == [f"198.51.100.2, {client}"]
    assert came.values("X-Forwarded-Proto") == ["https"]
    assert logged_address(served, path) == client


@pytest.mark.parametrize(
    ("source", "header"),
    [
        (STRANGER, version_1(CLIENT)),
        (STRANGER, version_2(CLIENT)),
        (BALANCER, LOCAL),
        (BALANCER, UNKNOWN),
    ],
    ids=["stranger, version 1", "stranger, version 2", "of the balancer itself", "unknown"],
)
def test_address_is_the_peers_when_nobody_trusted_names_another(served, source, header, request):
    path = "/" + str(abs(hash(request.node.name)))
    with Http1(served.https, served.domain, source, header) as connection:
        came = seen(connection.request("GET", path))
        quote = seen(connection.request("GET", "/tdx_quote"))
    for one in (came, quote):
        assert one.values("X-Real-IP") == one.values("X-Forwarded-For") == [source]
    assert logged_address(served, path) == source


@pytest.mark.parametrize("header", [version_1, version_2])
def test_plain_http_speaks_it_as_well(served, header):
    path = f"/plain-{header.__name__}"
    answer = http_get(served.http, BALANCER, header(CLIENT), path)
    assert answer.startswith(b"HTTP/1.1 301 ")
    assert logged_address(served, path) == CLIENT
    answer = http_get(served.http, STRANGER, header(CLIENT), f"{path}-stranger")
    assert answer.startswith(b"HTTP/1.1 301 ")
    assert logged_address(served, f"{path}-stranger") == STRANGER


@pytest.mark.parametrize(
    "before",
    [b"", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY" + b"x" * 200 + b"\r\n", LOCAL[:10], LOCAL[:-1]],
    ids=["none", "half of version 1", "too long", "half a signature", "half of version 2"],
)
@pytest.mark.parametrize("source", [BALANCER, STRANGER])
def test_connection_without_a_header_is_refused(served, source, before):
    assert http_get(served.http, source, before, "/no-header") == b""
    with pytest.raises((SSL.Error, ConnectionError)):
        Http1(served.https, served.domain, source, before)
    served.log.wait_for("broken header")
    assert not served.log.find(r'"GET /no-header[^"]*" \d')  # a line of the access log


# ---- IPv6 ----


def test_both_ports_listen_on_ipv6(served_on_ipv6):
    stack = served_on_ipv6
    with Http2(stack.https_6, stack.domain) as connection:
        came = seen(connection.request("GET", "/v1/models"))
    assert came.values("X-Real-IP") == came.values("X-Forwarded-For") == ["::1"]
    with socket.create_connection(stack.http_6, TIMEOUT_S) as connection:
        connection.sendall(b"GET /any HTTP/1.0\r\nHost: a\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 301 ")


def test_both_families_are_listened_on_by_default(new_stack):
    ports = free_ports("0.0.0.0", 2)
    stack = new_stack(
        variables={"DEV_MODE": "true"},
        settings={"nginx.http_port": ports[0], "nginx.https_port": ports[1]},
    )
    del stack.settings["nginx.address"]
    stack.start()
    stack.log.wait_for("HTTPS serves")
    for host in ("127.0.0.1", "127.0.0.7", *(["::1"] if free_ports("::1", 1) else [])):
        with Http1((host, ports[1]), stack.domain) as connection:
            assert connection.request("GET", "/health").status == 200


# ---- headers on every kind of answer ----

RIGHT = ("Authorization", AuthService.right)
ANSWERS = [
    (200, "GET", "/health", []),
    (200, "GET", "/tdx_quote", []),
    (200, "GET", "/debug/ekm", []),
    (200, "GET", "/v1/models", [ORIGIN]),
    (200, "GET", "/no-cors", [ORIGIN]),
    (200, "GET", "/guarded", [RIGHT]),
    (204, "OPTIONS", "/v1/models", [ORIGIN]),
    (204, "OPTIONS", "/tdx_quote", [ORIGIN]),
    (401, "GET", "/guarded", []),
    (404, "GET", "/_auth", []),
    (404, "GET", "/v1/models?status=404", []),
    (413, "POST", "/v1/models", [ORIGIN]),
    (500, "GET", "/tdx_quote?status=500", []),
    (502, "GET", "/down", []),
]


@pytest.fixture(name="connect", params=[Http1, Http2], ids=["HTTP/1.1", "HTTP/2"])
def fixture_connect(request):
    """Opens connections to a container, as its balancer does where it has one."""

    def connect(stack):
        if hasattr(stack, "https_6"):
            return request.param(stack.https_6, stack.domain)
        return request.param(stack.https, stack.domain, BALANCER, version_1(CLIENT))

    return connect


def ask(connection, method, target, headers):
    body = bytes(BODY_LIMIT + 1) if method == "POST" else b""
    return connection.request(method, target, headers, body)


@pytest.mark.parametrize(("status", "method", "target", "headers"), ANSWERS)
def test_hsts_is_on_every_answer_over_https(served, connect, status, method, target, headers):
    with connect(served) as connection:
        answer = ask(connection, method, target, headers)
    assert (answer.status, answer.values(HSTS)) == (status, ["max-age=2592000"])


def test_hsts_is_not_on_plain_http(served):
    # There it means nothing (RFC 6797 §7.2).
    answer = http_get(served.http, BALANCER, version_1(CLIENT), "/any").lower()
    assert b"\r\nlocation:" in answer and HSTS.encode() not in answer


@pytest.mark.parametrize(("status", "method", "target", "headers"), ANSWERS)
def test_hsts_is_nowhere_unless_asked_for(
    served_on_ipv6, connect, status, method, target, headers
):
    with connect(served_on_ipv6) as connection:
        answer = ask(connection, method, target, headers)
    assert (answer.status, answer.values(HSTS)) == (status, [])


@pytest.mark.parametrize("target", ["/health", "/down", "/_auth", "/" + "a" * 20_000])
def test_version_of_nginx_is_not_told(served, target):
    with Http1(served.https, served.domain, BALANCER, version_1(CLIENT)) as connection:
        answer = connection.request("GET", target)
    assert answer.values("server") == ["nginx"] and "nginx/" not in answer.text


# ---- limits ----


@pytest.mark.parametrize(
    ("status", "target", "headers"),
    [
        (200, "/health", [("Authorization", "Bearer " + "a" * 15_000)]),
        (400, "/health", [("Authorization", "Bearer " + "a" * 17_000)]),
        (400, "/health", [(f"X-{number}", "a" * 15_000) for number in range(5)]),
        (414, "/health?" + "a" * 17_000, []),
    ],
)
def test_large_headers_have_a_limit(served, status, target, headers):
    with Http1(served.https, served.domain, BALANCER, version_1(CLIENT)) as connection:
        answer = connection.request("GET", target, headers)
    assert (answer.status, answer.values(HSTS)) == (status, ["max-age=2592000"])


def test_times_and_limits_of_nginx_conf_suit_streams_and_not_slow_clients():
    """Their effect takes too long to wait for."""
    conf = nginx_text.parse((REPOSITORY / "nginx_conf/nginx.conf").read_text())
    (http,) = (one.block for one in conf if one.name == "http")
    values = {one.name: one.arguments for one in [*conf, *http] if one.block is None}
    assert values["client_header_timeout"] == ["30s"]
    assert values["client_body_timeout"] == values["send_timeout"] == ["60s"]
    assert values["large_client_header_buffers"] == ["4", "16k"]
    # As long as a location lets a backend be silent, by default: workers of before finish.
    assert values["worker_shutdown_timeout"] == ["1h"]
    assert values["server_tokens"] == ["off"]


# ---- the log, and the certificate ----


def test_each_request_has_a_number_of_its_own_in_the_log(served, connect):
    mark, count = served.log.mark(), 5
    with connect(served) as connection:
        for number in range(count):
            connection.request("GET", f"/numbered?{number}")
    pattern = r'^\[nginx\] 192\.0\.2\.7 - .*"GET /numbered\?.* \d+\.\d{3} \S+ ([0-9a-f]{32})$'
    wait_until(lambda: len(served.log.find_all(pattern, mark)) == count, "all are logged")
    assert len({found[1] for found in served.log.find_all(pattern, mark)}) == count


def test_no_status_of_the_certificate_is_stapled(served_on_ipv6):
    port = served_on_ipv6.https_6[1]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"[::1]:{port}", "-status"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert "OCSP response: no response sent" in done.stdout, done.stdout
