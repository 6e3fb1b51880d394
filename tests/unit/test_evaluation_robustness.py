"""Attacks on classifiers whose distance to the decision boundary is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.networks import Network
from robust_synthesis.evaluation.parts import accuracy, robustness_gap
from robust_synthesis.model_folder import Card
from robust_synthesis.training.datasets import ImageSet

SIZE = 8
WEIGHT = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [-9.0, -9.0, -9.0]])


class MeanColour(Network):
    """Logits are linear in the mean of each channel."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(3, len(weight))
        self.fc.load_state_dict({"weight": weight, "bias": bias})

    def features(self, x: Tensor) -> Tensor:
        return x


def linear_classifier(weight: Tensor = WEIGHT, bias: Tensor | None = None) -> Classifier:
    names = ("red", "green", "blue", "black")[: len(weight)]
    card = Card(name="linear", architecture={}, classes=names, size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
    return Classifier(MeanColour(weight, torch.zeros(len(weight)) if bias is None else bias), card, device="cpu")


def constant_classifier() -> Classifier:
    return linear_classifier(torch.zeros(4, 3), torch.tensor([0.0, 1.0, 0.5, 0.25]))


def colours(count: int) -> ImageSet:
    """Noise about grey, whose true class is the brightest channel."""
    random = torch.Generator().manual_seed(0)
    tints = 0.5 + 0.1 * torch.randn(count, 3, 1, 1, generator=random)
    images = (tints + 0.05 * torch.randn(count, 3, SIZE, SIZE, generator=random)).clamp(0, 1)
    return ImageSet(
        (images * 255).round().to(torch.uint8), tints.flatten(1).argmax(1), ["red", "green", "blue", "black"]
    )


def margins(images: ImageSet) -> Tensor:
    """Distance [N] of every image to the nearest decision boundary of the linear classifier."""
    weight = WEIGHT / SIZE**2  # of each pixel
    logits = images.floats(slice(None)).sum(dim=(2, 3)) @ weight.T
    label = logits.argmax(1)
    gap = logits.gather(1, label[:, None]) - logits
    length: Tensor = (weight[label][:, None] - weight).norm(dim=2) * SIZE
    return torch.where(gap > 0, gap / length, torch.inf).amin(1)


def robust(classifier: Classifier, images: ImageSet, **options: Any) -> accuracy.RobustAccuracy:
    return accuracy.robust_accuracy(classifier, images, images=len(images), **options)


def test_a_constant_network_is_robust() -> None:
    images = colours(12)
    found = robust(constant_classifier(), images)
    green = int((images.labels == 1).sum())
    assert 0 < green < 12
    assert found.robust == found.clean
    assert (found.robust.hits, found.robust.count) == (green, 12)
    assert any("zero gradient" in text for text in found.warnings)


@pytest.mark.parametrize("epsilon", [0.25, 0.6])
def test_robust_accuracy_of_a_linear_classifier_is_the_share_of_larger_margins(epsilon: float) -> None:
    images = colours(24)
    distance = margins(images)
    assert ((distance - epsilon).abs() > 0.005).all()
    right = linear_classifier()(images.floats(slice(None))).argmax(1) == images.labels
    expected = int((right & (distance > epsilon)).sum())
    assert 0 < expected < int(right.sum())
    assert robust(linear_classifier(), images, epsilon=epsilon).robust.hits == expected


def test_two_classes_are_attacked_without_the_undefined_targeted_loss() -> None:
    images = colours(12)
    two = ImageSet(images.images, (images.labels == 1).long(), ["red", "green"])
    found = robust(linear_classifier(WEIGHT[:2]), two, epsilon=100.0)
    assert found.attacks == ("apgd-ce", "fab-t")
    assert found.robust.hits == 0 < found.clean.hits


def test_an_interrupted_attack_goes_on_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "CHUNK", 6)
    images = colours(10)
    whole = robust(linear_classifier(), images)

    def interrupt(done: int, _: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robust(linear_classifier(), images, work=tmp_path, on_progress=interrupt)

    attacked = []
    attack = accuracy._attack

    def count(classifier: Classifier, part: ImageSet, *options: Any) -> dict[str, Any]:
        attacked.append(len(part))
        return attack(classifier, part, *options)

    monkeypatch.setattr(accuracy, "_attack", count)
    resumed = robust(linear_classifier(), images, work=tmp_path)
    assert attacked == [4]
    assert (resumed.robust, resumed.clean) == (whole.robust, whole.clean)
    assert 0 < resumed.robust.hits < 10


def test_what_was_measured_is_reused_for_equal_questions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def attack(_classifier: Classifier, images: ImageSet, *_: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"clean": [True] * len(images), "robust": [asked == 1] * len(images), "seconds": 1.5, "warnings": []}

    monkeypatch.setattr(accuracy, "_attack", attack)
    images = colours(8)
    first = robust(linear_classifier(), images, work=tmp_path)
    assert robust(linear_classifier(), images, work=tmp_path) == first
    assert (asked, first.robust.hits, first.seconds) == (1, 8, 1.5)
    others: list[dict[str, Any]] = [{"epsilon": 0.6}, {"norm": "linf"}, {"seed": 1}, {"standard": True}]
    for i, options in enumerate(others):
        assert robust(linear_classifier(), images, work=tmp_path, **options).robust.hits == 0
        assert asked == 2 + i
    robust(constant_classifier(), images, work=tmp_path)
    robust(linear_classifier(), images.subset(torch.arange(7)), work=tmp_path)
    assert asked == 7


def test_attacks_leave_the_caller_s_random_numbers_alone() -> None:
    classifier = linear_classifier()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    robust(classifier, colours(2))
    assert torch.equal(torch.rand(1), expected)


def test_smallest_flip_of_a_linear_classifier_is_its_margin() -> None:
    images = colours(20)
    flips = robustness_gap.nearest_flips(linear_classifier(), images.floats(slice(None)))
    assert flips.distance.tolist() == pytest.approx(margins(images).tolist(), rel=0.02)
    assert (flips.before != flips.after).all()
    moved = (flips.pictures - images.floats(slice(None))).flatten(1).norm(dim=1)
    assert torch.allclose(moved, flips.distance)
    assert torch.equal(linear_classifier()(flips.pictures).argmax(1), flips.after)


def test_nothing_flips_a_constant_network() -> None:
    originals = colours(3).floats(slice(None))
    flips = robustness_gap.nearest_flips(constant_classifier(), originals, steps=5)
    assert flips.distance.isinf().all()
    assert torch.equal(flips.pictures, originals)
    assert flips.before.tolist() == flips.after.tolist() == [1, 1, 1]


def test_robustness_gap_of_a_network_whose_logits_are_biased_towards_one_class() -> None:
    """A bias moves the boundary away; the medians and their ratio say how far."""
    images = colours(20)
    biased = linear_classifier(bias=torch.tensor([0.0, 0.0, 0.0, -1.0]))
    gap = robustness_gap.measure(linear_classifier(WEIGHT * 2), biased, images, images=20)
    assert gap.robust_median == pytest.approx(float(margins(images).median()), rel=0.02)
    assert gap.ratio == pytest.approx(gap.robust_median / gap.standard_median)
    assert len(gap.robust) == len(gap.standard) == gap.images == 20
