"""The simulated guest agent behaves like the agent it stands for, and fails as it promises."""

import contextlib
import hashlib
import http.client
import json
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fakes"))

from dstack_faults import PRESETS  # noqa: E402
from dstack_machine import RUNTIME_EVENT, event_digest, replay  # noqa: E402
from guest_agent import ChildAgent, GuestAgent  # noqa: E402
from http_sockets import UnixConnection, call, has_hung_up  # noqa: E402

# Computed by other software: keys are SHA-256 of "seed" and the path, digests are those of dstack.
KEYS = {
    "cert/letsencrypt/peer.test/v1": "cb51d711cba1b7717125d591d65a29fd"
    "bc903fd1f9641104a340ef25b627cb64",
    "letsencrypt-account/peer.test/v1": "2c4a607b5d9bea1ed644c570aa1a0a0d"
    "eef2fd8d4c716110366e8fe052574604",
    "ekm/hmac-key/v1": "b4030a2c08847f8d93ea0f24274350158078bcb8aa4ea5f84f0ae47c83380ef6",
}
KEY_PATH, KEY = next(iter(KEYS.items()))
SYSTEM_READY_DIGESTS = {
    "v1": "1a76b2a80a0be71eae59f80945d876351a7a3fb8e9fd1ff1cede5734aa84ea11"
    "fd72b4edfbb6f04e5a85edd114c751bd",
    "v2": "8c748e7cf5aa7ef37f036bd15cb78308279511a408bcd2aab352802cccd79cf0"
    "7d7d5e4d174c5b311f2d98f35f53ccd6",
}
LEAF_SHA256 = "3f1e5fae6e349148d66d6e96619204ad06f250384ad8384de60829435ec711f9"
LEAF_DIGEST_V1 = (
    "e1879ecc083d2692fe5fb7a059c62592bc79cb8db15159349ef9c1c887fb0524"
    "cbf3ccccfe33f5de8077636feb7f7a09"
)
# What an older client sends, byte for byte.
GET_KEY_REQUEST = (
    b"POST /GetKey HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nContent-Type: application/json\r\n"
    b"User-Agent: dstack-sdk-python/0.5.2\r\nContent-Length: 53\r\n\r\n"
    b'{"path":"cert/letsencrypt/peer.test/v1","purpose":""}'
)
EMIT_REQUEST = {"event": "New TLS Certificate", "payload": LEAF_SHA256.encode().hex()}
KEY_REQUEST = {"path": KEY_PATH, "purpose": "", "algorithm": "secp256k1"}
REQUESTS = {"GetKey": KEY_REQUEST, "EmitEvent": EMIT_REQUEST, "Info": {}}


@pytest.fixture(name="path")
def fixture_path(tmp_path):
    return str(tmp_path / "dstack.sock")


@pytest.fixture(name="start")
def fixture_start(path):
    """Starts an agent in this process at `path`, and stops it in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(GuestAgent(path, **options))


@pytest.fixture(name="agent")
def fixture_agent(start):
    return start()


@pytest.fixture(name="either", params=[GuestAgent, ChildAgent])
def fixture_either(request, path):
    """The agent in this process and as a child: a test with it uses nothing but operations."""
    with request.param(path) as agent:
        yield agent


def tcb_info(path):
    status, info = call(path, "Info")
    assert status == 200
    return json.loads(info["tcb_info"])


def in_background(action, *arguments):
    thread = threading.Thread(target=action, args=arguments, daemon=True)
    thread.start()
    return thread


def swallow(path, method):
    with contextlib.suppress(OSError, http.client.HTTPException):
        call(path, method, REQUESTS[method])


# --- Keys


@pytest.mark.parametrize("key_path", KEYS)
def test_get_key_matches_the_vectors(agent, key_path):
    status, answer = call(agent.endpoint, "GetKey", KEY_REQUEST | {"path": key_path})
    assert (status, answer["key"]) == (200, KEYS[key_path])
    assert [len(bytes.fromhex(link)) for link in answer["signature_chain"]] == [65, 65]


def test_older_client_on_one_kept_connection(agent):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(agent.endpoint)
        for _ in range(2):
            client.sendall(GET_KEY_REQUEST)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert json.loads(answer.read())["key"] == KEY


def test_purpose_and_algorithm_do_not_enter_the_key(agent):
    for change in ({"purpose": "signing"}, {"algorithm": "ed25519"}):
        assert call(agent.endpoint, "GetKey", KEY_REQUEST | change)[1]["key"] == KEY
    assert call(agent.endpoint, "GetKey", KEY_REQUEST | {"algorithm": "rsa"})[0] == 400


def test_key_epoch_changes_keys_and_back(either, path):
    either.rotate_keys(epoch="2")
    expected = hashlib.sha256(f"seed2{KEY_PATH}".encode()).hexdigest()
    assert call(path, "GetKey", KEY_REQUEST)[1]["key"] == expected
    either.rotate_keys(epoch="")
    assert call(path, "GetKey", KEY_REQUEST)[1]["key"] == KEY


# --- Events, registers, Info and GetQuote


def test_digest_vectors():
    for digests, expected in SYSTEM_READY_DIGESTS.items():
        assert event_digest("system-ready", b"", digests).hex() == expected
    name, payload = EMIT_REQUEST["event"], bytes.fromhex(EMIT_REQUEST["payload"])
    assert event_digest(name, payload).hex() == LEAF_DIGEST_V1


@pytest.mark.parametrize("digests", SYSTEM_READY_DIGESTS)
def test_event_log_accounts_for_every_register(start, path, digests):
    agent = start(event_digests=digests)
    assert call(path, "EmitEvent", EMIT_REQUEST) == (200, {})
    info = tcb_info(path)
    log = info["event_log"]
    assert {entry["imr"] for entry in log} == {0, 1, 2, 3}
    for imr in range(4):
        assert replay(log, imr).hex() == info[f"rtmr{imr}"] == agent.state()["rtmr"][imr]

    ready = next(entry for entry in log if entry["event"] == "system-ready")
    assert ready["digest"] == SYSTEM_READY_DIGESTS[digests]
    last = log[-1]
    assert (last["imr"], last["event_type"]) == (3, RUNTIME_EVENT)
    assert (last["event"], last["event_payload"]) == tuple(EMIT_REQUEST.values())
    if digests == "v1":
        assert last["digest"] == LEAF_DIGEST_V1 and "version" not in last
    else:
        assert last["version"] == 2
        assert hashlib.sha384(bytes.fromhex(last["preimage"])).hexdigest() == last["digest"]


def test_info_names_the_app(start, path):
    start(app_name="shop")
    _, info = call(path, "Info")
    inner = json.loads(info["tcb_info"])
    assert info["app_name"] == "shop"
    assert (len(info["app_id"]), len(info["instance_id"])) == (40, 40)
    assert hashlib.sha256(inner["app_compose"].encode()).hexdigest() == info["compose_hash"]


@pytest.mark.parametrize(("version", "has_digests"), [("0.5.5", True), ("0.5.6", False)])
def test_quote_binds_report_data_and_register(start, path, version, has_digests):
    agent = start(version=version)
    status, answer = call(path, "GetQuote", {"report_data": "c0ffee"})
    quote, report_data = bytes.fromhex(answer["quote"]), bytes.fromhex(answer["report_data"])
    assert status == 200 and report_data == b"\xc0\xff\xee".ljust(64, b"\0")
    assert quote[-64:] == report_data and quote[-112:-64].hex() == agent.state()["rtmr"][3]
    entries = [entry for entry in json.loads(answer["event_log"]) if entry["imr"] == 3]
    assert all(bool(entry["digest"]) == has_digests for entry in entries)
    assert json.loads(answer["vm_config"])
    assert call(path, "GetQuote", {"report_data": "00" * 65})[0] == 400


@pytest.mark.parametrize("payload", ["0", "zz", "00 11", 17, None])
def test_payload_must_be_hex(agent, payload):
    status, answer = call(agent.endpoint, "EmitEvent", {"event": "x", "payload": payload})
    assert status == 400 and "payload" in answer["error"]
    assert agent.measured(event="x") == []


def test_reboot_clears_the_log_and_may_bring_another_release(either, path):
    at_boot = either.state()
    call(path, "EmitEvent", EMIT_REQUEST)
    assert either.measured() == [LEAF_SHA256]
    either.reboot()
    assert either.state()["rtmr"] == at_boot["rtmr"]
    assert either.state()["event_log"] == at_boot["event_log"]
    either.reboot(version="0.6.0", event_digests="v2")
    assert call(path, "EmitEvent", EMIT_REQUEST)[0] == 400
    assert either.state()["event_log"][-1]["digest"] == SYSTEM_READY_DIGESTS["v2"]


def test_event_by_somebody_else(either):
    either.emit(event="New TLS Certificate", payload=b"other".hex())
    assert either.measured() == ["other"]
    assert either.log() == []


def test_state_file_outlives_a_killed_agent(path, tmp_path):
    options = {"state": str(tmp_path / "state.json")}
    with ChildAgent(path, **options) as agent:
        call(path, "EmitEvent", EMIT_REQUEST)
        agent.rotate_keys(epoch="2")
        before = agent.state()
        agent.kill()
    assert Path(path).is_socket()
    with ChildAgent(path, **options) as agent:
        assert {**agent.state(), "emit_peak": 1, "emit_peak_abandoned": 1} == before
        info = tcb_info(path)
        assert replay(info["event_log"]).hex() == info["rtmr3"]
        agent.reboot()
        assert agent.measured() == []


# --- Releases and HTTP


@pytest.mark.parametrize(
    ("version", "method", "status"),
    [
        ("0.4.2", "EmitEvent", 404),
        ("0.5.0", "EmitEvent", 200),
        ("0.5.6", "Version", 404),
        ("0.5.7", "Version", 200),
        ("0.5.11", "v0/GetKey", 404),
        ("0.6.0", "v0/GetKey", 200),
        ("0.6.0", "v1/GetKey", 404),
        ("0.6.0", "EmitEvent", 400),
        ("0.6.0", "v0/EmitEvent", 400),
        ("0.6.4", "GetKey", 200),
        ("0.6.4", "NoSuchMethod", 404),
    ],
)
def test_what_a_release_knows(start, path, version, method, status):
    start(version=version)
    actual, answer = call(path, method, REQUESTS.get(method.removeprefix("v0/"), {}))
    assert actual == status and (status == 200 or answer["error"])


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"{}", 400),
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 200),
        ({"Content-Type": "application/json"}, b"[]", 400),
        ({"Content-Type": "application/json"}, b"{", 400),
    ],
)
def test_requests_must_be_json_objects_and_say_so(agent, headers, body, status):
    client = UnixConnection(agent.endpoint)
    client.request("POST", "/Info", body, headers)
    answer = client.getresponse()
    assert answer.status == status and json.loads(answer.read())
    client.close()


def test_get_with_a_query(agent):
    client = UnixConnection(agent.endpoint)
    status, answer = client.exchange("GET", f"/GetKey?path={KEY_PATH}")
    client.close()
    assert (status, answer["key"]) == (200, KEY)
    assert agent.log()[0]["request"] == {"path": KEY_PATH}


def test_agent_behind_http(tmp_path):
    agent = GuestAgent("http://127.0.0.1:0", control=tmp_path / "control")
    with agent:
        request = urllib.request.Request(f"{agent.endpoint}/Info", b"{}")
        request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            assert json.load(answer)["app_name"]


# --- Faults


def test_log_of_calls(either, path):
    number = either.fault(method="Info", status=503, times=1)
    assert call(path, "Info") == (503, {"error": "simulated failure"})
    assert call(path, "GetKey", KEY_REQUEST)[0] == 200
    first, second = either.log()
    assert (first["method"], first["request"], first["status"]) == ("Info", {}, 503)
    assert (second["request"], second["fault"]) == (KEY_REQUEST, None)
    assert first["fault"] == number and first["n"] < second["n"]
    assert first["received"] <= first["answered"] <= second["received"]
    either.forget()
    assert either.log() == []


def test_fault_hits_the_calls_it_names(agent, path):
    agent.fault(preset="server-error", method="GetKey", skip=1, times=2)
    statuses = [call(path, "GetKey", KEY_REQUEST)[0] for _ in range(4)]
    assert statuses == [200, 500, 500, 200]
    assert call(path, "Info")[0] == 200


def test_fault_lasts_until_cleared(either, path):
    gone = either.fault(preset="unavailable")
    either.fault(preset="unknown-method", method="Version")
    assert [call(path, "Version") for _ in range(2)] == [(503, "try again later")] * 2
    either.clear(fault=gone)
    assert call(path, "Version")[0] == 404
    either.clear()
    assert call(path, "Version")[0] == 200


ANSWERS = {
    "server-error": lambda answer: answer == (500, {"error": "internal error"}),
    "unavailable": lambda answer: answer == (503, "try again later"),
    "unknown-method": lambda answer: answer[0] == 404,
    "not-json": lambda answer: answer == (200, "<html>not JSON</html>"),
    "not-object": lambda answer: answer == (200, ["not", "an", "object"]),
    "empty-body": lambda answer: answer == (200, ""),
    "oversized": lambda answer: answer[1]["key"] == KEY,
    "key-0x": lambda answer: answer[1]["key"] == f"0x{KEY}",
    "key-not-hex": lambda answer: answer[1]["key"] == "zz" * 32,
    "key-odd": lambda answer: len(answer[1]["key"]) == 63,
    "key-short": lambda answer: len(answer[1]["key"]) == 62,
    "key-long": lambda answer: answer[1]["key"] == f"{KEY}00",
    "key-empty": lambda answer: answer[1]["key"] == "",
    "key-number": lambda answer: answer[1]["key"] == 17,
    "key-missing": lambda answer: set(answer[1]) == {"signature_chain"},
    "key-zero": lambda answer: int(answer[1]["key"], 16) == 0,
    "key-order": lambda answer: answer[1]["key"].startswith("ffffffff00000000ffffffffffffffffbce6"),
    "chain-missing": lambda answer: set(answer[1]) == {"key"},
    "emit-removed": lambda answer: answer[0] == 400 and "removed" in answer[1]["error"],
    "emit-ignored": lambda answer: answer == (200, {}),
    "emit-empty-body": lambda answer: answer == (200, ""),
    "tcb-info-object": lambda answer: answer[1]["tcb_info"] == {"event_log": []},
    "tcb-info-not-json": lambda answer: answer[1]["tcb_info"] == "{not JSON",
    "tcb-info-empty": lambda answer: answer[1]["tcb_info"] == "",
    "tcb-info-missing": lambda answer: "tcb_info" not in answer[1],
    "event-log-missing": lambda answer: json.loads(answer[1]["tcb_info"]) == {},
    "event-log-text": lambda answer: json.loads(answer[1]["tcb_info"])["event_log"] == "text",
}
NO_ANSWERS = {
    "closed": http.client.RemoteDisconnected,
    "lost-answer": http.client.RemoteDisconnected,
    "not-http": http.client.BadStatusLine,
    "truncated": http.client.IncompleteRead,
}
WAITS = {"slow", "hang", "late-answer", "drip"}


def test_every_preset_is_tested():
    assert {*ANSWERS, *NO_ANSWERS, *WAITS} == set(PRESETS)


@pytest.mark.parametrize("preset", ANSWERS)
def test_preset_answers(agent, path, preset):
    method = PRESETS[preset].get("method", "GetKey")
    agent.fault(preset=preset)
    assert ANSWERS[preset](call(path, method, REQUESTS[method]))
    assert agent.measured() == ([LEAF_SHA256] if preset == "emit-empty-body" else [])


@pytest.mark.parametrize("preset", NO_ANSWERS)
def test_preset_without_an_answer(agent, path, preset):
    agent.fault(preset=preset, times=1)
    with pytest.raises(NO_ANSWERS[preset]):
        call(path, "EmitEvent", EMIT_REQUEST)
    has_effect = preset in ("lost-answer", "truncated")
    assert agent.measured() == ([LEAF_SHA256] if has_effect else [])
    assert call(path, "GetKey", KEY_REQUEST)[0] == 200


@pytest.mark.parametrize("preset", ["slow", "drip"])
def test_slow_answer_arrives(agent, path, preset):
    shorter = {name: 0.02 for name in PRESETS[preset]}
    agent.fault(preset=preset, **shorter)
    assert call(path, "EmitEvent", EMIT_REQUEST) == (200, {})
    assert agent.measured() == [LEAF_SHA256]
    entry = agent.log()[0]
    assert preset == "drip" or entry["answered"] - entry["received"] >= 0.02


@pytest.mark.parametrize(("preset", "meanwhile"), [("hang", []), ("late-answer", [LEAF_SHA256])])
def test_hanging_call_goes_on_when_cleared(either, path, preset, meanwhile):
    either.fault(preset=preset, times=1)
    answers = []
    client = in_background(lambda: answers.append(call(path, "EmitEvent", EMIT_REQUEST)))
    assert either.wait(method="EmitEvent")
    assert either.measured() == meanwhile
    assert not either.wait(method="EmitEvent", answered=True, timeout_s=0)
    either.clear()
    client.join()
    assert answers == [(200, {})]
    assert either.measured() == [LEAF_SHA256]


@pytest.mark.parametrize("leave_file", [False, True])
def test_vanish_and_reappear(either, path, leave_file):
    idle = UnixConnection(path)
    assert idle.exchange("POST", "/Info", {})[0] == 200
    either.fault(preset="hang", method="EmitEvent")
    client = in_background(swallow, path, "EmitEvent")
    assert either.wait(method="EmitEvent")
    either.vanish(leave_file=leave_file)
    client.join()
    assert idle.sock.recv(1) == b""
    idle.close()
    assert either.wait(method="EmitEvent", answered=True)
    with pytest.raises(ConnectionRefusedError if leave_file else FileNotFoundError):
        call(path, "Info")
    either.reappear()
    assert call(path, "Info")[0] == 200
    assert either.measured() == []
    assert either.log()[1]["status"] is None


def test_faults_from_the_start(path):
    with ChildAgent(path, faults=[{"preset": "emit-removed"}, {"preset": "key-0x"}]) as agent:
        assert call(path, "EmitEvent", EMIT_REQUEST)[0] == 400
        assert call(path, "GetKey", KEY_REQUEST)[1]["key"] == f"0x{KEY}"
        assert len(agent.state()["faults"]) == 2


# --- Concurrency


def test_one_emission_after_another_is_a_peak_of_one(agent, path):
    for _ in range(20):
        call(path, "EmitEvent", EMIT_REQUEST)
    state = agent.state()
    assert (state["emit_peak"], state["emit_peak_abandoned"]) == (1, 1)


def test_concurrent_emissions_are_counted(either, path):
    either.fault(preset="hang", method="EmitEvent")
    clients = [in_background(swallow, path, "EmitEvent") for _ in range(3)]
    assert either.wait(method="EmitEvent", count=3)
    either.clear()
    for client in clients:
        client.join()
    assert either.wait(method="EmitEvent", count=3, answered=True)
    assert either.state()["emit_peak"] == 3
    assert either.measured() == [LEAF_SHA256] * 3
    info = tcb_info(path)
    assert replay(info["event_log"]).hex() == info["rtmr3"]


def test_client_that_gave_up_is_counted_apart(agent, path):
    agent.fault(preset="hang", method="EmitEvent", times=1)
    impatient = UnixConnection(path, timeout=0.01)
    with pytest.raises(TimeoutError):
        impatient.exchange("POST", "/EmitEvent", EMIT_REQUEST)
    assert agent.wait(method="EmitEvent")
    impatient.close()
    assert call(path, "EmitEvent", EMIT_REQUEST)[0] == 200
    state = agent.state()
    assert (state["emit_peak"], state["emit_peak_abandoned"]) == (1, 2)


def test_has_hung_up_ignores_unread_bytes():
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(b"unread")
            assert not has_hung_up(here)
        assert has_hung_up(here)


# --- The program and its control socket


def test_sigterm_ends_cleanly_even_while_a_call_hangs(path):
    with ChildAgent(path, faults=[{"preset": "hang"}]) as agent:
        client = in_background(swallow, path, "GetKey")
        assert agent.wait(method="GetKey")
        assert agent.stop() == 0
        client.join()
    assert not Path(path).exists() and not Path(agent.control_path).exists()


def test_stopping_leaves_a_successor_alone(path, tmp_path):
    with GuestAgent(path, control=tmp_path / "first") as first:
        with GuestAgent(path, seed="other", control=tmp_path / "second"):
            first.stop()
            assert call(path, "GetKey", KEY_REQUEST)[1]["key"] != KEY


def test_control_over_http(agent):
    control = UnixConnection(agent.control_path)
    message = {"op": "fault", "preset": "slow", "method": "GetKey", "delay_s": 0}
    status, answer = control.exchange("POST", "/_control", message)
    assert status == 200 and str(answer["result"]) in agent.state()["faults"]
    assert control.exchange("GET", "/_log") == (200, [])
    assert control.exchange("GET", "/_state") == (200, agent.state())
    assert control.exchange("GET", "/Info")[0] == 404
    control.close()


@pytest.mark.parametrize(
    "message",
    [
        {"op": "stop"},
        {"op": "fault", "preset": "unheard-of"},
        {"op": "fault", "no_such_field": 1},
        {"op": "fault", "perform": "sometimes"},
        {"op": "clear", "fault": 99},
        {"op": "emit", "event": "x", "payload": "zz"},
        {"preset": "slow"},
        [],
    ],
)
def test_control_rejects_nonsense(agent, message):
    control = UnixConnection(agent.control_path)
    status, answer = control.exchange("POST", "/_control", message)
    control.close()
    assert status == 400 and answer["error"]
    assert agent.state()["faults"] == {}


def test_child_reports_a_rejected_operation(path):
    with ChildAgent(path) as agent, pytest.raises(ValueError, match="unheard-of"):
        agent.fault(preset="unheard-of")
