"""Files of deploy/ that are made of others are as they would be made now."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DEPLOY))
    try:
        yield importlib.import_module("generate")
    finally:
        sys.path.remove(str(DEPLOY))


def test_what_is_made_of_other_files_is_current(generate: ModuleType) -> None:
    assert generate.FILES
    for path, content in generate.FILES.items():
        assert path.read_text() == content(), f"run python deploy/generate.py: {path} has changed"


def test_the_operator_gets_the_same_rules(generate: ModuleType) -> None:
    made = yaml.safe_load(generate.operator_rules())
    assert made["spec"] == yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())


def test_the_dashboard_names_only_metrics_that_are_documented(generate: ModuleType) -> None:
    board = json.loads(generate.DASHBOARD.read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) >= 15
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    documents = "".join((DEPLOY.parent / f"docs/{name}.md").read_text() for name in ("metrics", "workers"))
    known = set(re.findall(r"`((?:grpc|synthesis|gpu|worker)_\w+)", documents))
    records = set(re.findall(r"record: (\S+)", generate.RULES.read_text()))
    for panel in panels:
        assert panel["targets"]
        for target in panel["targets"]:
            expression = target["expr"]
            assert "$namespace" in expression
            assert set(re.findall(r"\w+:\w+:\w+", expression)) <= records
            plain = re.sub(r"\w+:\w+:\w+|by \([^)]*\)|\{[^}]*\}", "", expression)
            used = set(re.findall(r"\b(?:grpc|synthesis|gpu|worker)_\w+", plain))
            assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= known


def test_grafana_s_own_model_of_a_dashboard_loses_nothing_of_it(generate: ModuleType) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    written = generate.DASHBOARD.read_text()
    assert JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(json.loads(written))) + "\n" == written


def test_images_are_built_of_all_that_the_wheel_includes() -> None:
    root = DEPLOY.parent
    targets = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    included = set(targets["wheel"]["force-include"])
    assert len(included) >= 5
    stages = (root / "Dockerfile").read_text().split("\nFROM ")
    building = [stage for stage in stages if re.search(r"pip install .*'\.\[", stage)]
    assert len(building) == 2
    sent = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in building:
        copied = [
            source for line in re.findall(r"^COPY (?!--)(.*) \S+$", stage, re.MULTILINE) for source in line.split()
        ]
        for path in map(Path, included):
            assert any(path.is_relative_to(source) for source in copied), path
            assert any(path.is_relative_to(source) for source in sent), path
