"""Between the messages of ModelService and the gateway's own types, as `convert` for those of SynthesisService."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..errors import InvalidInput
from ..messages import read_fit
from ..requests import Request
from ..specs import Classify
from ..v1 import model_pb2
from .backends.base import ModelInfo
from .catalogues import Entry
from .convert import computations
from .orders import Order
from .tickets import Outcome

PAGE, MAX_PAGE = 100, 1000


def classification(message: model_pb2.ClassifyRequest) -> Order:
    """Raises InvalidInput."""
    if message.HasField("top") and message.top < 1:
        raise InvalidInput("top", "is 0; give a whole number from 1.")
    return Order(Request(spec=Classify(), image=message.image or None, fit=read_fit(message)), message.model)


def classes(outcome: Outcome, message: model_pb2.ClassifyRequest) -> model_pb2.ClassifyResponse:
    found = outcome.pictures[0].report.get("probabilities", {})
    top = itertools.islice(found.items(), message.top if message.HasField("top") else None)
    return model_pb2.ClassifyResponse(
        classes=[model_pb2.ClassProbability(name=name, probability=probability) for name, probability in top],
        model=outcome.model,
        model_version=outcome.version,
        computations=computations(outcome),
    )


def summary(info: ModelInfo, units: Sequence[Entry]) -> model_pb2.ModelSummary:
    return model_pb2.ModelSummary(
        name=info.name,
        version=info.version,
        role=info.card.role,
        data=str(info.card.data.get("name", "")),
        size=info.card.size,
        class_count=len(info.card.classes),
        unit_count=len(units),
    )


def model(info: ModelInfo, summary: model_pb2.ModelSummary) -> model_pb2.GetModelResponse:
    return model_pb2.GetModelResponse(
        summary=summary,
        classes=info.card.classes,
        min_size=info.card.min_size,
        max_size=info.card.max_size,
        card_json=info.card.to_json(),
    )


def units(
    entries: Sequence[Entry], info: ModelInfo, message: model_pb2.ListUnitsRequest
) -> model_pb2.ListUnitsResponse:
    """One page. A token is the number of the unit that the next page begins with. Raises InvalidInput."""
    if message.page_size > MAX_PAGE:
        raise InvalidInput("page_size", f"is {message.page_size}; give 1 to {MAX_PAGE}, or 0 for {PAGE}.")
    if message.page_token and not (message.page_token.isascii() and message.page_token.isdecimal()):
        raise InvalidInput("page_token", "is none that ListUnits gave; leave it out for the first page.")
    first, size = int(message.page_token[:20] or 0), message.page_size or PAGE
    listed = [each for each in entries if each.unit.index >= first and (each.unit.name or not message.named_only)]
    return model_pb2.ListUnitsResponse(
        units=[_unit(each, with_examples=not message.without_examples) for each in listed[:size]],
        next_page_token=str(listed[size].unit.index) if len(listed) > size else "",
        model_version=info.version,
    )


def _unit(entry: Entry, *, with_examples: bool) -> model_pb2.Unit:
    unit = entry.unit
    return model_pb2.Unit(
        unit=unit.index,
        name=unit.name,
        class_name=next(iter(unit.classes), ""),
        examples=entry.examples if with_examples else b"",
    )
