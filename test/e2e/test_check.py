"""`cert-manager check`: a verdict on all that may keep it from working, and nothing is disturbed."""

import contextlib
import os
import re
import socket

import pki
import pytest
from commands import command, command_at_terminal
from conftest import logs_of
from loopback import LoopbackAddress
from names import PORT as PORT_OF_DNS
from rotation import serve
from stack import NEWER_CERTBOT, Stack
from test_failures import needs_root

OK, FAILED, WRONG_USE = 0, 1, 2


@pytest.fixture(name="served", scope="module")
def fixture_served(request, ca):
    with Stack(ca) as stack:
        logs_of(request.node)["a container that is checked"] = stack.log
        serve(stack)
        stack.log.wait_for("the next renewal is due")
        yield stack


def check(stack, *words, **options):
    """The exit code, and all verdicts: name of the check to rows."""
    said = command(stack, "check", "--json", *words, **options)
    assert said.err == ""
    rows = {}
    for row in said.json["checks"]:
        rows.setdefault(row["check"], []).append(row)
    assert said.json["ok"] == (said.code == OK)
    return said.code, rows


def verdicts(rows, name):
    return [row["verdict"] for row in rows[name]]


def failed(rows):
    return {name for name in rows if "failed" in verdicts(rows, name)}


def state_of(folder):
    """Each file, but what the daemon notes down now and then."""
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_mode)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and ".json" not in path.name
    }


# ---- all is well ----


def test_running_container_is_well_and_not_disturbed(served, tmp_path):
    folders = served.folder["nginx"], served.folder["run_dir"], served.folder["webroot"], served.tls
    before, mark = [state_of(folder) for folder in folders], served.ca.log.mark()
    events, served_leaf = served.agent.measured(), served.served_leaf()
    code, rows = check(served, variables={"TMPDIR": str(tmp_path)})
    assert (code, failed(rows)) == (OK, set()), rows
    for name in ("settings", "clock", "templates", "nginx -t", "ports", "guest agent", "event log"):
        assert verdicts(rows, name) == ["ok"], rows[name]
    assert verdicts(rows, "certificate") == verdicts(rows, "CA") == ["ok"]
    assert "nginx runs" in rows["ports"][0]["text"]
    for folder, then in zip(folders, before):
        assert state_of(folder).items() ^ then.items() == set()
    assert (served.agent.measured(), served.served_leaf()) == (events, served_leaf)
    assert served.ca.orders(since=mark) == served.ca.accounts(since=mark) == 0
    assert not list(tmp_path.iterdir())


def test_nothing_needs_to_run(stack):
    code, rows = check(stack.prepare())
    assert (code, failed(rows)) == (OK, set()), rows
    assert verdicts(rows, "certificate") == ["skipped"]
    assert verdicts(rows, "nginx -t") == verdicts(rows, "ports") == ["ok"]
    assert not stack.folder["run_dir"].joinpath("nginx-http.conf").exists()
    assert not stack.state.exists()


def test_offline_asks_nobody(stack):
    stack.prepare(with_agent=False)
    mark = stack.ca.log.mark()
    code, rows = check(stack, "--offline")
    assert (code, verdicts(rows, "guest agent"), verdicts(rows, "CA")) == (OK, ["skipped"], ["skipped"])
    assert not stack.ca.log.find_all("GET /dir", mark)


def test_development_needs_no_agent_and_no_ca(new_stack):
    stack = new_stack(variables={"DEV_MODE": "true"}).prepare(with_agent=False)
    code, rows = check(stack)
    assert (code, verdicts(rows, "guest agent")) == (OK, ["skipped"])
    assert "CA" not in rows and "certbot" not in rows


def test_external_pair_is_judged_and_nothing_of_orders(new_stack):
    stack = new_stack(settings={"tls.key": "external"}).prepare()
    key = pki.new_key()
    stack.put_pair(pki.Authority().issue(stack.domain, key), key)
    code, rows = check(stack)
    assert (code, verdicts(rows, "certificate"), "CA" in rows) == (OK, ["ok"], False)


# ---- what has failed ----


def test_all_errors_of_the_settings_are_told(stack):
    stack.prepare()
    stack.config.write_text("domian: x\nnginx:\n  http_port: many\n")
    code, rows = check(stack)
    assert (code, list(rows)) == (FAILED, ["settings"])
    texts = [row["text"] for row in rows["settings"] if row["verdict"] == "failed"]
    assert [text for text in texts if f"{stack.config}:1:1: " in text and '"domain"' in text]
    assert [text for text in texts if f"{stack.config}:3:14: " in text]


def test_settings_file_that_is_not_there(stack):
    code, rows = check(stack.prepare(), "--config", stack.root / "nothing.yaml")
    assert (code, list(rows)) == (FAILED, ["settings"])
    assert "nothing.yaml (named by --config)" in rows["settings"][0]["text"]


def break_template(stack):
    path = stack.folder["templates"] / "https.conf.tmpl"
    path.write_text(path.read_text().replace("server {", "server {\n    no_such_directive on;", 1))


def remove_template(stack):
    (stack.folder["templates"] / "base.conf.tmpl").unlink()


def remove_include(stack):
    path = stack.folder["nginx"] / "nginx.conf"
    path.write_text(re.sub(r".*nginx-http\.con.*", "", path.read_text()))


def put_file_for_folder(stack):
    stack.tls.rmdir()
    stack.tls.write_text("")


@pytest.mark.parametrize(
    ("settings", "spoil", "name", "text"),
    [
        ({}, break_template, "nginx -t", 'unknown directive "no_such_directive" in default.conf:'),
        ({}, remove_template, "templates", "base.conf.tmpl"),
        ({}, remove_include, "nginx.conf", "does not include"),
        ({}, put_file_for_folder, "folders", "tls.dir: "),
        ({"nginx.path": "/nonexistent/nginx"}, None, "nginx -t", "/nonexistent/nginx"),
        ({"certbot.path": "/nonexistent/certbot"}, None, "certbot", "/nonexistent/certbot"),
        ({"acme.ca_bundle": "/nonexistent.pem"}, None, "files", "ca_bundle: /nonexistent.pem: "),
        ({"acme.profile": "default"}, None, "certbot", "has no profiles"),
        ({"nginx.address": "192.0.2.1"}, None, "ports", "192.0.2.1"),
        ({"health.status_file": "/nonexistent/health"}, None, "folders", "health.status_file: "),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_broken_is_named(new_stack, settings, spoil, name, text):
    stack = new_stack(settings=settings).prepare()
    if spoil:
        spoil(stack)
    code, rows = check(stack)
    assert code == FAILED
    assert [row for row in rows[name] if row["verdict"] == "failed" and text in row["text"]], rows


def test_line_that_nginx_refuses_is_quoted(stack):
    stack.prepare()
    break_template(stack)
    _, rows = check(stack)
    (row,) = rows["nginx -t"]
    assert row["hint"].startswith("that line is: no_such_directive on; | ")
    assert "/health and /tdx_quote" in row["hint"] and "cert-manager-check" not in row["text"]


def test_agent_that_is_not_there_is_named(stack):
    code, rows = check(stack.prepare(with_agent=False))
    assert (code, verdicts(rows, "guest agent")) == (FAILED, ["failed"])
    assert stack.agent.endpoint in rows["guest agent"][0]["text"]
    assert "event log" not in rows  # one line for one reason


def test_folder_that_is_not_below_nginx_conf_is_named(stack):
    stack.settings["nginx.site_conf"] = stack.root / "elsewhere/default.conf"
    stack.prepare()
    code, rows = check(stack)
    assert (code, verdicts(rows, "nginx -t")) == (FAILED, ["failed"])
    assert "directly below" in rows["nginx -t"][0]["text"] and not rows["nginx -t"][0]["hint"]


def test_port_of_somebody_else_is_named(stack):
    stack.prepare()
    with contextlib.closing(socket.create_server(stack.https)):
        code, rows = check(stack)
    (row,) = rows["ports"]
    assert (code, row["verdict"]) == (FAILED, "failed") and str(stack.https_port) in row["text"]


def test_ca_that_is_down_fails_and_one_to_fall_back_to_is_a_warning(new_ca, new_stack):
    up, down = new_ca(), new_ca(has_door=True)
    down.shut()

    def checked(main, other):
        fallback = [{"directory": other.directory, "ca_bundle": str(other.bundle)}]
        code, rows = check(new_stack(main, settings={"acme.fallback": fallback}).prepare())
        return code, verdicts(rows, "CA")

    assert checked(down, up) == (FAILED, ["failed", "ok"])
    assert checked(up, down) == (OK, ["ok", "warning"])


def test_ca_that_needs_a_binding_is_told(new_ca, new_stack):
    ca = new_ca(account_keys={"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"})
    code, rows = check(new_stack(ca).prepare())
    assert (code, verdicts(rows, "CA")) == (FAILED, ["ok", "failed"])
    assert "eab_key_id" in rows["CA"][1]["hint"]


def test_profile_that_the_ca_lacks_is_a_warning(new_ca, new_stack):
    ca = new_ca(newer=True, profiles={"classic": 24 * 3600})
    settings = {"acme.profile": "shortlived"}
    code, rows = check(new_stack(ca, settings=settings, certbot=NEWER_CERTBOT).prepare())
    assert (code, verdicts(rows, "CA")) == (OK, ["ok", "warning"])
    assert "classic" in rows["CA"][1]["text"]


# ---- what only is not as it should be ----


def test_foreign_pair_and_readable_key_are_warnings(stack):
    stack.prepare()
    key = pki.new_key()
    stack.put_pair(pki.Authority().issue(stack.domain, key), key)
    (stack.tls / "key.pem").chmod(0o644)
    before = state_of(stack.tls)
    code, rows = check(stack)
    assert (code, verdicts(rows, "certificate")) == (OK, ["warning"])
    assert "not the derived one" in rows["certificate"][0]["text"]
    assert rows["files"][0]["hint"] == f"chmod 600 {stack.tls / 'key.pem'}"
    assert state_of(stack.tls) == before


@pytest.mark.parametrize("name", ["settings", "nginx.conf", "base.conf.tmpl", "https.conf.tmpl"])
def test_what_root_obeys_and_others_may_change_is_a_warning(served, name):
    path = {"settings": served.config, "nginx.conf": served.folder["nginx"] / "nginx.conf"}.get(name)
    path = path or served.folder["templates"] / name
    assert "files" not in check(served, "--offline")[1]
    path.chmod(0o666)
    code, rows = check(served, "--offline")
    path.chmod(0o644)
    assert code == OK and verdicts(rows, "files") == ["warning"]
    assert f"others than root can change {path}" in rows["files"][0]["text"]
    assert "chmod go-w" in rows["files"][0]["hint"]


@needs_root
@pytest.mark.parametrize(("user", "mode"), [(0, 0o777), (0, 0o602), (4711, 0o700), (4711, 0o060)])
def test_agent_that_others_can_ask_for_keys_is_a_warning(served, user, mode):
    """It knows nobody: a worker of nginx that has been taken over would have the keys from it."""
    path = served.agent.endpoint
    before = os.stat(path)
    assert verdicts(check(served)[1], "guest agent") == ["ok"]
    os.chown(path, user, user)
    os.chmod(path, mode)
    try:
        code, rows = check(served)
    finally:
        os.chown(path, before.st_uid, before.st_gid)
        os.chmod(path, before.st_mode)
    assert code == OK and verdicts(rows, "guest agent") == ["warning", "ok"]
    assert f"others than root can use {path} (user {user}, group {user}, mode {mode:04o})" in rows["guest agent"][0]["text"]
    assert "chmod 600" in rows["guest agent"][0]["hint"]


def test_leaf_that_no_event_names_is_a_warning(stack):
    serve(stack)
    stack.agent.fault(preset="emit-removed", method="EmitEvent")  # so that it stays like that
    other = "ab" * 32
    stack.agent.emit(event="New TLS Certificate", payload=other.encode().hex())
    code, rows = check(stack)
    assert (code, verdicts(rows, "certificate")) == (OK, ["ok", "warning"])
    assert f"not attested: the last certificate event names leaf {other}" in str(rows)


def test_hook_that_could_not_run_is_a_warning(new_stack):
    stack = new_stack(
        settings={
            "hooks.on_failed": ["/nonexistent/hook", "argument"],
            "hooks.on_issued": ["/etc/passwd"],
            "hooks.on_applied": ["/bin/true"],
        }
    ).prepare()
    code, rows = check(stack)
    assert code == 0
    verdicts = {row["text"].partition(": ")[0]: row["verdict"] for row in rows["hooks"]}
    assert verdicts == {
        "hooks.on_failed": "warning",
        "hooks.on_issued": "warning",
        "hooks.on_applied": "ok",
    }


def test_backend_that_does_not_resolve_is_a_warning(new_stack):
    routes = [{"path": "/", "upstream": "nobody.invalid:80"}]
    code, rows = check(new_stack(settings={"routes": routes}).prepare())
    assert (code, verdicts(rows, "backends")) == (OK, ["warning"])


@needs_root
def test_resolver_that_hangs_is_not_waited_for(new_stack):
    stack = new_stack(settings={"routes": [{"path": "/", "upstream": "nobody.example.test:80"}]})
    resolv_conf = stack.prepare().root / "resolv.conf"
    mount = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
    with (
        contextlib.closing(LoopbackAddress()) as address,
        socket.socket(type=socket.SOCK_DGRAM) as silent,
    ):
        resolv_conf.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
        silent.bind((address.host, PORT_OF_DNS))
        code, rows = check(stack, under=["unshare", "--mount", "sh", "-c", mount, "sh"])
    assert (code, verdicts(rows, "dns")) == (OK, ["warning"])
    assert "has not answered" in rows["dns"][0]["text"]


# ---- how it is shown ----


def test_table_is_plain_in_a_pipe_and_coloured_at_a_terminal(served):
    plain = command(served, "check")
    assert plain.code == OK and "\x1b" not in plain.out
    assert re.search(r"^ok    nginx -t      nginx takes", plain.out, re.M)
    assert "\x1b[32mok\x1b[0m" in command_at_terminal(served, "check").out
    without = command_at_terminal(served, "check", variables={"NO_COLOR": "1"})
    assert without.code == OK and "\x1b" not in without.out


def test_wrong_use_is_explained(served):
    said = command(served, "check", "--nonsense")
    assert (said.code, said.out) == (WRONG_USE, "") and "--nonsense" in said.err
