"""The query that KEDA asks Prometheus, as the manifests have it, on scripted series; and how many workers follow from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import fetched, kubectl, promtool
from .kubectl import OVERLAYS

SCRAPE = "15s"
NAME = "synthesis_offered_cost"


@pytest.fixture(scope="module")
def scaled() -> dict[str, Any]:
    """The ScaledObject's spec. It is the same trigger in all overlays."""
    try:
        found = [kubectl.render(kubectl.find(), f"overlays/{overlay}") for overlay in OVERLAYS]
    except fetched.Missing as error:
        pytest.skip(str(error))
    specs = [each["spec"] for resources in found for each in resources if each["kind"] == "ScaledObject"]
    assert specs[0]["triggers"] == specs[1]["triggers"] == specs[2]["triggers"]
    assert len(specs[0]["triggers"]) == 1
    return dict(specs[0])


@pytest.fixture(scope="module")
def tool() -> Path:
    try:
        return promtool.find()
    except promtool.Missing as error:
        pytest.skip(str(error))


def gateway(pod: str, values: str, namespace: str = "robust-synthesis") -> dict[str, str]:
    return {"series": f'{NAME}{{namespace="{namespace}", job="gateway", pod="{pod}"}}', "values": values}


def check(tool: Path, query: str, series: list[dict[str, str]], answers: dict[str, float | None]) -> None:
    """That the query has these answers at these times; None is no answer at all."""
    expected = [
        {"expr": query, "eval_time": at, "exp_samples": [] if value is None else [{"labels": "{}", "value": value}]}
        for at, value in answers.items()
    ]
    promtool.run_tests(tool, [{"interval": SCRAPE, "input_series": series, "promql_expr_test": expected}])


def workers(scaled: dict[str, Any], offered: float) -> int:
    """That KEDA and its HPA want: none below the activation, else ceil(offered / threshold), within the limits."""
    trigger = scaled["triggers"][0]
    assert trigger["metricType"] == "AverageValue"
    assert offered >= 0
    wanted = math.ceil(offered / float(trigger["metadata"]["threshold"]))
    active = offered > float(trigger["metadata"]["activationThreshold"])
    least, most = int(scaled["minReplicaCount"]), int(scaled["maxReplicaCount"])
    return max(least, min(most, wanted if active else 0))


def test_idle_gateways_ask_for_the_least_and_one_job_for_one_worker(tool: Path, scaled: dict[str, Any]) -> None:
    query = scaled["triggers"][0]["metadata"]["query"]
    check(tool, query, [gateway("a", "0x20"), gateway("b", "0x10 7.75x10")], {"2m": 0, "4m": 7.75})
    none = scaled | {"minReplicaCount": 0}
    assert (workers(none, 0), workers(none, 7.75)) == (0, 1)


def test_a_burst_at_both_gateways_counts_as_one_and_is_bounded(tool: Path, scaled: dict[str, Any]) -> None:
    query, threshold = scaled["triggers"][0]["metadata"]["query"], float(scaled["triggers"][0]["metadata"]["threshold"])
    burst = 2.4 * threshold
    series = [gateway("a", f"0x10 {burst}x10 0x10"), gateway("b", f"0x10 {2 * burst}x10 0x10")]
    check(tool, query, series, {"1m": 0, "3m30s": 3 * burst, "7m": 0})
    assert workers(scaled, 3 * burst) == 8
    assert workers(scaled, 1000 * threshold) == scaled["maxReplicaCount"]


def test_a_lost_worker_lowers_nothing_that_is_asked_for(tool: Path, scaled: dict[str, Any]) -> None:
    """What it had goes on waiting, so the answer grows while the worker's own series end."""
    query = scaled["triggers"][0]["metadata"]["query"]
    series = [
        gateway("a", "60x8 60+4x10"),
        {"series": 'worker_up{namespace="robust-synthesis", job="worker", pod="w"}', "values": "1x8 stale"},
        {
            "series": 'synthesis_backend_up{namespace="robust-synthesis", job="gateway", pod="a", backend="w"}',
            "values": "1x8 0x10",
        },
    ]
    check(tool, query, series, {"2m": 60, "4m": 88})
    assert workers(scaled, 88) > workers(scaled, 60) > 1


def test_a_lost_gateway_takes_only_its_own_share_away(tool: Path, scaled: dict[str, Any]) -> None:
    query = scaled["triggers"][0]["metadata"]["query"]
    check(tool, query, [gateway("a", "500x20"), gateway("b", "700x8 stale")], {"2m": 1200, "4m": 500})
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300  # longer than a gateway takes to be back


def test_without_data_there_is_no_answer_rather_than_none_offered(tool: Path, scaled: dict[str, Any]) -> None:
    """KEDA then reports an error, and the number of workers stays as it is."""
    trigger = scaled["triggers"][0]["metadata"]
    check(tool, trigger["query"], [], {"1m": None})
    check(tool, trigger["query"], [gateway("a", "500x8 stale")], {"2m": 500, "4m": None})
    assert trigger["ignoreNullValues"] == "false"
    assert "fallback" not in scaled


def test_another_namespace_does_not_count(tool: Path, scaled: dict[str, Any]) -> None:
    query = scaled["triggers"][0]["metadata"]["query"]
    check(tool, query, [gateway("a", "500x8"), gateway("a", "9000x8", "staging")], {"2m": 500})


def test_scaled_to_zero_the_alert_for_no_worker_fires_only_once_requests_have_waited(
    tool: Path, scaled: dict[str, Any], tmp_path: Path
) -> None:
    resources = kubectl.render(kubectl.find(), "overlays/scale-to-zero")
    (rule,) = [each for each in resources if each["kind"] == "PrometheusRule"]
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    labels = 'namespace="robust-synthesis", job="gateway", instance="g"'
    series = [
        {"series": f"synthesis_build_info{{{labels}}}", "values": "1x180"},
        {"series": f"{NAME}{{{labels}}}", "values": "0x80 31x100"},  # offered from the 20th minute on
    ]
    fired = {
        "alertname": "SynthesisNoWorker",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "page", "namespace": "robust-synthesis", "job": "gateway", "instance": "g"},
                "exp_annotations": {
                    "summary": "g has no worker that takes bundles; requests wait until their deadline",
                    "runbook": _runbook(rule, "SynthesisNoWorker"),
                },
            }
        ],
    }
    silent = {"alertname": "SynthesisNoWorker"}
    expected = [silent | {"eval_time": "19m"}, silent | {"eval_time": "29m"}, fired | {"eval_time": "31m"}]
    promtool.run_tests(tool, [{"interval": SCRAPE, "input_series": series, "alert_rule_test": expected}], rules)


def _runbook(rule: dict[str, Any], name: str) -> str:
    found = [each for group in rule["spec"]["groups"] for each in group["rules"] if each.get("alert") == name]
    return str(found[0]["annotations"]["runbook"])
