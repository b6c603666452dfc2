"""The deployments in deploy/: compose files that compose implementations take, and what they bring up.

docker-compose judges each and merges them; podman-compose brings them up, with real networks between
the containers. Only the images of others are replaced, by what the tests have in their place.
"""

import contextlib
import itertools
import json
import re
import subprocess
import threading
from functools import cache
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import client
import pki
import pytest
import yaml
from backends import AuthService, Backends
from compose import CERT_MANAGER, DEPLOY, Address, Engine, merged
from connection import Http1, Http2
from container import IMAGE, REPOSITORY, podman
from documentation import markdown_blocks
from ekm_nginx import binding
from guest_agent import GuestAgent
from loopback import wait_until
from pebble import Pebble
from reporting import logs_of

REFERENCE, BY_FILE = "docker-compose.yml", "docker-compose.config.yml"
BALANCER = "docker-compose.balancer.yml"
FORMS = {
    "reference": (REFERENCE,),
    "development": (REFERENCE, "docker-compose.dev.yml"),
    "settings file": (BY_FILE,),
    "settings file in development": (BY_FILE, "docker-compose.dev.yml"),
    "replica": (BY_FILE, "docker-compose.replica.yml"),
    "DNS-01": (BY_FILE, "docker-compose.dns-01.yml"),
}
WITH_BALANCER = FORMS | {"balancer": (BALANCER,)}
# What each asks for, besides what has a default.
ASKED_FOR = {
    "CERT_MANAGER_IMAGE": IMAGE,
    "REPLICA_1": "127.0.0.11",
    "REPLICA_2": "127.0.0.12",
    "ACME_DNS_URL": "https://acme-dns.example.com",
    "ACME_DNS_CREDENTIALS": "/registration.json",
}
# A name that all of them are brought up with, so that the CA's directory is all that is different.
DOMAIN = "vllm.example.test"
ALLOWED = ("Origin", "https://app.vercel.app")
RIGHT = ("Authorization", AuthService.right)
EKM = "X-TLS-EKM-Channel-Binding"


@cache
def deployment_of(form):
    return merged(*WITH_BALANCER[form], **ASKED_FOR)


def cert_manager_of(form):
    return deployment_of(form)["services"][CERT_MANAGER]


def settings_of(form):
    """The settings file that the deployment mounts; None when it has none."""
    return mounts_of(cert_manager_of(form)).get("/etc/cert-manager/config.yaml")


def mounts_of(service):
    """What is mounted, by where; docker-compose 2 says it in the long form."""
    mounts = service["volumes"]
    short = [mount.split(":") for mount in mounts if isinstance(mount, str)]
    long = [(mount["source"], mount["target"]) for mount in mounts if isinstance(mount, dict)]
    return {target.rstrip("/"): source for source, target, *_ in short + long}


def unescaped(variables):
    """docker-compose shows what can be given to it again."""
    return {name: str(value).replace("$$", "$") for name, value in variables.items()}


# ---- as they are written ----

# In one process, which has them merged once.
AS_WRITTEN = pytest.mark.xdist_group("deployments-as-written")


@AS_WRITTEN
@pytest.mark.parametrize("form", WITH_BALANCER)
def test_compose_takes_it(form):
    deployment = deployment_of(form)
    used = {name for service in deployment["services"].values() for name in service.get("networks", ())}
    assert used == set(deployment.get("networks", ())), "networks that nobody is in"


def test_all_of_them_are_looked_at():
    there = {path.name for path in DEPLOY.glob("docker-compose*")}
    assert there == {name for files in WITH_BALANCER.values() for name in files}


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("docker-compose*")), ids=lambda path: path.name)
def test_each_begins_with_what_it_is_for_and_how_it_is_started(path):
    header = "".join(itertools.takewhile(lambda line: line.startswith("#"), path.open()))
    assert len(header.splitlines()) > 3
    (command,) = re.findall(r"^#   (docker compose .* up\b.*)$", header, re.MULTILINE)
    files = re.findall(r"-f (\S+)", command)
    assert files[-1] == f"deploy/{path.name}"
    assert tuple(name.removeprefix("deploy/") for name in files) in WITH_BALANCER.values()
    # Whoever follows it has given a value to all that must have one.
    needed = set(re.findall(r"\$\{(\w+):\?", path.read_text()))
    assert needed <= set(re.findall(r"(\w+)=", header)) | {"CERT_MANAGER_IMAGE"}


@AS_WRITTEN
@pytest.mark.parametrize("form", FORMS)
def test_cert_manager_has_no_more_rights_than_it_needs(form):
    service = cert_manager_of(form)
    needed = ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"]
    assert (service["cap_drop"], sorted(service["cap_add"])) == (["ALL"], needed)
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {tmpfs.partition(":")[0] for tmpfs in service["tmpfs"]} == {"/run", "/tmp", "/acme-challenge"}


def test_reference_has_every_line_of_the_specification():
    """That is in the documentation, as the Python image has it."""
    blocks = markdown_blocks(REPOSITORY / "docs/OPERATIONS.md")
    (block,) = [block for block in blocks if block.language == "yaml compose"]
    shown = yaml.safe_load(block.text)["services"][CERT_MANAGER]
    service = yaml.safe_load((DEPLOY / REFERENCE).read_text())["services"][CERT_MANAGER]
    with_defaults = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line) for line in service["environment"]]
    assert set(shown["environment"]) <= set(with_defaults)
    assert shown["volumes"] == service["volumes"] and shown["networks"] == service["networks"]
    assert shown["container_name"] == service["container_name"]
    ports = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line) for line in service["ports"]]
    assert shown["ports"] == ports


@AS_WRITTEN
@pytest.mark.parametrize("form", FORMS)
def test_settings_are_taken_and_nothing_is_complained_of(form):
    """In the image, with the paths and the rights of the deployment, and without any network."""
    service, settings = cert_manager_of(form), settings_of(form)
    options = ["--rm", "--network=none", "--read-only", "--cap-drop=ALL"]
    options += [f"--cap-add={name}" for name in service["cap_add"]]
    options += [f"--tmpfs={tmpfs}" for tmpfs in service["tmpfs"]]
    options += ["--tmpfs=/etc/nginx/ssl", "--tmpfs=/run/cert-manager"]
    variables = unescaped(service.get("environment", {}))
    options += [f"--env={name}={value}" for name, value in variables.items()]
    if settings:
        options += [f"--volume={settings}:/etc/cert-manager/config.yaml:ro"]
    commands = "cert-manager check --offline && cert-manager config --json"
    done = podman("--log-level=fatal", "run", *options, IMAGE, "sh", "-c", commands)
    verdicts, _, shown = done.stdout.partition("\nall is well\n")
    assert shown and "warn" not in verdicts and not done.stderr, done
    # A variable that the program does not know would be one without an effect.
    known = json.loads(shown)["settings"].values()
    assert set(variables) <= {setting.get("variable") for setting in known}, known


@AS_WRITTEN
def test_the_application_is_the_same_in_every_settings_file():
    usual, *others = (
        yaml.safe_load((DEPLOY / name).read_text())
        for name in ("config.yaml", "replicas/config.yaml", "dns-01/config.yaml")
    )
    for other in others:
        for section in ("cors", "attestation", "auth", "routes"):
            assert other[section] == usual[section]
        assert usual["nginx"].items() <= other["nginx"].items()
    variables = unescaped(cert_manager_of("reference")["environment"])
    assert json.loads(variables["CORS_ORIGINS"]) == usual["cors"]["origins"]
    assert variables["NGINX_MAX_BODY_SIZE"] == usual["nginx"]["max_body_size"]
    assert variables["DOMAIN"] == usual["domain"]


def test_haproxy_takes_its_configuration():
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-f", DEPLOY / "replicas/haproxy.cfg"],
        env=ASKED_FOR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "WARN" not in done.stderr, done.stderr


# ---- brought up ----


@pytest.fixture(name="engine")
def fixture_engine():
    with Engine() as engine:
        yield engine


@pytest.fixture(name="bring_up")
def fixture_bring_up(request, engine):
    """Starts a deployment at an address of its own, with variables of the shell and a file laid over it."""
    with contextlib.ExitStack() as cleanup:

        def start(form, override=None, services=(), address=None, **variables):
            address = address or cleanup.enter_context(contextlib.closing(Address()))
            variables = {
                "CERT_MANAGER_IMAGE": IMAGE,
                "DOMAIN": DOMAIN,
                "HTTP_PORT": f"{address}:80",
                "HTTPS_PORT": f"{address}:443",
            } | variables
            deployment = engine.deployment(
                *WITH_BALANCER[form], variables=variables, override=override, services=services
            )
            cleanup.enter_context(deployment).start()
            for service, log in deployment.logs.items():
                logs_of(request.node)[f"{service} of {form}, {address}"] = log
            return deployment

        yield start


@pytest.fixture(name="reachable_ca")
def fixture_reachable_ca(request):
    """A CA that containers on networks of their own reach."""
    with Pebble(usual_ports=True, newer=True, address=Address()) as ca:
        logs_of(request.node)["the CA"] = ca.log
        yield ca


@pytest.fixture(name="backends")
def fixture_backends():
    with Backends(Address()) as backends:
        yield backends


@pytest.fixture(name="new_agent")
def fixture_new_agent(tmp_path):
    """Guest agents of the same application, each with an event log of its own."""
    tmp_path.chmod(0o755)
    with contextlib.ExitStack() as cleanup:
        numbers = itertools.count(1)
        yield lambda: cleanup.enter_context(GuestAgent(tmp_path / f"dstack-{next(numbers)}.sock"))


@pytest.fixture(name="production")
def fixture_production(bring_up, backends, reachable_ca, tmp_path):
    """Starts cert-manager of a deployment with the tests' CA, guest agent and backends behind it.

    `more` settings are laid over those of the deployment's file, when it has one.
    """
    numbers = itertools.count(1)

    def start(form, agent, address, more=None, **options):
        backends.names.known.setdefault(DOMAIN, [address])
        reachable_ca.point(DOMAIN, backends.names.known[DOMAIN][0])
        usual = yaml.safe_load(open(settings_of(form))) if settings_of(form) else {}
        acme = {"directory": reachable_ca.directory, "ca_bundle": "/etc/cert-manager/ca.pem"}
        settings = laid_over(usual, {"domain": DOMAIN, "acme": acme})
        file = tmp_path / f"config-{next(numbers)}.yaml"
        file.write_text(yaml.safe_dump(laid_over(settings, more or {})))
        root = tmp_path / "root.pem"
        root.write_text(reachable_ca.root())
        volumes = {
            agent.endpoint: "/var/run/dstack.sock",
            root: "/etc/cert-manager/root.pem:ro",
            file: "/etc/cert-manager/config.yaml:ro",
            reachable_ca.bundle: "/etc/cert-manager/ca.pem:ro",
        } | {here: there for there, here in backends.binds.items()}
        override = of_service(CERT_MANAGER, volumes=[f"{here}:{there}" for here, there in volumes.items()])
        override = laid_over(override, options.pop("override", {}))
        options.setdefault("services", [CERT_MANAGER])
        deployment = bring_up(form, override, address=address, **options)
        found = deployment.cert_manager
        found.ca, found.agent, found.seed = reachable_ca, agent.start(), "seed"
        return found

    return start


def of_service(name, **keys):
    return {"services": {name: keys}}


def laid_over(usual, other):
    """Mappings are merged."""
    both = usual | other
    for key in usual.keys() & other.keys():
        if isinstance(usual[key], dict):
            both[key] = laid_over(usual[key], other[key])
    return both


def assert_attested(cert_manager, leaf):
    """Served, verified by the CA's root, and the last that was measured."""
    assert cert_manager.https_get("/health").body == "healthy\n"
    assert cert_manager.served_leaf() == leaf
    assert cert_manager.agent.measured() == [pki.sha256(leaf)]


@contextlib.contextmanager
def connected(protocol, *arguments):
    """A connection to a worker of nginx that knows all backends. Former ones go on for a moment."""

    def look():
        connection = protocol(*arguments)
        targets = ("/v1/models", "/tdx_quote", "/metrics")
        with contextlib.suppress(OSError, HTTPException, AssertionError):  # of a worker that ends
            if [connection.request("GET", target).status for target in targets] == [200, 200, 401]:
                return connection
        connection.__exit__()
        return None

    with wait_until(look, "all backends are known") as connection:
        yield connection


def assert_routes(cert_manager, backends, secret):
    """Those of the specification."""
    with connected(Http2, cert_manager.https, DOMAIN) as connection:
        assert connection.request("GET", "/metrics", [RIGHT]).status == 200
        quote = connection.request("GET", "/tdx_quote", [(EKM, "of the client")])
        (came,) = (value for name, value in json.loads(quote.text)["headers"] if name == EKM)
        assert came == binding(connection.exporter().hex(), secret)
        answer = connection.request("GET", "/v1/models", [ALLOWED])
        assert answer.values("access-control-allow-origin") == [ALLOWED[1]]
    too_large = bytes((20 << 20) + 1)
    with Http1(cert_manager.https, DOMAIN) as connection:
        assert connection.request("POST", "/v1/completions", (), body=too_large).status == 413
    assert cert_manager.http_get("/v1/models").status == 301
    assert {request.target for request in backends.auth.requests} == {"/auth"}


def test_development(bring_up):
    """With the services that only look like the real ones, and names by the engine's own DNS."""
    cert_manager = bring_up("development", DOMAIN="localhost").cert_manager
    leaf = cert_manager.wait_for_https()
    assert pki.names(leaf) == ["localhost", "*.localhost"]
    assert cert_manager.https_get("/health", root=pki.certificate_pem(leaf)).body == "healthy\n"
    with connected(Http1, cert_manager.https, "localhost") as connection:

        def get(target, *headers):
            return connection.request("GET", target, headers)

        answer = get("/v1/models", ALLOWED)
        assert json.loads(answer.text)["data"][0]["id"] == "mock"
        assert answer.values("access-control-allow-origin") == [ALLOWED[1]]
        assert get("/metrics", ("Authorization", "Bearer development")).status == 200
        assert get("/elsewhere").status == 404
        for target in ("/tdx_quote", "/debug/ekm"):
            quote = json.loads(get(target).text)
            expected = binding(connection.exporter().hex(), "dev-mode-ekm-placeholder-not-for-production")
            assert (quote["channel_binding"], quote["is_signed_by_nginx"]) == (expected, True)

        def ask(**more):
            body = json.dumps({"messages": [{"role": "user", "content": "one two"}]} | more).encode()
            return connection.request("POST", "/v1/chat/completions", (), body=body).text

        assert json.loads(ask())["choices"][0]["message"]["content"] == "one two"
        events = ask(stream=True).split("\n\n")
        assert len(events) == 4 and events[2] == "data: [DONE]"
    assert cert_manager.http_get("/").status == 301
    assert "healthy" in cert_manager.execute("cert-manager", "health")


def test_reference(production, new_agent, backends, reachable_ca):
    with contextlib.closing(Address()) as address:
        cert_manager = production("reference", new_agent(), address)
        leaf = cert_manager.wait_for_https()
        assert pki.names(leaf) == [DOMAIN] and pki.same_key(leaf, cert_manager.tls_key)
        assert_attested(cert_manager, leaf)
        assert_routes(cert_manager, backends, cert_manager.secrets()["EKM secret"].hex())
        assert "all is well" in cert_manager.execute("cert-manager", "check")

        # What it needs is on its volume.
        cert_manager.restart()
        cert_manager.wait_for_https()
        assert_attested(cert_manager, leaf)
        assert (reachable_ca.orders(), reachable_ca.accounts()) == (1, 1)


# HAProxy of this machine in the place of its image: with its own loader and libraries.
HAPROXY = {
    "image": IMAGE,
    "entrypoint": "/haproxy/ld.so --library-path /haproxy/lib /haproxy/haproxy",
    "command": "-f /usr/local/etc/haproxy/haproxy.cfg",
    "user": "nobody",
    "stop_signal": "SIGUSR1",
    "healthcheck": {"test": ["NONE"]},
    "volumes": [
        "/usr/sbin/haproxy:/haproxy/haproxy:ro",
        "/lib64/ld-linux-x86-64.so.2:/haproxy/ld.so:ro",
        "/usr/lib/x86_64-linux-gnu:/haproxy/lib:ro",
    ],
}
TOKEN = "a-token-that-no-CA-has-ever-given-out"


def test_replicas_behind_a_balancer(bring_up, production, new_agent, backends, reachable_ca):
    """Machines of one application: each has an event log of its own, and they share no disk."""
    with contextlib.ExitStack() as cleanup:
        balancer, visitor, *places = (
            cleanup.enter_context(contextlib.closing(Address())) for _ in range(4)
        )
        variables = {f"REPLICA_{number}": str(place) for number, place in enumerate(places, 1)}
        bring_up("balancer", of_service("balancer", **HAPROXY), address=balancer, **variables)
        backends.names.known[DOMAIN] = [balancer]
        peers = [f"{place}:443" for place in places]
        more = {"acme": {"peers": peers, "trust": "/etc/cert-manager/root.pem"}}
        http, https = (balancer.host, 80), (balancer.host, 443)

        first = production("replica", new_agent(), places[0], more)
        leaf = wait_until(lambda: client.leaf(https, DOMAIN), "the first replica serves", 60)
        second = production("replica", new_agent(), places[1], more)
        second.log.wait_for("is adopted instead of an order", 60)
        wait_until(second.agent.measured, "the second replica has measured it")
        for replica in (first, second):
            assert replica.agent.measured() == [pki.sha256(leaf)]
            wait_until(lambda replica=replica: is_healthy(replica), "it is served")

        # Whichever gets the challenge answers it: in turn each of them does.
        path = f"/.well-known/acme-challenge/{TOKEN}"
        answers = {client.get(http, path, DOMAIN).body for _ in range(4)}
        assert len(answers) == 1 and answers.pop().startswith(f"{TOKEN}.")
        second.execute("cert-manager", "renew", "--force", "--wait")
        # The balancer may not know a replica yet when the CA comes: then an order more is made.
        assert (reachable_ca.issued(), reachable_ca.accounts()) == (2, 1)
        assert second.agent.measured()[-1] != pki.sha256(leaf) == first.agent.measured()[-1]

        # The client's address comes through.
        with connected(Http1, https, DOMAIN, visitor.host) as connection:
            assert connection.request("GET", "/v1/models").status == 200
        assert backends.vllm.requests[-1].values("X-Real-IP") == [visitor.host]

        # One that has gone is missed by nobody.
        first.stop()
        trusted = client.trusting(reachable_ca.root())
        for _ in range(4):
            assert client.get(https, "/health", DOMAIN, trusted).status == 200


def is_healthy(cert_manager):
    return "unhealthy" not in cert_manager.execute("cert-manager", "health", check=False)


class AcmeDns:
    """As much of an acme-dns server as its clients see, in front of the DNS that the CA asks."""

    registration = {"username": "user", "password": "secret", "subdomain": "d420c923"}

    def __init__(self, ca, address):
        self.updates = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                who = (self.headers["X-Api-User"], self.headers["X-Api-Key"], body["subdomain"])
                is_known = self.path == "/update" and who == tuple(outer.registration.values())
                if is_known:
                    ca.answer_challenge(DOMAIN, body["txt"])
                    outer.updates.append(body["txt"])
                answer = json.dumps({"txt": body["txt"]} if is_known else {"error": "forbidden"}).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer((address.host, address.port(8053)), Handler)
        self.url = f"http://{address}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_dns_01(production, new_agent, backends, reachable_ca, tmp_path):
    """certbot in a container of its own obtains a wildcard, and its deploy hook has it served."""
    credentials = tmp_path / "registration.json"
    credentials.write_text(json.dumps(AcmeDns.registration))
    with contextlib.closing(Address()) as address, contextlib.closing(AcmeDns(reachable_ca, address)) as dns:
        override = of_service(
            "certbot",
            environment=["REQUESTS_CA_BUNDLE=/ca.pem"],
            volumes=[f"{reachable_ca.bundle}:/ca.pem:ro"],
        )
        cert_manager = production(
            "DNS-01",
            new_agent(),
            address,
            override=override,
            services=[CERT_MANAGER, "certbot"],
            ACME_DIRECTORY=reachable_ca.directory,
            ACME_DNS_URL=dns.url,
            ACME_DNS_CREDENTIALS=str(credentials),
        )
        leaf = cert_manager.wait_for_https(60)
        assert sorted(pki.names(leaf)) == sorted([DOMAIN, f"*.{DOMAIN}"])
        assert not pki.same_key(leaf, cert_manager.tls_key)
        assert_attested(cert_manager, leaf)
        assert_routes(cert_manager, backends, cert_manager.secrets()["EKM secret"].hex())
        certbot = cert_manager.deployment["certbot"]
        assert "not on tmpfs" not in cert_manager.execute("cert-manager", "check")
        assert (reachable_ca.orders(), len(dns.updates)) == (1, 2)

        # Without what was on its volume, and with the folder of before, which certbot's has kept alive.
        for file in (cert_manager.chain_file, cert_manager.key_file):
            file.unlink()
        cert_manager.restart()
        mark = certbot.log.mark()
        certbot.restart()
        certbot.log.wait_for("not yet due for renewal", since=mark)
        certbot.log.wait_for(f"HTTPS serves {DOMAIN} with leaf {pki.sha256(leaf)}", 60, since=mark)
        assert_attested(cert_manager, leaf)
        assert reachable_ca.orders() == 1
