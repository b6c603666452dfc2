"""What /evidences/ has for whoever verifies offline, and that it follows the certificate."""

import base64
import hashlib
import json
import subprocess

import pki
import pytest
from http_sockets import call
from loopback import wait_until
from stack import Stack
from test_nginx_levels import REDUCED, fragment_to

ENABLED = {"evidence.enabled": True}
FILES = ("cert.pem", "account.json", "sha256sum.txt", "quote.json")
# As in a version 4 TDX quote: the report data end the report, which follows the header.
REPORT_DATA = slice(48 + 520, 48 + 520 + 64)
SERVED = "evidence of leaf [0-9a-f]{64} is served at /evidences/"
FAILED = r"ERROR - no new evidence for /evidences/: get quote: .* \(attempt (\d+), next in"
NO_ACCOUNT = "WARNING - the evidence names no ACME account"
AUTHORITY = pki.Authority()


@pytest.fixture(scope="module", name="served")
def fixture_served(ca):
    """A container whose evidence is there, for tests that only look."""
    with Stack(ca, settings=ENABLED) as stack:
        stack.start()
        stack.log.wait_for(SERVED, timeout=40)
        yield stack


def get(stack, name, root=None):
    return stack.https_get(f"/evidences/{name}", root=root)


def download(stack, folder, root=None):
    """All the files, into a folder of the client's."""
    for name in FILES:
        answer = get(stack, name, root)
        assert answer.status == 200, f"{name}: {answer}"
        (folder / name).write_text(answer.body)
    return folder


def assert_holds(stack, folder):
    """What a client can find out from its copy and the leaf that it was served."""
    command = ["sha256sum", "--strict", "-c", "sha256sum.txt"]
    checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert checked.stdout == "cert.pem: OK\naccount.json: OK\n", checked
    bound = hashlib.sha256((folder / "sha256sum.txt").read_bytes()).digest()
    quote = bytes.fromhex(json.loads((folder / "quote.json").read_text())["quote"])
    assert quote[REPORT_DATA] == bound + bytes(32)
    chain = pki.read_chain((folder / "cert.pem").read_text())
    assert chain == stack.stored_chain()
    assert chain[0] == stack.served_leaf()


def account_of(stack, root=None):
    return json.loads(get(stack, "account.json", root).body)


def put_another_chain(stack):
    """A certificate for the derived key by another CA. Returns its leaf."""
    chain = AUTHORITY.issue(stack.domain, stack.tls_key)
    stack.put("cert.pem", chain)
    return pki.read_chain(chain)[0]


def root_of(authority):
    return pki.certificate_pem(authority.certificate)


# ---- what is there ----


def test_copy_can_be_verified(served, tmp_path):
    assert_holds(served, download(served, tmp_path))


def test_account_is_the_one_that_the_ca_knows(served):
    account = account_of(served)
    url = served.log.find(r"ACME account (\S+) \(created now\)")[1]
    assert account["account"] == url
    assert account["directory"] == served.ca.directory
    path = f"letsencrypt-account/{served.domain}/v1"
    assert account["thumbprint"] == pki.thumbprint(pki.derived_key(served.seed, path))


def test_the_answer_of_the_agent_is_whole(served):
    quote = json.loads(get(served, "quote.json").body)
    _, asked = call(served.agent.endpoint, "GetQuote", {"report_data": quote["report_data"]})
    assert quote == asked
    assert {"quote", "event_log", "report_data", "vm_config"} <= set(quote)


def test_files_have_their_types_and_are_asked_for_again(served):
    types = {name: get(served, name).headers for name in FILES}
    assert types["cert.pem"]["content-type"] == "text/plain"
    assert types["sha256sum.txt"]["content-type"] == "text/plain"
    assert types["account.json"]["content-type"] == "application/json"
    assert types["quote.json"]["content-type"] == "application/json"
    assert {headers["cache-control"] for headers in types.values()} == {"no-cache"}


def test_nothing_else_is_shown(served):
    for path in ("", "key.pem", "../ekm.secret", "..%2fekm.secret", "../evidences-1/cert.pem"):
        assert get(served, path).status in (400, 403, 404), path
    folder = served.folder["run_dir"]
    assert sorted(path.name for path in (folder / "evidences").iterdir()) == sorted(FILES)


# ---- its life ----


def test_evidence_follows_the_certificate(new_stack, tmp_path):
    stack = new_stack(settings=ENABLED).start()
    stack.log.wait_for(SERVED, timeout=40)
    # Nothing new until it is let through: what is shown meanwhile is seen.
    fault = stack.agent.fault(method="GetQuote", hang=True)
    stack.agent.forget()
    leaf = put_another_chain(stack)
    stack.wait_for_leaf(lambda served: served == leaf, "the other certificate is served")
    assert stack.agent.wait(method="GetQuote")
    for name in FILES:
        assert get(stack, name, root_of(AUTHORITY)).status == 404
    stack.agent.clear(fault=fault)
    stack.log.wait_for(f"evidence of leaf {pki.sha256(leaf)} is served")
    assert_holds(stack, download(stack, tmp_path, root_of(AUTHORITY)))
    left = sorted(path.name for path in stack.folder["run_dir"].glob("evidences*"))
    assert len(left) == 2 and left[0] == "evidences"


def test_agent_that_refuses_is_asked_again(new_stack, tmp_path):
    stack = new_stack(settings=ENABLED)
    stack.agent.fault(method="GetQuote", status=500, error="no quote today")
    stack.start()
    stack.log.wait_for(FAILED, timeout=40)
    assert stack.log.wait_for(r"no quote today \(attempt 2")
    assert get(stack, "quote.json").status == 404
    assert get(stack, "cert.pem").status == 404
    stack.agent.clear()
    stack.log.wait_for(SERVED)
    assert_holds(stack, download(stack, tmp_path))


def test_container_stops_while_it_waits_for_a_quote(new_stack):
    stack = new_stack(settings=ENABLED)
    stack.agent.fault(method="GetQuote", hang=True)
    stack.start()
    assert stack.agent.wait(method="GetQuote", timeout_s=40)
    stack.stop()
    assert not stack.log.find("ERROR - no new evidence")


def test_ca_that_is_down_leaves_the_account_out(new_ca, new_stack, tmp_path):
    ca = new_ca()
    stack = new_stack(of_ca=ca, settings=ENABLED).start()
    stack.log.wait_for(SERVED, timeout=40)
    ca.stop()
    leaf = put_another_chain(stack)
    stack.log.wait_for(f"evidence of leaf {pki.sha256(leaf)} is served")
    assert stack.log.wait_for(NO_ACCOUNT)
    account = account_of(stack, root_of(AUTHORITY))
    assert account["account"] is None and account["directory"] == ca.directory
    assert_holds(stack, download(stack, tmp_path, root_of(AUTHORITY)))


def test_no_account_is_made_for_evidence_alone(ca, new_stack):
    stack = new_stack(settings=ENABLED)
    calls = ca.log.mark()
    stack.put_pair(AUTHORITY.issue(stack.domain, stack.tls_key), stack.tls_key)
    stack.start()
    stack.log.wait_for(NO_ACCOUNT, timeout=40)
    assert account_of(stack, root_of(AUTHORITY))["account"] is None
    assert ca.account_calls(calls) > 0


def test_foreign_key_has_no_account(new_stack, tmp_path):
    key = pki.new_key()
    stack = new_stack(settings=ENABLED | {"tls.key": "external"})
    stack.put_pair(AUTHORITY.issue(stack.domain, key), key)
    stack.start()
    stack.log.wait_for(SERVED, timeout=40)
    nothing = {"directory": None, "account": None, "thumbprint": None}
    assert account_of(stack, root_of(AUTHORITY)) == nothing
    assert_holds(stack, download(stack, tmp_path, root_of(AUTHORITY)))
    assert not stack.log.find(NO_ACCOUNT)


def test_reduced_configuration_has_it(new_stack, tmp_path):
    stack = new_stack(settings=ENABLED, variables=fragment_to("no.such.host.test:1"))
    stack.start()
    stack.log.wait_for(REDUCED, timeout=40)
    stack.log.wait_for(SERVED)
    assert stack.https_get("/extra").status == 503
    assert_holds(stack, download(stack, tmp_path))


def test_off_by_default(stack):
    stack.start()
    stack.wait_for_https()
    wait_until(lambda: stack.status().get("next"), "the daemon waits")
    assert [get(stack, name).status for name in FILES] == [404] * len(FILES)
    assert not list(stack.folder["run_dir"].glob("evidences*"))
    assert "GetQuote" not in {entry["method"] for entry in stack.agent.log()}


def test_no_effect_in_development(new_stack):
    stack = new_stack(settings=ENABLED, variables={"DEV_MODE": "true"}).start()
    stack.log.wait_for("WARNING - evidence.enabled has no effect in development mode")
    stack.wait_for_https()
    root = pki.certificate_pem(stack.served_leaf())
    assert get(stack, "cert.pem", root).status == 404
