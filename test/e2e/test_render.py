"""`cert-manager render`: what it shows, where, to whom, and what it refuses."""

import contextlib
import socket
import time

import nginx_text
import pytest
from loopback import LoopbackAddress
from names import PORT as PORT_OF_DNS
from rendering import EXIT_CONFIG, INCLUDE, SITE, Rendering, readable_copy, settings_file
from stack import PROGRAM, REPOSITORY
from test_failures import needs_root

WRONG_USE, CANNOT_RUN = 2, 1
RESOLVER_GIVES_UP_S = 10  # two tries of 5 s: the C library's own
SETTINGS = {
    "upstream.host": "app",
    "nginx.extra_locations": "location /fragment { return 204; }",
    "routes": [{"path": "/route", "upstream": "127.0.0.1:80"}],
}


@pytest.fixture(scope="module", name="rendering")
def fixture_rendering():
    with Rendering() as rendering:
        yield rendering


# ---- the command ----


def test_help_has_examples(rendering):
    shown = rendering.render("--help")
    assert shown.code == 0 and "\nexamples:\n  cert-manager render " in shown.out


@pytest.mark.parametrize("words", [["--level", "x"], ["--unknown"], ["surplus"], ["--output"]])
def test_wrong_use_is_explained(rendering, words):
    shown = rendering.render(*words)
    assert (shown.code, shown.out) == (WRONG_USE, "")
    assert [line for line in shown.lines if line.startswith("usage: cert-manager render")]


def test_both_files_are_shown_behind_their_paths(rendering):
    shown = rendering.render(settings=SETTINGS)
    assert rendering.render_files(settings=SETTINGS).code == shown.code == 0
    site, include = rendering.read(SITE), rendering.read(INCLUDE)
    path_of_include = f"{rendering.run_dir}/{INCLUDE}"
    expected = f"# /etc/nginx/conf.d/default.conf\n{site}\n# {path_of_include}\n{include}"
    assert shown.out == expected


@pytest.mark.parametrize("level", ["full", "reduced", "http-only"])
def test_levels_differ_in_what_they_depend_on(rendering, level):
    rendering.render_files(settings=SETTINGS)  # what an earlier call has left must not stay
    assert rendering.render_files("--level", level, settings=SETTINGS).code == 0
    site, has_include = rendering.read(SITE), (rendering.output / INCLUDE).exists()
    assert ("listen 443" in site) == has_include == (level != "http-only")
    for text in ("/fragment", "/route", "upstream app_backend"):
        assert (text in site) == (level == "full"), text
    assert ("is not available" in site) == (level == "reduced")
    assert rendering.complaint() == ""


@pytest.mark.parametrize("origins", [[], ["a"]], ids=["without CORS", "with CORS"])
@pytest.mark.parametrize("level", ["full", "reduced"])
def test_no_location_loses_hsts(rendering, level, origins):
    """A location with add_header of its own does not inherit it."""
    settings = SETTINGS | {"nginx.hsts_days": 1, "cors.origins": origins}
    assert rendering.render_files("--level", level, settings=settings).code == 0
    _, https = (one for one in nginx_text.parse(rendering.read(SITE)) if one.name == "server")
    for place in [https, *(one for one in https.block if one.name == "location")]:
        added = [one.arguments[0] for one in place.block if one.name == "add_header"]
        assert not added or "Strict-Transport-Security" in added, place


def test_daemon_installs_what_is_shown(new_stack, rendering):
    settings = SETTINGS | {"upstream.host": "localhost"}
    stack = new_stack(variables={"DEV_MODE": "true"}, settings=settings)
    stack.start().wait_for_https()
    yaml = stack.config.read_text()
    assert rendering.render_files(yaml=yaml, variables=stack.variables).code == 0
    installed = stack.folder["sites"] / SITE, stack.folder["run_dir"] / INCLUDE
    assert [rendering.read(SITE), rendering.read(INCLUDE)] == [one.read_text() for one in installed]


@needs_root
def test_root_is_not_needed(rendering):
    with readable_copy(PROGRAM) as program:
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        shown = rendering.render(program=program, under=nobody)
    assert shown.code == 0 and "listen 443" in shown.out


def test_secret_is_not_shown(rendering):
    variables = {"DEV_MODE": "true", "EKM_SHARED_SECRET": "a secret of development"}
    shown = rendering.render(variables=variables)
    assert shown.code == 0
    assert variables["EKM_SHARED_SECRET"] not in shown.out + "\n".join(shown.lines)


def test_reference_deployment_is_taken_by_nginx(rendering):
    text = (REPOSITORY / "deploy/config.yaml").read_text()
    mine, _ = settings_file(rendering.settings() | {"domain": None})
    nginx_section = mine.partition("nginx:\n")[2].partition("run_dir")[0]
    text = text.replace("nginx:\n", "nginx:\n" + nginx_section, 1)
    text += f"run_dir: {rendering.run_dir}\ntls:\n  dir: {rendering.tls}\n"
    assert rendering.render_files(yaml=text).code == 0
    assert rendering.complaint() == ""
    assert {"/metrics", "/"} <= {one.arguments[-1] for one in locations(rendering.read(SITE))}


def test_a_hundred_of_the_longest_names_are_taken_by_nginx(rendering):
    """With answers to their challenges, of an account that cert-manager has seen here."""
    tail = ".".join([*["a" * 60] * 4, "test"])
    names = [f"n{number:03}.{tail}"[-253:] for number in range(100)]
    assert len(set(names)) == 100 and {len(name) for name in names} == {253}
    path, thumbprint = f"letsencrypt-account/{names[0]}/v1", "t" * 43
    account = rendering.run_dir / "account.thumbprint"
    account.write_text(f"{path} {thumbprint}\n")
    shown = rendering.render_files(settings={"domain": names[0], "domains": names[1:]})
    account.unlink()
    assert shown.code == 0
    site = rendering.read(SITE)
    assert f"server_name {' '.join(names)};" in site
    assert site.count(f"$cm_acme_token.{thumbprint}") == 100
    assert rendering.complaint() == ""


def locations(text):
    for server in nginx_text.parse(text):
        yield from (one for one in server.block if one.name == "location")


# ---- names of backends ----


def test_names_are_looked_up(rendering):
    routes = [{"path": "/", "upstream": "localhost:8000"}]
    shown = rendering.render(settings={"routes": routes, "auth.upstream": "no-such-name:80"})
    assert shown.code == 0
    assert "server 127.0.0.1:8000;" in shown.out
    assert "server 127.0.0.1:80 down;" in shown.out
    warnings = [line for line in shown.lines if "no-such-name, port 80" in line]
    assert len(warnings) == 1 and "does not resolve" in warnings[0]


@needs_root
def test_resolver_that_hangs_is_not_waited_for(rendering):
    resolv_conf = rendering.folder / "resolv.conf"
    mount = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
    under = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    with (
        contextlib.closing(LoopbackAddress()) as address,
        socket.socket(type=socket.SOCK_DGRAM) as silent,
    ):
        resolv_conf.write_text(f"nameserver {address}\n")
        silent.bind((address.host, PORT_OF_DNS))
        begin = time.monotonic()
        shown = rendering.render(settings=SETTINGS, under=under, in_network=False)
        took = time.monotonic() - begin
        silent.settimeout(0)
        assert silent.recv(512), "it was not asked"
    assert shown.code == 0 and "server 127.0.0.1:8000 down;" in shown.out
    assert took < RESOLVER_GIVES_UP_S / 2, took


# ---- what cannot be shown ----


def test_templates_that_are_missing_are_named(rendering):
    for level, key in (("full", "nginx.templates"), ("reduced", "nginx.stock_templates")):
        shown = rendering.render("--level", level, settings={key: "/nonexistent"})
        assert (shown.code, shown.out) == (EXIT_CONFIG, "")
        assert shown.fatal == [f"{key}: /nonexistent/base.conf.tmpl: No such file or directory"]


def test_places_that_cannot_be_written_are_named(rendering):
    shown = rendering.render("--output", "/nonexistent/folder")
    assert shown.code == CANNOT_RUN
    assert shown.fatal == ["/nonexistent/folder: No such file or directory"]
    shown = rendering.render(under=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    assert shown.code == CANNOT_RUN
    assert shown.fatal == ["standard output: No space left on device"]


def route(path="/a", upstream="a:80", **more):
    return [{"path": path, "upstream": upstream} | more]


RESERVED = ["/health", "/tdx_quote", "/_auth", "/debug/ekm", "/evidences", "/cert-manager/x"]
NO_PATHS = ["a", "", "/a b", '/a" {', "/a;", "/${DOMAIN}", "/a\n", "/%61", "/é", "/$a", "/{"]
NOT_NORMALISED = ["/a//b", "/a/../b", "/a/."]
NO_PLACES = [
    *("a", "a:0", "a:65536", "a:80/x", ":80", "http://a:80", "unix:/run/x", "a b:80", "a;:80"),
    *("[::1:80", "[10.0.0.1]:80", "$a:1", "a{b:80"),
]
REFUSED = {
    "domain": ["a.test;", "a.test b.test", "*.a.test", "~a", "10.0.0.1", "${TLS_DIR}"],
    "domains": [["a.test;"], ["a.test b.test"], ["*.a.test"], ["~a"], ["a", ""], ["${DOMAIN}"]],
    "routes": [
        *(route(path) for path in RESERVED + NO_PATHS + NOT_NORMALISED),
        *(route(upstream=place) for place in NO_PLACES),
        *(route(timeout=value) for value in ("1", "0s", "2d", "1h;", "-1s", "99999999d")),
        *(route("/health", match="exact"), route(match="regex"), route(auth="yes"), route(x=1)),
        route() + route(),
    ],
    "nginx.extra_locations": ["location /route { }"],  # SETTINGS has such a route
    "upstream.host": ["a:80", "a b", "a;", "-a", ".a", "$host", "[::1", "é"],
    "upstream.port": [0, 65536, -1, "80;", "0x50", 1.5],
    "auth.upstream": NO_PLACES,
    "cors.origins": [[x] for x in ("(", "a)", "*", "", "\n", "[", "(?<host>a)", "a" * 1025)],
    "nginx.trusted_proxies": [[x] for x in ("all", "unix:", "10.0.0.1/8", "::/129", "a;")],
    "nginx.address": ["localhost", "*", "[::1]", "1.2.3.4:80", "::1;"],
    "nginx.https_port": [80, 0, 65536, "443 ssl"],
    "nginx.max_body_size": ["20m;", "m", "1t", "-1", "9223372036854775808"],
    "nginx.hsts_days": [-1, 3651, "1;"],
    "nginx.webroot": ["a", "/a b", '/a"', "/a;", "/$a", "/" + "a" * 1024],
    "tls.dir": ["/a{", "/a}", "/a\\", "/a'", "/a#", "/a\0b", "/a\x85"],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values]
)
def test_value_that_cannot_be_used_is_refused_with_its_line(rendering, key, value):
    settings = rendering.settings() | SETTINGS | {"cors.origins": ["a"]} | {key: value}
    if key == "routes":
        settings["nginx.proxy_protocol"] = False  # a line behind them
    yaml, owners = settings_file(settings)
    shown = rendering.render(yaml=yaml)
    assert (shown.code, shown.out) == (EXIT_CONFIG, "")
    (line,) = shown.fatal
    numbers = [number for number, owner in enumerate(owners, 1) if owner in (key, "routes")]
    assert line.startswith(tuple(f"{rendering.config}:{number}:" for number in numbers)), line


def test_variable_that_cannot_be_used_is_refused_by_its_name(rendering):
    bad = {"DOMAIN": "a;", "UPSTREAM_HOST": "a b", "UPSTREAM_PORT": "0", "NGINX_MAX_BODY_SIZE": "x"}
    bad |= {"CORS_ORIGINS": '["("]', "EXTRA_LOCATIONS": "\x01"}
    shown = rendering.render(variables=bad)
    assert (shown.code, shown.out) == (EXIT_CONFIG, "")
    assert sorted(line.partition(":")[0] for line in shown.fatal) == sorted(bad)


# ---- what looks hostile and is none ----


@pytest.mark.parametrize(
    "origin",
    [
        *('"', "'", ";", "#", "{", "}", " ", "\\\\", '\\"', "$", "$host", "${DOMAIN}"),
        *('(") { return 200; } if ("$)', '"; return 200 "', "a\\nb", "\\t", "\\;", "(a)", "\\)"),
        *("é", "\U0001f511", "\u2028", "(*UTF)é", "a{1,3}", "[\"';{}#$]", "\\x22", "^$"),
        *("a" * 1024, "\\" * 1024, '"' * 1024),
    ],
    ids=lambda origin: ascii(origin[:20]),
)
def test_any_expression_reaches_nginx_as_it_is(rendering, origin):
    shown = rendering.render_files(settings={"cors.origins": [origin, "last"]})
    assert shown.code == 0
    conditions = [
        directive.arguments
        for server in nginx_text.parse(rendering.read(SITE))
        for directive in server.block
        if directive.name == "if" and "$cors" not in str(directive.arguments)
    ]
    assert conditions == [["($http_origin", "~", text, ")"] for text in (origin, "last")]
    assert rendering.complaint() == ""
