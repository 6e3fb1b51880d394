"""Crop, flip and jitter of whole batches: what they may change, and what they owe to the generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robust_synthesis.testing import pictures
from robust_synthesis.training.augment import augment


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pictures(2, size=12)[0]


def test_without_padding_flip_and_jitter_images_stay_as_they_are(images: Tensor) -> None:
    assert torch.equal(augment(images, random(), padding=0, flip=False, jitter=0), images)


def test_shape_and_range_are_kept(images: Tensor) -> None:
    found = augment(images, random(), padding=4, flip=True, jitter=0.9)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_equal_generators_give_equal_images_and_others_do_not(images: Tensor) -> None:
    first, again, other = (augment(images, random(seed), padding=2, flip=True, jitter=0.3) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_random_number_comes_from_elsewhere(images: Tensor) -> None:
    before = torch.random.get_rng_state()
    augment(images, random(), padding=2, flip=True, jitter=0.3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_crop_is_a_shift_with_reflected_edges() -> None:
    ramp = torch.arange(8 * 8).view(1, 1, 8, 8).expand(40, 3, 8, 8) / 64
    padded = torch.nn.functional.pad(ramp[:1], [2] * 4, mode="reflect")[0]
    shifts = {padded[:, i : i + 8, j : j + 8].flatten().numpy().tobytes() for i in range(5) for j in range(5)}
    found = {image.flatten().numpy().tobytes() for image in augment(ramp, random(), padding=2, flip=False, jitter=0)}
    assert found <= shifts
    assert len(found) >= 10


def test_about_half_of_the_images_are_flipped_left_to_right() -> None:
    ramp = torch.linspace(0, 1, 8).expand(400, 3, 8, 8)
    found = augment(ramp, random(), padding=0, flip=True, jitter=0)
    flipped = (found == ramp.flip(3)).flatten(1).all(1)
    assert bool((flipped | (found == ramp).flatten(1).all(1)).all())
    assert 160 <= int(flipped.sum()) <= 240


def test_jitter_scales_a_flat_grey_by_its_brightness_alone() -> None:
    found = augment(torch.full((200, 3, 8, 8), 0.5), random(), padding=0, flip=False, jitter=0.2)
    assert torch.allclose(found, found[:, :1, :1, :1].expand_as(found), atol=1e-6)
    assert 0.4 <= float(found.min()) < 0.41
    assert 0.59 < float(found.max()) <= 0.6 + 1e-6


def test_jitter_changes_saturation_around_the_grey_of_each_pixel() -> None:
    colour = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1).expand(200, 3, 8, 8)
    found = augment(colour, random(), padding=0, flip=False, jitter=0.5)
    spread = (found[:, 2] - found[:, 0])[:, 0, 0]
    # Brightness, contrast and saturation multiply the difference of channels, each by 0.5 to 1.5.
    assert float(spread.min()) >= 0.2 * 0.125
    assert float(spread.max()) <= 0.2 * 3.375
    assert float(spread.std()) > 0.05


def test_noise_has_another_deviation_up_to_the_largest_for_each_image() -> None:
    found = augment(torch.full((300, 3, 8, 8), 0.5), random(), padding=0, flip=False, jitter=0, noise=0.2)
    deviations = found.flatten(1).std(1)
    assert float(deviations.min()) < 0.02
    assert 0.17 < float(deviations.max()) < 0.24
    assert abs(float(deviations.mean()) - 0.1) < 0.02
    assert abs(float(found.mean()) - 0.5) < 0.01
