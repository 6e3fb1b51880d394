"""The GPUs of this machine as Prometheus sees them, from NVML: absent, never zero, without one.

A driver that raises, or hangs, costs its own numbers and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

log = logging.getLogger(__name__)
PATIENCE = 2.0
"""Seconds that a scrape waits for the driver."""


def load_nvml() -> Any:
    """pynvml, ready to use. Raises whatever says that there is no driver, no GPU or no pynvml."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml


class Gpus:
    """A Prometheus collector of every GPU. `load` returns what has the functions of pynvml, or raises."""

    def __init__(self, load: Callable[[], Any] = load_nvml, *, patience: float = PATIENCE) -> None:
        self._load = load
        self._patience = patience
        self._nvml: Any = None
        self._absent = False
        self._turn = threading.Lock()
        self._reader: threading.Thread | None = None
        self._read: list[Metric] = []

    def describe(self) -> list[Metric]:
        """Its names, without asking the driver."""
        return list(_families())

    def collect(self) -> list[Metric]:
        """What the driver says within the patience. One that hangs holds one thread, and is asked no more until it answers."""
        with self._turn:
            if self._reader is None or not self._reader.is_alive():
                self._read = []
                self._reader = threading.Thread(target=self._ask, name="gpus", daemon=True)
                self._reader.start()
            self._reader.join(self._patience)
            return [] if self._reader.is_alive() else self._read

    def _ask(self) -> None:
        if self._nvml is None and not self._absent:
            try:
                self._nvml = self._load()
            except Exception as error:
                self._absent = True
                log.info("no GPU metrics: %s", error or type(error).__name__)
        if self._nvml is not None:
            self._read = [family for family in _read(self._nvml) if family.samples]


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    labels = ["gpu", "name"]
    return (
        GaugeMetricFamily("gpu_utilization_ratio", "Share of the time in which a kernel ran.", labels=labels),
        GaugeMetricFamily("gpu_memory_used_bytes", "GPU memory in use.", labels=labels),
        GaugeMetricFamily("gpu_memory_total_bytes", "GPU memory there is.", labels=labels),
    )


def _read(nvml: Any) -> tuple[GaugeMetricFamily, ...]:
    busy, used, total = families = _families()
    with contextlib.suppress(Exception):  # a broken driver raises more than NVMLError
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):  # one that has fallen off the bus hides no other
                gpu = nvml.nvmlDeviceGetHandleByIndex(index)
                name = nvml.nvmlDeviceGetName(gpu)
                values = [str(index), name.decode(errors="replace") if isinstance(name, bytes) else str(name)]
                with contextlib.suppress(Exception):  # not supported on every GPU
                    busy.add_metric(values, nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
                with contextlib.suppress(Exception):
                    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                    used.add_metric(values, float(memory.used))
                    total.add_metric(values, float(memory.total))
    return families
