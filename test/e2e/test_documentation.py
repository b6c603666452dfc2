"""Every command, file, setting and link that documentation shows is one that there is.

Commands are run in a container. Those that are not are named in NOT_RUN, each with the reason.
"""

import json
import re
import subprocess
from functools import cache

import pytest
from conftest import logs_of
from documentation import (
    MARKDOWN,
    commands_of,
    manual_blocks,
    manual_paths,
    manuals,
    markdown_anchors,
    markdown_blocks,
    markdown_links,
    markdown_spans,
    pattern_of,
)
from operator_shell import Operator, usual
from pebble import Pebble
from processes import environment
from rotation import serve
from stack import IS_ROOT, PROGRAM, REPOSITORY, Stack

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="a file system and ports of its own need root")

# Commands that are shown and not run here: a pattern, and why.
NOT_RUN = {
    r"make (demo|test|fuzz|analyze|coverage|report|torture|soak|bench|e2e|unit|lock-python|lock-packages|install|image|check-reproducible)\b.*": "the build itself; its goals are checked",
    r"make( help| layers)?": "the build itself; its goals are checked",
    r"(DOMAIN=\S+ )?cert-manager run\b.*": "the daemon: what the container runs",
    r"cert-manager prestart (.|\n)*": "what the container is started with",
    r"cert-manager status --watch": "it ends with Ctrl-C",
    r"cert-manager revoke --reason key-compromise": "it asks on a terminal, twice",
    r"certbot .*": "it asks another CA, and a person",
    r"supervisorctl restart .*": "what others are shown needs both programs",
    r"docker .*": "the tests' containers are none of Docker's: a file system of its own stands for it",
}

# Files that commands are given: the pair that is served, under several names.
BROUGHT = """
mkdir -p /etc/letsencrypt/live/app.example.com
for folder in . /etc/letsencrypt/live/app.example.com; do
    ln -s /etc/nginx/ssl/cert.pem $folder/fullchain.pem
    ln -s /etc/nginx/ssl/key.pem $folder/privkey.pem
done
cp /etc/nginx/ssl/cert.pem cert.pem
cp cert.pem old.pem
cp /etc/cert-manager/config.yaml new.yaml
"""

# A form of a command, with words to be filled in: its options are checked against its help.
PLACEHOLDER = re.compile(r"\[(--|[A-Z])|…|\b[A-Z]{2,}\b(?!=)")

# Files of others.
FOREIGN = ("ngx_http_ssl_module.c", "ngx_http_stub_status_module.c")

# Files that only the image has; test/image looks into it.
OF_THE_IMAGE = ("/usr/share/sbom/cert-manager.spdx.json", "/opt/certbot", "/opt/supervisor")

# What stands at the front of a path in the image.
IMAGE_PATH = re.compile(r"/(etc|run|app|usr|var|acme-challenge|dev)\b")


def shown_blocks():
    """test_operations.py goes through `console` and `log`."""
    blocks = [block for path in MARKDOWN for block in markdown_blocks(path)]
    return blocks + [block for path in manuals() for block in manual_blocks(path)]


def shown_spans():
    return [span for path in MARKDOWN for span in markdown_spans(path)]


def shown_commands():
    """Of blocks, and of spans that begin like one."""
    found = {}
    for block in shown_blocks():
        if block.language == "sh":
            found |= {command.text: command.place for command in commands_of(block)}
    for span in shown_spans():
        # The name of a command alone stands for it.
        if re.match(r"(cert-manager \S+|curl|make|docker) .", span.text):
            found.setdefault(span.text, span.place)
    return found


COMMANDS = shown_commands()
FORMS = [text for text in COMMANDS if PLACEHOLDER.search(text)]
NAMED = [text for text in COMMANDS if any(re.fullmatch(pattern, text) for pattern in NOT_RUN)]
TRIED = [text for text in COMMANDS if text not in FORMS and text not in NAMED]


@cache
def help_of(command):
    done = subprocess.run(
        [PROGRAM, command, "--help"], env=environment(), check=False, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture(name="served", scope="module")
def fixture_served(request):
    """Somebody in front of a container that serves HTTPS, with the files that commands are given."""
    with Pebble(usual_ports=True) as ca, Stack(ca, domain="app.example.com") as stack:
        logs_of(request.node)["a container that commands are tried in"] = stack.log
        serve(usual(stack))
        with Operator(stack) as operator:
            code, output = operator.run(BROUGHT)
            assert code == 0, output
            yield operator


def test_commands_are_found():
    assert len(manuals()) == 2, "make man comes first"
    assert len(COMMANDS) > 10 and FORMS and NAMED


def test_every_reason_not_to_run_a_command_is_needed():
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, text) for text in COMMANDS), pattern


@pytest.mark.parametrize("text", TRIED)
def test_command_works(served, text):
    code, output = served.run(text)
    assert code == 0, f"{COMMANDS[text]}: exit code {code}\n{output}"


@pytest.mark.parametrize("text", [text for text in FORMS if text.startswith("cert-manager ")])
def test_form_of_a_command_has_its_options(text):
    name = text.split()[1]
    there = re.findall(r"^  (--\S+)", help_of(name), re.MULTILINE)
    assert there, f"{COMMANDS[text]}: there is no command {name}"
    before_operands = text.partition(" -- ")[0]
    assert set(re.findall(r"--[a-z0-9-]+", before_operands)) <= set(there), COMMANDS[text]


def test_goals_of_make_are_there():
    makefile = "".join(file.read_text() for file in (REPOSITORY / "Makefile", *REPOSITORY.glob("*/*/*.mk")))
    for text, place in COMMANDS.items():
        if text.startswith("make"):
            goals = [word for word in text.split()[1:] if word.isidentifier() and word.islower()]
            for goal in goals:
                assert re.search(rf"^{goal}( \w+)*:", makefile, re.MULTILINE), f"{place}: make {goal}"


def test_commands_that_are_named_are_there():
    for path in MARKDOWN:
        for span in markdown_spans(path):
            if found := re.match(r"cert-manager ([a-z]\S*)", span.text):
                assert help_of(found[1]), f"{span.place}: there is no command {found[1]}"


def test_settings_are_taken(served):
    blocks = [block for block in shown_blocks() if block.language == "yaml"]
    assert blocks
    for number, block in enumerate(blocks):
        file = served.folder / f"shown-{number}.yaml"
        file.write_text(block.text)
        without = "env -u DOMAIN" if "\ndomain:" in f"\n{block.text}" else ""
        code, output = served.run(f"{without} cert-manager render --level http-only --config {file}")
        assert code == 0, f"{block.place}:\n{output}"


def test_prometheus_takes_what_it_is_shown(served):
    for block in shown_blocks():
        if block.language == "yaml prometheus":
            (served.folder / "prometheus.yaml").write_text(block.text)
            code, output = served.run("promtool check config --syntax-only prometheus.yaml")
            assert code == 0, f"{block.place}:\n{output}"


def test_compose_file_of_the_python_image_starts(new_stack):
    """With its variables as they are; paths and ports are those of every container here."""
    (block,) = [block for block in shown_blocks() if block.language == "yaml compose"]
    variables = dict(re.findall(r"- ([A-Z_]+)=(.*)", block.text))
    assert len(variables) > 5
    stack = new_stack(domain=variables["DOMAIN"], variables=variables)
    serve(stack)
    assert stack.http_get("/").status == 301 and stack.https_get("/health").status == 200


@pytest.mark.parametrize(
    ("shown", "printed", "is_it"),
    [
        ("leaf 12ab34cd56ef valid", "leaf fffffffffffff valid", True),
        ("from 2026-11-27 02:48:15 UTC on", "from 2027-01-02 03:04:05 UTC on", True),
        ("up for 5 s", "up for 17 s", True),
        ("in 59 days, at line config.yaml:33:1", "in 1 days, at line config.yaml:7:12", True),
        ("cert-manager 0.1.0,", "cert-manager 1.22.3,", True),
        ("502", "200", False),
        ("failures 0 of 2", "failures 1 of 2", False),
        ("one\ntwo three", "one two\n  three", True),
        ("one … three", "one two three", True),
        ("one\n…", "one\ntwo\nthree", True),
        ("one three", "one two three", False),
        ("one", "one two", False),
        ("certificate", "certificates", False),
        ("… two …", "one three", False),
    ],
)
def test_what_is_shown_has_to_be_printed(shown, printed, is_it):
    assert bool(re.fullmatch(pattern_of(shown), printed, re.DOTALL)) == is_it


def test_settings_that_are_named_are_there(served):
    code, output = served.run("cert-manager config --json")
    assert code == 0, output
    settings = set(json.loads(output)["settings"])
    sections = {key.partition(".")[0] for key in settings if "." in key}
    for span in shown_spans():
        key = re.match(r"([a-z_0-9]+)\.[a-z_]+(?=$|:)", span.text)
        is_file = span.text.endswith((".conf", ".sock")) or is_in_repository(span.text)
        if key and key[1] in sections and not is_file:
            assert key[0] in settings, f"{span.place}: there is no setting {key[0]}"


def test_the_manual_has_every_setting(served):
    _, output = served.run("cert-manager config --json")
    (manual,) = [path.read_text() for path in manuals() if path.suffix == ".5"]
    settings = {key for key in json.loads(output)["settings"] if key.islower()}
    assert len(settings) > 50
    assert not [key for key in settings if f"{key}\n" not in manual]


# Files and links.


def is_in_sources(name):
    return any(name in text for text in sources())


@cache
def sources():
    return [path.read_text() for path in (REPOSITORY / "orchestrator").glob("*/*.[ch]")]


def is_in_repository(name):
    folders = (".", "orchestrator", "docs", "test/e2e", "orchestrator/*")
    return any(list(REPOSITORY.glob(f"{folder}/{name}")) for folder in folders)


def test_files_of_the_image_are_there(served):
    """In the container, or named in the sources when they are there at times only."""
    spans = shown_spans() + [span for path in manuals() for span in manual_paths(path)]
    for span in spans:
        path = re.sub(r"^<run dir>", "/run/cert-manager", span.text)
        path = re.sub(r"^<tls dir>", "/etc/nginx/ssl", path)
        if not IMAGE_PATH.match(path) or " " in path.replace("<unix time>", "") or path in OF_THE_IMAGE:
            continue
        name = re.sub(r"<[^>]*>.*|\*.*", "", path.rstrip("/").rpartition("/")[2])
        assert served.exists(re.sub("<[^>]*>", "*", path)) or is_in_sources(name), f"{span.place}: {span.text}"


def is_made(name):
    return name in (REPOSITORY / "Makefile").read_text()


def test_files_of_the_repository_are_there():
    """Or are made by a goal of the Makefile."""
    sought = re.compile(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+/|[\w.-]+\.(c|h|py|md|tmpl)")
    rate = re.compile(r"\d+/\d+[a-z]")
    for span in shown_spans():
        if sought.fullmatch(span.text) and not rate.fullmatch(span.text) and span.text not in FOREIGN:
            found = is_in_repository(span.text) or is_in_sources(span.text) or is_made(span.text)
            assert found, f"{span.place}: {span.text}"


def test_tests_that_are_named_are_there():
    """`test_x.py::test_name` and `test_x.c::name`: claims that name what shows them."""
    named = [span for span in shown_spans() if re.fullmatch(r"\w+\.(py|c)::\w+", span.text)]
    for span in named:
        name, _, function = span.text.partition("::")
        (path,) = [*REPOSITORY.glob(f"test/e2e/{name}"), *REPOSITORY.glob(f"test/unit/*/{name}")]
        form = rf"^def {function}\(" if path.suffix == ".py" else rf"^static void {function}\(void \*\*state\)"
        assert re.search(form, path.read_text(), re.MULTILINE), f"{span.place}: there is no {span.text}"
    assert len(named) > 50


def test_every_claim_about_threats_names_a_test():
    """Each row of a table, but its head."""
    text = (REPOSITORY / "docs/THREATS.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "shown by" not in line]
    claims = [row for row in rows if not row.startswith("| ---")]
    assert len(claims) > 30
    assert not [row for row in claims if "::" not in row]  # each of which is looked for above


def test_links_lead_somewhere():
    for path in MARKDOWN:
        for link in markdown_links(path):
            if link.text.startswith(("http://", "https://")):
                continue
            name, _, anchor = link.text.partition("#")
            target = (path.parent / name) if name else path
            assert target.exists(), f"{link.place}: {link.text}"
            assert not anchor or anchor in markdown_anchors(target), f"{link.place}: {link.text}"
