"""promtool accepts the rules, their unit tests and what is exported; every alert is tested and says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import promtool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"


@pytest.fixture(scope="session")
def tool() -> Path:
    try:
        return promtool.find()
    except promtool.Missing as error:
        pytest.skip(str(error))


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]:
        yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool_accepts_configuration_rules_and_their_tests(tool: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run([tool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_seen_to_fire_and_to_stay_silent_and_says_what_to_do(name: str) -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    seen = [
        bool(each.get("exp_alerts"))
        for test in tests
        for each in test.get("alert_rule_test", ())
        if each["alertname"] == name
    ]
    assert set(seen) == {True, False}
    assert ALERTS[name]["annotations"]["summary"]
    assert ALERTS[name]["annotations"]["runbook"].endswith(".")
    assert ALERTS[name]["labels"]["severity"] in ("page", "ticket")


def test_promtool_accepts_every_expression_of_the_dashboard(tool: Path, tmp_path: Path) -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/robust-synthesis.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 20
    for variable, value in {"$namespace": ".*", "$__rate_interval": "1m"}.items():
        assert any(variable in expression for expression in expressions)
        expressions = [expression.replace(variable, value) for expression in expressions]
    assert not any("$" in expression for expression in expressions)
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([tool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert (done.returncode, f"{len(expressions)} rules found" in done.stdout) == (0, True), done.stdout + done.stderr


def test_rules_use_only_metrics_that_are_documented_or_recorded() -> None:
    documents = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("metrics", "workers"))
    known = set(re.findall(r"`((?:grpc|synthesis|gpu|worker)_\w+)", documents))
    for rule in rules():
        expression = re.sub(r'"[^"]*"', "", rule["expr"])
        for record in re.findall(r"\w+:\w+:\w+", expression):
            assert record in RECORDS
        plain = re.sub(r"\w+:\w+:\w+|by \([^)]*\)|\{[^}]*\}", "", expression)
        used = set(re.findall(r"\b(?:grpc|synthesis|gpu|worker)_\w+", plain))
        assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= known
