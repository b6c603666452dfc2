"""What the domain or a peer serves already is taken instead of an order, and nothing else is.

Orders are counted at the CA, which is real; the other servers are simulated, or other containers.
"""

import contextlib
import datetime

import others
import pki
import pytest
from others import Other, hangs_up, peers, presents, says_nothing, talks_nonsense
from preload import preload
from stack import IS_ROOT
from test_control import metrics_of
from test_failures import put_due_pair

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="mounts need root")

LIMIT_S = 3
TRIES = 8  # of a place that may be a balancer
ADOPTED = "is adopted instead of an order"


@pytest.fixture(name="authority", scope="module")
def fixture_authority():
    """The one whose chains are trusted."""
    return pki.Authority("Trusted Authority")


@pytest.fixture(name="new_other")
def fixture_new_other():
    """Makes other servers, which are gone in the end."""
    with contextlib.ExitStack() as cleanup:
        yield lambda behave, **options: cleanup.enter_context(Other(behave, **options))


@pytest.fixture(name="new_replica")
def fixture_new_replica(new_stack, authority, tmp_path):
    """Makes containers that look around, and trust the authority unless something else is said."""

    def make(roots=None, **options):
        roots = roots or pki.certificate_pem(authority.certificate)
        return others.new_replica(new_stack, tmp_path, roots, **options)

    return make


@pytest.fixture(name="replica")
def fixture_replica(new_replica):
    return new_replica()


def leaf_of(chain):
    return pki.read_chain(chain)[0]


def when(stack, pattern):
    """The time in the log's line."""
    line = stack.log.wait_for(rf"(\d{{4}}-\S+ \S+) - \w+ - {pattern}")
    return datetime.datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S,%f")


def seconds_of_looking(stack):
    begun, ended = (when(stack, f"adopt: look around: {word}") for word in ("begins", "ended"))
    print(f"looked around for {(ended - begun).total_seconds():.3f} s")
    return (ended - begun).total_seconds()


def assert_adopted(stack, ca, mark, leaf):
    """It is served, measured, on the disk, and the CA has not heard of us."""
    stack.wait_for_leaf(lambda served: served == leaf, "the other's leaf is served")
    stack.log.wait_for(ADOPTED)
    stack.log.wait_for("INFO - the next renewal is due on")
    assert stack.agent.measured()[-1] == pki.sha256(leaf)
    assert stack.stored_chain()[0] == leaf
    assert stack.key_file.read_text() == pki.key_pem(stack.tls_key)
    assert ca.orders(mark) == ca.account_calls(mark) == 0


def assert_ordered(stack, ca, mark):
    leaf = stack.wait_for_https()
    assert pki.issuer_name(leaf).startswith("Pebble")
    assert ca.orders(mark) == 1 and not stack.log.find(ADOPTED)
    assert stack.agent.measured() == [pki.sha256(leaf)]


# Adopted


def test_what_the_domain_serves(ca, authority, replica, new_other):
    mark, chain = ca.log.mark(), authority.issue(replica.domain, replica.tls_key)
    other = new_other(presents(chain, replica.tls_key), port=replica.https_port)
    assert other.place == f"{other.address}:{replica.https_port}"
    others.point(replica, replica.address, other.address)
    replica.start()
    assert_adopted(replica, ca, mark, leaf_of(chain))
    assert replica.agent.measured() == [pki.sha256(leaf_of(chain))]
    assert seconds_of_looking(replica) < LIMIT_S / 2
    replica.restart()
    assert replica.wait_for_https() == leaf_of(chain)
    assert ca.orders(mark) == 0 and other.connections == 1


def test_good_chain_among_useless_servers_is_not_waited_for(ca, authority, replica, new_other):
    mark, chain = ca.log.mark(), authority.issue(replica.domain, replica.tls_key)
    foreign = presents(pki.Authority().issue(replica.domain, replica.tls_key), replica.tls_key)
    useless = [new_other(behave) for behave in (says_nothing, talks_nonsense, hangs_up, foreign)]
    peers(replica, *useless, new_other(presents(chain, replica.tls_key)))
    replica.settings["acme.peers"].append("127.0.0.1:9")  # nobody listens
    replica.start()
    assert_adopted(replica, ca, mark, leaf_of(chain))
    assert seconds_of_looking(replica) < LIMIT_S / 2


def test_balancer_that_leads_to_others_first(ca, authority, replica, new_other):
    mark, key = ca.log.mark(), pki.new_key()
    chain = authority.issue(replica.domain, replica.tls_key)
    foreign = presents(authority.issue(replica.domain, key), key)
    behaviours = [hangs_up, foreign, presents(chain, replica.tls_key)]
    peers(replica, new_other(lambda *connection: behaviours.pop(0)(*connection)))
    replica.start()
    assert_adopted(replica, ca, mark, leaf_of(chain))


def test_renewal(ca, authority, replica, new_other):
    mark, chain = ca.log.mark(), authority.issue(replica.domain, replica.tls_key)
    peers(replica, new_other(presents(chain, replica.tls_key)))
    former = put_due_pair(replica)
    replica.start()
    assert_adopted(replica, ca, mark, leaf_of(chain))
    assert replica.agent.measured() == [pki.sha256(former), pki.sha256(leaf_of(chain))]
    metrics = metrics_of(replica)
    assert metrics["adoptions_total", ""] == metrics["renewals_total", 'result="adopted"'] == 1
    assert metrics["issues_total", 'result="ok"'] == 0


def test_replicas_that_start_one_after_the_other_order_once(ca, new_replica):
    mark = ca.log.mark()
    first = new_replica(ca.root()).start()
    leaf = first.wait_for_https()
    assert ca.orders(mark) == 1
    mark, place = ca.log.mark(), first.https
    for _ in range(2):  # another volume and another agent each, the same seed
        replica = new_replica(ca.root(), domain=first.domain)
        replica.settings["acme.peers"] = ["{}:{}".format(*place)]
        assert_adopted(replica.start(), ca, mark, leaf)
        place = replica.https  # what was adopted is handed on


def test_others_are_looked_at_while_an_order_has_to_wait(new_ca, authority, new_replica, new_other):
    ca = new_ca()
    replica = new_replica(of_ca=ca, settings={"acme.retry_min": "1h", "acme.retry_max": "1h"})
    mark, chain = ca.log.mark(), authority.issue(replica.domain, replica.tls_key)
    behaviours = [*[hangs_up] * TRIES, presents(chain, replica.tls_key)]
    peers(replica, new_other(lambda *connection: behaviours.pop(0)(*connection)))
    preload(replica, "clock_jump", JUMP_AT="(attempt 1, next in")
    ca.stop()
    replica.start()
    assert_adopted(replica, ca, mark, leaf_of(chain))


# Ordered


def test_chains_that_must_not_be_adopted(ca, authority, replica, new_other):
    key, domain, foreign = replica.tls_key, replica.domain, pki.new_key()
    chains = {
        "another key": (authority.issue(domain, foreign), foreign),
        "was valid until": (authority.issue(domain, key, start=-91 * pki.DAY), key),
        "is not valid before": (authority.issue(domain, key, start=pki.DAY), key),
        "its DNS names: other": (authority.issue("other.example.test", key), key),
        "does not lead to a trusted root": (pki.Authority().issue(domain, key), key),
        "is self-signed": (pki.self_signed(domain, key), key),
        "is due for renewal": (authority.issue(domain, key, start=-61 * pki.DAY), key),
    }
    servers = {reason: new_other(presents(*chain)) for reason, chain in chains.items()}
    peers(replica, *servers.values())
    mark = ca.log.mark()
    replica.start()
    assert_ordered(replica, ca, mark)
    for reason, server in servers.items():
        assert replica.log.find(f"DEBUG - not adopted: {server.place}: .*{reason}"), reason
    assert len(replica.log.find_all("INFO - not adopted: ")) == 1


def test_useless_servers_cost_three_seconds_at_most(ca, replica, new_other):
    mark = ca.log.mark()
    servers = [new_other(behave) for behave in (says_nothing, talks_nonsense, hangs_up)]
    peers(replica, *servers)
    replica.start()
    assert_ordered(replica, ca, mark)
    assert LIMIT_S - 0.1 <= seconds_of_looking(replica) < LIMIT_S + 1
    assert [server.connections for server in servers] == [1, 1, TRIES]


def test_domain_that_nobody_serves_yet_costs_next_to_nothing(ca, replica):
    mark = ca.log.mark()
    replica.start()
    assert_ordered(replica, ca, mark)
    assert seconds_of_looking(replica) < 0.5


@pytest.mark.parametrize(
    "settings, variables",
    [
        ({"acme.adopt": False}, {}),
        ({}, {"FORCE_RM_CERT_FILES": "true"}),
        ({"acme.trust": "/nowhere/trust.pem"}, {}),
    ],
    ids=["switched off", "forced", "without roots"],
)
def test_nobody_is_asked(ca, authority, new_replica, new_other, settings, variables):
    replica, mark = new_replica(variables=variables), ca.log.mark()
    chain = authority.issue(replica.domain, replica.tls_key)
    other = new_other(presents(chain, replica.tls_key))
    peers(replica, other)
    replica.settings |= settings
    replica.start()
    assert_ordered(replica, ca, mark)
    assert other.connections == 0
