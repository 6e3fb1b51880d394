"""What the latent units of a network seem to stand for: the images that activate each most."""

from __future__ import annotations

from collections import Counter

import torch
from PIL import Image

from ..engine.classifier import Classifier
from ..sheet import Row, draw
from ..units import SHEET_ACROSS, SHEET_SIDE, Unit
from .datasets import ImageSet

TOP = 9
"""Images of a unit."""


@torch.no_grad()
def collect_units(
    classifier: Classifier, data: ImageSet, *, limit: int = 10_000, shown: int = 96
) -> tuple[list[Unit], Image.Image]:
    """The catalogue of the latent's units, strongest first, and a sheet of the top images of the first `shown`.

    Looks at up to `limit` images of `data`.
    """
    count = min(limit, len(data))
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]
    batches = (data.floats(part).to(classifier.device) for part in torch.split(index, 256))
    latent = torch.cat([classifier.logits_and_latent(images)[1].cpu() for images in batches])
    values, rows = latent.topk(min(TOP, count), dim=0)
    strength = values.mean(0)
    order = [int(i) for i in strength.argsort(descending=True) if strength[i] > 0]
    units = []
    for unit in order:
        classes = Counter(data.class_names[int(data.labels[index[row]])] for row in rows[:, unit])
        units.append(
            Unit(
                index=unit,
                name=_suggest(classes, unit),
                activation=round(float(strength[unit]), 4),
                classes=dict(classes.most_common()),
            )
        )
    top = {unit.index: data.floats(index[rows[:, unit.index]]).numpy() for unit in units[:shown]}
    return units, draw(
        [Row.of(unit.name, top[unit.index]) for unit in units[:shown]], side=SHEET_SIDE, across=SHEET_ACROSS
    )


def _suggest(classes: Counter[str], unit: int) -> str:
    total = sum(classes.values())
    (first, most), *rest = classes.most_common(2)
    if most >= 0.6 * total or not rest:
        return f"{first} {unit}"
    return f"{first}/{rest[0][0]} {unit}"
