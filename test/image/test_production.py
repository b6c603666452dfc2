"""Production mode against a real CA and the simulated guest agent, and what a volume carries from one
container to the next one, also to and from the Python image."""

import datetime
import stat

import pki
import pytest
from container import CAPABILITIES, FEW_CAPABILITIES, NO_NEW_PRIVILEGES, READ_ONLY
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from loopback import wait_until
from processes import read_proc

RESTRICTIONS = {
    "nothing": (),
    "read-only root": READ_ONLY,
    "few capabilities": FEW_CAPABILITIES,
    "no new privileges": NO_NEW_PRIVILEGES,
    "all of them": (*READ_ONLY, *FEW_CAPABILITIES, *NO_NEW_PRIVILEGES),
}
BOUND = sum(1 << number for number in CAPABILITIES.values())


@pytest.fixture(name="container")
def fixture_container(new_container, ca):
    """Not started yet."""
    return new_container(ca)


def assert_served(container):
    """The agent's key, verified by the CA's root, measured last; the leaf."""
    leaf = container.wait_for_https()
    assert container.https_get("/health").body == "healthy\n"
    assert pki.same_key(leaf, container.tls_key)
    assert container.agent.measured()[-1] == pki.sha256(leaf)
    container.log.wait_for("the next renewal is due on")  # and nothing is at work that another would join
    return leaf


def test_first_certificate(container, ca):
    mark = ca.log.mark()
    leaf = assert_served(container.start())
    assert pki.names(leaf) == [container.domain]
    assert container.agent.measured() == [pki.sha256(leaf)]
    assert (ca.orders(mark), ca.accounts(mark)) == (1, 1)
    wait_until(lambda: container.health() == 0, "it is healthy")
    assert container.execute("cert-manager", "health", "--attested").returncode == 0
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in container.tls.iterdir()}
    assert found == {"cert.pem": 0o644, "key.pem": 0o600, ".cert-manager": 0o700}


@pytest.mark.parametrize("restrictions", RESTRICTIONS.values(), ids=RESTRICTIONS)
def test_restrictions(new_container, ca, restrictions):
    """The certificate comes, is renewed, and nobody has more rights than were left to the container."""
    container = new_container(ca, options=restrictions).start()
    former = assert_served(container)
    done = container.execute("cert-manager", "renew", "--force", "--wait")
    leaf = container.served_leaf()
    assert leaf != former, done
    assert container.agent.measured() == [pki.sha256(former), pki.sha256(leaf)]
    for process in container.processes():
        status = read_proc(process.pid, "status").decode()
        if FEW_CAPABILITIES[0] in restrictions:
            assert container.capabilities_of(process) & ~BOUND == 0, process
        if NO_NEW_PRIVILEGES[0] in restrictions:
            assert "NoNewPrivs:\t1" in status, process


def test_who_is_root(container, ca):
    """supervisord, cert-manager with its helper, and nginx's master; workers and certbot are not."""
    container.start()
    certbot = wait_until(container.certbot, "certbot runs")
    assert certbot.user() != 0 and container.capabilities_of(certbot) == 0
    assert_served(container)
    assert all(worker.user() != 0 for worker in container.nginx_workers())
    of_root = [process.line for process in container.processes() if process.user() == 0]
    expected = ("cert-manager prestart --log-prefix", "cert-manager run", "cert-manager: starts")
    expected += ("nginx: master process",)
    assert len(of_root) == len(expected), of_root
    assert all(any(part in line for line in of_root) for part in expected), of_root


def test_stop_in_the_middle_of_an_order(container, ca):
    container.start()
    wait_until(container.certbot, "certbot runs")
    ca.pause()
    try:
        container.stop()  # fails when it takes too long
    finally:
        ca.resume()


def test_volume_that_is_kept(container, ca):
    leaf = assert_served(container.start())
    mark = ca.log.mark()
    for _ in range(2):
        container.restart()
        assert assert_served(container) == leaf
    container.cut_power()
    container.start()
    assert assert_served(container) == leaf
    assert (ca.orders(mark), ca.account_calls(mark)) == (0, 0)
    assert container.agent.measured() == [pki.sha256(leaf)]


def test_volume_that_is_lost(container, ca):
    """Another certificate is needed, and ordered by the same account."""
    former = assert_served(container.start())
    account = container.status()["authorities"][0]["account"]
    mark = ca.log.mark()
    container.stop()
    container.lose_volume()
    leaf = assert_served(container.start())
    assert leaf != former and pki.same_key(leaf, former)
    assert container.status()["authorities"][0]["account"] == account
    assert (ca.orders(mark), ca.accounts(mark)) == (1, 0)
    assert container.agent.measured() == [pki.sha256(former), pki.sha256(leaf)]


# What the Python image leaves on the volume, and what it expects there.


def test_volume_of_the_python_image_is_taken_over(container, ca):
    """Its pair, and an event log whose last event is of its last start."""
    chain = pki.Authority("Somebody's CA").issue(container.domain, container.tls_key)
    container.put_pair(chain, container.tls_key)
    leaf = pki.read_chain(chain)[0]
    mark = ca.log.mark()
    container.agent.start()
    for _ in range(2):  # one more at each of its starts
        container.agent.emit(event="New TLS Certificate", payload=pki.sha256(leaf).encode().hex())
    container.start()
    assert container.wait_for_https() == leaf
    assert ca.orders(mark) == 0
    assert container.agent.measured() == [pki.sha256(leaf)] * 2
    assert container.key_file.read_text() == pki.key_pem(container.tls_key)
    wait_until(lambda: container.health() == 0, "it is healthy")


def test_volume_is_given_back_to_the_python_image(container, ca):
    """It reads two files, and renews by their dates: the newest certificate has to be in them."""
    assert_served(container.start())
    container.execute("cert-manager", "renew", "--force", "--wait")
    leaf = container.served_leaf()
    container.stop()
    chain, key = container.volume / "cert.pem", container.volume / "key.pem"
    for file, mode in ((chain, 0o644), (key, 0o600)):
        found = file.lstat()
        assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
        assert (found.st_uid, found.st_gid) == (0, 0)
    certificates = pki.read_chain(chain.read_text())
    assert certificates[0] == leaf and len(certificates) > 1
    assert pki.same_key(leaf, load_pem_private_key(key.read_bytes(), password=None))
    assert b"BEGIN PRIVATE KEY" in key.read_bytes()
    left = pki.expires(leaf) - datetime.datetime.now(datetime.timezone.utc)
    assert left > datetime.timedelta(days=30)


def test_ca_that_is_away_at_first(new_ca, new_container):
    """HTTP answers meanwhile, and the certificate comes by itself."""
    ca = new_ca()
    container = new_container(ca, settings={"acme.retry_min": "1s", "acme.retry_max": "1s"})
    ca.stop()
    container.start()
    container.log.wait_for("ERROR - find account: .*connection refused", timeout=40)
    answer = container.http_get("/")
    assert answer.status == 503 and "certificate being provisioned" in answer.body
    assert container.health() == 1
    ca.start()
    assert_served(container)
