"""`robust-synthesis serve` as a process: it starts, answers, and ends as it should."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from robust_synthesis.cli.main import main
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2


def long(steps: int = 2500, count: int = 1) -> synthesis_pb2.StreamSynthesisRequest:
    spec = task_pb2.GenerateSpec(target="circle", count=count, descent=task_pb2.Descent(steps=steps))
    return synthesis_pb2.StreamSynthesisRequest(model="cifar10", task=task_pb2.TaskSpec(generate=spec))


@pytest.fixture
def server(models: Path, unused_tcp_port: int) -> Iterator[tuple[subprocess.Popen[str], grpc.Channel]]:
    command = [sys.executable, "-m", "robust_synthesis", "serve", "--models", str(models), "--log-format", "json"]
    command += ["--grace", "600", "--metrics-port", "0"]
    target = f"127.0.0.1:{unused_tcp_port}"
    process = subprocess.Popen([*command, "--listen", target], stderr=subprocess.PIPE, text=True)
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(60)
            yield process, channel
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def test_a_signal_lets_what_was_accepted_finish(server: tuple[subprocess.Popen[str], grpc.Channel]) -> None:
    process, channel = server
    synthesis, models = synthesis_pb2_grpc.SynthesisServiceStub(channel), model_pb2_grpc.ModelServiceStub(channel)
    listed = models.ListModels(model_pb2.ListModelsRequest())
    assert [each.name for each in listed.models] == ["cifar10", "cifar10-standard"]
    streams = [synthesis.StreamSynthesis(long()) for _ in range(3)]
    for stream in streams:
        assert any(event.HasField("progress") for event in stream)
    process.send_signal(signal.SIGTERM)
    refusal = refused(synthesis)
    assert refusal.reason == "SHUTTING_DOWN"
    for stream in streams:
        *_, last = stream
        assert len(last.result.pictures[0].losses) == 2501
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert '"code": "UNAVAILABLE"' in log
    assert "Traceback" not in log


def refused(synthesis: Any) -> error_details_pb2.ErrorInfo:
    """Of the first call that is not let in."""
    request = synthesis_pb2.GenerateRequest(model="cifar10", spec=task_pb2.GenerateSpec(target="circle"))
    for _ in range(100):
        try:
            synthesis.Generate(request, timeout=10)
        except grpc.RpcError as error:
            trailers: Any = error.trailing_metadata()
            status = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            return info
    raise AssertionError("every call was let in")


def test_a_second_signal_ends_the_grace(server: tuple[subprocess.Popen[str], grpc.Channel]) -> None:
    process, channel = server
    synthesis = synthesis_pb2_grpc.SynthesisServiceStub(channel)
    stream = synthesis.StreamSynthesis(long(10_000, count=8))
    assert any(event.HasField("progress") for event in stream)
    process.send_signal(signal.SIGTERM)
    refused(synthesis)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert process.wait(15) == 0


@pytest.fixture
def soon() -> Iterator[None]:
    """Whoever uses it fails after a minute: what is not refused would serve for ever."""

    def fail(*_: object) -> None:
        raise TimeoutError("it was not refused")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "nowhere"], "listen: is 'nowhere'; give HOST:PORT"),
        (["--models", "/nowhere"], "models: /nowhere is not a folder"),
        (["--deadline", "0"], "deadline: is '0' (--deadline); input should be greater than 0."),
        (["--backend", "remote"], "workers: is missing; give the addresses of worker agents"),
        (["--backend", "embedded", "--workers", "a:1"], "workers: is for remote workers, and the backend is embedded"),
        (["--workers", "a:1", "--models", "x"], "models: is the workers' own"),
        (["--workers", "a:b"], "workers: 'a:b' is no address"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["serve", *options]) == 2
    assert f"robust-synthesis serve: {said}" in capsys.readouterr().err


@pytest.mark.usefixtures("soon")
def test_a_taken_port_is_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--listen", f"127.0.0.1:{port}", "--metrics-port", "0"]) == 2
    assert f"listen: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
