"""The latent units of classifiers, fetched from workers once for each version."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidInput, ModelError, SynthesisError
from ..imaging import decode, encode
from ..sheet import strips
from ..units import SHEET_ACROSS, SHEET_SIDE, CatalogueFiles, Unit, Units
from .backends.base import Backend, ModelInfo
from .errors import NoWorker

log = logging.getLogger(__name__)
KEPT = 32
"""Versions."""


@dataclass(frozen=True)
class Entry:
    """A unit and its examples."""

    unit: Unit
    examples: bytes
    """The training images that activate it most, side by side: WebP; empty for weak units."""


class Catalogues:
    """By classifier and version."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._known: OrderedDict[tuple[str, str], asyncio.Task[Sequence[Entry]]] = OrderedDict()

    async def get(self, info: ModelInfo) -> Sequence[Entry]:
        """By number of the unit. Raises NoWorker where none can be asked, ModelError for a catalogue that cannot be read."""
        key = info.name, info.version
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._load(info))
        task = self._known[key]
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return await asyncio.shield(task)  # others wait for it, too

    async def _load(self, info: ModelInfo) -> Sequence[Entry]:
        try:
            return await asyncio.to_thread(read, await self._fetch(info))
        except BaseException:
            self._known.pop((info.name, info.version), None)
            raise

    async def _fetch(self, info: ModelInfo) -> CatalogueFiles:
        reason = "none is up"
        for worker in sorted(self._backend.workers(), key=lambda worker: not worker.up):
            if any((each.name, each.version) == (info.name, info.version) for each in worker.models()):
                try:
                    return await worker.catalogue(info.name, info.version)
                except (SynthesisError, OSError) as error:
                    log.warning("worker %s: %s", worker.name, error)
                    reason = "those that have it do not answer"
        raise NoWorker(f"no worker shows the units of {info.name} ({reason}); try again later.")


def read(files: CatalogueFiles) -> Sequence[Entry]:
    """Every unit with its part of the sheet. Takes a moment. Raises ModelError."""
    if not files.units_json:
        return ()
    try:
        units = Units.from_json(files.units_json).units
        examples = _examples(files.sheet, units) if files.sheet and units else []
    except (ValueError, TypeError, RecursionError, InvalidInput) as error:
        raise ModelError(f"model: its catalogue of units cannot be read ({error}).") from error
    entries = [Entry(unit, examples[i] if i < len(examples) else b"") for i, unit in enumerate(units)]
    return sorted(entries, key=lambda entry: entry.unit.index)


def _examples(sheet: bytes, units: Sequence[Unit]) -> list[bytes]:
    """In the order of the catalogue, of as many units as are on the sheet."""
    cells = max(sum(unit.classes.values()) for unit in units)
    found = strips(decode(sheet), cells, side=SHEET_SIDE, across=SHEET_ACROSS)
    return [encode(strip, "webp") for strip in found[: len(units)]]
