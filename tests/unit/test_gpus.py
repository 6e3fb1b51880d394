"""GPU numbers: those of the driver, absent without one, and never the end of whoever exports them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from robust_synthesis.gpus import Gpus, load_nvml
from robust_synthesis.worker.testing import FakeNvml, NVMLError

CALLS = [name for name in vars(FakeNvml) if name.startswith("nvml")]


def registry_of(load: Any, **options: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Gpus(load, **options))
    return registry


def names(registry: CollectorRegistry) -> set[str]:
    return {sample.name for family in registry.collect() for sample in family.samples}


def no_driver() -> NoReturn:
    raise NVMLError("Driver Not Loaded")


def test_numbers_are_absent_without_a_driver() -> None:
    assert generate_latest(registry_of(no_driver)) == b""


def test_the_driver_is_looked_for_once() -> None:
    looked = []

    def look() -> NoReturn:
        looked.append(1)
        no_driver()

    registry = registry_of(look)
    for _ in range(3):
        generate_latest(registry)
    assert looked == [1]


def test_numbers_are_those_of_the_driver() -> None:
    registry = registry_of(FakeNvml)
    first, second = {"gpu": "0", "name": "NVIDIA H200"}, {"gpu": "1", "name": "NVIDIA H200 MIG"}
    assert registry.get_sample_value("gpu_utilization_ratio", first) == 0.37
    assert registry.get_sample_value("gpu_memory_used_bytes", first) == 2**30
    assert registry.get_sample_value("gpu_memory_total_bytes", first) == 141 * 2**30
    assert registry.get_sample_value("gpu_utilization_ratio", second) is None
    assert registry.get_sample_value("gpu_memory_used_bytes", second) == 2 * 2**30
    assert b'gpu="2"' not in generate_latest(registry)


@pytest.mark.parametrize(
    "error", [NVMLError("driver unloaded"), OSError("no such symbol"), ValueError("\0"), MemoryError()]
)
@pytest.mark.parametrize("call", CALLS)
def test_a_driver_that_raises_at_any_call_harms_nothing_but_its_numbers(call: str, error: Exception) -> None:
    def broken(*_: object) -> NoReturn:
        raise error

    nvml = FakeNvml()
    setattr(nvml, call, broken)
    lost = {
        "nvmlDeviceGetUtilizationRates": {"gpu_utilization_ratio"},
        "nvmlDeviceGetMemoryInfo": {"gpu_memory_used_bytes", "gpu_memory_total_bytes"},
    }
    every = {"gpu_utilization_ratio", "gpu_memory_used_bytes", "gpu_memory_total_bytes"}
    assert names(registry_of(lambda: nvml)) == every - lost.get(call, every)


@pytest.mark.parametrize("answer", [None, "N/A", SimpleNamespace(), -1])
@pytest.mark.parametrize("call", CALLS)
def test_a_driver_that_answers_nonsense_never_breaks_the_exposition(call: str, answer: object) -> None:
    nvml = FakeNvml()
    setattr(nvml, call, lambda *_: answer)
    registry = registry_of(lambda: nvml)
    generate_latest(registry)
    assert names(registry) <= names(registry_of(FakeNvml)) != set()


def test_a_driver_that_hangs_holds_one_thread_and_no_scrape() -> None:
    free, asked = threading.Event(), []

    class Hung(FakeNvml):
        def nvmlDeviceGetCount(self) -> int:  # noqa: N802
            asked.append(1)
            free.wait(60)
            return 1

    registry = registry_of(Hung, patience=0.02)
    threads = threading.active_count()
    assert [names(registry) for _ in range(3)] == [set()] * 3
    assert (len(asked), threading.active_count()) == (1, threads + 1)
    free.set()
    found: set[str] = set()
    while not found:  # it answers late, and is asked anew
        found = names(registry)
    assert "gpu_utilization_ratio" in found


def test_a_real_driver_is_read() -> None:
    try:
        nvml = load_nvml()
    except Exception as error:
        pytest.skip(f"no GPU: {error}")
    registry = registry_of(lambda: nvml)
    assert names(registry) >= {"gpu_memory_used_bytes", "gpu_memory_total_bytes"}
    for family in registry.collect():
        for sample in family.samples:
            assert 0 <= sample.value <= (1 if sample.name == "gpu_utilization_ratio" else 2**42)
