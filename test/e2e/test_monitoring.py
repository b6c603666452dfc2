"""What deploy/ brings for Prometheus and Grafana: it parses, works, and asks for what there is."""

import json
import re
import subprocess

import pytest
from stack import BUILD, REPOSITORY

RULES = REPOSITORY / "deploy/prometheus/alerts.yaml"
RULE_TESTS = REPOSITORY / "test/prometheus/alerts_test.yaml"
DASHBOARD = json.loads((REPOSITORY / "deploy/grafana/cert-manager.json").read_text())
SUMMARY = ["", "_sum", "_count"]
OF_PROMETHEUS = {"job", "instance"}


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def families():
    """Each name that a sample may have, and its labels."""
    table = [line.split() for line in run(BUILD / "test/list_metrics").splitlines()]
    return {name + end: set(labels) for name, *labels in table for end in SUMMARY}


def queries():
    """Every expression of the dashboard, with numbers and names in place of its variables."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    found += [
        re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["definition"])
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    return [re.sub(r"\$__(rate_interval|range)", "5m", expression) for expression in found]


def expressions_of_alerts():
    """As promtool understands them: each `expr`, up to the key that follows."""
    return re.findall(r"^ +expr: (.*?)(?=^ +(?:for|labels):)", RULES.read_text(), re.M | re.S)


def test_promtool_accepts_the_alerts():
    run("promtool", "check", "rules", RULES)


def test_alerts_fire_when_they_should_and_only_then():
    run("promtool", "test", "rules", RULE_TESTS)


def test_every_alert_is_tested():
    alerts = re.findall(r"alert: (\w+)", RULES.read_text())
    fired = re.findall(r'alertname="(\w+)", alertstate="firing"', RULE_TESTS.read_text())
    assert len(alerts) == len(set(alerts)) and set(alerts) == set(fired)


def test_queries_of_the_dashboard_parse(tmp_path):
    rules = [{"record": f"query:{i}", "expr": text} for i, text in enumerate(queries())]
    file = tmp_path / "queries.yaml"  # which JSON is, too
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run("promtool", "check", "rules", file)


@pytest.mark.parametrize("expression", [*queries(), *expressions_of_alerts()])
def test_metrics_that_are_asked_for_are_there(expression):
    known = families() | {"up": set()}
    asked = re.findall(r"\b((?:cert_manager|process)_\w+|up\b)(?:\{([^}]*)\})?", expression)
    assert asked
    for name, labels in asked:
        assert name in known, name
        names = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
        assert names <= known[name] | OF_PROMETHEUS, (name, names)


@pytest.mark.parametrize("expression", queries())
def test_labels_that_are_summed_by_are_there(expression):
    known = families()
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", expression))))
    of_any = set().union(*(known[name] for name in re.findall(r"cert_manager_\w+", expression)))
    assert grouped <= of_any | OF_PROMETHEUS


def test_every_family_is_on_the_dashboard():
    text = " ".join(queries())
    names = [line.split()[0] for line in run(BUILD / "test/list_metrics").splitlines()]
    assert [name for name in names if name not in text] == []


def test_panels_do_not_lie_on_each_other():
    taken = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
