"""Settings as a person meets them: the file and its errors, --set, and `cert-manager config`."""

import json
import os
import re
import subprocess
from typing import NamedTuple

import pytest
from processes import environment
from rendering import EXIT_CONFIG, readable_copy
from stack import PROGRAM, REPOSITORY
from test_failures import needs_root

TIMEOUT_S = 20
WRONG_USE, CANNOT_RUN = 2, 1
DEVELOPMENT = {"DEV_MODE": "true"}


class Said(NamedTuple):
    code: int
    out: str
    lines: list  # of standard error, without name, time and level

    @property
    def first(self):
        return self.lines[0] if self.lines else ""


@pytest.fixture(name="say")
def fixture_say(tmp_path):
    """Runs the program in a folder of its own, in which `file` is called config.yaml."""

    def say(*arguments, file=None, variables=None, under=(), program=PROGRAM):
        if file is not None:
            path = tmp_path / "config.yaml"
            path.write_bytes(file if isinstance(file, bytes) else file.encode())
            arguments = (*arguments, "--config", "config.yaml")
        done = subprocess.run(
            [*under, program, *arguments],
            cwd=tmp_path,
            env=environment(**(DEVELOPMENT if variables is None else variables)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        lines = done.stderr.decode().splitlines()
        lines = [re.sub(r"^\[cert-manager\] \S+ \S+ - \w+ - ", "", line) for line in lines]
        return Said(done.returncode, done.stdout.decode(), lines)

    return say


# ---- the file ----

STRAY_COLON = "a colon that does not belong here: is a blank missing behind that of the line above"
BAD_FILES = {
    "domian: x\n": '1:1: unknown key "domian" (did you mean "domain"?)',
    "EMAIL: x\n": '1:1: unknown key "EMAIL" (did you mean "acme.email"?)',
    "log:\n\tlevel: info\n": "2:1: a tab; indent with blanks",
    "domain:a.example\nlog:\n": f"2:4: {STRAY_COLON}",
    "domain:a.example\n": "1:1: found a text, expected a mapping of settings (is the blank missing",
    "DOMAIN=a.example\n": '1:1: found a text, expected a mapping of settings; write "key: value"',
    "domain: *.example\n": "1:9: a value that begins with * needs quotes",
    'domain: "a.example\nlog:\n': "1:9: the quote that opens here is not closed",
    "domains: [a.example\nlog:\n": "1:10: the [ that opens here is not closed",
    "domains: a.example, b.example\n": "1:10: domains: found a text, expected a sequence of DNS "
    "names such as www.example.org (did you mean [a.example, b.example]?)",
    'cors:\n  origins: ["a\\.b"]\n': "2:15: no such escape; in double quotes a backslash begins",
    "cors:\n  origins: ['*']\n": '2:13: cors.origins: "*" is not a regular expression; for any '
    'origin write ".*"',
    "x: &a 1\n": "1:4: anchors are not allowed: write the value out",
    "domain: a.example\n---\nlog: {}\n": "2:1: a second document; one is allowed",
    "log:\n  level: warn\n": '2:10: log.level: found "warn", expected debug, info, warning, error '
    'or fatal (did you mean "warning"?)',
    "tls:\n  key: extern\n": '2:8: tls.key: found "extern", expected derived or external (did you '
    'mean "external"?)',
    "acme:\n  retry_min: 30\n": '2:14: acme.retry_min: found "30", expected a whole number with a '
    "unit (d, h, m, s or ms) from 1s to 1d",
    "nginx:\n  http_port: 010\n": '2:14: nginx.http_port: found "010", expected a whole number',
    "nginx:\n  max_body_size: 10 MB\n": '2:18: nginx.max_body_size: found "10 MB", expected a size '
    "such as 512k, 10MB or 1g",
    "dev_mode: yes\n": '1:11: dev_mode: found "yes", expected true or false',
    "domain: a.example\u200b\n": '1:9: domain: "a.example\u200b" is not ASCII, it has U+200B at '
    "position 10",
    "log:\n\u00a0 level: info\n": '2:1: unknown key "\\u00a0 level"',
    "domain: a.example\0\n": "1:18: control character 0x00",
    "[" * 1000: "1:9: nested more than 8 deep",
    "domain: a.example\n".encode("utf-16"): "1:1: not valid UTF-8, but UTF-16; save it as UTF-8",
    "acme:\n  email: \xe9\n".encode("latin1"): "2:10: not valid UTF-8",
}


@pytest.mark.parametrize("file", BAD_FILES, ids=lambda file: repr(file)[:40])
def test_an_error_of_the_file_names_the_place_and_what_to_do(say, file):
    said = say("config", file=file)
    assert (said.code, said.out) == (EXIT_CONFIG, "")
    assert said.first.startswith(f"config.yaml:{BAD_FILES[file]}"), said.first


def test_all_errors_are_told_in_one_run(say):
    file = (
        "domian: x\n"
        "log:\n  level: loud\n  level: info\n"
        "nginx: {http_port: 0, webrot: /x}\n"
        "routes:\n  - pth: /\n"
    )
    said = say("config", file=file, variables=DEVELOPMENT | {"UPSTREAM_PORT": "x"})
    places = [line.split(" ")[0] for line in said.lines]
    assert places == [
        *("config.yaml:1:1:", "config.yaml:3:10:", "config.yaml:4:3:", "config.yaml:5:20:"),
        *("config.yaml:5:23:", "config.yaml:7:5:", "config.yaml:7:5:", "config.yaml:7:5:"),
        "UPSTREAM_PORT:",
    ]


@pytest.mark.parametrize("file", ["", "# nothing\n", "\ufeff---\n", "nginx:\n"])
def test_a_file_without_settings_is_fine_but_an_empty_one_is_told(say, file):
    said = say("config", file=file)
    assert said.code == 0
    assert said.lines == (["config.yaml: is empty"] if file == "" else [])


def test_what_is_no_readable_file_is_refused(say, tmp_path):
    (tmp_path / "large").write_bytes(b"#" * 10_000_000)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    reasons = {
        ".": "a folder, expected a regular file",
        "fifo": "not a regular file",
        "/dev/zero": "not a regular file",
        "large": "larger than the 1048576 bytes allowed",
        "dangling": "a link to a file that does not exist",
        "loop": "Too many levels of symbolic links",
        "nowhere": "No such file or directory",
        "large/x": "Not a directory",
    }
    for path, reason in reasons.items():
        said = say("config", "--config", path)
        assert said == (EXIT_CONFIG, "", [f"settings file {path} (named by --config): {reason}"])
    said = say("config", variables=DEVELOPMENT | {"CERT_MANAGER_CONFIG": "nowhere"})
    assert said.lines == [
        "settings file nowhere (named by CERT_MANAGER_CONFIG): No such file or directory"
    ]


@needs_root
def test_a_file_that_may_not_be_read_is_refused(say, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("domain: a.example\n")
    file.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with readable_copy(PROGRAM) as program:
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        said = say("config", "--config", str(file), program=program, under=nobody)
    assert said.code == EXIT_CONFIG
    assert said.lines == [f"settings file {file} (named by --config): Permission denied"]


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("DOMAIN", "a.example\r", "byte 10: a carriage return, as in files with the line ends of"),
        ("DOMAIN", '"a.example"', "has quotes in it; remove them (docker's --env-file keeps them)"),
        ("LOG_LEVEL", '"info"', "remove the quotes, which are part of it (docker's --env-file"),
        ("UPSTREAM_PORT", "80 ", "remove the blank behind it"),
        ("UPSTREAM_HOST", "app:80", "an IPv6 address in [], without a port"),
        ("NGINX_MAX_BODY_SIZE", "10MB", "digits, then nothing, k, m or g"),
        ("CORS_ORIGINS", '["*"]', 'item 1: "*" is not a regular expression; for any origin write'),
        ("HTTPS_PROXY", "proxy:1", 'found "proxy:1", expected http:// with a host and a port'),
    ],
)
def test_an_error_of_a_variable_names_it_and_what_to_do(say, variable, value, problem):
    said = say("config", variables=DEVELOPMENT | {variable: value})
    assert (said.code, said.out, len(said.lines)) == (EXIT_CONFIG, "", 1)
    assert said.first.startswith(f"{variable}: ") and problem in said.first


def test_a_mistyped_name_of_the_files_variable_is_told(say):
    said = say("config", variables=DEVELOPMENT | {"CERT_MANAGER_CONFG": "/etc/x.yaml"})
    assert said.code == 0
    assert said.lines == [
        "CERT_MANAGER_CONFG: unknown variable, ignored; did you mean CERT_MANAGER_CONFIG?"
    ]


# ---- the command line ----


@pytest.mark.parametrize("command", ["run", "prestart", "render", "config"])
def test_every_command_with_settings_takes_them_on_its_command_line(say, command):
    operands = ["--boot", "--", "true"] if command == "prestart" else []
    said = say(command, "--set", "domain=a;", "--set", "nginx.http_prt=1", *operands)
    lines = said.lines or said.out.splitlines()
    assert said.code == EXIT_CONFIG and len(lines) == 2, said
    assert '--set domain: "a;" has a character that is not allowed' in lines[0]
    assert lines[1].endswith('unknown key "nginx.http_prt" (did you mean "nginx.http_port"?)')


def test_the_command_line_wins_over_environment_and_file(say):
    said = say(
        *("config", "--json", "--set", "acme.email=flag@example.org"),
        file="acme: {email: file@example.org, profile: tlsserver}\nnginx: {http_port: 81}\n",
        variables=DEVELOPMENT | {"EMAIL": "variable@example.org", "UPSTREAM_HOST": "app"},
    )
    shown = json.loads(said.out)
    settings = shown["settings"]
    assert shown["file"] == "config.yaml"
    assert settings["acme.email"] == {"value": "flag@example.org", "from": "flag"}
    assert settings["upstream.host"] == {
        "value": "app",
        "from": "variable",
        "variable": "UPSTREAM_HOST",
    }
    assert settings["nginx.http_port"] == {"value": 81, "from": "file", "line": 2, "column": 20}
    assert settings["nginx.https_port"] == {"value": 443, "from": "default"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["config", "--set"], "--set: its argument is missing"),
        (["config", "--cofig", "x"], "no such option: --cofig (did you mean --config?)"),
        (["config", "--xyz"], "no such option: --xyz"),
        (["config", "-c"], "no such option: -c"),
        (["config", "--c"], "--c is the beginning of several options"),
        (["config", "--json=1"], "no argument belongs to --json=1"),
        (["config", "surplus"], "surplus argument: surplus"),
        (["help", "run", "surplus"], "surplus argument: surplus"),
        (["help", "rnder"], 'no such command: rnder (did you mean "render"?)'),
        (["confg"], 'no such command: confg (did you mean "config"?)'),
        (["--versoin"], 'no such option: --versoin (did you mean "--version"?)'),
        (["--config", "x", "run"], "no such option: --config; a command comes first, and its "
         "options behind it"),
        (["zebra\x07"], "no such command: zebra\\x07"),
    ],
)
def test_wrong_use_is_explained(say, arguments, complaint):
    said = say(*arguments)
    assert (said.code, said.out) == (WRONG_USE, "")
    assert said.first.endswith(f": {complaint}"), said.first


# ---- what is shown ----


def without_origins(text):
    return [line.split("  # ")[0].rstrip() for line in text.splitlines()]


def test_what_is_shown_is_a_file_that_can_be_loaded(say):
    file = (REPOSITORY / "deploy/config.yaml").read_text()
    shown = say("config", file=file, variables={"EXTRA_UPSTREAMS": "upstream a {\n\tserver b;\n}"})
    again = say("config", file=shown.out, variables={})
    assert shown.code == again.code == 0
    assert without_origins(shown.out) == without_origins(again.out)
    assert "  # default" not in say("config", "--changed", file=file, variables={}).out


def test_each_value_has_its_origin(say):
    variables = DEVELOPMENT | {"EMAIL": "a@example.org"}
    file = "log: {level: error}\n"
    said = say("config", "--set", "run_dir=/run/x", file=file, variables=variables)
    origins = dict(re.findall(r"^ *(\w+):.* # (\S+)$", said.out, re.MULTILINE))
    wanted = {"email": "EMAIL", "run_dir": "--set", "level": "config.yaml:1:14"}
    wanted["webroot"] = "default"
    assert wanted.items() <= origins.items()


@pytest.mark.parametrize("form", ["--json", "--changed"])
def test_secrets_are_not_shown(say, form):
    variables = DEVELOPMENT | {"EKM_SHARED_SECRET": "not-to-be-shown"}
    for said in (
        say("config", form, variables=variables),
        say("config", form, "--set", "ekm.secret_file=/run/not-to-be-shown"),
        say("config", form, "--set", "ekm.secret_file=not-to-be-shown"),
    ):
        assert "not-to-be-shown" not in said.out + "".join(said.lines)
        assert said.code == EXIT_CONFIG or "hidden" in said.out or "not shown" in said.out


@pytest.mark.parametrize("command", ["config", "help", "run --help", "version"])
def test_a_failed_write_is_a_failure(say, command):
    said = say(under=["sh", "-c", f'"$0" {command} >/dev/full'])
    assert said.code == CANNOT_RUN
    name = command.split()[0]
    assert said.lines == [f"cert-manager {name}: standard output: No space left on device"]


def test_a_file_may_have_any_name(say, tmp_path):
    name = os.fsdecode(b"\x1b[31m\xff\n: # .yaml")
    (tmp_path / name).write_text("log: {level: info}\n")
    said = say("config", "--changed", "--config", name)
    assert said.out.endswith(" # \\x1b[31m\\xff\\x0a: # .yaml:1:14\n")
    shown = json.loads(say("config", "--json", "--config", name).out)
    assert shown["file"] == "\\x1b[31m\\xff\\x0a: # .yaml"
    (tmp_path / name).write_text("log: 3\n")
    assert "\x1b" not in "".join(say("config", "--config", name).lines)


def test_the_reference_has_every_setting(say):
    reference = say("help", "--settings").out
    settings = json.loads(say("config", "--json").out)["settings"]
    for name in settings:
        assert f"\n.It {'Ic' if name.islower() else 'Ev'} {name}\n" in reference
    for variable in ("EMAIL", "https_proxy", "FQDN_RESOLVE_WAIT_SECONDS", "CORS_ORIGINS"):
        assert f"\n.Ev {variable}" in reference
