"""Generation: does an independent judge see the class, how natural is it, how diverse, and does it take a robust network?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ... import specs
from ...engine.classifier import Classifier
from ...sheet import Row, draw
from ...tasks import Inputs
from ...training.datasets import ImageSet
from ..frechet import frechet_distance, mean_pairwise_distance
from ..judge import Judge
from ..proportion import Proportion
from ..sample import sample
from ..synthesis import Made, make
from ..tally import OnProgress, Tally, silent
from .names import ACROSS, shown

GRID_SIZE = 32
"""Image size at which the grid's epsilons are meant; they scale with the side."""
REAL_PER_CLASS = 200
"""Real pictures of a class whose mean distance that of generated ones is compared with."""


@dataclass(frozen=True)
class Contest:
    """One kind of start, climbed by the robust classifier and by the standard one with the same parameters."""

    start: str
    seeds: Proportion
    """How often the judge sees the class in the bare seeds."""
    robust: Proportion
    standard: Proportion | None
    standard_gain: float | None
    """What the standard classifier gains over the seeds as a share of what the robust one gains."""


@dataclass(frozen=True)
class Setting:
    """Pictures made with one choice of parameters."""

    start: str
    parameters: Mapping[str, Any]
    judged: Proportion
    probability: float
    """Mean probability of the class, in the eyes of the classifier that made them."""
    fid: float
    pixel_diversity: float
    """Mean distance between two pictures of a class as a share of that between two real ones, in pixels."""
    feature_diversity: float
    """The same in the judge's features."""


@dataclass(frozen=True)
class Generation:
    """All settings have equally many pictures per class, so that their FIDs compare."""

    per_class: int
    network: str
    """Whose features FID and diversity are measured in."""
    contests: tuple[Contest, ...]
    settings: tuple[Setting, ...]
    """The card's defaults first, from each kind of start; then the grid."""
    seeds_fid: Mapping[str, float]
    """Of the bare seeds, per kind of start."""
    real_fid: float | None
    """Of as many real training pictures: the floor."""
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    judge: Judge,
    *,
    contrast: Classifier | None = None,
    train: ImageSet | None = None,
    images: int = 500,
    grid: Sequence[tuple[float, int]] = (),
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Generation:
    """Generate `images` pictures per setting, spread evenly over the classes (at least two of each), and judge them."""
    card = classifier.card
    starts = specs.STARTS if classifier.seeds is not None else ("noise",)
    per_class = max(2, images // len(card.classes))
    scale = card.size / GRID_SIZE
    climbs = len(starts) * (1 if contrast is None else 2) + len(grid)
    tally = Tally(per_class * len(card.classes) * climbs, on_progress)
    reference = _Reference(judge, test)
    settings, contests, seeds_fid, pictures, rows = [], [], {}, {}, []

    def generate(start: str, **parameters: Any) -> tuple[Made, Setting]:
        made = make(classifier, _requests(classifier, per_class, seed, start, parameters), tally)
        setting = reference.setting(start, made)
        settings.append(setting)
        rows.append(_row(setting, made, card.classes))
        return made, setting

    for start in starts:
        made, setting = generate(start)
        standard = None if contrast is None else make(contrast, _again(contrast, made), tally)
        seen, features = judge.look(made.starts)
        seeds_fid[start] = frechet_distance(features, reference.features)
        contests.append(_contest(start, Proportion.of(seen == made.targets), setting.judged, judge, standard))
        pictures[f"generation-{start}"] = _trio(made, standard, card.classes)
    for epsilon, steps in grid:
        generate(starts[0], epsilon=epsilon * scale, steps=steps)
    pictures["generation-settings"] = draw(rows)
    real = None if train is None else reference.fid(sample(train, per_class * len(card.classes), seed))
    return Generation(per_class, judge.network, tuple(contests), tuple(settings), seeds_fid, real, pictures)


class _Reference:
    """What generated pictures are compared with: real ones, seen by the judge."""

    def __init__(self, judge: Judge, test: ImageSet) -> None:
        self.judge = judge
        _, self.features = judge.look_at_set(test)
        index = torch.cat([(test.labels == label).nonzero()[:REAL_PER_CLASS, 0] for label in torch.unique(test.labels)])
        self.pixel_distance = mean_pairwise_distance(test.floats(index), test.labels[index])
        self.feature_distance = mean_pairwise_distance(self.features[index], test.labels[index])

    def setting(self, start: str, made: Made) -> Setting:
        seen, features = self.judge.look(made.pictures)
        return Setting(
            start=start,
            parameters=made.parameters,
            judged=Proportion.of(seen == made.targets),
            probability=float(made.probabilities.mean()),
            fid=frechet_distance(features, self.features),
            pixel_diversity=mean_pairwise_distance(made.pictures, made.targets) / self.pixel_distance,
            feature_diversity=mean_pairwise_distance(features, made.targets) / self.feature_distance,
        )

    def fid(self, images: ImageSet) -> float:
        return frechet_distance(self.judge.look_at_set(images)[1], self.features)


def _requests(
    classifier: Classifier, per_class: int, seed: int, start: str, parameters: Mapping[str, Any]
) -> Iterator[tuple[specs.Spec, Inputs]]:
    """As many pictures of every class; where one request cannot ask for them all, the next has the next seed."""
    inputs = Inputs(classifier.card.size)
    for name in classifier.card.classes:
        for first in range(0, per_class, specs.MAX_COUNT):
            next_seed, count = seed + first // specs.MAX_COUNT, min(specs.MAX_COUNT, per_class - first)
            yield specs.Generate(target=name, start=start, seed=next_seed, count=count, **parameters), inputs


def _again(contrast: Classifier, made: Made) -> Iterator[tuple[specs.Spec, Inputs]]:
    """The same seeds, classes and parameters for another classifier, whatever its own defaults and Gaussians."""
    names = ("epsilon", "steps", "step_size", "norm")
    parameters = {name: made.parameters[name] for name in names}
    for seed, target in zip(made.starts, made.targets.tolist(), strict=True):
        spec = specs.MaximizeClass(target=contrast.card.classes[target], **parameters)
        yield spec, Inputs(seed.shape[-1], seed)


def _contest(start: str, seeds: Proportion, robust: Proportion, judge: Judge, standard: Made | None) -> Contest:
    if standard is None:
        return Contest(start, seeds, robust, None, None)
    judged = judge.judged(standard.pictures, standard.targets)
    gained = robust.value - seeds.value
    return Contest(start, seeds, robust, judged, (judged.value - seeds.value) / gained if gained > 0 else None)


def _trio(made: Made, standard: Made | None, classes: Sequence[str]) -> Image.Image:
    """Seeds and what became of them, for up to 20 classes."""
    ways = {"seed": made.starts}
    if standard is not None:
        ways["standard classifier"] = standard.pictures
    ways["robust classifier"] = made.pictures
    several, rows = shown(classes), []
    for first in range(0, len(several), ACROSS):
        index, names = _one_of_each(made, several[first : first + ACROSS], classes)
        rows += [Row.of(title, pictures[index].numpy(), names) for title, pictures in ways.items()]
    return draw(rows)


def _row(setting: Setting, made: Made, classes: Sequence[str]) -> Row:
    parameters = setting.parameters
    ball = "no ball" if parameters["norm"] == "none" else f"{parameters['norm']} {parameters['epsilon']:g}"
    title = f"from {setting.start}: {ball}, {parameters['steps']} steps"
    note = f"FID {setting.fid:.3g}, judged {setting.judged.value:.1%}"
    index, names = _one_of_each(made, shown(classes)[:ACROSS], classes)
    return Row.of(title, made.pictures[index].numpy(), names, note)


def _one_of_each(made: Made, targets: Sequence[int], classes: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Where the first picture of each of these classes is, and the classes' names."""
    return torch.stack([(made.targets == i).nonzero()[0, 0] for i in targets]), [classes[i] for i in targets]
