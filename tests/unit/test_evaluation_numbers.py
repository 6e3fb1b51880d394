"""Figures of merit against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from robust_synthesis.evaluation.fidelity import psnr, recovered
from robust_synthesis.evaluation.frechet import frechet_distance, mean_pairwise_distance
from robust_synthesis.evaluation.parts.inpainting import holes, opencv
from robust_synthesis.evaluation.parts.super_resolution import enlarged, reduce
from robust_synthesis.evaluation.proportion import Proportion
from robust_synthesis.evaluation.record import plain
from robust_synthesis.evaluation.sample import sample
from robust_synthesis.training.datasets import ImageSet


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(50, 100, 0.40383, 0.59617), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (576, 1000, 0.54514, 0.60628)],
)
def test_wilson_interval(hits: int, count: int, low: float, high: float) -> None:
    assert Proportion(hits, count).interval == pytest.approx((low, high), abs=1e-5)


def test_proportion_counts_what_is_right() -> None:
    assert Proportion.of(torch.tensor([True, False, True, True])) == Proportion(3, 4)
    assert Proportion(3, 4).value == 0.75


def test_frechet_distance_of_two_known_gaussians() -> None:
    """Means 1 and 12, variances 2 and 8: 11^2 + 2 + 8 - 2 sqrt(2 * 8) = 123."""
    assert frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [14.0]])) == pytest.approx(123)


def test_frechet_distance_adds_over_independent_features() -> None:
    """The second feature has variances 2 and 2 and equal means: it adds nothing."""
    generated = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    real = torch.tensor([[10.0, 0.0], [14.0, 0.0], [10.0, 2.0], [14.0, 2.0]])
    # Four points: variances 4/3 and 16/3 in the first feature.
    assert frechet_distance(generated, real) == pytest.approx(121 + 4 / 3 + 16 / 3 - 2 * 8 / 3, rel=1e-6)


def test_mean_pairwise_distance_is_within_classes_and_averaged_over_them() -> None:
    rows = torch.tensor([[0.0], [3.0], [100.0], [101.0], [102.0], [500.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert mean_pairwise_distance(rows, labels) == pytest.approx((3 + 4 / 3) / 2)


def test_psnr_of_a_constant_difference() -> None:
    originals = torch.full((2, 3, 4, 4), 0.5)
    pictures = originals + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(pictures, originals).tolist() == pytest.approx([20, 40], rel=1e-4)


def test_psnr_looks_inside_the_mask_only() -> None:
    originals = torch.full((1, 3, 4, 4), 0.5)
    mask = torch.zeros(1, 1, 4, 4)
    mask[:, :, :2, :2] = 1
    pictures = originals + 0.1 * mask + 0.4 * (1 - mask)
    assert psnr(pictures, originals, mask).tolist() == pytest.approx([20], rel=1e-4)
    assert psnr(originals, originals).tolist() == pytest.approx([60])


def test_recovered_is_the_share_of_the_loss_that_is_won_back() -> None:
    assert recovered(0.75, 0.6, 0.9) == pytest.approx(0.5)
    assert recovered(0.75, 0.9, 0.9) is None


def test_holes_are_squares_of_three_eighths_anywhere_in_the_picture() -> None:
    masks = holes(2000, 32, seed=3)
    corners = []
    for mask in masks:
        rows, columns = mask[0].amax(1).nonzero().flatten(), mask[0].amax(0).nonzero().flatten()
        top, left = int(rows[0]), int(columns[0])
        assert mask[0, top : top + 12, left : left + 12].sum() == mask.sum() == 144
        corners.append((top, left))
    found = torch.tensor(corners).float()
    assert found.amin(0).tolist() == [0, 0]
    assert found.amax(0).tolist() == [20, 20]
    assert found.mean(0).tolist() == pytest.approx([10, 10], abs=0.5)
    assert torch.equal(holes(5, 32, seed=3), masks[:5])


@pytest.mark.parametrize("method", ["telea", "ns"])
def test_opencv_fills_a_plain_picture_with_its_colour_and_touches_nothing_else(method: str) -> None:
    masks = holes(1, 16, seed=0)
    colour = torch.tensor([51.0, 102.0, 204.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16) / 255
    assert opencv(colour * (1 - masks), masks, method) == pytest.approx(colour, abs=5 / 255)
    pictures = (torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    assert torch.allclose(opencv(pictures, masks, method) * (1 - masks), pictures * (1 - masks), atol=1e-6)


def test_reduction_takes_block_means_in_eight_bits() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., ::2] = 1
    assert torch.equal(reduce(picture, 4), torch.full((1, 3, 2, 2), 128 / 255))
    assert torch.equal(enlarged(reduce(picture, 4), 8, "nearest"), torch.full((1, 3, 8, 8), 128 / 255))


def test_samples_of_one_seed_are_nested_and_have_no_image_twice() -> None:
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 3, 8, 8)
    whole = ImageSet(images, torch.arange(50), [f"class {i}" for i in range(50)])
    few, more = sample(whole, 10, seed=1), sample(whole, 30, seed=1)
    assert torch.equal(few.labels, more.labels[:10])
    assert len(set(more.labels.tolist())) == 30
    assert torch.equal(more.images[:, 0, 0, 0].long(), more.labels)
    assert len(sample(whole, 99, seed=1)) == 50


def test_reports_hold_json_only() -> None:
    found = plain({"share": Proportion(1, 2), "none": math.inf, "third": 1 / 3, "rows": (1, math.nan)})
    interval = [0.0945312, 0.905469]
    share = {"value": 0.5, "interval": interval, "hits": 1, "count": 2}
    assert found == {"share": share, "none": None, "third": 0.333333, "rows": [1, None]}
