"""Between the contract's messages and the gateway's own types. Nothing but this, `convert_edits` and `convert_models` knows both.

Errors name fields by their path in the request message, as the .proto files call them: `spec.descent.steps`, or
`task.inpaint.region.mask` in a stream. A oneof that is not set goes by its own name (`spec.brush`), or by that of the field
that it fills (`task`, `spec.region`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from ..bundle import Output
from ..errors import InvalidInput
from ..messages import (
    SpecMessage,
    chosen,
    field_path,
    image_format,
    read_output,
    read_request,
    write_task,
)
from ..requests import Request
from ..specs import Spec
from ..v1 import model_pb2, synthesis_pb2, task_pb2
from . import jobs
from .orders import Order
from .tickets import Outcome, Timings

UnaryRequest = (
    synthesis_pb2.GenerateRequest
    | synthesis_pb2.InpaintRequest
    | synthesis_pb2.TranslateRequest
    | synthesis_pb2.SuperResolveRequest
    | synthesis_pb2.SketchToImageRequest
    | synthesis_pb2.PaintFeaturesRequest
    | synthesis_pb2.MaximizeClassRequest
)
TaskRequest = UnaryRequest | synthesis_pb2.StreamSynthesisRequest


def order(message: TaskRequest) -> Order:
    """Raises InvalidInput naming the field of `Request`; `naming` turns it into the message's path."""
    request, output = read_request(_spec(message)[1]), read_output(message.output)
    if isinstance(message, synthesis_pb2.StreamSynthesisRequest):
        return Order(request, message.model, message.request_id, output, message.previews, message.frames)
    return Order(request, message.model, message.request_id, output)


@contextlib.contextmanager
def naming(message: TaskRequest | model_pb2.ClassifyRequest) -> Iterator[None]:
    """Errors that come out of it name fields as the request message does."""
    try:
        yield
    except InvalidInput as error:
        raise error.at(_path(message, error.field)) from error


def result(outcome: Outcome, request: Request, output: Output, call_id: str) -> synthesis_pb2.SynthesisResult:
    """Pictures, and all that it takes to make them again."""
    ran = _ran(outcome, request.spec)
    return synthesis_pb2.SynthesisResult(
        pictures=[_picture(picture, output, ran) for picture in outcome.pictures],
        model=outcome.model,
        model_version=outcome.version,
        task=write_task(
            ran,
            box=request.box,
            size=outcome.parameters.get("size", request.size),
            fit=request.fit,
            paste_back=request.paste_back,
        ),
        seed=outcome.seed,
        timings=timings(outcome.timings),
        request_id=call_id,
        computations=computations(outcome),
    )


def computations(outcome: Outcome) -> list[task_pb2.Computation]:
    return [task_pb2.Computation(device=device, precision=precision) for device, precision in outcome.computations]


def progress(report: jobs.Progress, preview: bytes = b"") -> synthesis_pb2.Progress:
    return synthesis_pb2.Progress(
        index=report.index,
        step=report.step,
        steps=report.steps,
        loss=report.loss,
        probability=report.probability,
        preview=preview,
    )


def queued(place: jobs.Queued) -> synthesis_pb2.Queued:
    return synthesis_pb2.Queued(position=place.position, estimated_wait_seconds=place.estimated_wait)


def timings(spent: Timings) -> synthesis_pb2.Timings:
    return synthesis_pb2.Timings(
        queue_wait_seconds=spent.queue_wait,
        total_seconds=spent.total,
        compute_seconds=spent.compute,
        bundles=spent.bundles,
        retries=spent.retries,
    )


def _picture(picture: jobs.Picture, output: Output, ran: Spec) -> synthesis_pb2.Picture:
    unit = getattr(ran, "unit", None)
    report: dict[str, Any] = dict(picture.report)
    return synthesis_pb2.Picture(
        index=picture.index,
        image=picture.file,
        format=image_format(output),
        target=str(picture.started.get("target", "") if unit is None else unit),
        predicted=report.get("predicted", ""),
        probability_before=picture.probability[0],
        probability_after=report.get("probability_after", picture.probability[-1]),
        l2=report.get("l2", 0.0),
        linf=report.get("linf", 0.0),
        losses=picture.loss,
        probabilities=picture.probability,
    )


def _ran(outcome: Outcome, spec: Spec) -> Spec:
    """The spec with every default filled in, as the worker says."""
    known = {field.name for field in dataclasses.fields(spec)}
    parameters = {name: value for name, value in outcome.parameters.items() if name in known}
    return dataclasses.replace(spec, **(parameters | {"seed": outcome.seed}))


def _spec(message: TaskRequest) -> tuple[str, SpecMessage]:
    """The message of the task's parameters, and its path."""
    if isinstance(message, synthesis_pb2.StreamSynthesisRequest):
        return f"task.{message.task.WhichOneof('task')}", chosen(message.task)
    if not message.HasField("spec"):
        raise InvalidInput("spec", "is missing; say what to make.")
    return "spec", message.spec


def _path(message: TaskRequest | model_pb2.ClassifyRequest, field: str) -> str:
    if field in message.DESCRIPTOR.fields_by_name or isinstance(message, model_pb2.ClassifyRequest):
        return field
    if field in task_pb2.Output.DESCRIPTOR.fields_by_name:
        return f"output.{field}"
    if isinstance(message, synthesis_pb2.StreamSynthesisRequest):
        return task_path(message.task, "task", field)
    path = field_path(message.spec, field)
    return field if path is None else f"spec.{path}"


def task_path(task: task_pb2.TaskSpec, prefix: str, field: str) -> str:
    """What a field of the task's spec or request is called, where the task is the field `prefix` of a message."""
    which = task.WhichOneof("task")
    path = None if which is None else field_path(getattr(task, which), field)
    if path is None:
        return prefix if field == "task" else field
    return f"{prefix}.{which}.{path}"
