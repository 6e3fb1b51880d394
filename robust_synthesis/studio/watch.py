"""Whether the gateway can be reached, and which classifiers it has: asked every now and then, and told to all pages."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..client import AsyncClient, Model, ModelSummary, SynthesisError, Unit
from ..defaults import resolve
from ..model_folder import SEEDS, Card
from ..specs import NORMS, SPECS, from_json

log = logging.getLogger(__name__)
WHILE_UP, WHILE_DOWN = 2.0, 0.5
"""Seconds between two questions."""
PATIENCE = 5.0
"""Seconds for an answer."""


@dataclasses.dataclass(frozen=True)
class State:
    """What pages are told."""

    up: bool
    why: str = ""
    """It is not."""
    models: tuple[ModelSummary, ...] = ()
    """The last that are known."""


class Watch:
    """`run` it beside the app."""

    def __init__(self, client: AsyncClient, asking: AsyncClient) -> None:
        """`asking` should not try calls again by itself."""
        self._client = client
        self._asking = asking
        self.state = State(False, "The studio is starting.")
        self._changed = asyncio.Event()
        self._units: dict[tuple[str, str], asyncio.Future[dict[int, Unit]]] = {}

    async def run(self) -> None:
        while True:
            state = await self._ask()
            if state != self.state:
                if state.up != self.state.up:
                    log.info("the gateway is there" if state.up else f"the gateway is lost: {state.why}")
                self.state = state
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
            await asyncio.sleep(WHILE_UP if state.up else WHILE_DOWN)

    async def states(self) -> AsyncIterator[State]:
        """The present one, and each that follows."""
        while True:
            changed = self._changed
            yield self.state
            await changed.wait()

    async def models(self) -> dict[str, Any]:
        """All that the page knows of the classifiers. Raises what the client raises."""
        summaries = await self._client.models()
        found = await asyncio.gather(*(self._client.model(each.name) for each in summaries))
        try:
            default = (await self._client.model()).name
        except SynthesisError:  # there are several, and none is named
            default = next((each.name for each in found if each.role == "robust"), found[0].name if found else "")
        return {"default": default, "models": [_described(each) for each in found]}

    async def units(self, model: str, version: str) -> dict[int, Unit]:
        """By number; they are asked for once. Raises what the client raises."""
        key = model, version
        if key not in self._units:
            self._units[key] = asyncio.ensure_future(self._all_units(model))
        try:
            return await asyncio.shield(self._units[key])
        except SynthesisError:
            self._units.pop(key, None)
            raise

    async def _all_units(self, model: str) -> dict[int, Unit]:
        return {unit.unit: unit for unit in await self._client.units(model)}

    async def _ask(self) -> State:
        try:
            return State(True, models=tuple(await self._asking.models(timeout=PATIENCE)))
        except SynthesisError as error:
            return State(False, str(error), self.state.models)


def _described(model: Model) -> dict[str, Any]:
    card = model.card
    summary = {field.name: getattr(model, field.name) for field in dataclasses.fields(ModelSummary)}
    return summary | {
        "classes": model.classes,
        "min_size": model.min_size,
        "max_size": model.max_size,
        "starts": ["gaussian", "noise"] if SEEDS in card.files else ["noise"],
        "accuracy": _number(card.measured.get("clean_accuracy")),
        "defaults": {task: _defaults(card, task) for task in SPECS},
        "lengths": {task: {norm: _lengths(card, task, norm) for norm in NORMS} for task in SPECS},
    }


def _defaults(card: Card, task: str, **given: Any) -> dict[str, Any]:
    return resolve(from_json({"task": task, "target": "any", **given}), card, card.size)


def _lengths(card: Card, task: str, norm: str) -> dict[str, float]:
    """What the card's ball becomes with another norm."""
    defaults = _defaults(card, task, norm=norm)
    return {name: defaults[name] for name in ("norm", "epsilon", "step_size")}


def _number(measured: object) -> float | None:
    value = measured.get("value") if isinstance(measured, Mapping) else measured
    return value if isinstance(value, float) else None
