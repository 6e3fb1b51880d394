"""Where generation starts: samples follow the class's Gaussian, and the same request gives the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.engine.problem import LEVELS, quantise
from robust_synthesis.engine.seeds import NOISE_SPREAD, RIDGE, Seeds, noise
from robust_synthesis.errors import InvalidInput, ModelError
from robust_synthesis.model_folder import SEEDS, WEIGHTS, ModelFolder, write_card
from robust_synthesis.testing import tiny_card, tiny_classifier, tiny_model_folder

SIDE, DIMENSION = 4, 48


def data(count: int = 300) -> Tensor:
    """Pictures of one class around grey, of 4 x 4 pixels, whose strongest direction has 30 times the weakest's spread."""
    random = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=random))[0]
    spread = torch.logspace(0, -1.5, DIMENSION) * 0.1
    centre = 0.5 + 0.05 * torch.randn(DIMENSION, generator=random)
    rows = centre + (torch.randn(count, DIMENSION, generator=random) * spread) @ axes
    return torch.reshape(rows, (count, 3, SIDE, SIDE))


def drawn(seeds: Seeds, count: int = 3000) -> Tensor:
    return torch.stack([seeds.sample(0, SIDE, 1, index).flatten() for index in range(count)])


@pytest.mark.parametrize("rank", [DIMENSION, 8], ids=["whole", "truncated"])
def test_samples_have_the_mean_and_covariance_of_the_class(rank: int) -> None:
    images = data()
    rows = images.flatten(1)
    covariance = torch.cov(rows.T, correction=0)
    seeds = Seeds.fit(images, torch.zeros(len(images)), 1, side=SIDE, rank=rank)
    samples = drawn(seeds)
    found = torch.cov(samples.T)
    factor = torch.from_numpy(seeds.factor[0])
    expected = factor.T @ factor + float(seeds.spread[0]) ** 2 * torch.eye(DIMENSION)
    assert float((samples.mean(0) - rows.mean(0)).abs().max()) < 0.01
    assert float((found - expected).norm() / expected.norm()) < 0.1
    assert float((expected - covariance).norm() / covariance.norm()) < (0.1 if rank == DIMENSION else 0.3)
    assert float(found.trace()) == pytest.approx(float(covariance.trace()) + DIMENSION * RIDGE, rel=0.03)
    strongest = torch.linalg.eigh(covariance)[1][:, -1]
    assert float(strongest @ found @ strongest) == pytest.approx(float(strongest @ covariance @ strongest), rel=0.1)


def test_with_fewer_pictures_than_the_rank_the_ridge_fills_the_rest() -> None:
    images = data(count=5)
    seeds = Seeds.fit(images, torch.zeros(5), 1, side=SIDE, rank=8)
    assert seeds.factor.shape == (1, 8, DIMENSION)
    assert float(np.abs(seeds.factor[0, 5:]).max()) == 0
    assert float(seeds.spread[0]) == pytest.approx(RIDGE**0.5, rel=1e-3)


def test_fitting_averages_blocks_of_larger_pictures() -> None:
    images = data().repeat_interleave(2, 2).repeat_interleave(2, 3)
    large, small = (Seeds.fit(i, torch.zeros(300), 1, side=SIDE, rank=4) for i in (images, data()))
    assert float(np.abs(large.mean - small.mean).max()) < 1e-6


def test_each_class_has_its_own_gaussian() -> None:
    images, labels = torch.cat([0.5 * data(), 0.5 + 0.5 * data()]), torch.arange(2).repeat_interleave(300)
    seeds = Seeds.fit(images, labels, 2, side=SIDE, rank=4)
    means = [torch.stack([seeds.sample(t, SIDE, 0, i) for i in range(50)]).mean() for t in range(2)]
    assert float(means[0]) == pytest.approx(0.25, abs=0.03)
    assert float(means[1]) == pytest.approx(0.75, abs=0.03)


def test_a_class_with_a_single_picture_is_refused() -> None:
    with pytest.raises(InvalidInput, match="class 1 has 1 images") as error:
        Seeds.fit(data(5), torch.tensor([0, 0, 0, 0, 1]), 2, side=SIDE)
    assert error.value.field == "data"


def test_a_seed_and_index_give_the_same_bits_and_any_other_gives_another_picture() -> None:
    seeds = tiny_classifier().seeds
    assert seeds is not None
    first = seeds.sample(1, 16, 7, 2)
    assert torch.equal(seeds.sample(1, 16, 7, 2), first)
    assert torch.equal(noise(16, 7, 2), noise(16, 7, 2))
    for other in (seeds.sample(1, 16, 8, 2), seeds.sample(1, 16, 7, 3), seeds.sample(1, 16, 2, 7), noise(16, 7, 2)):
        assert float((other - first).abs().mean()) > 0.02


def test_the_largest_seed_is_a_seed() -> None:
    assert not torch.equal(noise(8, 2**63 - 1), noise(8, 2**63 - 2))


@pytest.mark.parametrize("size", [16, 32, 40])
def test_a_sample_is_enlarged_bilinearly_onto_the_grid(size: int) -> None:
    seeds = tiny_classifier().seeds
    assert seeds is not None
    small, large = seeds.sample(0, seeds.side, 3), seeds.sample(0, size, 3)
    expected = F.interpolate(small[None], size, mode="bilinear", align_corners=False)[0]
    assert float((large - expected).abs().max()) < 1e-4
    assert torch.equal(quantise(large), large)
    assert 0 <= float(large.min()) <= float(large.max()) <= 1


def test_noise_is_grey_on_average_and_the_same_for_every_class() -> None:
    sample = noise(64, 0)
    assert sample.shape == (3, 64, 64)
    assert float(sample.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(sample.std()) == pytest.approx(NOISE_SPREAD, rel=0.02)
    assert torch.equal((sample * LEVELS).round() / LEVELS, sample)


def test_saved_seeds_give_nearly_the_same_pictures(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    kept, loaded = tiny_classifier().seeds, Seeds.load(folder, 4)
    assert kept is not None
    assert loaded is not None
    assert float(np.abs(loaded.mean - kept.mean).max()) < 2**-11
    assert np.array_equal(loaded.spread, kept.spread)
    step = np.abs(kept.factor).max(axis=2, keepdims=True) / 127
    assert float((np.abs(loaded.factor - kept.factor) / np.maximum(step, 1e-9)).max()) < 0.51
    for index in range(8):
        assert float((loaded.sample(2, 16, 1, index) - kept.sample(2, 16, 1, index)).abs().max()) < 0.01


def test_a_folder_without_seeds_has_none(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    (folder.path / SEEDS).unlink()
    assert Seeds.load(write_card(folder.path, tiny_card()), 4) is None


def with_seeds(path: Path, content: bytes) -> ModelFolder:
    folder = tiny_model_folder(path)
    (folder.path / SEEDS).write_bytes(content)
    return write_card(folder.path, tiny_card())


def test_seeds_that_do_not_fit_the_card_are_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    with pytest.raises(ModelError, match="not those of 3 classes"):
        Seeds.load(folder, 3)
    for content in (b"", b"not safetensors", (folder.path / WEIGHTS).read_bytes()):
        with pytest.raises(ModelError, match="does not hold class seeds"):
            Seeds.load(with_seeds(tmp_path / "broken", content), 4)


@pytest.mark.parametrize(
    ("mean", "factor"),
    [((4,), (4, 2, 48)), ((4, 48), (4, 2, 12)), ((4, 48), (3, 2, 48)), ((4, 47), (4, 2, 47)), ((4, 48), (4, 48, 1))],
)
def test_seeds_of_inconsistent_shapes_are_refused(
    tmp_path: Path, mean: tuple[int, ...], factor: tuple[int, ...]
) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    seeds = Seeds(np.zeros(mean, np.float32), np.zeros(factor, np.float32), np.zeros(4, np.float32))
    seeds.save(folder.path / SEEDS)
    with pytest.raises(ModelError, match=r"seeds\.safetensors"):
        Seeds.load(write_card(folder.path, tiny_card()), 4)
