"""The deployment of the specification: vLLM, authentication and attestation behind real nginx.

The same checks run on each form in which it can be written down: the variables that deployments of
the Python image have, and deploy/config.yaml.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
import ssl
import subprocess
import time

import aiohttp
import client
import pytest
from backends import AuthService, Backends, Request
from conftest import logs_of
from connection import Http1, Http2
from loopback import wait_until
from stack import IS_ROOT, REPOSITORY, Stack, yaml_of

DOMAIN = "vllm.concrete-security.com"
SETTINGS_FILE = REPOSITORY / "deploy/config.yaml"
DEVELOPMENT_SECRET = "dev-mode-ekm-placeholder-not-for-production"
CLIENT = "127.0.0.9"  # not the address that connections to loopback have by themselves
BODY_LIMIT = 20 << 20
EKM = "X-TLS-EKM-Channel-Binding"
RIGHT, WRONG = ("Authorization", AuthService.right), ("Authorization", "Bearer wrong")
OF_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


# ---- the deployment, in its forms ----

ORIGINS = [
    r"^https?://([^.]+\.)*concrete-security\.com(:[0-9]+)?$",
    r"^https?://([^.]+\.)*vercel\.app(:[0-9]+)?$",
]

METRICS = """
    location /metrics {
        ${CORS_HEADERS}
        auth_request /_auth;
        proxy_pass http://app_backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    }
"""


def from_variables(stack, backends):
    """What a deployment of the Python image says. The fragment does nothing about the binding."""
    stack.variables |= {
        "UPSTREAM_HOST": backends.vllm.host,
        "UPSTREAM_PORT": str(backends.vllm.port),
        "EXTRA_LOCATIONS": METRICS,
        "CORS_ORIGINS": json.dumps(ORIGINS),
        "NGINX_MAX_BODY_SIZE": "20m",
    }
    for key, service in upstreams(backends).items():
        stack.settings.pop(key, None)  # the default is the usual place
        if service.place != service.usual_place:
            stack.settings[key] = service.place


def upstreams(backends):
    return {"auth.upstream": backends.auth, "attestation.upstream": backends.attestation}


def from_settings_file(stack, backends):
    """deploy/config.yaml as it stands there, with the places of the test put in."""
    text = SETTINGS_FILE.read_text()
    for key in upstreams(backends):
        stack.settings.pop(key, None)  # the file has them
    for service in backends.services:
        text = text.replace(service.usual_place, service.place)
    for section in re.split(r"^(?=\w)", yaml_of(stack.settings), flags=re.MULTILINE)[1:]:
        head, _, body = section.partition("\n")
        at = re.search(rf"^{re.escape(head)}\n", text, re.MULTILINE)
        text = text[: at.end()] + body + text[at.end() :] if at else text + section
    stack.alter_image = lambda: stack.config.write_text(text)


FORMS = {
    "variables": from_variables,
    "routes": from_settings_file,
}


@contextlib.contextmanager
def deployment(request, ca, form, **variables):
    """Its services run; its container has not been started."""
    with Backends() as backends:
        with Stack(ca, domain=DOMAIN, binds=backends.binds, variables=variables) as stack:
            logs_of(request.node)[f"the deployment by {form}"] = stack.log
            if IS_ROOT:  # else there is no way to listen on the usual port
                stack.https_port = stack.address.port(443)
                stack.settings["nginx.https_port"] = stack.https_port
            FORMS[form](stack, backends)
            stack.backends = backends
            yield stack


@pytest.fixture(scope="module", name="served", params=FORMS)
def fixture_served(request, ca):
    """In development, where no CA is asked and /debug/ekm is there: tests only look at it."""
    with deployment(request, ca, request.param, DEV_MODE="true") as stack:
        stack.start().wait_for_https()
        wait_until(lambda: stack.http_get().status == 301, "HTTP redirects")
        yield stack


@pytest.fixture(name="connect", params=[Http1, Http2], ids=["HTTP/1.1", "HTTP/2"])
def fixture_connect(request, served):
    """Opens connections of one version of HTTP."""
    with contextlib.ExitStack() as cleanup:
        yield lambda: cleanup.enter_context(request.param(served.https, DOMAIN, CLIENT))


@pytest.fixture(name="connection")
def fixture_connection(connect):
    return connect()


@pytest.fixture(name="http1")
def fixture_http1(served):
    with Http1(served.https, DOMAIN, CLIENT) as connection:
        yield connection


def seen(answer):
    """The request as the backend that answered saw it."""
    return Request(**json.loads(answer.text))


def binding(exporter, secret=DEVELOPMENT_SECRET):
    return f"{exporter.hex()}:{hmac.new(secret.encode(), exporter, hashlib.sha256).hexdigest()}"


# ---- the inference API ----


@pytest.mark.parametrize("method", OF_ALL_METHODS)
def test_every_method_reaches_vllm_with_its_body(served, connection, method):
    body = b"" if method in ("GET", "HEAD") else b'{"prompt": "Hello"}'
    answer = connection.request(method, "/v1/completions", body=body)
    came = served.backends.vllm.requests[-1]
    assert answer.status == 200
    assert (came.method, came.target, came.version) == (method, "/v1/completions", "1.1")
    assert came.body_sha256 == hashlib.sha256(body).hexdigest()
    (length,) = answer.values("content-length")
    if method == "HEAD":
        assert answer.body == b"" and int(length) > 0
    else:
        assert int(length) == len(answer.body)


@pytest.mark.parametrize(
    "target",
    ["/", "/v1/models?limit=1&after=%20%C3%A9", "/a%2Fb/%C3%A9", "//double//slashes", "/v1/../v2"],
)
def test_target_arrives_as_it_was_sent(connection, target):
    assert seen(connection.request("GET", target)).target == target


def test_vllm_learns_who_asks(connection):
    headers = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "http"), RIGHT]
    came = seen(connection.request("GET", "/v1/models", headers))
    assert came.values("Host") == [DOMAIN]
    assert came.values("X-Real-IP") == [CLIENT]
    assert came.values("X-Forwarded-For") == [f"192.0.2.1, {CLIENT}"]
    assert came.values("X-Forwarded-Proto") == ["https"]
    assert came.values("Authorization") == [AuthService.right]  # vLLM may have an API key, too
    assert came.values("Connection") == came.values("Upgrade") == []


@pytest.mark.parametrize("status", [204, 307, 400, 404, 429, 500, 503])
def test_status_of_vllm_is_passed_on(connection, status):
    assert connection.request("POST", f"/v1/completions?status={status}").status == status


def test_server_sent_events_arrive_one_by_one(served, connection):
    response = connection.open("POST", "/v1/chat/completions", body=b'{"stream": true}')
    stream = served.backends.vllm.next_stream()
    assert next_event(response) == stream.first
    for token in ("one", "two", "three", "four"):
        # The next one is sent only when this one has arrived, so nothing may wait for more.
        stream.send(token)
        assert next_event(response) == token
    stream.end()
    assert response.read() == b""


def test_generation_ends_when_the_client_goes_away(served, connect):
    with connect() as connection:
        response = connection.open("POST", "/v1/chat/completions", body=b'{"stream": true}')
        stream = served.backends.vllm.next_stream()
        assert next_event(response) == stream.first
    wait_until(lambda: stream.client_has_gone, "vLLM sees that nobody listens any more")
    stream.end()


def next_event(response):
    data, blank = response.readline().decode(), response.readline()
    assert data.startswith("data: ") and blank == b"\n", (data, blank)
    return data[len("data: ") : -1]


def test_websocket_echoes(served):
    async def converse():
        tls = ssl.create_default_context(cadata=served.chain_file.read_text())
        url = f"https://{DOMAIN}:{served.https_port}/v1/realtime?model=small"
        headers = {EKM: "forged"}
        async with aiohttp.ClientSession(connector=connector(served, tls)) as session:
            async with session.ws_connect(url, protocols=["echo"], headers=headers) as websocket:
                assert websocket.protocol == "echo"
                await websocket.send_str("text")
                assert await websocket.receive_str(timeout=client.TIMEOUT_S) == "text"
                await websocket.send_bytes(data)
                assert await websocket.receive_bytes(timeout=client.TIMEOUT_S) == data

    data = os.urandom(200_000)  # a frame that needs the longest form of its length
    asyncio.run(converse())
    came = served.backends.vllm.requests[-1]
    assert came.target == "/v1/realtime?model=small" and came.values(EKM) == []
    assert came.values("Connection") == ["upgrade"] and came.values("Upgrade") == ["websocket"]


def connector(stack, tls):
    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            place = {"host": stack.address.host, "port": port, "family": family}
            return [place | {"hostname": host, "proto": 0, "flags": 0}]

        async def close(self):
            pass

    return aiohttp.TCPConnector(resolver=Resolver(), ssl=tls)


# ---- uploads ----


def test_upload_of_the_largest_size_arrives_whole(connection):
    body = os.urandom(BODY_LIMIT)
    came = seen(connection.request("POST", "/v1/completions", body=body))
    assert (came.body_bytes, came.body_sha256) == (BODY_LIMIT, hashlib.sha256(body).hexdigest())


def test_upload_without_a_length_arrives_whole(http1):
    body = os.urandom(BODY_LIMIT)
    came = seen(http1.request("POST", "/v1/completions", body=body, chunked=True))
    assert came.body_sha256 == hashlib.sha256(body).hexdigest()


def test_larger_upload_is_refused(served, connection):
    mark = len(served.backends.vllm.requests)
    answer = connection.request("POST", "/v1/completions", body=bytes(BODY_LIMIT + 1))
    assert answer.status == 413
    assert served.backends.vllm.requests[mark:] == []


def test_larger_upload_without_a_length_is_refused(served, http1):
    mark = len(served.backends.vllm.requests)
    body = bytes(BODY_LIMIT + 1)
    assert http1.request("POST", "/v1/completions", body=body, chunked=True).status == 413
    assert served.backends.vllm.requests[mark:] == []


# ---- metrics, behind the authentication service ----

SPELLINGS_OF_METRICS = [
    *("/metrics", "/metrics?name=all", "/metrics/", "/metrics/more", "/metricsmore"),
    *("//metrics", "/%6detrics", "/metrics%2F", "/v1/../metrics", "/./metrics"),
    *("/v1/%2e%2e/metrics", "/metrics/../metrics"),
]


@pytest.mark.parametrize("headers", [[], [WRONG]], ids=["no token", "wrong token"])
@pytest.mark.parametrize("target", SPELLINGS_OF_METRICS)
def test_metrics_need_the_right_token(served, connection, target, headers):
    mark = len(served.backends.vllm.requests)
    answer = connection.request("GET", target, headers)
    assert answer.status == 401
    assert answer.values("www-authenticate") == ["Bearer"]
    assert served.backends.vllm.requests[mark:] == []


def test_metrics_need_the_right_token_when_the_target_is_a_whole_url(served, http1):
    assert http1.request("GET", f"https://{DOMAIN}/metrics").status == 401


@pytest.mark.parametrize("method", OF_ALL_METHODS)
def test_no_method_reaches_metrics_without_the_right_token(served, connection, method):
    mark = len(served.backends.vllm.requests)
    assert connection.request(method, "/metrics", [WRONG]).status == 401
    assert served.backends.vllm.requests[mark:] == []


def test_right_token_opens_metrics(served, connection):
    answer = connection.request("GET", "/metrics?name=all", [RIGHT])
    assert answer.status == 200 and answer.text.startswith("vllm:")
    came = served.backends.vllm.requests[-1]
    assert came.target == "/metrics?name=all"
    assert came.values("Host") == [DOMAIN] and came.values("X-Forwarded-Proto") == ["https"]


def test_authentication_sees_the_target_and_the_token_and_no_body(served, connection):
    body = b"x" * 100_000
    forged = [("X-Original-URI", "/health"), (EKM, "forged")]
    answer = connection.request("POST", "/metrics?id=1", [RIGHT, *forged], body=body)
    asked = served.backends.auth.requests[-1]
    assert answer.status == 200
    assert (asked.method, asked.target) == ("GET", "/auth")
    assert asked.values("X-Original-URI") == ["/metrics?id=1"]
    assert asked.values("Authorization") == [AuthService.right]
    assert asked.values("Content-Length") == asked.values("Transfer-Encoding") == []
    assert asked.body_bytes == 0 and asked.values(EKM) == []
    assert served.backends.vllm.requests[-1].body_bytes == len(body)


def test_authentication_sees_no_body_whose_length_is_not_said(served, http1):
    answer = http1.request("POST", "/metrics", [RIGHT], body=b"x" * 100_000, chunked=True)
    asked = served.backends.auth.requests[-1]
    assert answer.status == 200 and asked.body_bytes == 0
    assert asked.values("Content-Length") == asked.values("Transfer-Encoding") == []


def test_broken_authentication_lets_nobody_through(served, connection):
    mark = len(served.backends.vllm.requests)
    headers = [("Authorization", AuthService.breaking)]
    assert connection.request("GET", "/metrics", headers).status == 500
    assert served.backends.vllm.requests[mark:] == []


@pytest.mark.parametrize("target", ["/_auth", "/_auth?x=1", "/%5fauth", "//_auth", "/v1/../_auth"])
def test_authentication_is_not_reachable_from_outside(served, connection, target):
    mark = len(served.backends.requests)
    assert connection.request("GET", target, [RIGHT]).status == 404
    assert served.backends.requests[mark:] == []


# ---- quotes ----


@pytest.mark.parametrize("body", [b"", b'{"nonce": "00"}'], ids=["GET", "POST"])
@pytest.mark.parametrize("path", ["/tdx_quote", "/debug/ekm"])
def test_attestation_gets_exactly_these_headers(connection, path, body):
    method, target = "POST" if body else "GET", f"{path}?nonce=00"
    forged = [("X-Real-IP", "192.0.2.1"), ("X-Forwarded-Proto", "http"), (EKM, "forged")]
    came = seen(connection.request(method, target, [*forged, ("Accept", "*/*")], body))
    assert (came.method, came.target, came.version) == (method, target, "1.1")
    assert came.body_bytes == len(body)
    expected = [
        ("accept", "*/*"),
        ("host", DOMAIN),
        ("x-forwarded-for", CLIENT),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", CLIENT),
        (EKM.lower(), binding(connection.exporter())),
    ]
    if body:
        expected.append(("content-length", str(len(body))))
    assert sorted((name.lower(), value) for name, value in came.headers) == sorted(expected)


def test_binding_is_that_of_the_connection(connect):
    first, second = connect(), connect()
    bindings = [
        seen(connection.request("GET", "/tdx_quote")).values(EKM)
        for connection in (first, second, first)
    ]
    assert bindings == [[binding(one.exporter())] for one in (first, second, first)]
    assert bindings[0] != bindings[1]


def test_quote_has_exactly_one_length(connection):
    asked = [("Accept-Encoding", "gzip, br")]
    answer = connection.request("GET", "/tdx_quote", asked)
    assert answer.values("content-length") == [str(len(answer.body))]
    head = connection.request("HEAD", "/tdx_quote", asked)
    # The stand-in tells the method, which is longer by one letter.
    assert head.values("content-length") == [str(len(answer.body) + 1)] and head.body == b""
    for one in (answer, head):
        assert one.values("transfer-encoding") == one.values("content-encoding") == []
        assert one.values("content-type") == ["application/json; charset=utf-8"]


def test_quote_whose_length_is_not_said_arrives_whole(connection):
    answer = connection.request("GET", "/tdx_quote?chunked")
    assert seen(answer).target == "/tdx_quote?chunked"
    assert answer.values("content-length") == []


# What a client says about the binding, in every way that a backend might read as the header.
FORGED = [(EKM, "forged"), (EKM.upper(), "forged"), (EKM.replace("-", "_"), "forged")]
PATHS_OF_BACKENDS = ["/", "/v1/models", "/metrics", "/tdx_quote", "/debug/ekm"]


@pytest.mark.parametrize("path", PATHS_OF_BACKENDS)
def test_forged_binding_reaches_no_backend(served, connection, path):
    mark = len(served.backends.requests)
    assert connection.request("GET", path, [*FORGED, RIGHT]).status == 200
    came = served.backends.requests[mark:]
    assert came and not [request for request in came if "forged" in str(request.headers)]


# ---- CORS ----

ALLOWED = [
    *("https://concrete-security.com", "https://app.concrete-security.com"),
    *("http://a.b.concrete-security.com:3000", "https://preview.vercel.app"),
]
REFUSED = [
    *("https://example.com", "https://evilconcrete-security.com", "https://evilvercel.app"),
    *("https://concrete-security.com.example.com", "https://concrete-security.com/", "null"),
    *("https://concrete-securityxcom", "ftp://concrete-security.com", "//concrete-security.com"),
]
HEADERS = "DNT,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range"
ON_EVERY_ANSWER = [
    ("access-control-allow-headers", HEADERS),
    ("access-control-allow-methods", "GET, POST, OPTIONS"),
    ("vary", "Origin"),
]
ON_PREFLIGHTS = [*ON_EVERY_ANSWER, ("access-control-max-age", "1728000")]
ON_REQUESTS = [*ON_EVERY_ANSWER, ("access-control-expose-headers", "Content-Length,Content-Range")]


def cors(answer):
    return sorted(pair for pair in answer.headers if re.match("access-control-|vary$", pair[0]))


def allowing(origin, headers):
    return sorted([*headers, ("access-control-allow-origin", origin)])


def of_origin(origin):
    return [("Origin", origin)] if origin else []


@pytest.mark.parametrize("path", PATHS_OF_BACKENDS)
def test_preflights_are_answered_for_allowed_origins_only(served, connection, path):
    mark = len(served.backends.requests)
    for origin in [*ALLOWED, *REFUSED, None]:
        asked = [("Access-Control-Request-Method", "POST")]
        answer = connection.request("OPTIONS", path, [*of_origin(origin), *asked])
        expected = allowing(origin, ON_PREFLIGHTS) if origin in ALLOWED else sorted(ON_PREFLIGHTS)
        assert (answer.status, answer.body, cors(answer)) == (204, b"", expected), origin
    assert served.backends.requests[mark:] == []


@pytest.mark.parametrize("path", PATHS_OF_BACKENDS)
def test_answers_are_readable_for_allowed_origins_only(connection, path):
    for origin in [*ALLOWED, *REFUSED, None]:
        answer = connection.request("GET", path, [*of_origin(origin), RIGHT])
        expected = allowing(origin, ON_REQUESTS) if origin in ALLOWED else sorted(ON_REQUESTS)
        assert (answer.status, cors(answer)) == (200, expected), origin


@pytest.mark.parametrize(
    ("status", "method", "target", "size"),
    [
        (401, "GET", "/metrics", 0),
        (404, "GET", "/v1/models?status=404", 0),
        (413, "POST", "/v1/completions", BODY_LIMIT + 1),
        (500, "POST", "/tdx_quote?status=500", 0),
        (502, "GET", "/v1/models?status=0", 0),
    ],
)
def test_failures_are_readable_for_allowed_origins_only(connect, status, method, target, size):
    for origin in (ALLOWED[0], REFUSED[0], None):
        answer = connect().request(method, target, of_origin(origin), body=bytes(size))
        expected = allowing(origin, ON_REQUESTS) if origin in ALLOWED else sorted(ON_REQUESTS)
        assert (answer.status, cors(answer)) == (status, expected), origin


# ---- nginx itself ----


def test_health_is_answered_without_a_line_in_the_access_log(served, connection):
    target = f"/health?{time.monotonic_ns()}"
    for method in ("GET", "HEAD", "POST"):
        answer = connection.request(method, target)
        assert (answer.status, answer.text) == (200, "" if method == "HEAD" else "healthy\n")
        assert answer.values("content-type") == ["text/plain"]
        assert answer.values("content-length") == ["8"]
    # The same worker logs this one later than it would have logged those.
    other = f"/v1/models?{time.monotonic_ns()}"
    connection.request("GET", other)
    served.log.wait_for(re.escape(f'"GET {other} HTTP/'))
    assert not served.log.find(re.escape(target))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_http_redirects_to_the_very_same_target(served, method):
    target = "/v1/models?limit=1&after=%20%C3%A9"
    answer = served.http_get(target, f"{DOMAIN}:{served.http_port}", method=method)
    port = "" if served.https_port == 443 else f":{served.https_port}"
    assert answer.status == 301
    assert answer.headers["location"] == f"https://{DOMAIN}{port}{target}"


def test_http_serves_challenges_and_nothing_else(served):
    folder = served.folder["webroot"] / ".well-known/acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text("token.thumbprint")
    answer = served.http_get("/.well-known/acme-challenge/token")
    assert (answer.status, answer.body) == (200, "token.thumbprint")
    assert served.http_get("/.well-known/acme-challenge/unknown").status == 404
    mark = len(served.backends.requests)
    for path in ("/health", "/tdx_quote", "/metrics", "/_auth"):
        assert served.http_get(path).status == 301
    assert served.backends.requests[mark:] == []


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_connection_is_kept_for_a_hundred_requests(served, version):
    host, port = served.https
    command = ["curl", version, "--silent", "--show-error", "--fail", "--insecure"]
    command += ["--noproxy", "*", "--connect-to", f"::{host}:{port}", "--output", "/dev/null"]
    command += ["--write-out", r"%{num_connects}\n", f"https://{DOMAIN}:{port}/health?[1-101]"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["1"] + ["0"] * 99 + ["1"]


def test_only_tls_1_3_is_spoken(served):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        client.get(served.https, "/health", DOMAIN, old)


# ---- other containers of the deployment ----


@pytest.mark.parametrize("form", FORMS)
def test_production_signs_with_the_derived_secret_and_has_no_debugging(request, ca, form):
    with deployment(request, ca, form) as stack:
        stack.start().wait_for_https()
        assert stack.https_get("/health").status == 200  # chain and name verified
        secret = stack.secrets()["EKM secret"].hex()
        with Http2(stack.https, DOMAIN, CLIENT) as connection:
            quote = seen(connection.request("GET", "/tdx_quote"))
            assert quote.values(EKM) == [binding(connection.exporter(), secret)]
            assert connection.request("GET", "/debug/ekm").status == 200
            came = stack.backends.vllm.requests[-1]  # a path like any other
            assert came.target == "/debug/ekm" and came.values(EKM) == []
            assert connection.request("GET", "/metrics").status == 401
            assert connection.request("GET", "/metrics", [RIGHT]).status == 200


@pytest.mark.parametrize("form", FORMS)
def test_https_does_not_wait_for_services_to_have_a_name(request, ca, form):
    with deployment(request, ca, form, DEV_MODE="true") as stack:
        names = stack.backends.names
        if names is None:
            pytest.skip("names in the container need root and the port of DNS")
        known, names.known = names.known, {}
        stack.start()
        refusal = "nginx refuses the configuration"
        wait_until(lambda: stack.served_leaf() or stack.log.find(refusal), "HTTPS or a refusal")
        assert not stack.log.find(refusal)

        def status(target):
            # A connection of its own: nginx may have been told to reload.
            with Http1(stack.https, DOMAIN) as connection:
                return connection.request("GET", target, [RIGHT]).status

        assert status("/health") == 200
        assert status("/v1/models") == status("/tdx_quote") == 502
        assert status("/metrics") == 500  # nginx's word for an answer to /_auth that is none
        names.known = known
        for target in ("/v1/models", "/tdx_quote", "/metrics"):
            wait_until(lambda target=target: status(target) == 200, f"{target} is answered")
