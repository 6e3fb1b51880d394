"""Super-resolution of real pictures that were reduced by block means, beside nearest neighbour and bicubic interpolation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ... import specs
from ...engine.classifier import Classifier
from ...engine.problem import quantise
from ...sheet import Row, draw
from ...tasks import Inputs
from ...tasks.super_resolve import enlarge
from ...training.datasets import ImageSet
from ..fidelity import Score
from ..judge import Judge
from ..proportion import Proportion
from ..sample import sample
from ..synthesis import Made, make
from ..tally import OnProgress, Tally, silent

FACTOR = 4
SWEEP = (0.25, 0.5, 1.0, 2.0)
"""Epsilons at 32 pixels, from either start; they scale with the side."""


@dataclass(frozen=True)
class SuperResolutionSetting:
    """Ours with one choice of parameters."""

    parameters: Mapping[str, Any]
    true_class: Score
    """Told the picture's class."""
    predicted_class: Score
    """Told nothing."""


@dataclass(frozen=True)
class SuperResolution:
    """Scores of all ways to enlarge the same pictures."""

    images: int
    factor: int
    network: str
    """Of the judge."""
    originals: Proportion
    """Judged at full resolution."""
    nearest: Score
    bicubic: Score
    predicted_right: Proportion
    """How often the class predicted for the default's start, which drives ours where no class is given, is right."""
    settings: tuple[SuperResolutionSetting, ...]
    """The card's default first."""
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    judge: Judge,
    *,
    images: int = 500,
    sweep: bool = False,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> SuperResolution:
    """Reduce `images` test pictures by 4 and enlarge them again in every way."""
    chosen = sample(test, images, seed)
    originals, labels = chosen.floats(slice(None)), chosen.labels
    low = reduce(originals, FACTOR)
    runs: list[dict[str, Any]] = [{}]
    if sweep:
        scale = chosen.size / 32
        runs += [{"upsampling": method, "epsilon": e * scale} for method in specs.UPSAMPLINGS for e in SWEEP]
    tally = Tally(2 * len(runs) * len(chosen), on_progress)

    def score(pictures: Tensor) -> Score:
        return Score.of(judge, pictures, originals, labels)

    settings, shown = [], []
    for options in runs:
        told, untold = (
            make(classifier, _requests(classifier, low, chosen, options, told), tally) for told in (True, False)
        )
        settings.append(SuperResolutionSetting(told.parameters, score(told.pictures), score(untold.pictures)))
        shown.append((told, untold))
    baselines = {method: enlarged(low, chosen.size, method) for method in ("nearest", "bicubic")}
    rows = [("original", originals), *baselines.items()]
    return SuperResolution(
        images=len(chosen),
        factor=FACTOR,
        network=judge.network,
        originals=judge.judged(originals, labels),
        nearest=score(baselines["nearest"]),
        bicubic=score(baselines["bicubic"]),
        predicted_right=Proportion.of(shown[0][1].targets == labels),
        settings=tuple(settings),
        pictures={"super_resolution": _sheet(rows, shown, chosen, classifier.card.classes)},
    )


def reduce(images: Tensor, factor: int) -> Tensor:
    """Block means of [N, 3, H, W], rounded to the 8 bits of a file."""
    return quantise(F.avg_pool2d(images, factor), 255)


def enlarged(low: Tensor, size: int, method: str) -> Tensor:
    """[N, 3, h, w] -> [N, 3, size, size] by interpolation, in 8 bits."""
    return quantise(torch.stack([enlarge(picture, size, method) for picture in low]), 255)


def _requests(
    classifier: Classifier, low: Tensor, images: ImageSet, options: Mapping[str, Any], told: bool
) -> Iterator[tuple[specs.Spec, Inputs]]:
    for picture, label in zip(low, images.labels.tolist(), strict=True):
        name = classifier.card.classes[label] if told else None
        yield specs.SuperResolve(factor=FACTOR, target=name, **options), Inputs(images.size, picture)


def _sheet(
    rows: list[tuple[str, Tensor]], made: Sequence[tuple[Made, Made]], images: ImageSet, classes: Sequence[str]
) -> Image.Image:
    for told, untold in made:
        setting = f"from {told.parameters['upsampling']}, epsilon {told.parameters['epsilon']:g}"
        rows += [
            (f"ours, true class, {setting}", told.pictures),
            (f"ours, predicted class, {setting}", untold.pictures),
        ]
    names = [classes[i] for i in images.labels[:10].tolist()]
    return draw([Row.of(title, pictures[:10].numpy(), names) for title, pictures in rows])
