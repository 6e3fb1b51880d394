"""In-painting of square holes in real pictures, beside mean filling and OpenCV's two methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ... import specs
from ...engine.classifier import Classifier
from ...engine.problem import quantise
from ...engine.seeds import generator
from ...imaging import to_image
from ...sheet import Row, draw
from ...tasks import Inputs
from ...tasks.start import fill_hole
from ...training.datasets import ImageSet
from ..fidelity import Score, recovered
from ..judge import Judge
from ..proportion import Proportion
from ..sample import sample
from ..synthesis import Made, make
from ..tally import OnProgress, Tally, silent

HOLE = 3 / 8
"""Side of the hole as a share of the picture's: 12 of 32 pixels."""
SWEEP = (0.5, 1.0, 2.0, 3.0)
"""Epsilons at 32 pixels; they scale with the side."""
RADIUS = 3
"""Neighbourhood of OpenCV's in-painting, pixels."""


@dataclass(frozen=True)
class InpaintingSetting:
    """Ours with one choice of parameters; PSNR inside the hole."""

    parameters: Mapping[str, Any]
    true_class: Score
    """Told the picture's class."""
    predicted_class: Score
    """Told nothing."""
    true_class_recovered: float | None
    """Share of the judge's accuracy lost by mean filling that is won back."""
    predicted_class_recovered: float | None


@dataclass(frozen=True)
class Inpainting:
    """Scores of all ways to fill the same holes; PSNR inside the hole."""

    images: int
    hole: int
    """Side, pixels."""
    network: str
    """Of the judge."""
    originals: Proportion
    """Judged with no hole."""
    mean: Score
    telea: Score
    navier_stokes: Score
    predicted_right: Proportion
    """How often the class predicted for the filled picture, which drives ours where no class is given, is right."""
    settings: tuple[InpaintingSetting, ...]
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
) -> Inpainting:
    """Cut a hole at a random place of `images` test pictures and fill it in every way."""
    chosen = sample(test, images, seed)
    originals, labels = chosen.floats(slice(None)), chosen.labels
    masks = holes(len(chosen), chosen.size, seed)
    filled = quantise(torch.stack([fill_hole(image, mask) for image, mask in zip(originals, masks, strict=True)]), 255)
    runs: list[dict[str, Any]] = [{}]
    if sweep:
        runs += [{"epsilon": epsilon * chosen.size / 32} for epsilon in SWEEP]
    tally = Tally(2 * len(runs) * len(chosen), on_progress)

    def score(pictures: Tensor) -> Score:
        return Score.of(judge, pictures, originals, labels, masks)

    telea, navier_stokes = (opencv(filled, masks, method) for method in ("telea", "ns"))
    original, mean = judge.judged(originals, labels), score(filled)
    settings, shown = [], []
    for options in runs:
        told, untold = (
            make(classifier, _requests(classifier, chosen, masks, options, told), tally) for told in (True, False)
        )
        scores = score(told.pictures), score(untold.pictures)
        back = [recovered(one.judged.value, mean.judged.value, original.value) for one in scores]
        settings.append(InpaintingSetting(told.parameters, *scores, *back))
        shown.append((told, untold))
    rows = [("original", originals), ("mean", filled), ("Telea", telea), ("Navier-Stokes", navier_stokes)]
    return Inpainting(
        images=len(chosen),
        hole=hole_side(chosen.size),
        network=judge.network,
        originals=original,
        mean=mean,
        telea=score(telea),
        navier_stokes=score(navier_stokes),
        predicted_right=Proportion.of(shown[0][1].targets == labels),
        settings=tuple(settings),
        pictures={"inpainting": _sheet(rows, shown, chosen, classifier.card.classes)},
    )


def hole_side(size: int) -> int:
    """Side of the hole in a picture of `size` pixels."""
    return round(size * HOLE)


def holes(count: int, size: int, seed: int) -> Tensor:
    """Masks [count, 1, size, size], each 1 in one square at a place drawn uniformly among those that fit."""
    side = hole_side(size)
    masks = torch.zeros(count, 1, size, size)
    for i, mask in enumerate(masks):
        top, left = generator(seed, i).integers(0, size - side, 2, endpoint=True)
        mask[:, top : top + side, left : left + side] = 1
    return masks


def opencv(pictures: Tensor, masks: Tensor, method: str) -> Tensor:
    """OpenCV's in-painting of [N, 3, H, W]: "telea" (Telea 2004) or "ns" (Bertalmio et al. 2001)."""
    import cv2

    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    filled = [
        cv2.inpaint(np.asarray(to_image(picture.numpy())), mask[0].numpy().astype(np.uint8), RADIUS, flag)
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float() / 255


def _requests(
    classifier: Classifier, images: ImageSet, masks: Tensor, options: Mapping[str, Any], told: bool
) -> Iterator[tuple[specs.Spec, Inputs]]:
    for i, mask in enumerate(masks):
        name = classifier.card.classes[int(images.labels[i])] if told else None
        yield specs.Inpaint(target=name, **options), Inputs(images.size, images.floats(slice(i, i + 1))[0], mask)


def _sheet(
    rows: list[tuple[str, Tensor]], made: Sequence[tuple[Made, Made]], images: ImageSet, classes: Sequence[str]
) -> Image.Image:
    for told, untold in made:
        epsilon = f"epsilon {told.parameters['epsilon']:g}"
        rows += [
            (f"ours, true class, {epsilon}", told.pictures),
            (f"ours, predicted class, {epsilon}", untold.pictures),
        ]
    names = [classes[i] for i in images.labels[:10].tolist()]
    return draw([Row.of(title, pictures[:10].numpy(), names) for title, pictures in rows])
