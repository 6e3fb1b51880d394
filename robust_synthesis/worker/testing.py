"""Things to test workers with: an engine that computes nothing and fails on demand, and a driver of GPUs that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ..batch_sizes import FINE
from ..bundle import PROTOCOL, Reply
from ..gateway.backends.base import WorkerUnavailable
from ..model_folder import Card
from ..units import CatalogueFiles
from ..wire import encode_reply
from .engine import Loaded, UnknownVersion

VERSION = "0123456789abcdef"


def fake_model(name: str = "fake", version: str = VERSION, *, current: bool = True) -> Loaded:
    """A classifier of two classes that an engine may say it has."""
    return Loaded(
        name=name,
        version=version,
        card=Card(name=name, architecture={}, classes=("cat", "dog"), size=32, mean=(0, 0, 0), std=(1, 1, 1)),
        current=current,
        step_seconds={1: 0.01, 8: 0.05},
        protocol=PROTOCOL,
        device="cpu",
        precision="fp32",
        batch_sizes=FINE,
    )


class FakeEngine:
    """Answers every bundle with a reply of no jobs, after `open` is set; raises `error` instead where there is one."""

    kind = "fake"

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.restarts = {"worker": 0}
        self.up = True
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.started: list[tuple[bytes, float]] = []
        """Bundles that have come, with their timeouts."""
        self.finished = 0
        self._models = [fake_model()]

    def set_up(self, up: bool) -> None:
        self.up = up
        self.changed.set()

    async def start(self) -> None:
        self.changed.set()

    async def close(self) -> None:
        self.up = False

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        if (model, version) != ("fake", VERSION):
            raise UnknownVersion(f"model: there is no {model} {version}.")
        return CatalogueFiles('[{"index": 3, "name": "ears", "activation": 1.5, "classes": {"cat": 9}}]')

    async def reload(self) -> None:
        """There is no directory."""

    def models(self) -> Sequence[Loaded]:
        return self._models

    def processes(self) -> Mapping[str, Sequence[int]]:
        return {}

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        if not self.up:
            raise WorkerUnavailable("the engine starts.")
        if model != "fake" or version not in (None, VERSION):
            raise UnknownVersion(f"model: there is no {model} {version}.")
        self.started.append((bundle, timeout))
        await self.open.wait()
        self.finished += 1
        if self.error is not None:
            raise self.error
        return encode_reply(Reply("fake", VERSION, [], 0.25, [(8, 5, 0.2)], device="cpu", precision="fp32"))


class NVMLError(Exception):
    """What pynvml raises."""


class FakeNvml:
    """pynvml with two GPUs, the second of which cannot tell its utilisation, and a third that does not answer."""

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
