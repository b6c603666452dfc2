"""HTTPS is never lost because of the application's part of nginx's configuration.

Names that do not resolve, fragments and templates that nginx refuses: HTTPS steps down to what does
not depend on them, says so once, and climbs back. Backends of routes are followed to wherever their
names lead.
"""

import contextlib
import itertools
import json
import threading
import time

import pytest
from backends import Backends, Request
from conftest import logs_of
from connection import Http1
from loopback import wait_until
from stack import Stack
from test_resilience import kill_nginx, wait_for_another_master

REDUCED = "ERROR - nginx has a reduced configuration"
KEPT = "ERROR - nginx keeps its former configuration"
FULL_AGAIN = "nginx has the full configuration again"
RELOADED = r"^\[nginx\] .*\(SIGHUP\) received"
UNAVAILABLE = "The service behind this address is not available"
RELOADS_APART_S = 4  # at least, when addresses change again and again; it is a little more
ORIGIN = "https://app.example"
NOWHERE = "nowhere:1"  # while one name does not resolve, all are looked up every 2 s
EKM = "X-TLS-EKM-Channel-Binding"


@pytest.fixture(scope="module", name="backends")
def fixture_backends():
    with Backends() as backends:
        if backends.names is None:
            pytest.skip("names in the container need root and the port of DNS")
        yield backends


def deployment_options(backends, settings=None, **variables):
    """In development, where no CA is asked; the services have names."""
    places = {
        "attestation.upstream": backends.attestation.place,
        "auth.upstream": backends.auth.place,
    }
    return {
        "settings": places | (settings or {}),
        "variables": {"DEV_MODE": "true"} | variables,
        "binds": backends.binds,
    }


@pytest.fixture(name="new_deployment")
def fixture_new_deployment(new_stack, backends):
    def make(settings=None, **variables):
        return new_stack(**deployment_options(backends, settings, **variables))

    return make


def routes_to(*places):
    return {"routes": [{"path": "/", "upstream": place} for place in places]}


def fragment_to(place):
    return {
        "EXTRA_UPSTREAMS": f"upstream extra {{\n    server {place};\n}}",
        "EXTRA_LOCATIONS": "location /extra { ${CORS_HEADERS} proxy_pass http://extra; }",
        "CORS_ORIGINS": json.dumps(["^https://app[.]example$"]),
    }


def get(stack, path, headers=()):
    """On a connection of its own: nginx may have been told to reload."""
    with Http1(stack.https, stack.domain) as connection:
        return connection.request("GET", path, headers)


def seen(answer):
    """The request as the backend that answered saw it."""
    return Request(**json.loads(answer.text))


def assert_reduced(stack):
    """TLS, health and attestation are there; whatever is the application's says why it is not."""
    assert get(stack, "/health").text == "healthy\n"
    quote = seen(get(stack, "/tdx_quote?nonce=1"))
    assert quote.target == "/tdx_quote?nonce=1" and quote.values(EKM)
    for path in ("/", "/extra", "/v1/models?x=1"):
        answer = get(stack, path)
        assert answer.status == 503 and answer.text.startswith(UNAVAILABLE)
        assert answer.values("content-type") == ["text/plain"]
        assert int(*answer.values("retry-after")) > 0
    assert stack.http_get("/any").status == 301


def assert_refused_line(stack, found, text):
    """What the log says about place and line is true, and can be looked at."""
    path, number = found["path"], int(found["line"])
    assert path == str(stack.folder["run_dir"] / "refused.conf")
    refused = (stack.folder["run_dir"] / "refused.conf").read_text().splitlines()
    assert text in refused[number - 1]


def wait_until_full(stack, path):
    wait_until(lambda: get(stack, path).status == 200, f"{path} is answered")


def wait_until_asked(names, name):
    """Until the name has been looked up once more, by IPv4 and IPv6."""
    asked = names.asked.count(name)
    wait_until(lambda: names.asked.count(name) >= asked + 2, f"{name} is looked up")


# ---- fragments ----

AT = r" in (?P<path>\S+):(?P<line>\d+) "


def test_fragment_whose_name_does_not_resolve_costs_only_the_application(new_deployment, backends):
    place = f"late:{backends.vllm.port}"
    stack = new_deployment(**fragment_to(place))
    stack.start().wait_for_https()
    reason = f'host not found in upstream "{place}"{AT}'
    found = stack.log.wait_for(f"{REDUCED}.*{reason}.*tried again every 5 s")
    assert_refused_line(stack, found, f"server {place};")
    assert_reduced(stack)
    wait_until(lambda: stack.status()["nginx"]["configuration"] == "reduced", "the status says so")
    nginx = stack.status()["nginx"]
    assert f'host not found in upstream "{place}"' in nginx["reason"]
    answer = get(stack, "/extra", [("Origin", ORIGIN)])
    assert answer.values("access-control-allow-origin") == [ORIGIN]
    with Http1(stack.https, stack.domain) as connection:
        assert connection.request("OPTIONS", "/extra", [("Origin", ORIGIN)]).status == 204

    wait_until_asked(backends.names, "late")
    backends.names.known["late"] = [backends.address]
    wait_until_full(stack, "/extra")
    stack.log.wait_for(FULL_AGAIN)
    wait_until(lambda: stack.status()["nginx"]["configuration"] == "full", "the status says so")
    assert len(stack.log.find_all(REDUCED)) == len(stack.log.find_all(FULL_AGAIN)) == 1
    assert not (stack.folder["run_dir"] / "refused.conf").exists()


@pytest.mark.parametrize("moment", [RELOADED, "HTTPS serves"], ids=["it reloads", "it serves"])
def test_nginx_that_is_killed_starts_without_what_it_would_refuse_now(
    new_deployment, backends, moment
):
    names, place = backends.names, f"gone:{backends.vllm.port}"
    names.known["gone"] = [backends.address]
    stack = new_deployment(**fragment_to(place))
    stack.start()
    stack.log.wait_for(moment)
    mark, master = stack.log.mark(), stack.nginx_master()
    kill_nginx(stack)
    del names.known["gone"]
    wait_for_another_master(stack, master)
    stack.log.wait_for(f'ERROR - prestart: .*host not found in upstream "{place}"', since=mark)
    stack.wait_for_https()
    assert_reduced(stack)
    names.known["gone"] = [backends.address]
    wait_until_full(stack, "/extra")


def test_fragment_that_nginx_cannot_read_is_told_with_its_line(new_deployment):
    stack = new_deployment(EXTRA_LOCATIONS="location /extra {\n    no_such_directive on;\n}")
    stack.start().wait_for_https()
    reason = f'unknown directive "no_such_directive"{AT.rstrip()}'
    found = stack.log.wait_for(f"{REDUCED}.*{reason}.*when settings or templates change")
    assert_refused_line(stack, found, "no_such_directive on;")
    assert_reduced(stack)
    assert len(stack.log.find_all("no_such_directive")) == 1


# ---- mounted templates ----

BROKEN = "server { no_such_directive on; }\n"
HTTPS, BASE = "https-dev.conf.tmpl", "base.conf.tmpl"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [(BASE, BROKEN, 'unknown directive "no_such_'), (BASE, None, f"{BASE}: No such file")],
    ids=["broken", "missing"],
)
def test_base_template_that_cannot_be_used_costs_only_the_application(
    new_deployment, backends, name, text, reason
):
    """Even before there is HTTPS: port 80 is served by our own."""
    stack = new_deployment(settings=routes_to(backends.vllm.place))
    spoil(stack, name, text)
    stack.start().wait_for_https()
    stack.log.wait_for(f"ERROR - prestart: port 80 is served by our own template: .*{reason}")
    stack.log.wait_for(f"{REDUCED}.*{reason}")
    assert_reduced(stack)


def test_https_template_is_taken_as_soon_as_it_can_be_used(new_deployment, backends):
    stack = new_deployment(settings=routes_to(backends.vllm.place))
    spoil(stack, HTTPS, BROKEN)
    stack.start().wait_for_https()
    stack.log.wait_for(f'{REDUCED}.*unknown directive "no_such_.*when settings or templates change')
    assert_reduced(stack)
    (stack.folder["templates"] / HTTPS).write_bytes(
        (stack.folder["stock_templates"] / HTTPS).read_bytes()
    )
    wait_until_full(stack, "/")
    stack.log.wait_for(FULL_AGAIN)
    assert len(stack.log.find_all(REDUCED)) == 1


def test_template_that_is_no_utf8_is_told_in_the_status(new_deployment):
    stack = new_deployment()
    path = stack.folder["templates"] / HTTPS
    stack.alter_image = lambda: path.write_bytes(b"server { n\xf6_such_directive on; }\n")
    stack.start().wait_for_https()
    stack.log.wait_for(REDUCED)
    told = r'unknown directive "n\xf6_such_directive"'
    wait_until(lambda: told in stack.status()["nginx"]["reason"], "the status has the reason")


def test_template_that_is_spoilt_after_the_start_costs_nothing(new_deployment, backends):
    names, place = backends.names, f"moves:{backends.vllm.port}"
    names.known["moves"] = [backends.address]
    stack = new_deployment(settings=routes_to(place) | {"auth.upstream": NOWHERE})
    stack.start().wait_for_https()
    wait_until_full(stack, "/")
    template, mark = stack.folder["templates"] / HTTPS, stack.log.mark()
    text = template.read_text()
    template.write_text(BROKEN)
    with Backends() as others:
        names.known["moves"] = [others.address]  # so the configuration is made again
        stack.log.wait_for(f'{KEPT}.*unknown directive "no_such_directive"')
        assert get(stack, "/").status == 200 and not others.vllm.requests
        template.write_text(text)
        stack.log.wait_for(FULL_AGAIN, since=mark)
        assert get(stack, "/").status == 200 and others.vllm.requests
        assert not stack.log.find_all(REDUCED) and len(stack.log.find_all(KEPT)) == 1


def spoil(stack, name, text):
    """A template of the deployment; None removes it."""
    path = stack.folder["templates"] / name
    stack.alter_image = lambda: path.write_text(text) if text else path.unlink()


# ---- names of backends ----


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca, backends, tmp_path_factory):
    """Backends that are known in each way."""
    folder, port = tmp_path_factory.mktemp("names"), backends.vllm.port
    hosts, resolv_conf = folder / "hosts", folder / "resolv.conf"
    hosts.write_text(f"127.0.0.1 localhost\n{backends.address} in-hosts\n")
    resolv_conf.write_text(f"nameserver {backends.address}\nsearch internal.test\n")
    backends.names.known["in-search-list.internal.test"] = [backends.address]
    for path in (folder, hosts, resolv_conf):
        path.chmod(0o755)
    routes = [
        {"path": "/in-hosts", "upstream": f"in-hosts:{port}"},
        {"path": "/in-search-list", "upstream": f"in-search-list:{port}"},
        {"path": "/no-websocket", "upstream": backends.vllm.place, "websocket": False},
        {"path": "/", "upstream": backends.vllm.place},
    ]
    variables = fragment_to(f"in-hosts:{port}")
    settings = {"routes": routes, "auth.upstream": NOWHERE}
    options = deployment_options(backends, settings, **variables)
    options["binds"] = {"/etc/hosts": hosts, "/etc/resolv.conf": resolv_conf}
    with Stack(ca, **options) as stack:
        logs_of(request.node)["a container with backends of all kinds"] = stack.log
        stack.start().wait_for_https()
        stack.log.wait_for("HTTPS serves")
        yield stack


@pytest.mark.parametrize("path", ["/in-hosts", "/in-search-list", "/in-dns", "/extra"])
def test_names_resolve_as_in_the_rest_of_the_system(served, path):
    assert seen(get(served, path)).target == path
    assert not served.log.find(REDUCED)


def test_last_addresses_are_kept_when_a_name_vanishes(served, backends):
    names, name = backends.names, "in-search-list.internal.test"
    mark, address = served.log.mark(), names.known.pop(name)
    for _ in range(2):
        wait_until_asked(names, name)
    assert get(served, "/in-search-list").status == 200
    names.known[name] = address
    assert not served.log.find(RELOADED, since=mark)


@pytest.mark.parametrize("path", ["/in-hosts", "/in-search-list", "/in-dns"])
def test_connections_to_backends_are_kept(served, backends, path):
    before = set(backends.vllm.connections)
    with Http1(served.https, served.domain) as connection:
        for _ in range(99):
            assert connection.request("GET", path).status == 200
    assert len(backends.vllm.connections - before) <= 1


H2C = [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAAA")]
WEBSOCKET = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ("Sec-WebSocket-Version", "13"),
]


def test_connection_is_upgraded_for_websocket(served):
    with Http1(served.https, served.domain) as connection:
        assert connection.open("GET", "/chat", WEBSOCKET).status == 101


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/chat", H2C),
        ("/chat", [("Upgrade", "websocket, h2c"), ("Connection", "Upgrade")]),
        ("/chat", [("Upgrade", "TLS/1.3"), ("Connection", "Upgrade")]),
        ("/no-websocket", WEBSOCKET),
        ("/tdx_quote", H2C),
        ("/tdx_quote", WEBSOCKET),
    ],
)
def test_connection_is_upgraded_for_nothing_else(served, path, headers):
    came = seen(get(served, path, headers))
    assert came.values("Upgrade") == came.values("Connection") == []


@contextlib.contextmanager
def requests_all_the_time(stack):
    """Their results, as they come: a status, or what went wrong."""
    results, end = [], threading.Event()

    def ask():
        while not end.wait(0.01):
            try:
                results.append(get(stack, "/").status)
            except (AssertionError, OSError) as problem:
                results.append(problem)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield results
    finally:
        end.set()
        asking.join()


def next_event(response):
    data, blank = response.readline().decode(), response.readline()
    assert data.startswith("data: ") and blank == b"\n", (data, blank)
    return data[len("data: ") : -1]


def test_changed_addresses_are_followed_without_a_lost_request(new_deployment, backends):
    names = backends.names
    names.known["moving"] = [backends.address]
    settings = routes_to(f"moving:{backends.vllm.port}")
    settings["auth.upstream"] = NOWHERE
    with Backends() as others, contextlib.ExitStack() as cleanup:
        assert others.vllm.port == backends.vllm.port
        stack = new_deployment(settings=settings)
        stack.start().wait_for_https()
        wait_until_full(stack, "/")
        connection = cleanup.enter_context(Http1(stack.https, stack.domain))
        response = connection.open("POST", "/v1/chat/completions", body=b"{}")
        stream = backends.vllm.next_stream()
        mark = stack.log.mark()
        results = cleanup.enter_context(requests_all_the_time(stack))

        names.known["moving"] = [others.address]
        wait_until(lambda: others.vllm.requests, "the new address is asked")
        first = time.monotonic()
        here, there = backends.address, others.address
        sets = itertools.cycle([[here], [here, there], [there]])
        while len(stack.log.find_all(RELOADED, since=mark)) < 2:
            names.known["moving"] = next(sets)
            wait_until_asked(names, "moving")
            assert time.monotonic() - first < 20, "a name that goes on changing is not followed"
        assert time.monotonic() - first > RELOADS_APART_S

        stream.send("still here")
        assert [next_event(response) for _ in range(2)] == [stream.first, "still here"]
        stream.end()
    assert set(results) == {200}
