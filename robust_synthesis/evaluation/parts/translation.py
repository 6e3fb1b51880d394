"""Translation of test photographs between the two domains of a binary classifier, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from ... import specs
from ...engine.ball import l2_norm
from ...engine.classifier import Classifier
from ...sheet import Row, draw
from ...tasks import Inputs
from ...training.datasets import ImageSet
from ..judge import Judge
from ..proportion import Proportion
from ..sample import sample
from ..synthesis import Change, Made, make
from ..tally import OnProgress, Tally, silent
from .names import file_name

SHOWN = 8
"""Photographs on each sheet."""


@dataclass(frozen=True)
class Way:
    """From one domain to the other."""

    source: str
    target: str
    parameters: Mapping[str, Any]
    judged: Proportion
    """How often the judge sees the other domain in the translated photographs."""
    originals_right: Proportion
    """How often it sees the true one in the same photographs, not translated."""
    change: Change


@dataclass(frozen=True)
class Translation:
    """Both ways, with the card's default."""

    network: str
    """Of the judge."""
    ways: tuple[Way, ...]
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    judge: Judge,
    *,
    images: int = 250,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Translation:
    """Translate up to `images` test photographs of each of the two classes into the other."""
    classes = classifier.card.classes
    photographs = [
        sample(test.subset((test.labels == label).nonzero()[:, 0]), images, seed) for label in range(len(classes))
    ]
    tally = Tally(sum(map(len, photographs)), on_progress)
    ways, pictures = [], {}
    for chosen, source, target in zip(photographs, classes, reversed(classes), strict=True):
        if not len(chosen):
            continue
        made = make(classifier, _requests(chosen, target), tally)
        seen, _ = judge.look(made.pictures)
        originals = chosen.floats(slice(None))
        ways.append(
            Way(
                source=source,
                target=target,
                parameters=made.parameters,
                judged=Proportion.of(seen == made.targets),
                originals_right=judge.judged(originals, chosen.labels),
                change=Change.of(made),
            )
        )
        pictures[file_name("translation", source, "to", target)] = _sheet(originals, made, seen, source, target)
    return Translation(judge.network, tuple(ways), pictures)


def _requests(images: ImageSet, target: str) -> Iterator[tuple[specs.Spec, Inputs]]:
    for picture in images.floats(slice(None)):
        yield specs.Translate(target=target), Inputs(images.size, picture)


def _sheet(originals: Tensor, made: Made, seen: Tensor, source: str, target: str) -> Image.Image:
    right = (seen == made.targets)[:SHOWN].tolist()
    verdicts = [f"judged {target if hit else source}" for hit in right]
    moved = l2_norm(made.pictures - made.starts)[:SHOWN].tolist()
    captions = [f"{verdict}, L2 {length:.1f}" for verdict, length in zip(verdicts, moved, strict=True)]
    return draw(
        [
            Row.of(f"{source}: unseen test photographs", originals[:SHOWN].numpy()),
            Row.of(f"{target}, by epsilon {made.parameters['epsilon']:g}", made.pictures[:SHOWN].numpy(), captions),
        ],
        side=160,
    )
