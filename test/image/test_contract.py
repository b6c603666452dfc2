"""Each variable and each path that deployments of the Python image have, tried in the image as they have
them. What a variable does in detail is shown where its part is tested; here it has to arrive."""

import json

import client
import pki
import pytest
from backends import AuthService
from container import DEVELOPMENT
from loopback import wait_until

ORIGIN = "https://chat.example.org"
RIGHT = ("Authorization", AuthService.right)
BODY_LIMIT = 1 << 20

LOCATIONS = """
location /metrics {
    ${CORS_HEADERS}
    auth_request /_auth;
    proxy_pass http://app_backend;
}
location /more {
    proxy_pass http://more;
}
"""

# As somebody has written it for the Python image, who knows nothing of our modules.
HTTPS_TEMPLATE = """
server {
    listen 443 ssl;
    http2 on;
    server_name ${DOMAIN};
    ssl_protocols TLSv1.3;
    ssl_certificate /etc/nginx/ssl/cert.pem;
    ssl_certificate_key /etc/nginx/ssl/key.pem;
    keepalive_timeout 60;
    ${CLIENT_MAX_BODY_SIZE}
    ${CORS_BLOCK}
    location = /health { return 200 "mounted\\n"; }
    ${AUTH_LOCATION}
    location = /tdx_quote {
        ${CORS_HEADERS}
        proxy_pass http://127.0.0.1:9;
        proxy_set_header X-TLS-EKM-Channel-Binding $ekm_channel_binding;
    }
    location = /binding { return 200 "$ekm_channel_binding\\n"; }
    ${EXTRA_LOCATIONS}
}
"""


def test_variables_of_nginx(deployment, backends):
    """UPSTREAM_*, EXTRA_*, CORS_ORIGINS, NGINX_MAX_BODY_SIZE, and AUTH_ENABLED as it is by default."""
    container = deployment(
        UPSTREAM_PORT="8000",
        CORS_ORIGINS=json.dumps([r"^https://([^.]+\.)*example\.org$"]),
        NGINX_MAX_BODY_SIZE="1m",
        EXTRA_LOCATIONS=LOCATIONS,
        EXTRA_UPSTREAMS=f"upstream more {{ server {backends.address}:8000; }}",
    )
    answer = container.ask("/v1/models", headers=[("Origin", ORIGIN)])
    assert answer.values("access-control-allow-origin") == [ORIGIN]
    answer = container.ask("/v1/models", headers=[("Origin", "https://example.net")])
    assert "".join(answer.values("access-control-allow-origin")) == ""
    assert container.ask("/v1/models", "POST", body=b"x" * BODY_LIMIT).status == 200
    assert container.ask("/v1/models", "POST", body=b"x" * (BODY_LIMIT + 1)).status == 413
    assert container.ask("/more/of/it").status == 200
    wait_until(lambda: container.ask("/metrics").status == 401, "the auth service is known")
    answer = container.ask("/metrics", headers=[RIGHT, ("Origin", ORIGIN)])
    assert answer.status == 200 and answer.values("access-control-allow-origin") == [ORIGIN]


def test_auth_enabled_false(deployment, backends):
    """What asks for it is closed then, and the service is not asked."""
    asked = len(backends.auth.requests)
    container = deployment(AUTH_ENABLED="false", EXTRA_LOCATIONS=LOCATIONS.partition("location /more")[0])
    assert container.ask("/metrics", headers=[RIGHT]).status == 403
    assert len(backends.auth.requests) == asked


def test_domain_and_its_default(new_container):
    with_default = new_container(variables=DEVELOPMENT, domain="localhost")
    del with_default.variables["DOMAIN"]
    for container in (new_container(variables=DEVELOPMENT, domain="app.example.test"), with_default):
        container.start()
        leaf = container.wait_for_https()
        assert pki.names(leaf)[0] == pki.issuer_name(leaf) == container.domain
        container.stop()


@pytest.mark.parametrize("said, done", [("TRUE", "development"), ("yes", "https://acme-v02.")])
def test_dev_mode(new_container, said, done):
    container = new_container(variables={"DEV_MODE": said}).start()
    container.log.wait_for(f"cert-manager .* for {container.domain}, {done}")
    if said == "yes":
        container.log.wait_for("WARNING - .*DEV_MODE.*yes")
        assert not container.log.find(" - DEBUG - ")
        container.stop()


def test_letsencrypt_staging(new_container):
    container = new_container(variables={"LETSENCRYPT_STAGING": "true"}).start()
    container.log.wait_for("https://acme-staging-v02.api.letsencrypt.org/directory")
    container.log.wait_for(" - DEBUG - ")
    # There is no agent: HTTP answers, and HTTPS waits for the keys.
    wait_until(lambda: http_status(container) == 503, "HTTP answers")
    assert container.served_leaf() is None


def http_status(container):
    try:
        return container.http_get("/").status
    except ConnectionRefusedError:
        return None


def test_letsencrypt_account_version(new_container, ca):
    container = new_container(ca, variables={"LETSENCRYPT_ACCOUNT_VERSION": "v7"}).start()
    container.wait_for_https()
    asked = json.dumps(container.agent.log())
    assert f"letsencrypt-account/{container.domain}/v7" in asked
    account = container.status()["authorities"][0]["account"]
    assert account and json.loads(container.execute("cert-manager", "account", "--json").stdout)


@pytest.mark.parametrize("email", [None, "", "someone@example.com"])
def test_email(new_container, email):
    variables = DEVELOPMENT | ({} if email is None else {"EMAIL": email})
    container = new_container(variables=variables).start()
    container.wait_for_https()
    found = container.execute("cert-manager", "config").stdout
    line = next(line for line in found.splitlines() if "acme.email" in line or line.strip().startswith("email"))
    assert ("certbot@concrete-security.com" if email is None else email) in line


def test_force_rm_cert_files(new_container, ca):
    container = new_container(ca, variables={"FORCE_RM_CERT_FILES": "true"})
    chain = pki.Authority().issue(container.domain, container.tls_key)
    container.put_pair(chain, container.tls_key)
    mark = ca.log.mark()
    leaf = container.start().wait_for_https()
    assert leaf != pki.read_chain(chain)[0] and ca.orders(mark) == 1
    assert [pair["cert.pem"].decode() for pair in container.set_aside()] == [chain]
    # Left on, it costs nothing for a day.
    assert container.restart().wait_for_https() == leaf
    assert ca.orders(mark) == 1


@pytest.mark.parametrize("level, shown", [("debug", {"DEBUG", "INFO"}), ("Error", set())])
def test_log_level(new_container, level, shown):
    container = new_container(variables={"DEV_MODE": "true", "LOG_LEVEL": level}).start()
    container.wait_for_https()
    levels = {found[1] for found in container.log.find_all(r"^\[cert-manager\] \S+ \S+ - (\w+) - ")}
    assert levels & {"DEBUG", "INFO", "WARNING"} == shown | (levels & {"WARNING"} if shown else set())


def test_fqdn_resolve(new_container, ca):
    """The CA is asked although the name does not resolve here, after as many tries as were said."""
    variables = {"FQDN_RESOLVE_WAIT_SECONDS": "1", "FQDN_RESOLVE_MAX_TRIES": "3"}
    container = new_container(ca, variables=variables)
    ca.break_dns(container.domain)
    mark = ca.log.mark()
    container.start()
    container.log.wait_for("WARNING - pre-flight check, dns: .*the CA is asked all the same")
    assert len(container.log.find_all("ERROR - the CA is not asked: dns")) == 2
    ca.log.wait_for('Added order "', timeout=40, since=mark)


def test_files_of_others_in_the_webroot(new_container):
    container = new_container(variables=DEVELOPMENT)
    webroot = container.folder / "webroot"  # where nginx' workers may look
    (webroot / ".well-known/acme-challenge").mkdir(parents=True)
    (webroot / ".well-known/acme-challenge/theirs").write_text("their answer")
    container.volumes["/acme-challenge"] = webroot
    container.start().wait_for_https()
    assert container.http_get("/.well-known/acme-challenge/theirs").body == "their answer"


def test_mounted_template(new_container, ca, tmp_path):
    """It is used as it is, bound and measured like our own, also by the next certificate."""
    file = tmp_path / "https.conf.tmpl"
    file.write_text(HTTPS_TEMPLATE)
    container = new_container(ca, volumes={f"/app/nginx_conf/{file.name}": file}).start()
    former = container.wait_for_https()
    assert container.https_get("/health").body == "mounted\n"
    exporter, _, mac = container.https_get("/binding").body.strip().partition(":")
    assert len(exporter) == len(mac) == 64
    container.log.wait_for("the next renewal is due on")
    container.execute("cert-manager", "renew", "--force", "--wait")
    leaf = container.wait_for_leaf(lambda new: new != former, "the next leaf is served")
    assert container.agent.measured() == [pki.sha256(former), pki.sha256(leaf)]
    assert container.https_get("/health").body == "mounted\n"


def test_rendered_configuration_is_where_it_was(new_container):
    container = new_container(variables=DEVELOPMENT).start()
    container.wait_for_https()
    done = container.execute("cat", "/etc/nginx/conf.d/default.conf")
    assert f"server_name {container.domain}" in done.stdout and "listen" in done.stdout
    assert container.execute("nginx", "-T").returncode == 0


def test_lines_of_the_log_say_whose_they_are(new_container):
    container = new_container(variables=DEVELOPMENT).start()
    container.wait_for_https()
    client.get(container.http, "/somewhere", container.domain)
    container.log.wait_for(r"^\[nginx\] .*GET /somewhere")
    container.log.wait_for(r"^\[cert-manager\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - INFO - ")
