"""Files of deploy/ that are made of others are as they would be made now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_made_of_other_files_is_current(generate: ModuleType) -> None:
    assert generate.FILES
    for path, content in generate.FILES.items():
        assert path.read_text() == content(), f"run python deploy/generate.py: {path} has changed"


def test_the_operator_gets_the_same_rules(generate: ModuleType) -> None:
    made = yaml.safe_load(generate.operator_rules())
    assert made["spec"] == yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
