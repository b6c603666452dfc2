"""Development mode: the image with DEV_MODE=true and nothing else, and what every container has to do."""

import socket

import client
import pki
import pytest
from connection import Http1
from container import DEVELOPMENT, hosts_of
from ekm_nginx import binding
from loopback import wait_until

SECRET = "a secret of developers"


@pytest.fixture(name="container")
def fixture_container(new_container):
    """In development mode, serving."""
    container = new_container(variables=DEVELOPMENT).start()
    container.wait_until_settled()
    return container


def test_serves_a_certificate_of_its_own(container):
    leaf = container.served_leaf()
    assert leaf.issuer == leaf.subject
    assert pki.names(leaf) == [container.domain, f"*.{container.domain}", "localhost"]
    assert pki.same_key(leaf, pki.private_key(b"\1" * 32))
    root = pki.certificate_pem(leaf)
    assert container.https_get("/health", root=root).body == "healthy\n"
    wait_until(lambda: container.http_get("/else").status == 301, "HTTP redirects")
    assert container.http_get("/else").headers["location"] == f"https://{container.domain}/else"


def test_health_check_of_the_engine(new_container):
    container = new_container(variables=DEVELOPMENT | {"NGINX_MAX_BODY_SIZE": "1m"}).start()
    wait_until(lambda: container.health() == 0, "it is healthy")
    container.execute("supervisorctl", "stop", "nginx")
    assert container.health() == 1
    container.execute("supervisorctl", "start", "nginx")
    wait_until(lambda: container.health() == 0, "it is healthy again")


def test_each_session_is_bound(new_container, backends):
    variables = DEVELOPMENT | {"EKM_SHARED_SECRET": SECRET}
    container = new_container(variables=variables, options=hosts_of(backends)).start()
    container.wait_for_https()
    for _ in range(2):
        with Http1(container.https, container.domain) as connection:
            wait_until(
                lambda connection=connection: connection.request("GET", "/tdx_quote").status == 200,
                "the attestation service is known",
            )
            expected = binding(connection.exporter().hex(), SECRET)
        assert backends.attestation.requests[-1].values("X-TLS-EKM-Channel-Binding") == [expected]


def test_stop_lets_an_answer_in_progress_end(deployment, backends):
    container = deployment()
    with Http1(container.https, container.domain) as connection:
        answer = connection.open("POST", "/v1/chat/completions")
        stream = backends.vllm.next_stream()
        assert b"assistant" in answer.readline()

        def end_the_answer():
            """As soon as nginx takes no new connections any more."""
            wait_until(lambda: not accepts(container.https), "nginx closes its ports")
            stream.send("the end")
            stream.end()

        container.stop(meanwhile=end_the_answer)
        assert b"the end" in answer.read()


def accepts(place):
    try:
        socket.create_connection(place, timeout=1).close()
        return True
    except OSError:
        return False


def test_stop_does_not_wait_for_an_answer_without_end(deployment):
    container = deployment()
    with Http1(container.https, container.domain) as connection:
        connection.open("POST", "/v1/chat/completions").readline()
        container.expected_trouble = r"exited: nginx|killing 'nginx'"
        container.stop()  # fails when it takes too long


def test_orphans_are_reaped(container):
    """A process whose parent ends is the first process' child, and is not left a zombie."""
    container.execute("sh", "-c", "sleep 2 & sleep 2 &")
    names = [process.name for process in container.processes()]
    assert names.count("sleep") >= 1
    wait_until(
        lambda: not [one for one in container.processes() if one.name == "sleep" or one.state == "Z"],
        "nothing is left of them",
    )


def test_programs_that_are_killed_come_back(container):
    container.expected_trouble = r"exited: (nginx|cert-manager) \(terminated by SIGKILL; not expected\)"
    leaf = container.served_leaf()
    for program in (container.daemon, container.nginx_master):
        before = program().pid
        container.kill(before)
        wait_until(lambda: (now := program()) and now.pid != before, "it runs again")
        wait_until(lambda: container.served_leaf() == leaf, "and the certificate is served")
    wait_until(lambda: container.health() == 0, "it is healthy")


def test_supervisorctl_restarts_each(container):
    for program in ("nginx", "cert-manager"):
        container.execute("supervisorctl", "restart", program)
        wait_until(container.served_leaf, "the certificate is served")
    assert "RUNNING" in container.execute("supervisorctl", "status", check=False).stdout


@pytest.mark.parametrize(
    "variable, value",
    [("NGINX_MAX_BODY_SIZE", "ten"), ("LOG_LEVEL", "loud"), ("UPSTREAM_PORT", "99999")],
)
def test_setting_that_cannot_be_used_ends_the_start(new_container, variable, value):
    container = new_container(variables=DEVELOPMENT | {variable: value}).start()
    assert container.wait_for_exit() == 78
    found = container.log.find(variable)
    assert found and value in found.string
    assert not container.log.find("supervisord started")


def test_commands_answer_in_it(container):
    for command in ("status", "config", "check", "version"):
        done = container.execute("cert-manager", command, check=False)
        assert done.returncode == 0 and done.stdout, (command, done)


def test_nginx_knows_no_more_than_it_needs(container):
    """Who answers the world: unprivileged, and without a way to become more."""
    for worker in container.nginx_workers():
        assert worker.user() != 0 and container.capabilities_of(worker) == 0


def test_plain_text_is_told_so_at_the_tls_port(container):
    answer = client.get(container.https, "/", container.domain)
    assert answer.status == 400
