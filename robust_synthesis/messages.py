"""Tasks as messages of the contract and back: what `v1.task_pb2` and `specs.py` call the same thing.

A field of a spec has the same name in its message, or in the message's `descent`, `placement` or `region`; `field_path`
says where.
This module needs no torch and none of the gateway, so that clients convert with it, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from .bundle import Output
from .errors import InvalidInput
from .imaging import box_numbers
from .requests import Box, Request
from .specs import SPECS, Spec
from .v1 import model_pb2, task_pb2

SpecMessage = (
    task_pb2.GenerateSpec
    | task_pb2.InpaintSpec
    | task_pb2.TranslateSpec
    | task_pb2.SuperResolveSpec
    | task_pb2.SketchToImageSpec
    | task_pb2.PaintFeaturesSpec
    | task_pb2.MaximizeClassSpec
)
"""Parameters of one task."""

TASKS: Mapping[str, str] = {
    field.message_type.name: field.name for field in task_pb2.TaskSpec.DESCRIPTOR.fields if field.message_type
}
"""Task by the name of its message."""
_PARTS = ("descent", "placement", "region")
_DETAILS = {"mask": "region.mask", "box": "region.box", "loss": "descent"}


def chosen(task: task_pb2.TaskSpec) -> SpecMessage:
    """The one that is set. Raises InvalidInput."""
    name = task.WhichOneof("task")
    if name is None:
        raise InvalidInput("task", f"is missing; give one of {', '.join(TASKS.values())}.")
    message: SpecMessage = getattr(task, name)
    return message


def read_spec(message: SpecMessage) -> Spec:
    """The parameters of a task; what is not set takes its default. Raises InvalidInput naming the spec's field."""
    if isinstance(message, task_pb2.PaintFeaturesSpec):
        _check_brush(message)
    kind = SPECS[TASKS[message.DESCRIPTOR.name]]
    values = _values(message) | _values(message.descent)
    if "unit_name" in values:
        values["unit"] = values["unit_name"]
    required = {field.name: None for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    given = {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}
    return kind(**(required | given))


def read_request(message: SpecMessage, *, image: bytes | None = None) -> Request:
    """A whole task: its spec, pictures and geometry. An `image` given here is used instead of the message's.

    Raises InvalidInput naming the field of `Request` or of the spec; `field_path` says what the message calls it.
    """
    spec = read_spec(message)
    if isinstance(message, task_pb2.GenerateSpec):
        return Request(spec=spec, size=_optional(message, "size"))
    mask, box = None, None
    if isinstance(message, (task_pb2.InpaintSpec, task_pb2.PaintFeaturesSpec)):
        mask, box = read_region(message.region)
    return Request(
        spec=spec,
        image=message.image or None if image is None else image,
        mask=mask,
        box=box,
        **read_placement(message.placement),
    )


def read_placement(placement: task_pb2.Placement) -> dict[str, Any]:
    """`size`, `fit` and `paste_back` of a request. Raises InvalidInput for a `fit` that there is not."""
    return {
        "size": _optional(placement, "size"),
        "fit": read_fit(placement),
        "paste_back": placement.paste_back,
    }


def read_region(region: task_pb2.Region) -> tuple[bytes | None, tuple[int, int, int, int] | None]:
    """Mask and box, of which one is set. Raises InvalidInput."""
    which = region.WhichOneof("region")
    if which is None:
        raise InvalidInput("region", "is missing; give a mask of the part to edit, or a box.")
    if which == "mask":
        if not region.mask:
            raise InvalidInput("mask", "is empty; give a picture that is white where to edit, or a box.")
        return region.mask, None
    return None, (region.box.x, region.box.y, region.box.width, region.box.height)


def read_output(output: task_pb2.Output) -> Output:
    """Raises InvalidInput for `format` and `quality`."""
    quality = _optional(output, "quality")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidInput("quality", f"is {quality}; give 1 to 100.")
    given = {"format": _name(output, "format"), "quality": quality}
    return Output(**{name: value for name, value in given.items() if value is not None})


def write_request(request: Request) -> task_pb2.TaskSpec:
    """A whole task as a message; image and mask must be bytes. Raises InvalidInput for a box that is none."""
    return write_task(
        request.spec,
        image=request.image if isinstance(request.image, bytes) else b"",
        mask=request.mask if isinstance(request.mask, bytes) else b"",
        box=request.box,
        size=request.size,
        fit=request.fit,
        paste_back=request.paste_back,
    )


def write_task(
    spec: Spec,
    *,
    image: bytes = b"",
    mask: bytes = b"",
    box: Box | None = None,
    size: int | None = None,
    fit: str = "crop",
    paste_back: bool = False,
) -> task_pb2.TaskSpec:
    """The message that `read_request` reads, without what is None. Raises InvalidInput for a box that is none."""
    task = task_pb2.TaskSpec()
    message: SpecMessage = getattr(task, spec.task)
    message.SetInParent()
    for field in dataclasses.fields(spec):
        name, value = field.name, getattr(spec, field.name)
        if name == "unit" and isinstance(value, str):
            name = "unit_name"
        if value is not None:
            _set(message if name in message.DESCRIPTOR.fields_by_name else message.descent, name, value)
    if isinstance(message, task_pb2.GenerateSpec):
        if size is not None:
            message.size = size
        return task
    message.image = image
    if size is not None:
        message.placement.size = size
    write_fit(message.placement, fit)
    message.placement.paste_back = paste_back
    if isinstance(message, (task_pb2.InpaintSpec, task_pb2.PaintFeaturesSpec)):
        if mask:
            message.region.mask = mask
        elif box is not None:
            x, y, width, height = box_numbers(box)
            message.region.box.CopyFrom(_box(x, y, width, height))
    return task


def write_output(output: Output) -> task_pb2.Output:
    message = task_pb2.Output(quality=output.quality)
    _set(message, "format", output.format)
    return message


def read_fit(message: task_pb2.Placement | model_pb2.ClassifyRequest) -> str:
    """Raises InvalidInput for `fit`."""
    return _name(message, "fit") or "crop"


def write_fit(message: task_pb2.Placement | model_pb2.ClassifyRequest, fit: str) -> None:
    _set(message, "fit", fit)


def image_format(output: Output) -> task_pb2.ImageFormat.ValueType:
    """The contract's number of an output's format."""
    return task_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{output.format.upper()}")


def field_path(message: SpecMessage, field: str) -> str | None:
    """Where a spec's or request's field is in its message, such as `descent.steps`; None for what is not in it.

    Paths are names of fields as the .proto files have them, joined by dots. A oneof that is not set goes by its own name
    (`brush`), or by that of the field that it fills (`region`).
    """
    if field == "unit" and isinstance(message, task_pb2.PaintFeaturesSpec):
        return message.WhichOneof("brush") or "brush"
    descriptor = message.DESCRIPTOR
    if field in descriptor.fields_by_name or field in descriptor.oneofs_by_name:
        return field
    parts = [part for part in _PARTS if part in descriptor.fields_by_name]
    if field in _DETAILS:
        path = _DETAILS[field]
        return path if path.partition(".")[0] in parts else None
    for part in parts:
        within = descriptor.fields_by_name[part].message_type
        if within is not None and field in within.fields_by_name:
            return f"{part}.{field}"
    return None


def _check_brush(message: task_pb2.PaintFeaturesSpec) -> None:
    brush = message.WhichOneof("brush")
    if brush is None:
        raise InvalidInput("brush", "is missing; give a target, a unit or a unit_name to paint with.")
    if getattr(message, brush) == "":
        raise InvalidInput(brush, "is empty; give a name.")


def _values(message: Any) -> dict[str, Any]:
    """What is set of a message's own fields; enums by name, and an empty text counts as not set."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            continue
        value = _name(message, field.name) if field.enum_type else _optional(message, field.name)
        if value is not None and value != "":
            found[field.name] = value
    return found


def _optional(message: Any, name: str) -> Any:
    """None where it has presence and is not set."""
    if message.DESCRIPTOR.fields_by_name[name].has_presence and not message.HasField(name):
        return None
    return getattr(message, name)


def _name(message: Any, name: str) -> str | None:
    """An enum's value as the specs call it: NORM_L2 is l2. None where it is not specified."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = getattr(message, name)
    if number == 0:
        return None
    if number not in enum.values_by_number:
        known = ", ".join(value.name for value in enum.values[1:])
        raise InvalidInput(name, f"is {number}; give one of {known}.")
    return str(enum.values_by_number[number].name.removeprefix(_prefix(enum))).lower()


def _set(message: Any, name: str, value: Any) -> None:
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    setattr(message, name, enum.values_by_name[f"{_prefix(enum)}{value.upper()}"].number if enum else value)


def _prefix(enum: EnumDescriptor) -> str:
    return str(enum.values[0].name.removesuffix("UNSPECIFIED"))


def _box(x: int, y: int, width: int, height: int) -> task_pb2.Box:
    try:
        return task_pb2.Box(x=x, y=y, width=width, height=height)
    except ValueError as error:
        raise InvalidInput("box", f"is {x},{y},{width},{height}; give numbers of pixels from 0.") from error
