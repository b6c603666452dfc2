"""Programs of the operator that are told what has happened: hooks in the settings."""

import json
import os
import pwd
import signal
import stat
import time
from datetime import timezone

import pki
import pytest
from loopback import wait_until
from rotation import serve
from stack import IS_ROOT, certbot_user
from test_control import metrics_of
from test_reload import hang_up, is_over, request_of, settle

EVENTS = ("issued", "applied", "failed", "level_changed")
# Appends its environment to a file, one JSON object for each run, in one write.
TELL = """#!/usr/bin/python3
import json, os, sys
line = json.dumps({"environment": dict(os.environ), "arguments": sys.argv[1:], "cwd": os.getcwd(),
                   "user": os.geteuid(), "groups": os.getgroups(), "group": os.getpgrp() == os.getpid()})
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(fd, line.encode() + b"\\n")
"""


class Hooks:
    """Programs of a test in a folder that the hooks' user may read, and what they have noted."""

    def __init__(self, stack):
        self.stack, self.folder = stack, stack.root / "hooks"
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.notes = self.folder / "notes"
        self.notes.touch()
        self.notes.chmod(0o666)
        stack.settings["hooks.user"] = certbot_user() if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name

    def program(self, name, text, mode=0o755):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def tell(self, *events):
        """Each of the events is noted."""
        program = self.program("tell", TELL)
        for event in events:
            self.stack.settings[f"hooks.on_{event}"] = [program, str(self.notes), event, ""]

    def told(self, event=None):
        runs = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [run for run in runs if event in (None, run["arguments"][1])]

    def wait_for(self, event, count=1):
        return wait_until(
            lambda: len(self.told(event)) >= count and self.told(event), f"on_{event} has run", 30
        )


@pytest.fixture(name="hooks")
def fixture_hooks(stack):
    return Hooks(stack)


def variables(run):
    prefix = "CERT_MANAGER_"
    return {
        name.removeprefix(prefix): value
        for name, value in run["environment"].items()
        if name.startswith(prefix)
    }


def seconds(moment):
    return str(int(moment.replace(tzinfo=timezone.utc).timestamp()))


def test_a_certificate_is_told_when_it_was_issued_and_when_it_is_served(stack, hooks):
    hooks.tell(*EVENTS)
    serve(stack)
    leaf = stack.served_leaf()
    (issued,), (applied,) = hooks.wait_for("issued"), hooks.wait_for("applied")
    (changed,) = hooks.wait_for("level_changed")
    told = {
        "DOMAIN": stack.domain,
        "DOMAINS": stack.domain,
        "LEAF_SHA256": pki.sha256(leaf),
        "LEAF_SERIAL": format(leaf.serial_number, "x"),
        "LEAF_ISSUER": leaf.issuer.rfc4514_string().removeprefix("CN="),
        "LEAF_NOT_BEFORE": seconds(leaf.not_valid_before),
        "LEAF_NOT_AFTER": seconds(leaf.not_valid_after),
    }
    assert told.items() <= variables(issued).items()
    assert told.items() <= variables(applied).items()
    assert variables(issued)["EVENT"] == "issued" and "ATTESTED" not in variables(issued)
    assert variables(applied)["EVENT"] == "applied" and variables(applied)["ATTESTED"] == "true"
    assert variables(applied)["CHAIN_FILE"] == str(stack.settings["tls.dir"] / "cert.pem")
    assert (variables(changed)["FORMER_LEVEL"], variables(changed)["LEVEL"]) == ("http-only", "full")
    counted = ("hook_runs_total", 'event="applied",result="ok"')
    wait_until(lambda: metrics_of(stack).get(counted) == 1, "its end is counted")
    assert hooks.told("failed") == []


def test_a_hook_has_its_own_environment_group_folder_and_user(stack, hooks):
    stack.variables |= {"EKM_SHARED_SECRET": "not-for-hooks", "FOREIGN": "variable"}
    hooks.tell("applied")
    serve(stack)
    (run,) = hooks.wait_for("applied")
    others = {name for name in run["environment"] if not name.startswith("CERT_MANAGER_")}
    assert others - {"LC_CTYPE", "PWD", "_"} == {"PATH", "LANG"}
    assert run["arguments"] == [str(hooks.notes), "applied", ""]
    assert run["cwd"] == "/" and run["group"]
    user = pwd.getpwnam(stack.settings["hooks.user"])
    assert run["user"] == user.pw_uid
    assert set(run["groups"]) <= {user.pw_gid}
    text = json.dumps(run)
    for secret in stack.secrets().values():
        assert secret.hex() not in text


def test_a_restart_of_the_daemon_tells_nothing_again_and_another_leaf_is_told(stack, hooks):
    stack.expected_trouble = r"cert-manager \(exit status 0; not expected\)"
    hooks.tell("applied", "level_changed")
    serve(stack)
    hooks.wait_for("applied")
    hooks.wait_for("level_changed")
    record = stack.folder["run_dir"] / "hooks.json"
    wait_until(lambda: len(json.loads(record.read_text())) == 2 and "full" in record.read_text(), "both are noted")
    mark = stack.log.mark()
    os.kill(stack.daemon().pid, signal.SIGTERM)
    stack.log.wait_for("HTTPS serves", since=mark)
    renewed = pki.Authority().issue(stack.domain, stack.tls_key)
    stack.put("cert.pem.new", renewed)
    os.rename(stack.tls / "cert.pem.new", stack.chain_file)
    hooks.wait_for("applied", 2)
    assert [variables(run)["LEAF_SHA256"] for run in hooks.told("applied")][1] == pki.sha256(
        pki.read_chain(renewed)[0]
    )
    assert len(hooks.told("level_changed")) == 1


def test_a_failure_that_goes_on_is_told_once(stack, hooks):
    hooks.tell("failed")
    stack.agent.fault(status=500, method="GetKey")
    stack.start()
    stack.log.wait_for(r"\(attempt 4, next in")
    (run,) = hooks.told("failed")
    told = variables(run)
    assert (told["EVENT"], told["KIND"], told["ATTEMPT"]) == ("failed", "peer", "1")
    assert (told["FLOW"], told["STEP"]) == ("keys", "get TLS key")
    assert told["REASON"].startswith("get TLS key: ")
    assert "guest agent" in told["HINT"]
    assert abs(int(told["NEXT"]) - time.time()) < 300
    stack.agent.clear()
    stack.wait_for_https()


def test_what_a_hook_writes_is_in_the_log_up_to_a_limit(stack, hooks):
    for event, text in {
        "issued": "printf 'to\\033[31m out\\n'; echo to err >&2; echo by name >/dev/stderr",
        "applied": "seq 1000",
    }.items():
        program = hooks.program(event, f"#!/bin/sh\n{text}\n")
        stack.settings[f"hooks.on_{event}"] = [program]
    serve(stack)
    stack.log.wait_for("INFO - hook on_applied: its further output is left out")
    assert {r"to\x1b[31m out", "to err", "by name"} == said_by(stack, "issued")
    assert {str(number) for number in range(1, 101)} < said_by(stack, "applied")
    assert len(said_by(stack, "applied")) == 101


def said_by(stack, event):
    return {found[1] for found in stack.log.find_all(rf"INFO - hook on_{event}: (.*)")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexit 3\n", r"ended with exit code 3"),
        ("#!/bin/sh\nkill -9 $$\n", r"was ended by signal 9"),
        ("#!/bin/sh\nsleep 1000 & sleep 1000\n", r"hooks.timeout: .* not finished within 1000 ms"),
        ("", r"cannot start .*ermission denied"),
        (None, r"cannot start .*o such file"),
    ],
    ids=["exit code", "signal", "time limit", "not executable", "missing"],
)
def test_a_hook_that_fails_is_told_once_and_harms_nothing(stack, hooks, text, reason):
    program = str(hooks.folder / "broken")
    if text is not None:
        hooks.program("broken", text, 0o755 if text else 0o644)
    stack.settings |= {f"hooks.on_{event}": [program] for event in ("issued", "applied")}
    stack.settings["hooks.timeout"] = "1s"
    serve(stack)
    for event in ("issued", "applied"):
        stack.log.wait_for(
            rf"WARNING - hook on_{event} has failed, and nothing depends on it: run: .*{reason}"
        )
    wait_until(lambda: stack.find_process("sleep 1000") is None, "nothing of it is left")
    assert stack.status()["measurement"]["attested"]


def test_a_hook_that_is_at_work_keeps_neither_the_certificate_nor_the_end(stack, hooks):
    stack.settings["hooks.on_issued"] = [
        hooks.program("stubborn", "#!/bin/sh\ntrap '' TERM\necho begun\nwhile :; do sleep 1; done\n")
    ]
    stack.settings["hooks.on_applied"] = ["/bin/true"]
    serve(stack)
    stack.log.wait_for("hook on_issued: begun")
    stack.stop()
    stack.log.wait_for("WARNING - hook on_issued is ended, because the daemon stops")
    stack.log.wait_for("WARNING - hook on_applied is not run, because the daemon stops")
    stack.log.wait_for("INFO - stopped")


GATED = """#!/bin/sh
echo begun
while [ ! -e {gate} ]; do sleep 0.1; done
echo released
"""


def test_a_reload_waits_for_the_hook_at_work_and_takes_the_others_along(stack, hooks):
    hooks.tell("applied", "level_changed")
    gate = hooks.folder / "gate"
    stack.settings["hooks.on_issued"] = [hooks.program("gated", GATED.format(gate=gate))]
    serve(stack)
    stack.log.wait_for("hook on_issued: begun")
    number = request_of(stack)["id"] + 1
    settle(stack, **{"nginx.hsts_days": 1})
    hang_up(stack)
    wait_until(lambda: "the hook that is at work" in request_of(stack).get("text", ""), "the reload waits")
    assert stack.https_get("/health").status == 200 and hooks.told() == []
    gate.touch()
    wait_until(lambda: is_over(stack, number), "the reload is over", 30.0)
    hooks.wait_for("applied")
    hooks.wait_for("level_changed")
    stack.stop()
    assert len(hooks.told("applied")) == len(hooks.told("level_changed")) == 1
    stack.log.wait_for("hook on_issued: released")
    assert not stack.log.find("because the daemon stops")


def test_a_hook_that_a_reload_takes_away_is_not_run(stack, hooks):
    hooks.tell("applied")
    gate = hooks.folder / "gate"
    stack.settings["hooks.on_issued"] = [hooks.program("gated", GATED.format(gate=gate))]
    serve(stack)
    stack.log.wait_for("hook on_issued: begun")
    number = request_of(stack)["id"] + 1
    settle(stack, **{"hooks.on_applied": [], "hooks.on_issued": []})
    hang_up(stack)
    wait_until(lambda: "the hook that is at work" in request_of(stack).get("text", ""), "the reload waits")
    gate.touch()
    assert wait_until(lambda: is_over(stack, number), "the reload is over", 30.0)["state"] == "done"
    assert hooks.told() == []


@pytest.mark.skipif(not IS_ROOT, reason="what runs as root")
@pytest.mark.parametrize("target", ["program", "folder", "owner"])
def test_as_root_only_a_program_that_nobody_else_can_change_is_run(stack, hooks, target):
    # The parents of the container's folder are those of /tmp, which is sticky.
    stack.settings["hooks.user"] = "root"
    hooks.tell("applied")
    program = hooks.folder / "tell"
    if target == "program":
        program.chmod(0o775)
    elif target == "folder":
        hooks.folder.chmod(0o777)
    else:
        os.chown(program, pwd.getpwnam("nobody").pw_uid, -1)
    serve(stack)
    found = stack.log.wait_for(
        r"hook on_applied has failed, .*is not run as root, because others than root can change (\S+);"
    )
    assert found[1] == str(hooks.folder if target == "folder" else program)
    assert hooks.told() == []


@pytest.mark.skipif(not IS_ROOT, reason="what runs as root")
def test_as_root_a_program_of_root_is_run(stack, hooks):
    stack.settings["hooks.user"] = "root"
    hooks.tell("applied")
    assert stat.S_IMODE((hooks.folder / "tell").stat().st_mode) == 0o755
    serve(stack)
    (run,) = hooks.wait_for("applied")
    assert run["user"] == 0


@pytest.mark.skipif(not IS_ROOT, reason="others cannot change the user")
def test_without_the_user_no_hook_is_run(stack, hooks):
    hooks.tell("applied")
    stack.settings["hooks.user"] = "nobody-at-all"
    serve(stack)
    stack.log.wait_for(r'hook on_applied has failed, .*there is no user "nobody-at-all" \(hooks.user\)')
    assert hooks.told() == []


def test_another_level_is_told_with_its_reason(stack, hooks):
    hooks.tell("level_changed")
    stack.settings["nginx.extra_locations"] = "location /broken { no_such_directive; }"
    serve(stack)
    (run,) = hooks.wait_for("level_changed")
    told = variables(run)
    assert (told["FORMER_LEVEL"], told["LEVEL"]) == ("http-only", "reduced")
    assert "no_such_directive" in told["REASON"]
