"""What a server sends back, as the objects that the library has for the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from .. import imaging, results
from ..errors import InvalidInput
from ..messages import chosen, read_spec
from ..model_folder import Card
from ..v1 import model_pb2, synthesis_pb2, task_pb2
from .errors import ServerFailed


@dataclass(frozen=True)
class Queued:
    """A request waits."""

    position: int
    """How many requests are ahead, as long as nobody else comes."""
    estimated_wait_seconds: float


@dataclass(frozen=True)
class Progress(results.Progress):
    """Where one picture of a request stands."""

    index: int = 0
    """Which picture."""
    preview: Image.Image | None = field(default=None, repr=False)
    """The unfinished picture, where asked for; the last bundle of steps has none, since its result follows."""
    file: bytes = field(default=b"", repr=False)
    """The same as the server encoded it, JPEG."""


@dataclass(frozen=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_wait_seconds: float
    total_seconds: float
    compute_seconds: float
    """That workers computed bundles with pictures of it, and of others."""
    bundles: int
    retries: int
    """Bundles that were lost, and sent again."""


@dataclass(frozen=True)
class Picture(results.Picture):
    """One result, which has no `start`."""

    file: bytes = field(default=b"", repr=False)
    """As the server encoded it."""
    format: str = "png"

    def report(self) -> dict[str, Any]:
        return {name: value for name, value in super().report().items() if name != "file"}


@dataclass(frozen=True)
class Result(results.Result):
    """The answer to one request. `seconds` are the server's, `device` and `precision` its workers': several where they differ."""

    server: str
    pictures: tuple[Picture, ...]
    timings: Timings
    request_id: str
    """What the server's log calls the call."""

    def report(self) -> dict[str, Any]:
        return super().report() | {"timings": dataclasses.asdict(self.timings)}


@dataclass(frozen=True)
class ModelSummary:
    """One classifier of the server."""

    name: str
    version: str
    """Content hash."""
    role: str
    """robust, or standard: trained without an adversary, for comparison."""
    data: str
    """What it was trained on."""
    size: int
    """Side of the images that it was trained on, pixels."""
    class_count: int
    unit_count: int
    """Latent units that it can paint with."""


@dataclass(frozen=True)
class Model(ModelSummary):
    """The same with its classes and limits."""

    classes: tuple[str, ...]
    min_size: int
    max_size: int
    card_json: str = field(repr=False)

    @property
    def card(self) -> Card:
        """With the default parameters of each task. Raises ModelError for one that this version cannot read."""
        return Card.from_json(self.card_json)


@dataclass(frozen=True)
class Unit:
    """A latent unit: a feature that the classifier has learnt, and that `paint_features` can paint with."""

    unit: int
    name: str
    """Empty where it has none."""
    class_name: str
    """Class whose images activate it most."""
    examples: Image.Image | None = field(repr=False)
    """The training images that activate it most, side by side."""


def progress(message: synthesis_pb2.Progress) -> Progress:
    preview = picture(message.preview) if message.preview else None
    return Progress(
        message.step, message.steps, message.loss, message.probability, message.index, preview, message.preview
    )


def queued(message: synthesis_pb2.Queued) -> Queued:
    return Queued(message.position, message.estimated_wait_seconds)


def result(message: synthesis_pb2.SynthesisResult, server: str, geometry: Mapping[str, Any]) -> Result:
    """`geometry` is what the caller asked for beside the spec. Raises ServerFailed for what makes no sense."""
    try:
        spec = read_spec(chosen(message.task))
    except InvalidInput as error:
        raise ServerFailed(f"server: {server} says that it ran with parameters that cannot be ({error})") from error
    if not message.pictures:
        raise ServerFailed(f"server: {server} sent a result without a picture.")
    steps = spec.steps or 0
    return Result(
        task=spec.task,
        model=message.model,
        version=message.model_version,
        precision=_each(each.precision for each in message.computations),
        device=_each(each.device for each in message.computations),
        server=server,
        parameters={**dataclasses.asdict(spec), "size": _size(message.task), **geometry},
        seconds=message.timings.total_seconds,
        pictures=tuple(_picture(each, message.seed, steps) for each in message.pictures),
        timings=Timings(
            message.timings.queue_wait_seconds,
            message.timings.total_seconds,
            message.timings.compute_seconds,
            message.timings.bundles,
            message.timings.retries,
        ),
        request_id=message.request_id,
    )


def picture(file: bytes) -> Image.Image:
    """Raises ServerFailed where it is none."""
    try:
        return imaging.decode(file, field="picture")
    except InvalidInput as error:
        raise ServerFailed(f"server: sent a picture that cannot be used; {error}") from error


def summary(message: model_pb2.ModelSummary) -> ModelSummary:
    return ModelSummary(**_summary(message))


def model(message: model_pb2.GetModelResponse) -> Model:
    return Model(
        **_summary(message.summary),
        classes=tuple(message.classes),
        min_size=message.min_size,
        max_size=message.max_size,
        card_json=message.card_json,
    )


def unit(message: model_pb2.Unit) -> Unit:
    return Unit(message.unit, message.name, message.class_name, picture(message.examples) if message.examples else None)


def probabilities(message: model_pb2.ClassifyResponse) -> dict[str, float]:
    return {each.name: each.probability for each in message.classes}


def _summary(message: model_pb2.ModelSummary) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in dataclasses.fields(ModelSummary)}


def _picture(message: synthesis_pb2.Picture, seed: int, steps: int) -> Picture:
    return Picture(
        image=picture(message.image),
        start=None,
        target=message.target,
        seed=seed,
        index=message.index,
        probability_before=message.probability_before,
        probability_after=message.probability_after,
        predicted=message.predicted,
        l2=message.l2,
        linf=message.linf,
        steps=steps,
        losses=tuple(message.losses),
        probabilities=tuple(message.probabilities),
        file=message.image,
        format=task_pb2.ImageFormat.Name(message.format).removeprefix("IMAGE_FORMAT_").lower(),
    )


def _each(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _size(task: task_pb2.TaskSpec) -> int:
    message = chosen(task)
    return message.size if isinstance(message, task_pb2.GenerateSpec) else message.placement.size
