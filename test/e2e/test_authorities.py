"""CAs that want something special, or that do not help: then another one does."""

import json
import re

import pki
from acme_client import deactivate_account
from connect_proxy import ConnectProxy
from loopback import wait_until
from stack import NEWER_CERTBOT, holders_of

HMAC_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
SHORT_LIFE_S = 24
DAY_S = 24 * 3600


def fallback_to(ca):
    return {"acme.fallback": [{"directory": ca.directory, "ca_bundle": str(ca.bundle)}]}



def expire_pair(stack):
    stack.put_pair(
        pki.Authority().issue(stack.domain, stack.tls_key, start=-91 * pki.DAY), stack.tls_key
    )


def account_of(stack, number=0):
    return stack.status()["authorities"][number]


def bind(stack, key=HMAC_KEY):
    file = stack.root / "eab-key"
    file.write_text(f"{key}\n")
    stack.settings |= {"acme.eab_key_id": "kid-1", "acme.eab_key_file": str(file)}


# Another CA


def test_next_ca_is_asked_at_once_when_the_main_one_is_down(new_ca, new_stack):
    main = new_ca(newer=True, validity_s=SHORT_LIFE_S, has_door=True)
    other = new_ca(newer=True, validity_s=SHORT_LIFE_S, http_port_of=main)
    stack = new_stack(main, settings=fallback_to(other))
    other.point(stack.domain, stack.address)
    main.shut()
    leaf = stack.start().wait_for_https()
    stack.log.wait_for(
        rf"ERROR - .*{re.escape(main.directory)}.*; {re.escape(other.directory)} is asked now\)"
    )
    assert (main.orders(), other.issued(), other.accounts()) == (0, 1, 1)
    assert stack.agent.measured() == [pki.sha256(leaf)]
    # And the main one comes first again.
    main.open()
    stack.wait_for_leaf(lambda seen: seen != leaf, "the next leaf is served")
    assert (main.issued(), other.orders()) == (1, 1)
    accounts = [account_of(stack, number)["account"] for number in range(2)]
    assert accounts[0] != accounts[1] and None not in accounts
    remembered = json.loads((stack.state / "account.json").read_text())["accounts"]
    assert sorted(one["url"] for one in remembered) == sorted(accounts)


def test_next_ca_is_asked_at_once_when_the_main_one_refuses(new_ca, new_stack):
    main = new_ca(account_keys={"kid-1": HMAC_KEY})
    other = new_ca(http_port_of=main)
    stack = new_stack(main, settings=fallback_to(other))
    other.point(stack.domain, stack.address)
    stack.start().wait_for_https()
    stack.log.wait_for(
        r"ERROR - .*this CA needs an external account binding: set eab_key_id and eab_key_file"
    )
    assert (main.orders(), other.issued()) == (0, 1)


def test_failed_challenge_is_not_tried_at_the_next_ca(new_ca, new_stack):
    main = new_ca()
    other = new_ca(http_port_of=main)
    stack = new_stack(main, settings=fallback_to(other))
    main.break_dns(stack.domain)
    stack.start()
    stack.log.wait_for(r"ERROR - .*challenge failed.*\(attempt 2, next in", 30)
    assert main.orders() >= 2 and other.orders() == 0
    main.mend_dns(stack.domain)
    stack.wait_for_https()
    assert other.orders() == 0


def test_failed_challenge_holds_the_next_ca_back_after_a_restart_too(new_ca, new_stack):
    main = new_ca()
    other = new_ca(http_port_of=main)
    stack = new_stack(main, settings=fallback_to(other))
    stack.settings |= {"acme.retry_min": "30m", "acme.retry_max": "1h"}
    main.break_dns(stack.domain)
    stack.start()
    stack.log.wait_for(r"ERROR - .*challenge failed.*\(attempt 1, next in \d+ minutes", 30)
    mark = stack.log.mark()
    stack.restart()
    stack.log.wait_for(r"no order before \S+ \S+ UTC: the last challenge failed", since=mark)
    assert main.orders() == 1 and other.orders() == 0


# External account binding


def test_account_is_bound_where_the_ca_wants_it(new_ca, new_stack):
    ca = new_ca(account_keys={"kid-1": HMAC_KEY})
    stack = new_stack(ca)
    bind(stack)
    stack.start().wait_for_https()
    assert ca.accounts() == 1
    assert HMAC_KEY not in stack.log.text() and HMAC_KEY not in json.dumps(stack.status())
    assert not holders_of({HMAC_KEY}, stack.session())


def test_wrong_hmac_key_is_told_and_may_be_replaced(new_ca, new_stack):
    ca = new_ca(account_keys={"kid-1": HMAC_KEY})
    stack = new_stack(ca)
    bind(stack, HMAC_KEY[::-1])
    stack.start()
    stack.log.wait_for(
        r"ERROR - .*the CA does not accept the external account binding: are eab_key_id", 30
    )
    bind(stack)
    stack.wait_for_https()
    assert ca.accounts() == 1


# The account


def test_deactivated_account_is_told_and_the_next_version_makes_a_new_one(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    stack.start().wait_for_https()
    url = account_of(stack)["account"]
    assert account_of(stack)["account_state"] == "valid"
    stack.stop()
    key = pki.derived_key(stack.seed, f"letsencrypt-account/{stack.domain}/v1")
    deactivate_account(ca.directory, ca.bundle, key, url)
    expire_pair(stack)
    mark = stack.log.mark()
    stack.start()
    stack.log.wait_for(
        r"ERROR - .*deactivated.*LETSENCRYPT_ACCOUNT_VERSION=v2 \(or the next\) makes a new one"
        r".*\(attempt \d+, next in",
        30,
        since=mark,
    )
    wait_until(
        lambda: account_of(stack)["account_state"].startswith("deactivated: set LETSENCRYPT"),
        "the status says so",
    )
    assert account_of(stack)["account"] is None and stack.served_leaf() is None
    stack.stop()
    stack.variables["LETSENCRYPT_ACCOUNT_VERSION"] = "v2"
    stack.start().wait_for_https()
    assert account_of(stack)["account"] not in (None, url)


def test_account_is_told_at_the_start_of_a_container_that_orders_nothing(new_ca, new_stack):
    ca = new_ca()
    stack = new_stack(ca)
    stack.start().wait_for_https()
    told = stack.log.find(r"INFO - ACME account at \S+: (\S+)")[1]
    stack.stop()
    mark, ca_mark = stack.log.mark(), ca.log.mark()
    stack.start().wait_for_https()
    assert stack.log.find(r"INFO - ACME account at \S+: (\S+)", mark)[1] == told
    assert account_of(stack)["account"] == told
    assert ca.account_calls(ca_mark) == 0


# A proxy


def test_ca_that_only_a_proxy_can_reach(new_ca, new_stack):
    ca = new_ca(name="ca.example.test")
    host_port = ca.directory.split("/")[2]
    with ConnectProxy({host_port: ca.place}) as proxy:
        stack = new_stack(ca, variables={"https_proxy": proxy.url})
        leaf = stack.start().wait_for_https()
        assert stack.agent.measured() == [pki.sha256(leaf)]
        targets = {target for target, _ in proxy.tunnels}
        ours = [agent for _, agent in proxy.tunnels if agent.startswith("cert-manager/")]
    # Both have been here, and nobody wanted anything but the CA.
    assert targets == {host_port}
    assert ours and len(ours) < len(proxy.tunnels)


def test_proxy_that_is_down_is_named(new_ca, new_stack):
    ca = new_ca(name="ca.example.test")
    stack = new_stack(ca, settings={"acme.proxy": "http://127.0.0.1:9"})
    stack.start().wait_for_http()
    stack.log.wait_for(
        rf"ERROR - .*{re.escape(ca.directory)} through http://127.0.0.1:9: connection refused", 30
    )


# Profiles and chains


def life_s(leaf):
    return (leaf.not_valid_after - leaf.not_valid_before).total_seconds()


def test_profile_decides_what_is_issued(new_ca, new_stack):
    ca = new_ca(newer=True, profiles={"classic": 90 * DAY_S, "shortlived": 6 * DAY_S})
    stack = new_stack(ca, settings={"acme.profile": "shortlived"}, certbot=NEWER_CERTBOT)
    assert round(life_s(stack.start().wait_for_https()) / DAY_S) == 6
    assert not stack.log.find("offers no profile")


def test_profile_that_the_ca_has_not_costs_a_warning(new_ca, new_stack):
    ca = new_ca(newer=True, profiles={"classic": 90 * DAY_S})
    stack = new_stack(ca, settings={"acme.profile": "shrotlived"})
    assert round(life_s(stack.start().wait_for_https()) / DAY_S) == 90
    stack.log.wait_for(r'WARNING - \S+ offers no profile "shrotlived" \(but classic\)')


def test_certbot_that_has_no_profiles_is_told_and_the_next_ca_needs_none(new_ca, new_stack):
    main = new_ca(newer=True, profiles={"classic": 90 * DAY_S, "shortlived": 6 * DAY_S})
    other = new_ca(http_port_of=main)
    stack = new_stack(main, settings=fallback_to(other) | {"acme.profile": "shortlived"})
    other.point(stack.domain, stack.address)
    stack.start().wait_for_https()
    stack.log.wait_for(r"ERROR - .*certbot too old: a profile needs certbot 4\.0 or newer")
    assert (main.orders(), other.issued()) == (0, 1)


def test_preferred_chain_is_the_one_that_is_served(new_ca, new_stack):
    ca = new_ca(alternate_roots=1)
    roots = [pki.read_chain(ca.root(number))[0] for number in range(2)]
    issuer = roots[1].subject.rfc4514_string().removeprefix("CN=")
    stack = new_stack(ca, settings={"acme.preferred_chain": issuer})
    stack.start().wait_for_https()
    assert stack.stored_chain()[-1].issuer == roots[1].subject
