"""The seam between the gateway, which owns the jobs, and whatever computes their bundles."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...batch_sizes import POWERS
from ...errors import SynthesisError
from ...model_folder import Card
from ...units import CatalogueFiles


class WorkerLost(SynthesisError):
    """The bundle may have run and may have crashed the worker: it died, it hung, or the connection broke in mid-call."""


class WorkerUnavailable(SynthesisError):
    """The bundle surely did not run: connection refused, not ready, draining, or busy with others' bundles."""


@dataclass(frozen=True)
class ModelInfo:
    """One version of a classifier that a worker serves."""

    name: str
    version: str
    card: Card
    current: bool
    """Whether new jobs take this version; others are kept for the jobs that began with them."""
    step_seconds: Mapping[int, float]
    """Seconds of one step by batch size at the card's image size, as the worker measured them at warm-up."""
    protocol: int
    batch_sizes: Sequence[int] = field(default=POWERS, kw_only=True)
    """To which it pads batches."""


class Worker(Protocol):
    """Runs bundles. It is free to run those that are outstanding one after the other."""

    name: str
    """Unique in its backend."""

    @property
    def up(self) -> bool:
        """False while ejected, restarting or draining."""

    def models(self) -> Sequence[ModelInfo]:
        """What it serves now, without I/O: the backend refreshes it."""

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        """The reply's blob. Raises WorkerLost, also after `timeout` seconds, and WorkerUnavailable."""

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        """The latent units of a classifier. Raises WorkerUnavailable, also where it does not have that version, or ModelError."""


class Backend(Protocol):
    """All workers of a gateway."""

    changed: asyncio.Event
    """Set whenever the workers, or the `up` or `models` of one, have changed; the dispatcher clears it."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def workers(self) -> Sequence[Worker]:
        """May change at any time."""
