"""What travels between a gateway and a worker: bundles of jobs one way, replies the other.

A bundle asks for up to k evaluations (`steps`) of every one of its jobs, which may be of different tasks but share a classifier
version and an image size. A job can be started, run, and finished by one bundle or by many: all that a worker must
know is in the bundle, but for what it still has from an earlier one: fixed problems, which go by their address, and where
jobs stand, which go by the job's key. Of such a job the next bundle can be sent before the reply of the last is back.

`wire.py` has them as bytes. This module needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch_sizes import LARGEST
from .errors import InvalidInput, NotFound, SynthesisError
from .requests import Request
from .specs import MAX_STEPS

PROTOCOL = 1
MAX_JOBS = LARGEST
MAX_BYTES = 128 * 2**20
"""Of a bundle, and of a reply, where a worker is not told otherwise. The largest request fits, with its state at 1,024 pixels:
two files of 32 MiB, and 20 MiB of pixels."""
MAX_PICTURES_BYTES = 64 * 2**20
"""Of the files of finished pictures in a reply, which has room for the states of other jobs, too."""
MAX_EVALUATIONS = MAX_STEPS + 1
"""T steps need T + 1 evaluations, because the last x is judged too."""

Pixels = NDArray[np.uint16]


class BundleError(SynthesisError):
    """A bundle or a reply that cannot be read at all; what is wrong with a single job is in its reply."""


class BundleTooLarge(BundleError):
    """A bundle of more bytes than a worker takes: its jobs are to blame, and not the worker."""


@dataclass(frozen=True)
class FixedProblem:
    """What of a job never changes: centre of the ball, mask, and the scalars of `engine.problem.Problem`."""

    center: Pixels
    """[3, H, W]."""
    mask: Pixels | None
    """[1, H, W]; None allows edits everywhere."""
    scalars: Mapping[str, float | int | bool]

    @cached_property
    def address(self) -> str:
        """Hash of the content, under which a worker keeps it."""
        content = hashlib.sha256(json.dumps(dict(self.scalars), sort_keys=True).encode())
        for array in (self.center, self.mask):
            content.update(
                b"-" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()
            )
        return content.hexdigest()[:32]


@dataclass(frozen=True)
class JobState:
    """Where a job stands."""

    x: Pixels
    """[3, H, W]."""
    remaining: int
    """Evaluations still to do."""
    best_x: Pixels | None = None
    """The x of lowest loss. A bundle carries it where the result needs it; a reply, only where it improved."""
    best_loss: float = math.inf
    best_probability: float = 0.0
    best_class: int = -1
    """That is predicted for the x of lowest loss; -1 where that is not known, as from workers of an earlier version."""


@dataclass(frozen=True)
class Output:
    """How to encode the picture of a finished job."""

    format: str = "png"
    quality: int = 90


@dataclass(frozen=True)
class JobPart:
    """A job's part of a bundle: a request to start, or a state to go on from with its problem or the problem's address, or how
    far the job is that the worker holds.
    """

    steps: int
    """Evaluations to do at most, at least 1."""
    request: Request | None = None
    """Starts the job where there is no state. A finishing job whose edit is pasted back needs it again."""
    index: int = 0
    """Which picture of the request this is."""
    state: JobState | None = None
    problem: FixedProblem | None = None
    address: str | None = None
    exact: bool = False
    """Run at batch size one."""
    output: Output | None = None
    """Given where the job may finish in this bundle."""
    key: str | None = None
    """Of the job, unlike that of any other. A worker that is given one holds where the job stands after the bundle."""
    held: int | None = None
    """Evaluations that the job which the worker holds has still to do when the bundle begins."""

    @property
    def nbytes(self) -> int:
        """Of pixels and files."""
        arrays = [] if self.state is None else [self.state.x, self.state.best_x]
        arrays += [] if self.problem is None else [self.problem.center, self.problem.mask]
        pixels = sum(each.nbytes for each in arrays if each is not None)
        return pixels + (0 if self.request is None else self.request.file_bytes)


@dataclass(frozen=True)
class Bundle:
    model: str
    jobs: Sequence[JobPart | Failure]
    """A decoded bundle has failures in place of the jobs that cannot be read."""
    version: str | None = None
    """Of the classifier; None is the worker's current one."""


@dataclass(frozen=True)
class Failure:
    """Why a job cannot go on."""

    kind: str
    """invalid, not_found, unknown_problem or unknown_state (send it again), memory, or internal."""
    message: str
    field: str = ""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        if isinstance(error, InvalidInput):
            return cls("not_found" if isinstance(error, NotFound) else "invalid", error.message, error.field)
        if isinstance(error, SynthesisError):
            return cls("invalid", str(error))
        return cls("internal", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class JobReply:
    """What became of one job of a bundle."""

    failure: Failure | None = None
    started: Mapping[str, Any] = field(default_factory=dict)
    """Of a job that this bundle started: target, predicted class or unit, and all parameters with defaults filled in."""
    problem: FixedProblem | None = None
    """Of a job that this bundle started and did not finish."""
    state: JobState | None = None
    """Of a job that goes on."""
    held: bool = False
    """Whether the worker has the state, too, under the job's key."""
    loss: Sequence[float] = ()
    """At every evaluation of this bundle."""
    probability: Sequence[float] = ()
    """Of the target, at every evaluation of this bundle."""
    picture: bytes | None = None
    """The file of a finished job; empty where it only classifies."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Of a finished job: predicted class, distances, probability of the result; or the probability of every class."""


@dataclass(frozen=True)
class Reply:
    model: str
    version: str
    jobs: Sequence[JobReply]
    seconds: float
    """That the worker computed."""
    batches: Sequence[tuple[int, int, float]] = ()
    """(size with padding, steps, seconds) of every batch that was run."""
    device: str = ""
    """That computed it, such as cuda:0; empty where the worker does not say."""
    precision: str = ""
    """fp32, bf16 or int8."""
    holds: bool = False
    """Whether the worker keeps where jobs stand that have a key."""
