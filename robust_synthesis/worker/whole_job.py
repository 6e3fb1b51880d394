"""A whole job from a form, for anyone with curl: the picture, or a JSON report with pictures in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from .. import imaging
from ..engine.classifier import Classifier
from ..errors import InvalidInput
from ..library import Synthesizer
from ..requests import Request
from ..specs import from_text, with_seed

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "json": "application/json"}
FILES = ("image", "mask")


def whole_job(classifier: Classifier, fields: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Fields: `task`, its parameters, `image`, `mask` or `box`, `size`, `fit`, `paste_back`, `format`, `quality`.

    Returns the body and its content type. Raises SynthesisError, naming the field.
    """
    text = {name: _text(name, value) for name, value in fields.items() if name not in FILES}
    format = text.pop("format", "png").lower()
    if format not in FORMATS:
        raise InvalidInput("format", f"is {format!r}; use {', '.join(FORMATS)}.")
    quality = _whole_number("quality", text.pop("quality", "90"))
    size = text.pop("size", None)
    box, fit, paste_back = text.pop("box", None), text.pop("fit", "crop"), text.pop("paste_back", "false")
    spec = with_seed(from_text(text))
    if spec.pictures > 1 and format != "json":
        raise InvalidInput("count", "is more than one picture; ask for format=json, which holds them all.")
    request = Request(
        spec=spec,
        **{name: fields[name] for name in FILES if name in fields},
        box=box,
        size=None if size is None else _whole_number("size", size),
        fit=fit,
        paste_back=_truth("paste_back", paste_back),
    )
    result = Synthesizer(classifier).answer(request)
    if format != "json":
        return imaging.encode(result.image, format, quality), FORMATS[format]
    report = result.report()
    for entry, picture in zip(report["pictures"], result.pictures, strict=True):
        entry["png"] = base64.b64encode(imaging.encode(picture.image)).decode()
    return json.dumps(report).encode(), FORMATS[format]


def _text(field: str, value: bytes) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidInput(field, "is not UTF-8 text.") from error


def _whole_number(field: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise InvalidInput(field, f"must be a whole number, not {text!r}.")
    return int(text)


def _truth(field: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InvalidInput(field, f"must be true or false, not {text!r}.")
    return text.lower() == "true"
