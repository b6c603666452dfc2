"""cert-manager verify-log says what an attesting client would say of an event log, and why."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pki
import pytest
from bare_nginx import BareNginx
from loopback import LoopbackAddress
from processes import environment
from stack import PROGRAM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fakes"))

from dstack_machine import RUNTIME_EVENT, event_digest, event_preimage, replay  # noqa: E402
from guest_agent import CERTIFICATE_EVENT, GuestAgent  # noqa: E402
from http_sockets import call  # noqa: E402

TIMEOUT_S = 30
HOLDS, NO_VERDICT, WRONG_USE, NOT_VERIFIED = 0, 1, 2, 3
OTHER_LEAF = "ab" * 32
MIB = 1 << 20


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    def lines(self, head):
        return [line for line in self.out.splitlines() if line.startswith(head)]


def run(*arguments, **options):
    command = [str(PROGRAM), "verify-log", *map(str, arguments)]
    options = {"env": environment(), "stdin": subprocess.DEVNULL, "timeout": TIMEOUT_S} | options
    if "stdout" not in options:
        options |= {"capture_output": True}
    result = subprocess.run(command, check=False, text=True, **options)
    answer = Answer(result.returncode, result.stdout or "", result.stderr or "")
    assert answer.code in (HOLDS, NO_VERDICT, WRONG_USE, NOT_VERIFIED), answer
    assert "runtime error" not in answer.err and "Sanitizer" not in answer.err
    return answer


def holds(*arguments, **options):
    answer = run(*arguments, **options)
    assert (answer.code, answer.err) == (HOLDS, "")
    assert answer.lines("verdict: holds") and not answer.lines("fault:")
    return answer


def does_not_hold(*arguments, says, faults=1, **options):
    answer = run(*arguments, **options)
    assert (answer.code, answer.err) == (NOT_VERIFIED, "")
    found = answer.lines("fault:")
    assert len(found) == faults and says in found[0], answer.out
    (verdict,) = answer.lines("verdict:")
    assert verdict.startswith(f"verdict: does not hold, {faults} fault")
    return answer


def no_verdict(*arguments, says, **options):
    """One line says why, and nothing looks like a result."""
    answer = run(*arguments, **options)
    assert (answer.code, answer.out) == (NO_VERDICT, "")
    (line,) = answer.err.splitlines()
    assert line.startswith("cert-manager verify-log: ") and says in line
    return answer


@pytest.fixture(name="write")
def fixture_write(tmp_path):
    """Writes a file, anything but text and bytes as JSON; its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture(name="chain", scope="module")
def fixture_chain():
    return pki.Authority().issue("app.example.test", pki.new_key())


@pytest.fixture(name="leaf", scope="module")
def fixture_leaf(chain):
    return pki.sha256(pki.read_chain(chain)[0])


@pytest.fixture(name="cert")
def fixture_cert(write, chain):
    return write("cert.pem", chain)


@pytest.fixture(name="start")
def fixture_start(tmp_path, leaf):
    """Starts a guest agent in whose machine a certificate was measured."""
    agents = []

    def start(endpoint=tmp_path / "agent.sock", **options):
        agent = GuestAgent(endpoint, control=tmp_path / "control", **options).start()
        agents.append(agent)
        agent.emit(event=CERTIFICATE_EVENT, payload=leaf.encode().hex())
        return agent

    yield start
    for agent in agents:
        agent.stop()


@pytest.fixture(name="agent")
def fixture_agent(start):
    return start()


def event(name, payload, digests="v1"):
    """An entry of RTMR3 with its right digest."""
    return {
        "imr": 3,
        "event_type": RUNTIME_EVENT,
        "digest": event_digest(name, payload, digests).hex(),
        "event": name,
        "event_payload": payload.hex(),
    }


def certificate_event(leaf):
    return event(CERTIFICATE_EVENT, leaf.encode())


def log_with(leaf):
    return [event("system-preparing", b""), event("app-id", b"\1\2"), certificate_event(leaf)]


# The log of an agent


@pytest.mark.parametrize("digests", ["v1", "v2"])
def test_log_of_the_agent_names_the_certificate(start, cert, leaf, digests):
    agent = start(event_digests=digests)
    answer = holds("--agent", agent.endpoint, "--cert", cert)
    (log,) = answer.lines("event log:")
    assert f"{agent.endpoint}: 13 entries, 8 in RTMR3, 8 with version {digests[1]} digests" in log
    (register,) = answer.lines("RTMR3:")
    assert agent.state()["rtmr"][3] in register and "what the agent shows" in register
    (last,) = answer.lines("last certificate event:")
    assert f"entry 13, names leaf {leaf}" in last
    assert answer.lines("certificate:") == [f"certificate: {cert}, leaf {leaf}"]
    assert answer.lines("verdict:") == ["verdict: holds, and names the certificate"]


def test_agent_is_found_as_the_daemon_finds_it(agent, cert):
    holds("--cert", cert, env=environment(DSTACK_SIMULATOR_ENDPOINT=agent.endpoint))
    elsewhere = environment(DSTACK_SIMULATOR_ENDPOINT="/nonexistent.sock")
    holds("--agent", agent.endpoint, env=elsewhere)
    no_verdict(env=elsewhere, says="guest agent /nonexistent.sock: Info: ")


def test_agent_over_tcp(start, cert):
    address = LoopbackAddress()
    try:
        agent = start(f"http://{address}:{address.port(8090)}")
        holds("--agent", agent.endpoint, "--cert", cert)
    finally:
        address.close()


def test_duplicates_are_tolerated_and_the_last_event_is_not(agent, cert, leaf):
    agent.emit(event=CERTIFICATE_EVENT, payload=leaf.encode().hex())
    agent.emit(event="later", payload="00")
    answer = holds("--agent", agent.endpoint, "--cert", cert)
    assert "entry 14" in answer.out and ", 1 older ones" in answer.out
    agent.emit(event=CERTIFICATE_EVENT, payload=OTHER_LEAF.encode().hex())
    does_not_hold(
        *("--agent", agent.endpoint, "--cert", cert),
        says=f"the last certificate event names leaf {OTHER_LEAF}, not the certificate's {leaf}; "
        "only entry 14 does, and the last one counts",
    )


def test_without_a_certificate_the_log_is_judged(agent):
    assert holds("--agent", agent.endpoint).lines("verdict:") == ["verdict: holds"]
    agent.reboot()
    does_not_hold("--agent", agent.endpoint, says="no certificate is attested")


def test_register_and_log_that_went_apart_are_seen(agent, write):
    """As after emissions that overlapped in an agent up to 0.5.11."""
    tcb_info = json.loads(call(agent.endpoint, "Info")[1]["tcb_info"])
    log = tcb_info["event_log"]
    log[-2:] = log[:-3:-1]
    does_not_hold("--log", write("log", tcb_info), says="in another order, or of another boot")


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ("server-error", "HTTP status 500"),
        ("unknown-method", "HTTP status 404"),
        ("closed", "guest agent"),
        ("not-http", "guest agent"),
        ("not-json", "not JSON"),
        ("not-object", "not an object"),
        ("truncated", "guest agent"),
        ("oversized", "more than"),
        ("tcb-info-object", "not a string"),
        ("tcb-info-not-json", "not JSON"),
        ("tcb-info-empty", "not JSON"),
        ("tcb-info-missing", "tcb_info"),
        ("event-log-missing", "event_log"),
        ("event-log-text", "not JSON"),
    ],
)
def test_agent_that_gives_no_log_means_no_verdict(agent, preset, says):
    agent.fault(preset=preset)
    answer = no_verdict("--agent", agent.endpoint, says=says)
    assert agent.endpoint in answer.err


# Files


def test_every_form_of_a_log_is_taken(start, write, cert):
    old = start(version="0.5.5")
    info = call(old.endpoint, "Info")[1]
    tcb_info = json.loads(info["tcb_info"])
    forms = {
        "array": tcb_info["event_log"],
        "Info": info,
        "Info with an object": info | {"tcb_info": tcb_info},
        "tcb_info": tcb_info,
        "tcb_info as a string": info["tcb_info"],
        "tcb_info as a JSON string": json.dumps(info["tcb_info"]),
        "GetQuote": call(old.endpoint, "GetQuote", {"report_data": ""})[1],
        "GetQuote's event_log": call(old.endpoint, "GetQuote", {"report_data": ""})[1]["event_log"],
    }
    old.vanish()  # files need no agent
    for form, content in forms.items():
        answer = holds("--log", write(form, content), "--cert", cert)
        shown = "Info" in form or "tcb_info" in form
        assert ("what the agent shows" in answer.out) == shown, form


def test_quote_without_digests_names_the_source_to_use(agent, write, cert):
    quote = call(agent.endpoint, "GetQuote", {"report_data": ""})[1]
    answer = does_not_hold(
        *("--log", write("quote", quote), "--cert", cert),
        says="all digests of RTMR3 are left out, as GetQuote does since dstack 0.5.6: take the log "
        "of the agent's Info",
    )
    assert "RTMR3: not replayed" in answer.out


def test_register_of_a_quote_decides(agent, write, cert):
    log = write("info", call(agent.endpoint, "Info")[1])
    before = replay(json.loads(json.loads(log.read_text())["tcb_info"])["event_log"][:-1]).hex()
    register = agent.state()["rtmr"][3]
    arguments = ("--log", log, "--cert", cert, "--rtmr3")
    assert "compared with --rtmr3" in holds(*arguments, register).out
    holds(*arguments, register.upper())
    does_not_hold(*arguments, before, says="as it was before entry 13: it is older than the log")
    does_not_hold(*arguments, "01" * 48, says=f"the log replays RTMR3 to {register}, but")


def spoilt(log, position, **changes):
    """With other members in one entry; None leaves one out."""
    entry = {k: v for k, v in (log[position] | changes).items() if v is not None}
    return [*log[:position], entry, *log[position + 1 :]]


def with_last(log, payload):
    return [*log, event(CERTIFICATE_EVENT, payload)]


# Name: what happens to a good log for the leaf; kind, entry and text of the fault.
FAULTS = {
    "digest of something else": (
        lambda log, leaf: spoilt(log, 1, digest=event_digest("app-id", b"\2").hex()),
        ("digest-wrong", 2, "(app-id): its digest "),
    ),
    "changed name": (
        lambda log, leaf: spoilt(log, 1, event="app-it"),
        ("digest-wrong", 2, "is neither version 1 ("),
    ),
    "payload cut to nothing": (
        lambda log, leaf: spoilt(log, 1, event_payload=""),
        ("digest-wrong", 2, "the payload is empty, was it left out of this log?"),
    ),
    "payload cut": (
        lambda log, leaf: spoilt(log, 1, event_payload="01"),
        ("digest-wrong", 2, "or the payload was cut"),
    ),
    "payload cut in a byte": (
        lambda log, leaf: spoilt(log, 1, event_payload="0"),
        ("payload-malformed", 2, "is not hex, or was cut"),
    ),
    "payload left out": (
        lambda log, leaf: spoilt(log, 1, event_payload=None),
        ("payload-missing", 2, "has no payload"),
    ),
    "digest left out": (
        lambda log, leaf: spoilt(log, 1, digest=None),
        ("digest-missing", 2, "has no digest"),
    ),
    "digest of another length": (
        lambda log, leaf: spoilt(log, 1, digest="00" * 32),
        ("digest-malformed", 2, "is not 48 bytes in hex"),
    ),
    "version of another digest": (
        lambda log, leaf: spoilt(log, 1, version=2),
        ("version-wrong", 2, "it says version 2, but its digest is of version 1"),
    ),
    "preimage of another event": (
        lambda log, leaf: spoilt(log, 1, preimage=event_preimage("app-id", b"\2").hex()),
        ("preimage-wrong", 2, "its preimage is not what its name, payload and version make"),
    ),
    "register left out": (
        lambda log, leaf: spoilt(log, 1, imr=None),
        ("entry-malformed", 2, "it names no register"),
    ),
    "certificate event in another register": (
        lambda log, leaf: spoilt(log, 2, imr=2),
        ("event-missing", None, 'no event "New TLS Certificate" in RTMR3'),
    ),
    "certificate event of another type": (
        lambda log, leaf: spoilt(log, 2, event_type=1),
        ("event-unbound", 3, "is not a runtime event"),
    ),
    "another leaf": (
        lambda log, leaf: with_last(log, OTHER_LEAF.encode()),
        ("leaf-differs", 4, f"names leaf {OTHER_LEAF}, not the certificate's "),
    ),
    "raw bytes": (
        lambda log, leaf: with_last(log, bytes.fromhex(leaf)),
        ("event-malformed", 4, "32 raw bytes, where verifiers expect the 64 characters"),
    ),
    "upper case": (
        lambda log, leaf: with_last(log, leaf.upper().encode()),
        ("event-malformed", 4, "upper-case hex"),
    ),
    "hex of hex": (
        lambda log, leaf: with_last(log, leaf.encode().hex().encode()),
        ("event-malformed", 4, "a payload that is not 64 bytes in hex"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_line_and_its_kind(write, cert, leaf, name):
    change, (kind, entry, text) = FAULTS[name]
    log = log_with(leaf)
    holds("--log", write("good", log), "--cert", cert)
    asked = ("--log", write("bad", change(log, leaf)), "--cert", cert)
    does_not_hold(*asked, says=text)
    answer = run(*asked, "--json")
    assert (answer.code, answer.err) == (NOT_VERIFIED, "")
    report = json.loads(answer.out)
    assert (report["holds"], report["fault_count"]) == (False, 1)
    (fault,) = report["faults"]
    assert (fault["kind"], fault["entry"]) == (kind, entry) and text in fault["text"]


def test_upper_case_digests_hold(write, cert, leaf):
    log = [entry | {"digest": entry["digest"].upper()} for entry in log_with(leaf)]
    holds("--log", write("log", log), "--cert", cert)


@pytest.mark.parametrize(
    "name", ["\0\x01\b\t\n\x0b\x0c\r\x1f\x7f", '/"\\ \\u001F', "é € 😀 \u2028", ""]
)
def test_version_2_digests_of_strange_names_hold(write, cert, leaf, name):
    entry = event(name, b"\0\xff", "v2")
    entry |= {"version": 2, "preimage": event_preimage(name, b"\0\xff", "v2").hex()}
    log = write("log", [entry, certificate_event(leaf)])
    assert ", 1 with version 1 digests, 1 with version 2 digests" in holds("--log", log).out
    assert holds("--log", log, "--cert", cert)


def test_names_from_the_log_forge_no_line(write):
    log = [event("x", b"") | {"event": "x\nverdict: holds\n\x1b[2J"}, certificate_event(OTHER_LEAF)]
    does_not_hold("--log", write("log", log), says=r"entry 1 (x\x0averdict: holds\x0a\x1b[2J): ")


def test_report_for_machines(agent, cert, leaf):
    answer = run("--agent", agent.endpoint, "--cert", cert, "--json")
    assert (answer.code, answer.err) == (HOLDS, "")
    assert json.loads(answer.out) == {
        "holds": True,
        "source": agent.endpoint,
        "entries": 13,
        "rtmr3_entries": 8,
        "version_1_digests": 8,
        "version_2_digests": 0,
        "rtmr3": {"replayed": agent.state()["rtmr"][3], "compared_with": "agent"},
        "last_certificate_event": {"entry": 13, "leaf": leaf, "older": 0},
        "certificate": {"source": str(cert), "leaf": leaf},
        "fault_count": 0,
        "faults": [],
    }
    report = json.loads(run("--agent", agent.endpoint, "--rtmr3", "00" * 48, "--json").out)
    assert report["rtmr3"]["compared_with"] == "option" and report["certificate"] is None


# What a host serves


@pytest.fixture(name="nginx")
def fixture_nginx():
    """Presents the leaf `named` under the name 127.1, and `other` otherwise."""
    with BareNginx() as nginx:
        for name in ("named", "other"):
            key = pki.new_key()
            presented = pki.Authority().issue(f"{name}.example.test", key)
            (nginx.folder / f"{name}.pem").write_text(presented)
            (nginx.folder / f"{name}.key").write_text(pki.key_pem(key))
            setattr(nginx, name, pki.sha256(pki.read_chain(presented)[0]))
        nginx.start(
            """
            ssl_protocols TLSv1.3;
            server {
                listen LISTEN ssl default_server;
                ssl_certificate FOLDER/other.pem; ssl_certificate_key FOLDER/other.key;
            }
            server {
                listen LISTEN ssl; server_name 127.1;
                ssl_certificate FOLDER/named.pem; ssl_certificate_key FOLDER/named.key;
            }
            """
        )
        yield nginx


def test_certificate_that_a_host_serves(nginx, write):
    # 127.1 is not an address to RFC 6066, but to every resolver without asking anybody.
    host = f"127.1:{nginx.port}"
    log = write("log", log_with(nginx.named))
    answer = holds("--log", log, "--host", host)
    assert answer.lines("certificate:") == [f"certificate: {host}, leaf {nginx.named}"]
    does_not_hold(
        *("--log", write("other", log_with(OTHER_LEAF)), "--host", host),
        says=f"names leaf {OTHER_LEAF}, not the certificate's {nginx.named}",
    )
    # To an address no name is sent, so the default server answers.
    address = f"127.0.0.1:{nginx.port}"
    holds("--log", write("default", log_with(nginx.other)), "--host", address)
    does_not_hold("--log", log, "--host", address, says=f"not the certificate's {nginx.other}")


def test_agent_and_host_in_one_run(nginx, agent):
    arguments = ("--agent", agent.endpoint, "--host", f"127.1:{nginx.port}")
    does_not_hold(*arguments, says="names leaf")
    agent.emit(event=CERTIFICATE_EVENT, payload=nginx.named.encode().hex())
    holds(*arguments)
    nginx.stop()
    no_verdict(*arguments, says=f"127.0.0.1:{nginx.port}: connection refused")


def test_host_that_speaks_no_tls_means_no_verdict(write):
    with BareNginx() as nginx:
        nginx.start("server { listen LISTEN; }")
        log = write("log", log_with(OTHER_LEAF))
        no_verdict("--log", log, "--host", f"127.0.0.1:{nginx.port}", says="TLS handshake: ")


# What cannot be read


def test_files_that_cannot_be_read_mean_no_verdict(write, tmp_path, cert, chain):
    log = write("log", log_with(OTHER_LEAF))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    key = write("key.pem", pki.key_pem(pki.new_key()))
    for file, says in {
        tmp_path / "none": "No such file",
        tmp_path: "a folder, expected a regular file",
        fifo: "not a regular file",
        write("empty", ""): "not JSON (line 1",
        write("text", "no JSON"): "not JSON (line 1, column ",
        write("latin", b'[{"event":"\xe9"}]'): "not JSON",
        write("number", "5"): "expected an array, or an object",
        write("quoted", '"text"'): "not JSON",
        write("twice", '[{"imr":3,"imr":0}]'): "a member twice in one object",
        write("deep", "[" * 100000): "not JSON",
        write("nested", '{"tcb_info":' * 8 + "[]" + "}" * 8): "hidden below 6 levels",
        write("many", "[" + "{}," * 300000 + "{}]"): "more than the 250000 JSON values",
        write("large", "[" + " " * (16 * MIB) + "]"): "larger than the 16777216 bytes",
        write("entry", "[{},5]"): "entry 2 is not a JSON object",
    }.items():
        answer = no_verdict("--log", file, "--cert", cert, says=says)
        assert str(file) in answer.err
    for file, says in {
        tmp_path / "none": "No such file",
        fifo: "not a regular file",
        log: "no certificate in PEM form",
        key: 'PEM block 1 is "PRIVATE KEY',
        write("cut", chain[:300]): "certificate 1",
    }.items():
        answer = no_verdict("--log", log, "--cert", file, says=says)
        assert str(file) in answer.err
    answer = no_verdict("--log", log, "--cert", key, says="PRIVATE KEY")
    assert key.read_text().splitlines()[1] not in answer.err


def test_report_that_cannot_be_written_is_no_success(write):
    log = write("log", log_with(OTHER_LEAF))
    for options in ((), ("--json",)):
        with open("/dev/full", "w", encoding="utf-8") as full:
            answer = run("--log", log, *options, stdout=full, stderr=subprocess.PIPE)
        assert answer.code == NO_VERDICT and "standard output" in answer.err


def test_hostile_logs_never_break_it(write, cert, leaf):
    """Bytes of a good log changed, left out, doubled: judged or refused, and it never dies."""
    good = json.dumps({"rtmr3": "00" * 48, "event_log": log_with(leaf)}).encode()
    register = replay(log_with(leaf)).hex()
    chance = random.Random(20261123)
    for number in range(150):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(bad))
            pieces = [b"", b'"', b"{", b"]", b"\\u0000", b"3", b"\xff", bad[at : at + 40]]
            bad[at : at + chance.randrange(3)] = chance.choice(pieces)
        log = write("bad", bytes(bad))
        answer = run("--log", log, "--cert", cert, "--rtmr3", register)
        # What nobody checks may have been changed: "rtmr3" beside a register that is given.
        if answer.code == HOLDS:
            assert register in answer.out, number
        else:
            assert bool(answer.lines("fault:")) != (answer.err.count("\n") == 1), number


# The command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonsense"], "no such option: --nonsense"),
        (["-x"], "no such option: -x"),
        (["--json=1"], "no argument belongs to --json=1"),
        (["--log"], "--log: its argument is missing"),
        (["file.json"], "surplus argument: file.json"),
        (["--log", "x", "--agent", "y"], "not both"),
        (["--cert", "x", "--host", "y"], "not both"),
        (["--rtmr3", "00"], "expected 96 hex digits"),
        (["--rtmr3", "zz" * 48], "expected 96 hex digits"),
        (["--host", ""], "expected NAME or NAME:PORT"),
        (["--host", ":443"], "expected NAME or NAME:PORT"),
        (["--host", "a:"], "expected NAME or NAME:PORT"),
        (["--host", "a:0"], "expected NAME or NAME:PORT"),
        (["--host", "a:65536"], "expected NAME or NAME:PORT"),
        (["--host", "a:4433x"], "expected NAME or NAME:PORT"),
        (["--host", "[::1"], "expected NAME or NAME:PORT"),
        (["--host", "[::1]443"], "expected NAME or NAME:PORT"),
        (["--host", "a" * 256], "expected NAME or NAME:PORT"),
    ],
)
def test_wrong_use_is_told(arguments, says):
    answer = run(*arguments)
    assert (answer.code, answer.out) == (WRONG_USE, "") and says in answer.err


def test_help_tells_options_exit_codes_and_examples():
    answer = run("--help")
    assert (answer.code, answer.err) == (0, "")
    options = ("--log", "--agent", "--cert", "--host", "--rtmr3", "--json")
    for part in (*options, "exit status:\n", "examples:\n"):
        assert part in answer.out
    assert max(map(len, answer.out.splitlines())) < 80
