"""The parts of an evaluation: what each needs, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.classifier import Classifier
from ..training.datasets import ImageSet
from . import judge as judging
from .judge import Judge
from .options import EvaluationOptions
from .parts import (
    accuracy,
    class_maximization,
    feature_painting,
    generation,
    inpainting,
    robustness_gap,
    sketches,
    super_resolution,
    translation,
)
from .tally import OnProgress


@dataclass(frozen=True)
class Given:
    """What there is to measure, and with what."""

    classifier: Classifier
    test: ImageSet
    options: EvaluationOptions
    judge: Classifier | None = None
    contrast: Classifier | None = None
    train: ImageSet | None = None
    work: Path | None = None

    def lacks(self, part: str) -> str | None:
        """Why a part cannot be run, if it cannot."""
        if self.judge is None and part not in NO_JUDGE:
            return "needs an independent classifier; give one with --judge"
        if self.contrast is None and part == "robustness_gap":
            return "needs a standard classifier; give one with --standard-model"
        if len(self.classifier.card.classes) != 2 and part == "translation":
            return "needs a classifier of two domains"
        if not self.classifier.units.units and part == "feature_painting":
            return "needs a catalogue of units, which `train` writes"
        return None

    def run(self, part: str, tell: OnProgress) -> Any:
        """The part's result, a dataclass of numbers, with `pictures` where it makes any."""
        options = self.options
        common: dict[str, Any] = {"seed": options.seed, "on_progress": tell}
        return RUN[part](self, common | {"images": options.count(part, self.classifier.card.size)})

    @property
    def looking(self) -> Judge:
        assert self.judge is not None
        return Judge(self.judge)


def _accuracy(given: Given, common: Mapping[str, Any]) -> Any:
    options = given.options
    return accuracy.measure(
        given.classifier, given.test, radii=options.radii, standard=options.standard, work=given.work, **common
    )


def _generation(given: Given, common: Mapping[str, Any]) -> Any:
    grid = given.options.grid_at(given.classifier.card.size)
    return generation.measure(
        given.classifier, given.test, given.looking, contrast=given.contrast, train=given.train, grid=grid, **common
    )


def _robustness_gap(given: Given, common: Mapping[str, Any]) -> Any:
    assert given.contrast is not None
    return robustness_gap.measure(given.classifier, given.contrast, given.test, **common)


RUN: Mapping[str, Callable[[Given, Mapping[str, Any]], Any]] = {
    "accuracy": _accuracy,
    "judge": lambda given, common: judging.measure(given.looking, given.test, common["on_progress"]),
    "generation": _generation,
    "class_maximization": lambda given, common: class_maximization.measure(
        given.classifier, given.test, given.looking, **common
    ),
    "translation": lambda given, common: translation.measure(given.classifier, given.test, given.looking, **common),
    "inpainting": lambda given, common: inpainting.measure(
        given.classifier, given.test, given.looking, sweep=given.options.sweep, **common
    ),
    "super_resolution": lambda given, common: super_resolution.measure(
        given.classifier, given.test, given.looking, sweep=given.options.sweep, **common
    ),
    "sketches": lambda given, common: sketches.measure(
        given.classifier, given.looking, on_progress=common["on_progress"]
    ),
    "feature_painting": lambda given, common: feature_painting.measure(
        given.classifier, given.test, units=given.options.units, **common
    ),
    "robustness_gap": _robustness_gap,
}
"""Part -> how it is run, given the options that all parts have."""
NO_JUDGE = {"accuracy", "feature_painting", "robustness_gap"}
EXACT = {"accuracy", "judge", "robustness_gap"}
"""Parts that compute in fp32; the others make pictures, in the classifier's own precision."""
