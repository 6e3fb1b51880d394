"""Whether rounding shows: the same generation jobs in fp32, and in what is faster here, as an independent judge sees them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from robust_synthesis import load
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.precision import choose_device, multiplies_bf16, multiplies_int8
from robust_synthesis.evaluation.judge import Judge
from robust_synthesis.model_folder import ModelFolder

from .figures import Figure, Measured

TITLE = "bf16 and int8 against fp32, by the judge"


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Share of pictures judged as their class, over the share in fp32. Raises NotFound without a judge."""
    judge = Judge(Classifier.load(f"{folder.path}-judge"))
    classes = folder.card.classes[:10]
    count = 40 if quick else 100
    labels = torch.arange(len(classes)).repeat_interleave(count)
    figures = []
    for start in ("gaussian", "noise"):
        hits = {}
        for precision in ("fp32", *_rounded(folder)):
            synthesizer = load(folder.path, precision=precision)
            pictures = []
            for index, name in enumerate(classes):
                found = synthesizer.generate(name, count=count, seed=index, start=start)
                pictures += [_pixels(picture.image) for picture in found.pictures]
            hits[precision] = judge.judged(torch.stack(pictures), labels)
        exact = hits.pop("fp32").value
        for precision, judged in hits.items():
            value = judged.value / exact
            detail = f"{judged.value:.1%} of {len(labels)}, fp32 {exact:.1%}"
            name = f"{precision}, from {start}, judged as its class"
            figures.append(Figure(name, *(value,) * 3, "fp32", 0.99, detail=detail))
    return Measured(tuple(figures))


def _rounded(folder: ModelFolder) -> Iterator[str]:
    """Precisions that are faster than fp32 here."""
    device = choose_device()
    if multiplies_bf16(device):
        yield "bf16"
    if folder.card.ranges and multiplies_int8(device):
        yield "int8"


def _pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)
