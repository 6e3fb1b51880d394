"""The load generator against a gateway that really computes, as from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from clients.loadgen.__main__ import main
from robust_synthesis.gateway.admission import BoundedAdmission
from robust_synthesis.gateway.metrics import Metrics
from robust_synthesis.gateway.queue import Bounds
from robust_synthesis.gateway.running import embedded, serving

ALL = "generate=2,inpaint,translate,super-resolve,sketch-to-image,paint-features,maximize-class"


@pytest.fixture(scope="module")
def server(models: Path, unused_tcp_port_factory: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Address and metrics of a gateway over tiny classifiers, with room for two requests of a caller."""
    port = unused_tcp_port_factory()  # type: ignore[operator]
    backend = embedded(models)
    metrics = Metrics(backend)
    stop = metrics.serve("127.0.0.1", port)
    admission = BoundedAdmission(Bounds(requests=4))
    try:
        with serving(lambda: backend, observer=metrics, admission=admission) as target:
            yield target, f"http://127.0.0.1:{port}/metrics"
    finally:
        stop()


def test_every_task_of_a_closed_loop_is_measured_and_agrees_with_the_server_s_own_count(
    server: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, metrics = server
    command = [target, "closed", "--callers", "2", "--seconds", "3", "--mix", ALL, "--model", "cifar10", "--steps", "3"]
    assert main([*command, "--photo", "40", "--metrics", metrics, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "load.json").read_text())
    measured, grew = written["measured"], written["metrics"]["grew"]
    assert measured["codes"] == {"OK": measured["requests"]}
    assert len(measured["tasks"]) == 7
    assert 0 < measured["latency"]["p50"] <= measured["latency"]["p99"] <= measured["latency"]["max"] < 10
    done = sum(value for name, value in grew.items() if name.startswith("synthesis_task_duration_seconds_count"))
    assert done == measured["requests"]
    assert written["asked"]["callers"] == 2
    with Image.open(tmp_path / "load.png") as picture:
        assert picture.size[0] > 500
    assert capsys.readouterr().out.startswith(f"{measured['requests']} requests in ")


def test_an_open_loop_goes_on_sending_and_counts_what_is_refused(server: tuple[str, str], tmp_path: Path) -> None:
    command = [server[0], "open", "--rate", "60", "--arrivals", "burst", "--burst", "30", "--seconds", "2"]
    assert main([*command, "--model", "cifar10", "--steps", "200", "--out", str(tmp_path), "--connections", "2"]) == 0
    measured = json.loads((tmp_path / "load.json").read_text())["measured"]
    assert set(measured["codes"]) == {"OK", "RESOURCE_EXHAUSTED"}
    assert measured["requests"] % 30 == 0
    assert sum(measured["codes"].values()) == measured["requests"]


def test_every_way_of_making_a_request_ends_as_it_should(server: tuple[str, str], tmp_path: Path) -> None:
    codes = {"unary": "OK", "stream": "OK", "edit": "OK", "cancel": "CANCELLED", "late": "DEADLINE_EXCEEDED"}
    for way, code in codes.items():
        command = [server[0], "closed", "--callers", "1", "--seconds", "1", "--mix", "inpaint,generate", "--ways", way]
        steps = "2000" if code != "OK" else "3"
        main([*command, "--model", "cifar10", "--steps", steps, "--out", str(tmp_path)])
        measured = json.loads((tmp_path / "load.json").read_text())["measured"]
        assert set(measured["codes"]) == {code}
        assert measured["requests"] >= 2
        named = {task if way == "unary" else f"{task} ({way})" for task in ("inpaint", "generate")}
        assert set(measured["tasks"]) <= named
        assert bool(measured["tasks"]) == (code == "OK")


def test_without_a_server_or_with_a_task_that_is_none_it_is_a_sentence(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"127.0.0.1:{unused_tcp_port}", "open", "--timeout", "2", "--out", str(tmp_path)]) == 3
    assert "failed to connect" in capsys.readouterr().err.lower()
    assert main(["127.0.0.1:1", "open", "--mix", "paint", "--out", str(tmp_path)]) == 2
    assert "there is no task 'paint'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
