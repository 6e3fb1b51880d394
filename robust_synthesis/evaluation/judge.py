"""An independent classifier that judges pictures it had no part in making."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.classifier import Classifier
from ..training.datasets import ImageSet
from .proportion import Proportion
from .tally import OnProgress, Tally, silent

BATCH = 256


@dataclass(frozen=True)
class JudgeReport:
    """What the judge is worth on real pictures."""

    network: str
    version: str
    accuracy: Proportion


class Judge:
    """A classifier in fp32 that looks at pictures [N, 3, H, W] in [0, 1]."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.in_precision("fp32")

    @property
    def network(self) -> str:
        """Which network the features come from, for reports."""
        card = self.classifier.card
        kind = card.architecture.get("kind", "network")
        return f"{card.name}: {kind}, pooled latent of {self.classifier.network.fc.in_features}, trained as {card.role}"

    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted classes [N] and features (the pooled latent) [N, D], on the CPU."""
        classes, features = [], []
        with torch.no_grad():
            for part in torch.split(pictures, BATCH):
                logits, latent = self.classifier.logits_and_latent(part.to(self.classifier.device))
                classes.append(logits.argmax(1).cpu())
                features.append(latent.cpu())
        return torch.cat(classes), torch.cat(features)

    def judged(self, pictures: Tensor, labels: Tensor) -> Proportion:
        """How often the judge sees the class that a picture should show."""
        return Proportion.of(self.look(pictures)[0] == labels)

    def look_at_set(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """As `look`, without making floats of the whole set at once."""
        parts = [self.look(images.floats(slice(i, i + BATCH))) for i in range(0, len(images), BATCH)]
        return torch.cat([classes for classes, _ in parts]), torch.cat([features for _, features in parts])


def clean_accuracy(classifier: Classifier, test: ImageSet, on_progress: OnProgress = silent) -> Proportion:
    """Accuracy on every image of the set, in fp32."""
    judge, tally = Judge(classifier), Tally(len(test), on_progress)
    hits = 0
    for i in range(0, len(test), BATCH):
        part = slice(i, i + BATCH)
        found = judge.judged(test.floats(part), test.labels[part])
        hits += found.hits
        tally(found.count)
    return Proportion(hits, len(test))


def measure(judge: Judge, test: ImageSet, on_progress: OnProgress = silent) -> JudgeReport:
    """The judge's accuracy on real pictures."""
    return JudgeReport(judge.network, judge.classifier.version, clean_accuracy(judge.classifier, test, on_progress))
