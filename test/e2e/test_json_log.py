"""The log as JSON lines: whatever the container says is one object, with what is known of it."""

import json
import os
import re
import signal
from datetime import datetime, timezone

import pytest

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
JSON = {"log.format": "json"}


def records_of(stack):
    """Every line that the container wrote."""
    return [json.loads(line) for line in stack.log.lines()]


def moment(text):
    assert TIME.fullmatch(text), text
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.fixture(name="stack")
def fixture_stack(new_stack):
    return new_stack(settings=dict(JSON))


def test_every_line_of_every_program_is_an_object(stack):
    stack.start().wait_until_settled()
    assert stack.http_get("/seen-by-nginx").status == 301
    stack.log.wait_for("seen-by-nginx")
    stack.stop()
    records = records_of(stack)
    for record in records:
        now = datetime.now(timezone.utc)
        assert 0 <= (now - moment(record["time"])).total_seconds() < 600
        assert record["level"] in ("debug", "info", "warning", "error", "fatal")
        assert record["program"] in ("cert-manager", "nginx", "supervisord")
        assert isinstance(record["msg"], str)
    texts = {program: [one["msg"] for one in records if one["program"] == program]
             for program in ("cert-manager", "nginx", "supervisord")}
    assert any("HTTPS serves" in text for text in texts["cert-manager"])
    assert texts["cert-manager"][-1] == "stopped"
    assert any('"GET /seen-by-nginx' in text for text in texts["nginx"])
    assert any("supervisord started" in text for text in texts["supervisord"])
    (asked,) = [one for one in records if one["msg"].startswith("asking ")]
    assert (asked["flow"], asked["step"]) == ("issue", "run certbot")


def test_a_failure_says_where_what_which_try_and_when_the_next_one_is(stack):
    stack.agent.fault(status=500, method="GetKey")
    stack.start()
    stack.log.wait_for(r'"attempt":2')
    failures = [one for one in records_of(stack) if one.get("attempt")]
    assert [one["attempt"] for one in failures[:2]] == [1, 2]
    for failure in failures:
        assert (failure["level"], failure["kind"]) == ("error", "peer")
        assert (failure["flow"], failure["step"]) == ("keys", "get TLS key")
        assert 0 <= (moment(failure["next"]) - moment(failure["time"])).total_seconds() <= 5
        assert failure["hint"] == stack.status()["last_failure"]["hint"] != ""
        assert f"(attempt {failure['attempt']}, next in " in failure["msg"]


def test_settings_that_cannot_be_used_are_told_in_the_form_that_they_name(stack):
    stack.settings["tls.key"] = "maybe"
    stack.start()
    assert stack.wait_for_exit() == 78
    (record,) = records_of(stack)
    assert record["level"] == "fatal" and "tls.key: found" in record["msg"]


def test_nginx_says_at_which_level_it_speaks(stack):
    stack.start().wait_until_settled()
    text = (stack.folder["nginx"] / "nginx.conf").read_text()
    (stack.folder["nginx"] / "nginx.conf").write_text(
        text.replace("http {", "http {\n    resolver_timeout 1s; types_hash_max_size 1;", 1)
    )
    os.kill(stack.nginx_master().pid, signal.SIGHUP)
    found = stack.log.wait_for(r'.*"program":"nginx".*could not build optimal types_hash.*')
    assert json.loads(found[0])["level"] == "warning"


def test_a_status_that_cannot_be_published_is_told_once(stack):
    # Nothing can take the place of a folder that has something in it.
    in_the_way = stack.folder["run_dir"] / "status.json/in-the-way"
    stack.alter_image = lambda: in_the_way.mkdir(parents=True)
    stack.start().wait_for_https()
    found = json.loads(stack.log.wait_for(r".*the status cannot be published: .*")[0])
    assert (found["level"], found["kind"]) == ("warning", "sys")
    assert len(stack.log.find_all("the status cannot be published")) == 1
