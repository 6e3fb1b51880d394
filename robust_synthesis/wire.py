"""Bundles and replies as bytes.

Each is one safetensors blob. Its metadata holds a JSON header under `bundle`; tensors are called `<job number>.<name>`. Pixels
travel as u16 on the grid of `engine.problem`, files as bytes. This module needs no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .bundle import (
    MAX_EVALUATIONS,
    MAX_JOBS,
    PROTOCOL,
    Bundle,
    BundleError,
    Failure,
    FixedProblem,
    JobPart,
    JobReply,
    JobState,
    Output,
    Pixels,
    Reply,
)
from .errors import InvalidInput, SynthesisError
from .requests import Request
from .specs import JOBS, from_json, to_json


def encode(bundle: Bundle) -> bytes:
    """Raises ValueError for a job that is a failure: a gateway sends none."""
    tensors: dict[str, NDArray[Any]] = {}
    jobs = []
    for i, job in enumerate(bundle.jobs):
        if isinstance(job, Failure):
            raise ValueError(f"job {i} has failed already")
        entry: dict[str, Any] = {"steps": job.steps, "index": job.index, "exact": job.exact, "address": job.address}
        if job.request is not None:
            entry["request"] = _put_request(tensors, i, job.request)
        if job.state is not None:
            entry["state"] = _put_state(tensors, i, job.state)
        if job.problem is not None:
            entry["problem"] = _put_problem(tensors, i, job.problem)
        if job.output is not None:
            entry["output"] = dataclasses.asdict(job.output)
        if job.key is not None:
            entry["key"] = job.key
        if job.held is not None:
            entry["held"] = job.held
        jobs.append(entry)
    return _blob({"model": bundle.model, "version": bundle.version, "jobs": jobs}, tensors)


def decode(data: bytes) -> Bundle:
    """Raises BundleError for what is no bundle, or one of another protocol; unreadable jobs become failures."""
    header, tensors = _open(data)
    entries = _get(header, "jobs", list)
    if not 1 <= len(entries) <= MAX_JOBS:
        raise BundleError(f"bundle: has {len(entries)} jobs; send 1 to {MAX_JOBS}.")
    jobs: list[JobPart | Failure] = []
    for i, entry in enumerate(entries):
        try:
            jobs.append(_job(entry, i, tensors))
        except SynthesisError as error:
            jobs.append(Failure.of(error))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            jobs.append(Failure("invalid", f"cannot be read ({error}).", "job"))
    return Bundle(_get(header, "model", str), jobs, _get(header, "version", (str, type(None))))


def encode_reply(reply: Reply) -> bytes:
    tensors: dict[str, NDArray[Any]] = {}
    jobs = []
    for i, job in enumerate(reply.jobs):
        entry: dict[str, Any] = {}
        if job.failure is not None:
            entry["failure"] = dataclasses.asdict(job.failure)
        if job.started:
            entry["started"] = dict(job.started)
        if job.problem is not None:
            entry["problem"] = _put_problem(tensors, i, job.problem)
        if job.state is not None:
            entry["state"] = _put_state(tensors, i, job.state)
        if job.held:
            entry["held"] = True
        if job.report:
            entry["report"] = dict(job.report)
        if job.picture is not None:
            tensors[f"{i}.picture"] = np.frombuffer(job.picture, np.uint8)
        if len(job.loss):
            tensors[f"{i}.trace"] = np.asarray([job.loss, job.probability], np.float32)
        jobs.append(entry)
    header = {"model": reply.model, "version": reply.version, "seconds": reply.seconds, "batches": list(reply.batches)}
    where = {"device": reply.device, "precision": reply.precision}
    return _blob(header | where | {"holds": reply.holds, "jobs": jobs}, tensors)


def encode_error(message: str) -> bytes:
    """The reply to a bundle that could not be read."""
    return _blob({"error": message}, {})


def decode_reply(data: bytes) -> Reply:
    """Raises BundleError for what is no reply, or where the worker could not read the bundle."""
    header, tensors = _open(data)
    if "error" in header:
        raise BundleError(str(header["error"]))
    try:
        return _reply(header, tensors)
    except BundleError:
        raise
    except (SynthesisError, TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"reply: cannot be read ({error}).") from error


def _reply(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Reply:
    jobs = []
    for i, entry in enumerate(_get(header, "jobs", list)):
        trace = tensors.get(f"{i}.trace", np.zeros((2, 0), np.float32))
        picture = tensors.get(f"{i}.picture")
        jobs.append(
            JobReply(
                failure=Failure(**entry["failure"]) if "failure" in entry else None,
                started=entry.get("started", {}),
                problem=_problem(entry["problem"], i, tensors) if "problem" in entry else None,
                state=_state(entry["state"], i, tensors) if "state" in entry else None,
                held=_get({"held": False, **entry}, "held", bool),
                loss=trace[0].tolist(),
                probability=trace[1].tolist(),
                picture=None if picture is None else picture.tobytes(),
                report=entry.get("report", {}),
            )
        )
    batches = [(int(size), int(steps), float(seconds)) for size, steps, seconds in _get(header, "batches", list)]
    return Reply(
        _get(header, "model", str),
        _get(header, "version", str),
        jobs,
        float(header["seconds"]),
        batches,
        device=_word(header, "device"),
        precision=_word(header, "precision"),
        holds=_get({"holds": False, **header}, "holds", bool),
    )


def _blob(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    text = json.dumps({"protocol": PROTOCOL, **header}, allow_nan=False)
    return bytes(save({name: np.ascontiguousarray(a) for name, a in tensors.items()}, metadata={"bundle": text}))


def _open(data: bytes) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata["bundle"])
        protocol = header["protocol"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            "bundle: is not a bundle of this service, or it is truncated; send the whole blob."
        ) from error
    if protocol != PROTOCOL:
        raise BundleError(
            f"protocol: this side speaks bundle protocol {PROTOCOL}, the other {protocol!r}; bring both to the same version."
        )
    try:
        return header, load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"bundle: its tensors cannot be read ({error}); send the whole blob.") from error


def _get(entry: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    wanted = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise BundleError(f"bundle: {name} is missing or of the wrong type.")
    return value


def _word(header: Mapping[str, Any], name: str) -> str:
    """Which workers of an earlier version do not send."""
    value = _get({name: "", **header}, name, str)
    if not value.isprintable() or len(value) > 64:
        raise BundleError(f"reply: its {name} is no word.")
    return str(value)


def _number(entry: Mapping[str, Any], name: str, default: float, *, null: float) -> float:
    value = entry.get(name, default)
    if value is None:
        return null
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput(f"state.{name}", "must be a finite number.")
    return float(value)


def _job(entry: Mapping[str, Any], i: int, tensors: Mapping[str, NDArray[Any]]) -> JobPart:
    steps = _get(entry, "steps", int)
    if not 1 <= steps <= MAX_EVALUATIONS:
        raise InvalidInput("steps", f"is {steps}; a bundle runs 1 to {MAX_EVALUATIONS} evaluations.")
    request = _request(entry["request"], i, tensors) if entry.get("request") is not None else None
    state = _state(entry["state"], i, tensors) if entry.get("state") is not None else None
    problem = _problem(entry["problem"], i, tensors) if entry.get("problem") is not None else None
    address = entry.get("address")
    key, held = _get(entry, "key", (str, type(None))), _get(entry, "held", (int, type(None)))
    if held is not None and (key is None or state is not None or not 1 <= held <= MAX_EVALUATIONS):
        raise InvalidInput("held", f"is {held}; give 1 to {MAX_EVALUATIONS} evaluations, with a key and no state.")
    if state is None and request is None and held is None:
        raise InvalidInput("state", "is missing; send a state to go on from, or a request to start from.")
    if state is not None and problem is None and not isinstance(address, str):
        raise InvalidInput("problem", "is missing; send it, or its address.")
    if state is not None and problem is not None and problem.center.shape != state.x.shape:
        raise InvalidInput("x", f"has shape {state.x.shape}, but the problem's centre {problem.center.shape}.")
    output = None
    if entry.get("output") is not None:
        given = entry["output"]
        output = Output(_get(given, "format", str), _get(given, "quality", int))
    return JobPart(
        steps=steps,
        request=request,
        index=_get(entry, "index", int),
        state=state,
        problem=problem,
        address=address if problem is None else problem.address,
        exact=_get(entry, "exact", bool),
        output=output,
        key=key,
        held=held,
    )


def _put_request(tensors: dict[str, NDArray[Any]], i: int, request: Request) -> Mapping[str, Any]:
    for name in ("image", "mask"):
        file = getattr(request, name)
        if file is not None:
            if not isinstance(file, bytes):
                raise TypeError(f"{name} must be the bytes of a file to travel")
            tensors[f"{i}.{name}"] = np.frombuffer(file, np.uint8)
    geometry = {"box": request.box, "size": request.size, "fit": request.fit, "paste_back": request.paste_back}
    return {"spec": to_json(request.spec), **geometry}


def _request(entry: Mapping[str, Any], i: int, tensors: Mapping[str, NDArray[Any]]) -> Request:
    files = {}
    for name in ("image", "mask"):
        file = tensors.get(f"{i}.{name}")
        if file is not None and (file.dtype != np.uint8 or file.ndim != 1):
            raise InvalidInput(name, "must travel as the bytes of a file.")
        files[name] = None if file is None else file.tobytes()
    box = _get(entry, "box", (list, str, type(None)))
    return Request(
        spec=from_json(_get(entry, "spec", dict), JOBS),
        box=tuple(box) if isinstance(box, list) else box,
        size=_get(entry, "size", (int, type(None))),
        fit=_get(entry, "fit", str),
        paste_back=_get(entry, "paste_back", bool),
        **files,
    )


def _put_state(tensors: dict[str, NDArray[Any]], i: int, state: JobState) -> Mapping[str, Any]:
    tensors[f"{i}.x"] = state.x
    if state.best_x is not None:
        tensors[f"{i}.best_x"] = state.best_x
    loss = state.best_loss if math.isfinite(state.best_loss) else None
    best = {"best_loss": loss, "best_probability": state.best_probability, "best_class": state.best_class}
    return {"remaining": state.remaining, **best}


def _state(entry: Mapping[str, Any], i: int, tensors: Mapping[str, NDArray[Any]]) -> JobState:
    x = _pixels(tensors, f"{i}.x", "x", channels=3)
    best_x = _pixels(tensors, f"{i}.best_x", "best_x", channels=3) if f"{i}.best_x" in tensors else None
    if best_x is not None and best_x.shape != x.shape:
        raise InvalidInput("best_x", f"has shape {best_x.shape}, but x {x.shape}.")
    remaining = _get(entry, "remaining", int)
    if not 1 <= remaining <= MAX_EVALUATIONS:
        raise InvalidInput("remaining", f"is {remaining}; give 1 to {MAX_EVALUATIONS} evaluations.")
    best_class = _get({"best_class": -1, **entry}, "best_class", int)
    if not -1 <= best_class < 2**31:
        raise InvalidInput("state.best_class", f"is {best_class}; give the index of a class, or -1.")
    return JobState(
        x=x,
        remaining=remaining,
        best_x=best_x,
        best_loss=_number(entry, "best_loss", math.inf, null=math.inf),
        best_probability=_number(entry, "best_probability", 0.0, null=0.0),
        best_class=best_class,
    )


def _put_problem(tensors: dict[str, NDArray[Any]], i: int, problem: FixedProblem) -> Mapping[str, Any]:
    tensors[f"{i}.problem.center"] = problem.center
    if problem.mask is not None:
        tensors[f"{i}.problem.mask"] = problem.mask
    return dict(problem.scalars)


def _problem(scalars: Mapping[str, Any], i: int, tensors: Mapping[str, NDArray[Any]]) -> FixedProblem:
    center = _pixels(tensors, f"{i}.problem.center", "center", channels=3)
    mask = _pixels(tensors, f"{i}.problem.mask", "mask", channels=1) if f"{i}.problem.mask" in tensors else None
    if mask is not None and mask.shape[1:] != center.shape[1:]:
        raise InvalidInput("mask", f"has shape {mask.shape}, but the centre {center.shape}.")
    for name, value in scalars.items():
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise InvalidInput(f"problem.{name}", f"is {value!r}; give a finite number.")
    return FixedProblem(center, mask, dict(scalars))


def _pixels(tensors: Mapping[str, NDArray[Any]], name: str, field: str, *, channels: int) -> Pixels:
    array = tensors.get(name)
    if array is None:
        raise InvalidInput(field, "is missing.")
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[0] != channels or not array.size:
        raise InvalidInput(field, f"is {array.dtype} of shape {array.shape}; send uint16, {channels} x height x width.")
    if array.shape[1] != array.shape[2]:
        raise InvalidInput(field, f"is {array.shape[2]} x {array.shape[1]} pixels; send a square.")
    return array
