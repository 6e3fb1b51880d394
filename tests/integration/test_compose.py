"""The compose file: valid to the last key, and in agreement with what it runs and mounts."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose_spec.models import ComposeSpecification

from robust_synthesis import __version__
from robust_synthesis.cli.main import parser

from . import promtool
from .schemas import closed

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose/compose.yaml"


@pytest.fixture
def compose() -> dict[str, Any]:
    """With its own extensions, which begin with x-, gone: they are merged into what uses them."""
    found = yaml.safe_load(COMPOSE.read_text())
    return {name: value for name, value in found.items() if not name.startswith("x-")}


def validate(compose: dict[str, Any]) -> None:
    jsonschema.validate(compose, closed(ComposeSpecification.model_json_schema()))


def test_it_is_valid_to_the_last_key(compose: dict[str, Any]) -> None:
    validate(compose)
    for path in (("services", "gateway"), ("networks", "inside"), ("services", "worker")):
        broken = copy.deepcopy(compose)
        place = broken
        for step in path:
            place = place[step]
        place["read_onyl"] = True
        with pytest.raises(jsonschema.ValidationError):
            validate(broken)


def test_gateway_and_worker_take_their_arguments_and_find_each_other(compose: dict[str, Any]) -> None:
    services = compose["services"]
    worker = parser().parse_args(services["worker"]["command"])
    gateway = parser().parse_args(services["gateway"]["command"])
    assert gateway.workers == f"worker:{worker.listen.rpartition(':')[2]}"
    assert set(services["gateway"]["networks"]) & set(services["worker"]["networks"]) == {"inside"}
    assert compose["networks"]["inside"] == {"internal": True}
    assert float(services["worker"]["stop_grace_period"].rstrip("s")) >= worker.drain + 10
    assert float(services["gateway"]["stop_grace_period"].rstrip("s")) >= 60 + 10
    for role, kind in (("gateway", ""), ("worker", "-cpu")):
        assert services[role]["image"].endswith(f"robust-synthesis-{role}:{__version__}{kind}}}")


def test_only_this_machine_reaches_it_and_nothing_can_write_but_where_it_should(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert "ports" not in compose["services"]["worker"]


def test_what_is_mounted_is_there_and_grafana_finds_source_and_dashboard(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", ())]
    for source, _, *mode in mounts:
        if source.startswith("."):
            assert (COMPOSE.parent / source).exists()
            assert mode == ["ro"]
        else:
            assert source in compose["volumes"]
    places = {target: source for source, target, *_ in mounts}
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/files.yaml").read_text())["providers"][0]
    boards = COMPOSE.parent / places[provider["options"]["path"]]
    assert [board.name for board in boards.iterdir()] == ["robust-synthesis.json"]
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/robust-synthesis.json"
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_takes_its_configuration_with_the_rules_beside_it(tmp_path: Path) -> None:
    try:
        tool = promtool.find()
    except promtool.Missing as error:
        pytest.skip(str(error))
    for file in ("compose/prometheus.yml", "prometheus/rules.yml"):
        (tmp_path / Path(file).name).write_bytes((DEPLOY / file).read_bytes())
    command: list[str | Path] = [tool, "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
