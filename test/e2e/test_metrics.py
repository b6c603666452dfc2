"""Who may ask for metrics, where, and whether Prometheus understands them."""

import contextlib
import grp
import os
import socket
import stat
import subprocess

import client
import pki
import pytest
from backends import AuthService, Backends
from conftest import logs_of
from connection import Http1
from loopback import is_listening, wait_until
from processes import environment
from rotation import serve
from stack import IS_ROOT, Stack
from test_control import Socket, answers, ask, control_of, metrics_of
from test_reload import reload

PATH = "/cert-manager/metrics"
RIGHT, WRONG = ("Authorization", AuthService.right), ("Authorization", "Bearer wrong")
TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAMES = ["cert_manager_certificate_not_after_timestamp_seconds", "cert_manager_attested 1"]


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    """Metrics are shown wherever they can be, and services are there."""
    with Backends() as backends, Stack(ca) as stack:
        logs_of(request.node)["a container that shows its metrics"] = stack.log
        stack.backends = backends
        stack.place = stack.address.host, stack.address.port(9464)
        stack.settings |= {
            "auth.upstream": f"{backends.address}:{backends.auth.port}",
            "metrics.nginx": True,
            "metrics.listen": "{}:{}".format(*stack.place),
        }
        serve(stack)
        yield stack


def socket_of(stack):
    return stack.folder["run_dir"] / "metrics.sock"


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def through_nginx(stack, method, headers=(), path=PATH, body=b""):
    with Http1(stack.https, stack.domain) as connection:
        return connection.request(method, path, list(headers), body)


def at_socket(path, method, target, headers=()):
    """Status, type and text."""
    with contextlib.closing(Socket(path)) as connection:
        connection.request(method, target, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode()


def check_with_promtool(text):
    """What it says of a page of metrics, "" for nothing."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    return f"{done.stdout}{done.stderr}" + ("" if done.returncode == 0 else "failed")


# ---- through nginx ----


def test_nginx_shows_them_to_whom_the_service_lets_through(served):
    mark = len(served.backends.auth.requests)
    answer = through_nginx(served, "GET", [RIGHT])
    assert (answer.status, answer.values("content-type")) == (200, [TYPE])
    assert all(name in answer.text for name in NAMES)
    (asked,) = served.backends.auth.requests[mark:]
    assert asked.values("X-Original-URI") == [PATH]


@pytest.mark.parametrize("headers", [[], [WRONG], [("Authorization", "")]])
def test_nginx_shows_them_to_nobody_else(served, headers):
    answer = through_nginx(served, "GET", headers)
    assert answer.status == 401 and "cert_manager_" not in answer.text


def test_broken_authentication_lets_nobody_through(served):
    answer = through_nginx(served, "GET", [("Authorization", AuthService.breaking)])
    assert answer.status == 500 and "cert_manager_" not in answer.text


def test_nginx_passes_on_get_and_head_only(served):
    head = through_nginx(served, "HEAD", [RIGHT])
    assert (head.status, head.text) == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "gET"):
        answer = through_nginx(served, method, [RIGHT])
        assert answer.status in (400, 405), method


@pytest.mark.parametrize("path", [f"{PATH}/", f"{PATH}x", "/cert-manager/", "/v1/status"])
def test_nginx_leads_to_nothing_else_of_the_daemon(served, path):
    assert through_nginx(served, "GET", [RIGHT], path).status == 404


def test_what_a_client_sends_does_not_reach_the_daemon(served):
    """Its server takes no body with a GET, and no target of that length."""
    headers = [RIGHT, ("X-Long", "x" * 7000), ("Expect", "100-continue")]
    target = f"{PATH}?{'q' * 3000}"
    answer = through_nginx(served, "GET", headers, target, b"x" * 100_000)
    assert (answer.status, answer.values("content-type")) == (200, [TYPE])
    assert served.backends.auth.requests[-1].values("X-Original-URI") == [target]


def test_whoever_has_no_authentication_service_shows_nothing(new_stack):
    stack = new_stack(settings={"metrics.nginx": True}, variables={"AUTH_ENABLED": "false"})
    stack.variables["DEV_MODE"] = "true"
    stack.start().wait_for_https()
    answer = through_nginx(stack, "GET", [RIGHT])
    assert answer.status == 403 and "cert_manager_" not in answer.text
    stack.log.wait_for("WARNING - .*metrics.nginx: true, but AUTH_ENABLED says false")


def test_there_is_no_such_path_unless_it_is_switched_on(new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"})
    stack.start().wait_for_https()
    assert through_nginx(stack, "GET", [RIGHT]).status == 404
    assert not socket_of(stack).exists()


# As deployments of the Python image have them: only its placeholders.
MOUNTED = """
server {
    listen %s ssl http2;
    server_name ${DOMAIN};
    ssl_certificate "%s/cert.pem";
    ssl_certificate_key "%s/key.pem";
    ${CORS_BLOCK}
    ${AUTH_LOCATION}
    location = /mounted { return 204; }
    ${EXTRA_LOCATIONS}
}
"""


@pytest.mark.parametrize("fragment", ["", "location /broken { no_such_directive on; }"])
def test_mounted_templates_and_the_reduced_configuration_show_them(new_stack, served, fragment):
    stack = new_stack(settings={"metrics.nginx": True}, variables={"EXTRA_LOCATIONS": fragment})
    stack.settings["auth.upstream"] = served.settings["auth.upstream"]
    stack.variables["DEV_MODE"] = "true"
    place = f"{stack.address}:{stack.https_port}"
    template = stack.folder["templates"] / "https-dev.conf.tmpl"
    stack.alter_image = lambda: template.write_text(MOUNTED % (place, stack.tls, stack.tls))
    stack.start().wait_for_https()
    assert through_nginx(stack, "GET", [RIGHT]).status == 200
    assert through_nginx(stack, "GET").status == 401
    assert through_nginx(stack, "GET", [RIGHT], "/mounted").status == (503 if fragment else 204)


# ---- the socket of nginx's workers ----


def test_socket_of_nginx_answers_for_metrics_alone(served):
    path = socket_of(served)
    status, kind, text = at_socket(path, "GET", "/metrics")
    assert (status, kind) == (200, TYPE) and all(name in text for name in NAMES)
    assert at_socket(path, "HEAD", "/metrics")[::2] == (200, "")
    for target in ("/v1/status", "/health", "/", "/metrics/", "//metrics"):
        assert at_socket(path, "GET", target)[0] == 404, target
    for method in ("POST", "PUT", "DELETE"):
        assert at_socket(path, method, "/metrics", [("Content-Length", "0")])[0] == 405
        assert at_socket(path, method, "/v1/renew", [("Content-Length", "0")])[0] == 404
    assert at_socket(path, "POST", "/metrics", [("Content-Length", "1")])[0] == 413


@pytest.mark.skipif(not IS_ROOT, reason="only root gives workers another user")
def test_workers_of_nginx_reach_their_socket_and_not_the_control_socket(served):
    found = socket_of(served).stat()
    workers = grp.getgrnam("www-data").gr_gid
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, workers)

    def status(user, group, path):
        command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "curl"]
        command += ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
        command += ["--unix-socket", str(path), "http://localhost/metrics"]
        options = {"capture_output": True, "text": True, "timeout": 30}
        return subprocess.run(command, env=environment(), **options).stdout

    assert status("www-data", "www-data", socket_of(served)) == "200"
    assert status("www-data", "www-data", control_of(served)) == "000"
    assert status("nobody", "nogroup", socket_of(served)) == "000"


@pytest.mark.skipif(not IS_ROOT, reason="only root gives workers another user")
@pytest.mark.parametrize(
    ("user", "group"),
    [("user daemon;", "daemon"), ("user nobody  'games' ;", "games"), ("", "www-data")],
)
def test_group_is_that_of_the_configuration(new_stack, user, group):
    stack = new_stack(settings={"metrics.nginx": True}, variables={"DEV_MODE": "true"})
    conf = stack.folder["nginx"] / "nginx.conf"
    stack.alter_image = lambda: conf.write_text(conf.read_text().replace("user www-data;", user))
    stack.start()
    # Until then nobody can connect.
    wait_until(lambda: mode_of(socket_of(stack)) == 0o660, "the socket is ready")
    assert socket_of(stack).stat().st_gid == grp.getgrnam(group).gr_gid


def test_group_that_is_missing_is_told_and_costs_nothing_else(new_stack):
    if not IS_ROOT:
        pytest.skip("only root gives workers another user")
    stack = new_stack(settings={"metrics.nginx": True}, variables={"DEV_MODE": "true"})
    conf = stack.folder["nginx"] / "nginx.conf"
    stack.alter_image = lambda: conf.write_text(
        conf.read_text().replace("user www-data;", "user nobody no-such-group;")
    )
    stack.expected_trouble = r"\[emerg\].*no-such-group|nginx \(exit status 1; not expected\)"
    stack.start()
    stack.log.wait_for('ERROR - metrics.nginx: .*there is no group "no-such-group"')
    wait_until(lambda: answers(stack), "the other socket is there")
    assert ask(stack, "GET", "/metrics")[0] == 200


# ---- the port ----


def test_port_answers_for_metrics_alone(served):
    answer = client.get(served.place, "/metrics", "localhost")
    assert (answer.status, answer.headers["content-type"]) == (200, TYPE)
    assert all(name in answer.body for name in NAMES)
    assert client.get(served.place, "/v1/status", "localhost").status == 404
    assert client.get(served.place, "/metrics", "localhost", method="POST").status == 405


def test_port_that_is_taken_is_told_and_costs_nothing_else(new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"})
    port = stack.address.port(9464)
    stack.settings["metrics.listen"] = f"{stack.address}:{port}"
    with socket.create_server((stack.address.host, port)):
        stack.start().wait_for_https()
        stack.log.wait_for(
            rf"ERROR - metrics.listen: cannot listen on {stack.address}, port {port}: "
            r"Address already in use \(tried again every minute\)"
        )
        assert ask(stack, "GET", "/metrics")[0] == 200


def test_port_is_closed_with_the_daemon(new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"})
    place = stack.address.host, stack.address.port(9464)
    stack.settings["metrics.listen"] = "{}:{}".format(*place)
    stack.start().wait_for_https()
    assert client.get(place, "/metrics", "localhost").status == 200
    stack.restart()
    wait_until(lambda: is_listening(*place), "it listens again")
    stack.stop()
    assert not is_listening(*place) and not socket_of(stack).exists()


# ---- what they say ----


def test_certificate_and_what_comes_next(served):
    metrics, leaf = metrics_of(served), served.served_leaf()
    labels = f'sha256="{pki.sha256(leaf)}",issuer="{pki.issuer_name(leaf)}"'
    assert metrics["certificate_info", labels] == 1
    renew = metrics["next_action_timestamp_seconds", 'action="renew"']
    start = metrics["certificate_not_before_timestamp_seconds", ""]
    assert start < renew < metrics["certificate_not_after_timestamp_seconds", ""]
    assert metrics["ledger_usable", ""] == 1


def test_process_is_measured(served):
    metrics, daemon = metrics_of(served), served.daemon()
    folder = f"/proc/{daemon.pid}/fd"
    assert abs(metrics["process_open_fds", ""] - len(os.listdir(folder))) <= 4
    assert 1 << 20 < metrics["process_resident_memory_bytes", ""] < 1 << 30
    assert metrics["process_cpu_seconds_total", ""] > 0


def test_limits_tell_what_is_left(new_stack):
    settings = {"acme.limit_certificates": "5/7d", "acme.limit_failures": "3/1h"}
    stack = new_stack(settings=settings)
    serve(stack)
    metrics = metrics_of(stack)
    ca = f'ca="{stack.ca.directory}"'
    assert metrics["limit_permits", f'{ca},limit="certificates"'] == 5
    assert metrics["limit_permits_left", f'{ca},limit="certificates"'] == 4
    assert metrics["limit_permits_left", f'{ca},limit="failures"'] == 3
    assert ("limit_permits", f'{ca},limit="orders"') not in metrics


def test_renewals_are_counted_by_what_became_of_them(new_ca, new_stack):
    ca = new_ca(has_door=True)
    stack = new_stack(ca)
    due = pki.Authority().issue(stack.domain, stack.tls_key, start=-80 * pki.DAY)
    stack.put_pair(due, stack.tls_key)
    ca.shut()
    serve(stack)
    failed, renewed = ("renewals_total", 'result="net"'), ("renewals_total", 'result="ok"')
    wait_until(lambda: metrics_of(stack).get(failed), "a renewal has failed")
    metrics = metrics_of(stack)
    assert metrics[renewed] == 0 and metrics["https_up", ""] == 1
    assert metrics["issues_total", 'result="net"'] >= metrics[failed]
    assert metrics["failures_total", 'activity="issue",kind="net"'] >= 1
    ca.open()
    wait_until(lambda: metrics_of(stack)[renewed] == 1, "it is renewed", 40)
    assert metrics_of(stack)["consecutive_failures", 'activity="issue"'] == 0


def test_sockets_come_and_go_with_a_reload_and_counters_stay(new_stack, served):
    stack = new_stack()
    serve(stack)
    place = stack.address.host, stack.address.port(9464)
    shown = {
        "metrics__nginx": True,
        "metrics__listen": "{}:{}".format(*place),
        "auth__upstream": served.settings["auth.upstream"],
    }
    assert reload(stack, **shown)["state"] == "done"
    answer = client.get(place, "/metrics", "localhost")
    assert answer.status == 200 and 'issues_total{result="ok"} 1' in answer.body
    wait_until(lambda: through_nginx(stack, "GET", [RIGHT]).status == 200, "nginx shows them")

    clash = "location = /cert-manager/metrics { return 204; }"
    refused = reload(stack, nginx__extra_locations=clash)
    assert refused["state"] == "failed" and "duplicate location" in refused["text"]
    assert client.get(place, "/metrics", "localhost").status == 200
    nothing = dict.fromkeys([*shown, "nginx__extra_locations"]) | {"metrics__nginx": False}
    assert reload(stack, **nothing)["state"] == "done"
    assert not is_listening(*place) and not socket_of(stack).exists()
    wait_until(lambda: through_nginx(stack, "GET", [RIGHT]).status == 404, "nginx shows nothing")


# ---- their form ----


def test_prometheus_finds_nothing_wrong_with_them(served):
    assert check_with_promtool(ask(served, "GET", "/metrics")[2]) == ""


def test_promtool_would_find_something():
    assert "counter metrics should have" in check_with_promtool(
        "# HELP wrong A counter.\n# TYPE wrong counter\nwrong 1\n"
    )
