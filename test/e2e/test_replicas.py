"""Five replicas behind a balancer that share no disk: the same keys, and thus one certificate will do."""

import pki
import pytest
from balancer import Balancer
from loopback import wait_until
from stack import CERTBOT, NEWER_CERTBOT

REPLICAS = 5
TOKEN = "a-token-that-no-CA-has-ever-given-out"
ADOPTED = "is adopted instead of an order"


class Replicas:
    """Containers for one domain, whose address is the balancer's."""

    def __init__(self, ca, new_stack, balancer, folder):
        self.ca, self.balancer = ca, balancer
        roots = folder / "roots.pem"
        roots.write_text(ca.root())
        self.stacks, domain, port = [], None, balancer.address.port(8443)
        for number in range(REPLICAS):
            stack = new_stack(ca, domain=domain, certbot=(CERTBOT, NEWER_CERTBOT)[number % 2])
            stack.settings |= {
                "acme.adopt": True,
                "acme.trust": roots,
                "acme.peers": [f"{balancer.address}:{port}"],
            }
            self.stacks.append(stack)
            domain = stack.domain
        ca.point(domain, balancer.address)
        balancer.serve(ca.http_port, [stack.http for stack in self.stacks])
        balancer.serve(port, [stack.https for stack in self.stacks])

    def assert_served(self):
        """By each of them, the same key, measured where it is served; the leaves."""
        leaves = [stack.wait_for_https() for stack in self.stacks]
        for stack, leaf in zip(self.stacks, leaves):
            assert stack.https_get("/health").status == 200
            assert pki.same_key(leaf, stack.tls_key)
            assert stack.agent.measured() == [pki.sha256(leaf)]
        return leaves


@pytest.fixture(name="replicas")
def fixture_replicas(new_ca, new_stack, tmp_path):
    with Balancer() as balancer:
        yield Replicas(new_ca(newer=True, has_door=True), new_stack, balancer, tmp_path)


def test_started_one_after_the_other_they_order_once(replicas):
    for stack in replicas.stacks:
        stack.start().wait_for_https()
    leaves = replicas.assert_served()
    assert leaves == REPLICAS * leaves[:1]
    assert (replicas.ca.orders(), replicas.ca.accounts()) == (1, 1)

    # Made anew, one at a time and with empty volumes, they order nothing.
    for stack in replicas.stacks:
        stack.stop()
        for file in (stack.chain_file, stack.key_file):
            file.unlink()
        stack.start().wait_for_https()
        stack.log.wait_for(ADOPTED)
    assert replicas.assert_served() == leaves and replicas.ca.orders() == 1


def test_started_at_once_they_order_once_each_at_most(replicas):
    ca, balancer, path = replicas.ca, replicas.balancer, f"/.well-known/acme-challenge/{TOKEN}"
    ca.shut()  # until all want the same of it
    for stack in replicas.stacks:
        stack.start().wait_for_http()
    for stack in replicas.stacks:
        wait_until(lambda: stack.http_get(path).status == 200, "challenges are answered")
    ca.open()
    replicas.assert_served()
    assert ca.accounts() == 1 and ca.orders() <= REPLICAS
    assert ca.issued() == ca.orders(), "a challenge failed"
    assert all(balancer.taken[stack.http] for stack in replicas.stacks)
