"""Whether bf16 shows: the same generation jobs in bf16 and in fp32, as an independent judge sees them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from robust_synthesis import load
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.evaluation.judge import Judge
from robust_synthesis.model_folder import ModelFolder

from .figures import Figure, Measured

TITLE = "bf16 against fp32, by the judge"


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Share of pictures judged as their class in bf16, over the share in fp32. Raises NotFound without a judge."""
    judge = Judge(Classifier.load(f"{folder.path}-judge"))
    classes = folder.card.classes[:10]
    count = 20 if quick else 50
    labels = torch.arange(len(classes)).repeat_interleave(count)
    figures = []
    for start in ("gaussian", "noise"):
        hits = {}
        for precision in ("fp32", "bf16"):
            synthesizer = load(folder.path, precision=precision)
            pictures = []
            for index, name in enumerate(classes):
                found = synthesizer.generate(name, count=count, seed=index, start=start)
                pictures += [_pixels(picture.image) for picture in found.pictures]
            hits[precision] = judge.judged(torch.stack(pictures), labels)
        value = hits["bf16"].value / hits["fp32"].value
        detail = f"{hits['bf16'].value:.1%} of {len(labels)}, fp32 {hits['fp32'].value:.1%}"
        figures.append(Figure(f"from {start}, judged as its class", *(value,) * 3, "fp32", 0.99, detail=detail))
    return Measured(tuple(figures))


def _pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)
