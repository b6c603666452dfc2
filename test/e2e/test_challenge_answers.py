"""HTTP-01 challenges that nginx answers without a file: which tokens, hosts, methods, and when."""

import os
import re
import socket

import client
import pki
import pytest
from conftest import logs_of
from loopback import wait_until
from rendering import SITE, Rendering
from stack import Stack
from test_resilience import kill_nginx, wait_for_another_master

FOLDER = "/.well-known/acme-challenge/"
SHORTEST, LONGEST = 22, 128
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"  # of RFC 8555 §8.3
KNOWN = r"INFO - nginx answers challenges of the ACME account with key thumbprint ([-\w]{43})$"
SERVED = "INFO - HTTPS serves"  # all workers that accept connections have that configuration
TEXT = ("text/plain", "nosniff")


def thumbprint_of(stack, version="v1"):
    path = f"letsencrypt-account/{stack.domain}/{version}"
    return pki.thumbprint(pki.derived_key(stack.seed, path))


def headers_of(answer):
    return answer.headers["content-type"], answer.headers["x-content-type-options"]


def ask(stack, token, host=None, **options):
    return stack.http_get(FOLDER + token, host, **options)


def assert_answered(stack, token=TOKEN, host=None):
    answer = ask(stack, token, host)
    assert (answer.status, answer.body) == (200, f"{token}.{thumbprint_of(stack)}")
    assert headers_of(answer) == TEXT


def assert_not_answered(stack, token=TOKEN, host=None, status=404):
    answer = ask(stack, token, host)
    assert answer.status == status and thumbprint_of(stack) not in answer.body


def raw(stack, request):
    """What comes back for these bytes, in the end."""
    with socket.create_connection(stack.http, client.TIMEOUT_S) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode("latin-1")


def wait_for_answers(stack):
    """Until they are there, and no worker of before a reload is, which has none."""
    stack.wait_for_http()
    wait_until(lambda: ask(stack, TOKEN).status == 200, "nginx answers")
    wait_until(
        lambda: len(stack.nginx_workers()) == os.cpu_count(), "the workers of before have quit"
    )


def webroot(stack):
    return stack.folder["webroot"] / FOLDER.strip("/")


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    """A container of two names with HTTPS; tests only look at it."""
    with Stack(ca) as stack:
        logs_of(request.node)["the container that the tests of this file share"] = stack.log
        stack.other = f"www.{stack.domain}"
        stack.settings["domains"] = [stack.other]
        ca.point(stack.other, stack.address)
        stack.start()
        stack.log.wait_for(SERVED)
        yield stack


# What is answered


@pytest.mark.parametrize(
    "token",
    [TOKEN, ALPHABET, "-" * SHORTEST, "_" * LONGEST, "0" * SHORTEST, "Az09-_" * 20],
    ids=["of RFC 8555", "alphabet", "hyphens", "longest", "shortest", "all kinds"],
)
def test_well_formed_token_is_answered(served, token):
    assert_answered(served, token)
    assert_answered(served, token, served.other)


@pytest.mark.parametrize(
    "token",
    [
        *("", "a", "a" * (SHORTEST - 1), "a" * (LONGEST + 1), "a" * 4000),
        *(f"{TOKEN}{end}" for end in ("/", "/a", "%0a", "%0d%0a", "%00", "%20", "=", "+", ".")),
        *(f"{TOKEN}{end}" for end in ("!", "%22", "%24host", "$host", "%7b", "%3cb%3e", "%2f")),
        *(f"{start}{TOKEN}" for start in ("%0a", "%20", ".", "a/", "%c3%a9", "*")),
        *("test-token-12345", "index.html", f"{TOKEN}.{'a' * 43}"),
    ],
)
def test_anything_else_is_not_answered(served, token):
    answer = ask(served, token)
    assert answer.status in (400, 403, 404)
    assert thumbprint_of(served) not in answer.body and TOKEN not in answer.body


def test_nothing_but_the_token_is_reflected(served):
    marks = {"X-Forwarded-Host": "mark-1", "Cookie": "mark-2", "Referer": "mark-3"}
    answer = ask(served, f"{TOKEN}?mark-4=mark-5", headers=marks.items())
    assert (answer.status, answer.body) == (200, f"{TOKEN}.{thumbprint_of(served)}")
    assert "mark" not in str(answer.headers)
    expected = {"server", "date", "content-type", "content-length", "connection"}
    assert set(answer.headers) == expected | {"x-content-type-options"}


def test_only_names_of_the_certificate_are_answered_for(served):
    for host in (served.domain.upper(), f"{served.domain}:80", f"{served.other}:5002"):
        assert_answered(served, host=host)
    for host in (
        *("localhost", "example.test", "xn--a.test", str(served.address), "[::1]", "*"),
        *(f"a.{served.domain}", f"{served.domain}.evil.test", served.domain[1:]),
    ):
        assert_not_answered(served, host=host)
    for host in ("a b", f"{served.domain}\t{served.other}", f"{served.domain}/a"):
        request = f"GET {FOLDER}{TOKEN} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert raw(served, request.encode()).startswith("HTTP/1.1 400 "), host


def test_host_of_an_absolute_target_counts(served):
    target = f"http://%s{FOLDER}{TOKEN} HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
    answer = raw(served, f"GET {target % ('evil.test', served.domain)}".encode())
    assert answer.startswith("HTTP/1.1 404 ") and thumbprint_of(served) not in answer
    answer = raw(served, f"GET {target % (served.domain, 'evil.test')}".encode())
    assert answer.endswith(f"\r\n\r\n{TOKEN}.{thumbprint_of(served)}")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "ODD"])
def test_other_methods_are_not_answered(served, method):
    answer = ask(served, TOKEN, method=method)
    assert answer.status == 405 and thumbprint_of(served) not in answer.body
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_head_is_answered_without_a_body(served):
    answer = ask(served, TOKEN, method="HEAD")
    assert (answer.status, answer.body) == (200, "")
    assert headers_of(answer) == TEXT
    assert int(answer.headers["content-length"]) == len(TOKEN) + 1 + 43


def test_file_goes_first_and_a_folder_does_not(served):
    file = webroot(served) / ("f" * 43)
    file.write_text("content of another")
    file.chmod(0o644)
    answer = ask(served, file.name)
    assert (answer.status, answer.body) == (200, "content of another")
    assert headers_of(answer) == TEXT
    file.chmod(0o600)
    assert_not_answered(served, file.name, status=403)  # a webroot that is broken shows
    file.unlink()
    assert_answered(served, file.name)
    file.mkdir()
    assert_answered(served, file.name)


def test_it_is_asked_on_port_80_alone(served):
    answer = served.https_get(FOLDER + TOKEN)
    assert answer.status == 404 and thumbprint_of(served) not in answer.body


def test_status_and_log_say_whose_challenges_are_answered(served):
    assert served.status()["nginx"]["answers_challenges_of"] == thumbprint_of(served)
    assert served.log.find(KNOWN)[1] == thumbprint_of(served)


def test_render_shows_what_nginx_has(served):
    with Rendering() as rendering:
        yaml = served.config.read_text()
        shown = rendering.render_files(yaml=yaml, variables=served.variables, in_network=False)
        installed = (served.folder["sites"] / SITE).read_text()
        assert shown.code == 0 and rendering.read(SITE) == installed
        yaml = re.sub("(?m)^run_dir: .*$", f'run_dir: "{rendering.run_dir}"', yaml)
        shown = rendering.render_files(yaml=yaml, variables=served.variables, in_network=False)
        assert shown.code == 0 and "acme_answer" not in rendering.read(SITE)
        told = "answers to challenges without a file are left out"
        assert [line for line in shown.lines if told in line]


# When


def test_answers_begin_before_there_is_a_certificate_and_outlive_nginx(new_stack, new_ca):
    ca = new_ca()
    ca.stop()
    stack = new_stack(ca).start()
    stack.log.wait_for(KNOWN)
    wait_for_answers(stack)
    assert_answered(stack)
    assert stack.http_get("/").status == 503 and stack.served_leaf() is None
    master = stack.nginx_master()
    kill_nginx(stack)
    wait_for_another_master(stack, master)
    stack.wait_for_http()
    assert_answered(stack)


def test_agent_without_the_account_does_not_hold_https_back(new_stack):
    stack = new_stack()
    stack.put_pair(pki.Authority().issue(stack.domain, stack.tls_key), stack.tls_key)
    fault = stack.agent.fault(preset="server-error", method="GetKey", skip=2)
    stack.start()
    stack.log.wait_for(SERVED)
    leaf = stack.served_leaf()
    assert leaf == stack.stored_chain()[0]
    stack.log.wait_for(r"ERROR - ACME account key: .*\(attempt \d+, next in")
    assert_not_answered(stack)
    assert stack.status()["nginx"]["answers_challenges_of"] == ""
    stack.agent.clear(fault=fault)
    wait_for_answers(stack)
    assert_answered(stack)
    stack.log.wait_for(KNOWN)
    assert stack.served_leaf() == leaf and stack.agent.measured() == [pki.sha256(leaf)]


def test_other_account_key_is_answered_for_after_a_restart(new_stack):
    stack = new_stack().start()
    stack.log.wait_for(SERVED)
    assert_answered(stack)
    stack.stop()
    stack.variables["LETSENCRYPT_ACCOUNT_VERSION"] = "v2"
    mark = stack.log.mark()
    stack.start().log.wait_for(SERVED, since=mark)
    second = thumbprint_of(stack, "v2")
    assert second != thumbprint_of(stack)
    assert ask(stack, TOKEN).body == f"{TOKEN}.{second}"


@pytest.mark.parametrize("is_development", [False, True], ids=["switched off", "development"])
def test_there_are_none_where_nobody_wants_them(new_stack, is_development):
    settings = {} if is_development else {"acme.stateless": False}
    variables = {"DEV_MODE": "true"} if is_development else {}
    stack = new_stack(settings=settings, variables=variables).start()
    stack.log.wait_for(SERVED)
    assert_not_answered(stack)
    assert stack.status()["nginx"]["answers_challenges_of"] == ""
    paths = [call["request"]["path"] for call in stack.agent.log() if call["method"] == "GetKey"]
    of_account = [path for path in paths if path.startswith("letsencrypt-account/")]
    assert len(of_account) == (0 if is_development else 1)  # for the order


def test_mounted_template_keeps_its_own_text(new_stack):
    stack = new_stack()
    template = stack.folder["templates"] / "base.conf.tmpl"

    def mount():
        lines = template.read_text().replace("${SERVER_NAMES}", "${DOMAIN}").splitlines()
        kept = [line for line in lines if "${CHALLENGE_" not in line]
        template.write_text("\n".join(kept) + "\n")

    stack.alter_image = mount
    stack.start()
    stack.log.wait_for(SERVED)
    stack.log.wait_for(KNOWN)
    assert_not_answered(stack)
    assert "acme_answer" not in (stack.folder["sites"] / SITE).read_text()


def test_webroot_that_nginx_does_not_serve_shows_and_is_answered_for(ca, new_stack):
    stack = new_stack()
    template, served = stack.folder["templates"] / "base.conf.tmpl", stack.root / "elsewhere"
    served.mkdir(mode=0o755)

    def lead_elsewhere():
        template.write_text(template.read_text().replace("${WEBROOT}", str(served)))

    stack.alter_image = lead_elsewhere
    mark = ca.log.mark()
    stack.start()
    stack.log.wait_for(SERVED)
    told = "WARNING - pre-flight check, port 80: nginx answers challenges, but does not serve files"
    stack.log.wait_for(f"{told} out of {stack.folder['webroot']}")
    assert ca.orders(mark) == ca.issued(mark) == 1


def test_base_template_that_nginx_refuses_keeps_our_own_with_its_answers(new_stack, new_ca):
    ca = new_ca()
    ca.stop()
    stack = new_stack(ca)
    base = stack.folder["templates"] / "base.conf.tmpl"
    stack.alter_image = lambda: base.write_text("server { no_such_directive on; }\n")
    stack.start()
    stack.log.wait_for("prestart: port 80 is served by our own template: .*no_such_directive")
    stack.log.wait_for(KNOWN)
    wait_for_answers(stack)
    assert_answered(stack)
    assert "no_such_directive" not in (stack.folder["sites"] / SITE).read_text()
