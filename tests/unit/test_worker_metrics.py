from __future__ import annotations

import asyncio
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest

from robust_synthesis.bundle import JobReply, Reply
from robust_synthesis.errors import InvalidInput
from robust_synthesis.wire import encode_reply
from robust_synthesis.worker.metrics import OUTCOMES, Metrics, reply_header
from robust_synthesis.worker.testing import FakeEngine


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml with two GPUs, the second of which cannot tell its utilisation, and a third that does not answer."""

    NVMLError = NVMLError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 2:
            raise NVMLError("lost")
        return index

    def nvmlDeviceGetName(self, gpu: int) -> str | bytes:  # noqa: N802
        return ("NVIDIA H200", b"NVIDIA H200 MIG")[gpu]

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:  # noqa: N802
        if gpu == 1:
            raise NVMLError("not supported")
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=(gpu + 1) * 2**30, total=141 * 2**30)


def _metrics(nvml: Any = None) -> Metrics:
    return Metrics(FakeEngine(), nvml)


def _text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def _value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_gpu_numbers_are_absent_without_a_gpu() -> None:
    assert "gpu_" not in _text(_metrics())


def test_gpu_numbers_are_those_of_nvml() -> None:
    metrics = _metrics(FakeNvml())
    first, second = {"gpu": "0", "name": "NVIDIA H200"}, {"gpu": "1", "name": "NVIDIA H200 MIG"}
    assert _value(metrics, "gpu_utilization_ratio", **first) == 0.37
    assert _value(metrics, "gpu_memory_used_bytes", **first) == 2**30
    assert _value(metrics, "gpu_memory_total_bytes", **first) == 141 * 2**30
    assert _value(metrics, "gpu_utilization_ratio", **second) is None
    assert _value(metrics, "gpu_memory_used_bytes", **second) == 2 * 2**30
    assert 'gpu="2"' not in _text(metrics)


def test_a_driver_that_fails_leaves_no_gpu_number() -> None:
    class Broken(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:  # noqa: N802
            raise NVMLError("driver unloaded")

    assert "gpu_" not in _text(_metrics(Broken()))


def test_every_outcome_is_there_before_it_happens() -> None:
    metrics = _metrics()
    assert [_value(metrics, "worker_bundles_total", outcome=outcome) for outcome in OUTCOMES] == [0.0] * len(OUTCOMES)


def test_a_reply_tells_jobs_compute_time_and_step_time() -> None:
    metrics = _metrics()
    reply = encode_reply(Reply("tiny", "v", [JobReply(), JobReply(), JobReply()], 0.25, [(4, 10, 0.2), (1, 5, 0.05)]))
    metrics.ran("tiny", 5000, reply)
    assert _value(metrics, "worker_bundle_jobs_sum", model="tiny") == 3
    assert _value(metrics, "worker_compute_seconds_sum", model="tiny") == 0.25
    assert _value(metrics, "worker_bundle_bytes_sum", model="tiny") == 5000
    assert _value(metrics, "worker_step_seconds_sum", model="tiny", batch_size="4") == pytest.approx(0.02)
    assert _value(metrics, "worker_step_seconds_sum", model="tiny", batch_size="1") == pytest.approx(0.01)


@pytest.mark.parametrize("data", [b"", b"12345678", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 20])
def test_what_is_no_reply_has_no_header(data: bytes) -> None:
    assert reply_header(data) == {}


def test_memory_and_restarts_are_exported() -> None:
    metrics = _metrics()
    memory = _value(metrics, "worker_memory_bytes", process="agent")
    assert memory is not None
    assert memory > 2**20
    assert _value(metrics, "worker_restarts_total", what="worker") == 0
    assert _value(metrics, "worker_up") == 1


def test_metrics_are_scraped_and_a_taken_port_is_said(unused_tcp_port: int) -> None:
    async def main() -> None:
        metrics = _metrics()
        stop = metrics.serve("127.0.0.1", unused_tcp_port)
        try:
            with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1 port {unused_tcp_port}"):
                metrics.serve("127.0.0.1", unused_tcp_port)
            url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as response:
                assert b"worker_bundles_outstanding 0.0" in response.read()
        finally:
            stop()

    asyncio.run(main())
