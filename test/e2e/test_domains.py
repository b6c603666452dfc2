"""Several names on one certificate: DOMAIN first, and those of `domains`."""

import pki
import pytest
from conftest import logs_of
from loopback import wait_until
from stack import Stack
from test_failures import wait_for_failure

WILDCARD = "*.example.test"


def more_names(domain):
    return [f"www.{domain}", f"api.{domain}"]


def of_many_names(make, ca, **options):
    """A container whose certificate is to have three names, all known to the CA's DNS."""
    stack = make(**options)
    names = more_names(stack.domain)
    stack.settings["domains"] = [names[0].upper(), stack.domain, names[1]]
    for name in names:
        ca.point(name, stack.address)
    return stack


def all_names(stack):
    return [stack.domain, *more_names(stack.domain)]


@pytest.fixture(scope="module", name="served")
def fixture_served(request, ca):
    """A container that has obtained its certificate; tests only look at it."""
    with of_many_names(lambda: Stack(ca), ca) as stack:
        logs_of(request.node)["the container that the tests of this file share"] = stack.log
        stack.mark = ca.log.mark()
        stack.start()
        stack.log.wait_for("INFO - HTTPS serves")
        yield stack


def test_one_order_has_all_names(ca, served):
    assert sorted(pki.names(served.served_leaf())) == sorted(all_names(served))
    assert ca.orders(served.mark) == ca.issued(served.mark) == 1
    assert len(ca.log.find_all("set VALID by completed challenge", served.mark)) == 3


def test_each_name_is_served_with_the_certificate_and_redirected(served):
    for name in all_names(served):
        assert served.https_get("/health", name).status == 200  # chain and name verified
        location = served.http_get("/path?query", name).headers["location"]
        assert location == f"https://{name}:{served.https_port}/path?query"


def test_nginx_and_status_name_them_in_their_order(served):
    site = (served.folder["sites"] / "default.conf").read_text()
    assert site.count(f"server_name {' '.join(all_names(served))};") == 2
    assert served.status()["domain"] == served.domain
    assert served.status()["domains"] == all_names(served)


def test_keys_are_those_of_the_first_name(served):
    assert pki.same_key(served.served_leaf(), served.tls_key)
    paths = {call["request"]["path"] for call in served.agent.log() if call["method"] == "GetKey"}
    assert paths == {
        f"cert/letsencrypt/{served.domain}/v1",
        f"letsencrypt-account/{served.domain}/v1",
        "ekm/hmac-key/v1",
    }


def test_leaf_that_lacks_a_name_is_served_while_it_is_issued_again(ca, new_stack):
    stack = of_many_names(new_stack, ca)
    missing = more_names(stack.domain)[0]
    ca.break_dns(missing)
    stack.put_pair(pki.Authority().issue(stack.domain, stack.tls_key), stack.tls_key)
    stored = stack.stored_chain()[0]
    stack.start()
    assert stack.wait_for_https() == stored
    stack.log.wait_for(f"the stored certificate is valid until .*, but not for {missing}")
    wait_for_failure(stack, f"challenge failed for {missing}")
    reason = f"the certificate is not for {missing} yet"
    wait_until(lambda: stack.status()["next"].startswith(reason), "the status says so")
    assert stack.served_leaf() == stored and stack.set_aside() == []
    ca.mend_dns(missing)
    leaf = stack.wait_for_leaf(lambda leaf: leaf != stored, "a leaf with all names is served")
    assert sorted(pki.names(leaf)) == sorted(all_names(stack))
    assert stack.agent.measured() == [pki.sha256(stored), pki.sha256(leaf)]
    stack.log.wait_for("the next renewal is due on")


def test_leaf_that_lacks_the_domain_is_set_aside(ca, new_stack):
    stack = of_many_names(new_stack, ca)
    chain = pki.Authority().issue(more_names(stack.domain)[0], stack.tls_key)
    stack.put_pair(chain, stack.tls_key)
    stack.start()
    leaf = stack.wait_for_https()
    assert sorted(pki.names(leaf)) == sorted(all_names(stack))
    (aside,) = stack.set_aside()
    assert aside["cert.pem"].decode() == chain
    assert "does not cover the domain" in aside["reason"].decode()


def test_name_that_was_dropped_costs_no_order(ca, new_stack):
    stack = of_many_names(new_stack, ca)
    leaf = stack.start().wait_for_https()
    stack.stop()
    stack.settings["domains"] = []
    mark = ca.log.mark()
    assert stack.start().wait_for_https() == leaf
    stack.log.wait_for("the next renewal is due on")
    assert ca.orders(mark) == 0


def test_development_certificate_has_each_name_once(new_stack):
    stack = new_stack(
        domain="app.example.test",
        variables={"DEV_MODE": "true"},
        settings={"domains": ["www.example.org", "localhost", "app.example.test"]},
    )
    leaf = stack.start().wait_for_https()
    first, *others = ["app.example.test", "*.app.example.test", "www.example.org", "localhost"]
    assert pki.names(leaf) == [first, *others]


def test_external_certificate_may_have_wildcards(new_stack):
    stack = new_stack(settings={"tls.key": "external", "domains": [WILDCARD]})
    key, authority = pki.new_key(), pki.Authority()
    stack.put_pair(authority.issue(stack.domain, key, more=[WILDCARD]), key)
    stack.start()
    assert pki.names(stack.wait_for_https()) == [stack.domain, WILDCARD]
    root = pki.certificate_pem(authority.certificate)
    assert stack.https_get("/health", "any.example.test", root=root).status == 200
    stack.log.wait_for("the next renewal is due on|tls.key is external")
    assert f"server_name {stack.domain} {WILDCARD};" in (
        (stack.folder["sites"] / "default.conf").read_text()
    )


def test_wildcard_that_would_be_ordered_ends_the_start(new_stack):
    stack = new_stack(settings={"domains": [WILDCARD]})
    assert stack.start().wait_for_exit() == 78
    told = r"FATAL - .*: domains: \"\*\.example\.test\" is a wildcard, which HTTP-01 .* external"
    stack.log.wait_for(told)
