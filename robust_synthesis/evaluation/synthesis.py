"""Pictures made for measuring, on the way that every picture of this product takes: spec -> job -> batches of 32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from ..batch_sizes import LARGEST
from ..engine.ball import l2_norm
from ..engine.classifier import Classifier
from ..engine.problem import quantise
from ..engine.run import run
from ..specs import Spec
from ..tasks import Inputs, make_jobs


@dataclass(frozen=True)
class Made:
    """N pictures, in the order in which they were asked for."""

    pictures: Tensor
    """[N, 3, H, W], rounded to the 8 bits that a caller gets."""
    starts: Tensor
    """What each began as, unrounded."""
    targets: Tensor
    """[N]: the class that each was driven to."""
    probabilities: Tensor
    """[N]: of that class, in the eyes of the classifier that made them."""
    parameters: Mapping[str, Any]
    """Of the first, every default filled in."""


@dataclass(frozen=True)
class Change:
    """L2 distance between results and what they began as, in units of pixel values in [0, 1]."""

    mean: float
    largest: float

    @classmethod
    def of(cls, made: Made) -> Change:
        length = l2_norm(made.pictures - made.starts)
        return cls(float(length.mean()), float(length.max()))


def make(
    classifier: Classifier,
    requests: Iterable[tuple[Spec, Inputs]],
    on_made: Callable[[int], None] = lambda _: None,
) -> Made:
    """Make every picture of at least one request; all are of one size. Calls `on_made` with the size of every batch."""
    jobs = chain.from_iterable(make_jobs(spec, inputs, classifier) for spec, inputs in requests)
    pictures, starts, targets, probabilities = [], [], [], []
    parameters: Mapping[str, Any] | None = None
    while batch := list(islice(jobs, LARGEST)):
        parameters = parameters or batch[0].parameters
        finished = run(classifier, classifier.device, [(job.problem, job.state) for job in batch])
        for job, done in zip(batch, finished, strict=True):
            pictures.append(quantise(done.state.result(job.problem), 255))
            starts.append(job.problem.center)
            targets.append(job.target)
            probabilities.append(float(done.state.best_probability))
        on_made(len(batch))
    return Made(
        torch.cat(pictures),
        torch.cat(starts),
        torch.tensor(targets),
        torch.tensor(probabilities),
        dict(parameters or {}),
    )
