"""What is sent to a server, and how the answer is read: the same for both clients, which only do the sending."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar

from google.protobuf.message import Message
from PIL import Image

from .. import imaging
from ..bundle import Output
from ..errors import InvalidInput
from ..frames import evenly
from ..messages import write_fit, write_output, write_request
from ..requests import Box, ImageSource, Request
from ..results import Progress as MeanProgress
from ..specs import Classify, Spec
from ..v1 import model_pb2, synthesis_pb2
from . import results
from .errors import ServerFailed
from .results import Progress, Queued, Result

Answer = TypeVar("Answer")
Event = Queued | Progress | Result
"""Of a stream; a result is the last."""
OnProgress = Callable[[MeanProgress], None]
SYNTHESIS, MODELS = "SynthesisService", "ModelService"
FORMATS = ("png", "jpeg", "webp")
UNITS_AT_ONCE = 200


class Options(TypedDict, total=False):
    """What every task takes beside its spec."""

    box: Box | None
    size: int | None
    fit: str
    paste_back: bool
    model: str | None
    """Default: the client's, and else the server's."""
    format: str
    """Of the result: png, jpeg or webp."""
    quality: int
    """Of jpeg and webp, 1 to 100."""
    request_id: str | None
    """Up to 128 printable ASCII characters: a repeat gets the same result. Default: a new one for every call."""


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A method of the contract with its request, and what makes an answer of its response."""

    service: str
    method: str
    request: Message
    read: Callable[[Any], Answer]


@dataclass(frozen=True)
class Order:
    """A request for pictures."""

    server: str
    """What errors call it."""
    request: Request
    """Its images are bytes."""
    model: str
    output: Output
    request_id: str

    @classmethod
    def of(
        cls,
        server: str,
        model: str,
        spec: Spec,
        image: ImageSource | None,
        mask: ImageSource | None,
        options: Options,
    ) -> Order:
        """Reads the files, which takes a moment. Raises InvalidInput for what no server would do."""
        own: dict[str, Any] = {**options}
        model = own.pop("model", None) or model
        output = Output(own.pop("format", Output.format), own.pop("quality", Output.quality))
        request_id = own.pop("request_id", None) or uuid.uuid4().hex
        for name in own.keys() - Options.__annotations__.keys():
            raise InvalidInput(name, f"is not a parameter of {spec.task}.")
        files = {
            name: imaging.to_file(file, field=name)
            for name, file in (("image", image), ("mask", mask))
            if file is not None
        }
        request = Request(spec=numbered(spec), **{"image": image, "mask": mask, **files, **own})
        spec = request.spec
        unit, target = getattr(spec, "unit", None), getattr(spec, "target", None)
        check(size=request.size, unit=unit, target=target, output=output)
        return cls(server, request, text("model", model), output, text("request_id", request_id))

    @property
    def unary(self) -> Call[Result]:
        """Without progress."""
        task = self.request.spec.task
        method = task.title().replace("_", "")
        message = getattr(synthesis_pb2, f"{method}Request")(
            model=self.model,
            request_id=self.request_id,
            spec=getattr(write_request(self.request), task),
            output=write_output(self.output),
        )
        return Call(SYNTHESIS, method, message, lambda response: self.result(response.result))

    def streaming(self, *, previews: bool, frames: int = 0) -> Call[Event]:
        """With progress; there is an answer for every response."""
        message = synthesis_pb2.StreamSynthesisRequest(
            model=self.model,
            request_id=self.request_id,
            task=write_request(self.request),
            output=write_output(self.output),
            previews=previews,
            frames=_frames(frames),
        )
        return Call(SYNTHESIS, "StreamSynthesis", message, self._event)

    def result(self, message: synthesis_pb2.SynthesisResult) -> Result:
        return results.result(message, self.server, geometry(self.request))

    def _event(self, response: synthesis_pb2.StreamSynthesisResponse) -> Event:
        match response.WhichOneof("event"):
            case "queued":
                return results.queued(response.queued)
            case "progress":
                return results.progress(response.progress)
            case _:
                return self.result(response.result)


def geometry(request: Request) -> Mapping[str, Any]:
    """What the library reports of a request beside its spec."""
    if request.image is None:
        return {}
    return {name: getattr(request, name) for name in ("fit", "box", "paste_back")}


class Way:
    """Collects what a stream says, for callers who only want its result: progress over all pictures, and frames."""

    def __init__(self, order: Order, frames: int, on_progress: OnProgress | None) -> None:
        self._pasted = order.request.paste_back
        self._pictures = order.request.spec.pictures
        self._frames = frames
        self._on_progress = on_progress
        self._latest: dict[int, Progress] = {}
        self._seen: dict[int, list[tuple[int, Image.Image]]] = {}
        self._result: Result | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Result):
            self._result = event
        elif isinstance(event, Progress):
            self._latest[event.index] = event
            if event.preview is not None:
                self._seen.setdefault(event.index, []).append((event.step, event.preview))
            if self._on_progress is not None:
                self._on_progress(self._mean())

    @property
    def result(self) -> Result:
        """Raises ServerFailed where the stream ended without one."""
        if self._result is None:
            raise ServerFailed("server: ended the call without a result.")
        if not self._frames:
            return self._result
        pictures = [dataclasses.replace(each, frames=self._way(each)) for each in self._result.pictures]
        return dataclasses.replace(self._result, pictures=tuple(pictures))

    def _mean(self) -> MeanProgress:
        known = self._latest.values()
        return MeanProgress(
            step=sum(each.step for each in known) // self._pictures,
            steps=max(each.steps for each in known),
            loss=sum(each.loss for each in known) / len(known),
            probability=sum(each.probability for each in known) / len(known),
        )

    def _way(self, picture: results.Picture) -> tuple[tuple[int, Image.Image], ...]:
        """As many frames as asked for at most, evenly chosen; the result is the last, unless it is a whole photo."""
        seen = self._seen.get(picture.index, [])
        if not self._pasted or not seen:
            seen = [*seen, (picture.steps, picture.image)]
        return evenly(seen, self._frames)


def classification(model: str, image: ImageSource, fit: str, top: int | None) -> Call[dict[str, float]]:
    """Reads the file, which takes a moment. Raises InvalidInput."""
    if top is not None and not 1 <= top < 2**32:
        raise InvalidInput("top", f"is {top}; give a whole number from 1.")
    file = imaging.to_file(image)
    message = model_pb2.ClassifyRequest(model=text("model", model), image=file, top=top)
    write_fit(message, Request(spec=Classify(), image=file, fit=fit).fit)
    return Call(MODELS, "Classify", message, results.probabilities)


def models() -> Call[list[results.ModelSummary]]:
    message = model_pb2.ListModelsRequest()
    return Call(MODELS, "ListModels", message, lambda response: [results.summary(each) for each in response.models])


def model(name: str) -> Call[results.Model]:
    return Call(MODELS, "GetModel", model_pb2.GetModelRequest(model=text("model", name)), results.model)


def units(model: str, named_only: bool, examples: bool, page: str = "") -> Call[tuple[list[results.Unit], str]]:
    """A page of them, and the name of the next one, which is empty at the end."""
    message = model_pb2.ListUnitsRequest(
        model=text("model", model),
        named_only=named_only,
        page_size=UNITS_AT_ONCE,
        page_token=page,
        without_examples=not examples,
    )
    return Call(
        MODELS,
        "ListUnits",
        message,
        lambda response: ([results.unit(each) for each in response.units], response.next_page_token),
    )


def _frames(frames: object) -> int:
    if not isinstance(frames, int) or isinstance(frames, bool) or not 0 <= frames < 2**32:
        raise InvalidInput("frames", f"is {frames!r}; give a whole number from 0.")
    return frames


def numbered(spec: Spec) -> Spec:
    """A unit's number is a number even where it is text."""
    unit = getattr(spec, "unit", None)
    number = isinstance(unit, str) and unit.isascii() and unit.isdecimal()
    return dataclasses.replace(spec, **{"unit": int(unit)}) if number else spec  # type: ignore[arg-type]


def check(*, size: object = None, unit: object = None, target: str | None = None, output: Output | None = None) -> None:
    """Raises InvalidInput for what a message cannot hold; whether it makes sense is the server's to say."""
    for name, value in (("size", size), ("unit", unit)):
        if isinstance(value, str) and name == "unit":
            text(name, value)
        elif value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32):
            raise InvalidInput(name, f"is {value!r}; give a whole number from 0.")
    text("target", target or "")
    if output is not None and output.format not in FORMATS:
        raise InvalidInput("format", f"{output.format!r} is unknown; use {', '.join(FORMATS)}.")
    if output is not None and (not isinstance(output.quality, int) or not 1 <= output.quality <= 100):
        raise InvalidInput("quality", f"is {output.quality!r}; use 1 to 100.")


def text(field: str, value: str) -> str:
    """Raises InvalidInput unless it can be written as UTF-8."""
    try:
        value.encode()
    except (UnicodeEncodeError, AttributeError) as error:
        raise InvalidInput(field, f"is {value!r}, which is no text that can be sent; check its spelling.") from error
    return value
