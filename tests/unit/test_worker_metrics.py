from __future__ import annotations

import asyncio
import urllib.request

import pytest

from robust_synthesis.bundle import JobReply, Reply
from robust_synthesis.errors import InvalidInput
from robust_synthesis.wire import encode_reply
from robust_synthesis.worker.metrics import OUTCOMES, Metrics, reply_header
from robust_synthesis.worker.testing import FakeEngine


def _metrics() -> Metrics:
    return Metrics(FakeEngine())


def _value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


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
