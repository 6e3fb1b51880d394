"""Results leave as whole files of the format that was asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from robust_synthesis import imaging
from robust_synthesis.errors import InvalidInput


def noise(width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Arrays


def test_to_image_takes_the_nearest_level() -> None:
    values = np.array([0, 0.4 / 255, 0.6 / 255, 0.5, 1, -0.5, 1.5], np.float32)
    image = imaging.to_image(np.broadcast_to(values, (3, 1, 7)))
    assert (image.mode, image.size) == ("RGB", (7, 1))
    assert np.asarray(image)[0, :, 1].tolist() == [0, 0, 1, 128, 255, 0, 255]


def test_to_image_keeps_channels_and_axes() -> None:
    array = np.zeros((3, 2, 4))
    array[2, 1, 3] = 1
    assert imaging.to_image(array).getpixel((3, 1)) == (0, 0, 255)


def test_every_level_survives_the_way_through_floats() -> None:
    image = noise(64, 64)
    assert np.array_equal(np.asarray(imaging.to_image(imaging.to_square(image, 64))), np.asarray(image))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (4, 4, 3), (1, 3, 4, 4), (3, 0, 4)])
def test_to_image_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="3 x height x width"):
        imaging.to_image(np.zeros(shape))


def test_to_image_refuses_nan() -> None:
    with pytest.raises(InvalidInput, match="NaN"):
        imaging.to_image(np.full((3, 2, 2), np.nan))


# Bytes


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda sides: (*sides, 3))))
def test_a_small_png_is_what_pillow_reads_of_it(levels: NDArray[np.uint8]) -> None:
    file = imaging.encode(Image.fromarray(levels))
    Image.open(io.BytesIO(file)).verify()  # every checksum
    found = Image.open(io.BytesIO(file))
    assert (found.format, found.mode, found.size) == ("PNG", "RGB", (levels.shape[1], levels.shape[0]))
    assert np.array_equal(np.asarray(found), levels)


def test_a_large_png_is_lossless_too() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (600, 500, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(imaging.encode(Image.fromarray(levels))))), levels)


def test_png_is_lossless() -> None:
    data = imaging.encode(noise())
    assert imaging.header(data) == ("PNG", 32, 24)
    assert np.array_equal(np.asarray(imaging.decode(data)), np.asarray(noise()))


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_sets_the_size_and_keeps_the_picture(format: str) -> None:
    image = noise(8, 8).resize((64, 64), Image.Resampling.BICUBIC)
    best, worst = imaging.encode(image, format, 95), imaging.encode(image, format, 10)
    assert imaging.header(best) == (format.upper(), 64, 64)
    assert len(worst) < len(best) / 2
    error = np.abs(np.asarray(imaging.decode(best)).astype(int) - np.asarray(image))
    assert error.mean() < 4


def test_jpeg_keeps_colour_at_full_resolution() -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    decoded = np.asarray(imaging.decode(imaging.encode(Image.fromarray(stripes), "jpeg", 95)))
    assert np.abs(decoded.astype(int) - stripes).mean() < 8


def test_jpeg_of_a_transparent_image_lies_on_white() -> None:
    data = imaging.encode(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "jpeg")
    assert imaging.decode(data).getpixel((4, 4)) == (255, 255, 255)


def test_png_keeps_transparency() -> None:
    data = imaging.encode(Image.new("RGBA", (2, 2), (9, 8, 7, 6)), "png")
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (9, 8, 7, 6)


def test_unknown_formats_and_qualities_are_refused() -> None:
    with pytest.raises(InvalidInput, match="format: 'heic' is unknown; use png, jpeg, webp"):
        imaging.encode(noise(), "heic")
    with pytest.raises(InvalidInput, match="quality: is 0"):
        imaging.encode(noise(), "jpeg", 0)


def test_an_image_too_long_for_its_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="WEBP cannot hold 20000 x 1 pixels"):
        imaging.encode(Image.new("RGB", (20_000, 1)), "webp")


# Files


@pytest.mark.parametrize(
    ("name", "format"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("new/folder/a.webp", "WEBP")]
)
def test_save_takes_the_format_from_the_suffix(name: str, format: str, tmp_path: Path) -> None:
    imaging.save(noise(), tmp_path / name)
    assert imaging.header(tmp_path / name) == (format, 32, 24)
    assert files((tmp_path / name).parent) == [Path(name).name]


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a", "png"])
def test_save_refuses_unknown_suffixes(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"out: '.*' does not end in a known suffix; use \.png, \.jpg") as caught:
        imaging.save(noise(), tmp_path / name)
    assert caught.value.field == "out"
    assert files(tmp_path) == []


def test_an_encoding_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    imaging.save(noise(), path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput):
        imaging.save(Image.new("RGB", (20_000, 1)), path)
    with pytest.raises(InvalidInput):
        imaging.animation([Image.new("RGB", (20_000, 1))] * 2, path)
    assert files(tmp_path) == ["a.webp"]
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(InvalidInput, match="out: cannot write"):
            imaging.save(noise(), path)
    assert files(tmp_path) == ["file", "folder.png"]


# Animations


def frames(side: int = 64) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_is_large_enough_to_see_and_rests_on_its_last_frame(name: str, tmp_path: Path) -> None:
    imaging.animation(frames(), tmp_path / name, 0.2, last_frame=2)
    with Image.open(tmp_path / name) as shown:
        assert shown.size == (256, 256)
        assert shown.info["loop"] == 0
        found = [frame.convert("RGB") for frame in ImageSequence.Iterator(shown)]
    assert [frame.info["duration"] for frame in found] == [200, 200, 2000]
    error = np.abs(np.array([frame.getpixel((99, 99)) for frame in found]) - [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    assert error.max() <= 4
    assert files(tmp_path) == [name]


def test_the_size_of_an_animation_can_be_chosen(tmp_path: Path) -> None:
    imaging.animation(frames(10), tmp_path / "a.gif", at_least=0)
    assert imaging.header(tmp_path / "a.gif") == ("GIF", 10, 10)


def test_an_animation_of_one_frame_works(tmp_path: Path) -> None:
    imaging.animation(iter(frames()[:1]), tmp_path / "a.gif")
    assert imaging.decode(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_animations_that_cannot_be_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[list[Image.Image], str, float, str]] = [
        ([], "a.gif", 0.1, "frames"),
        ([noise(), noise(8, 8)], "a.gif", 0.1, "frames"),
        (frames(), "a.png", 0.1, "out"),
        (frames(), "a.gif", 0.001, "seconds_per_frame"),
        (frames(), "a.gif", float("nan"), "seconds_per_frame"),
    ]
    for images, name, seconds, field in cases:
        with pytest.raises(InvalidInput) as caught:
            imaging.animation(images, tmp_path / name, seconds)
        assert caught.value.field == field
    assert files(tmp_path) == []


def test_enlarge_repeats_pixels_a_whole_number_of_times() -> None:
    image = noise(3, 2)
    assert np.array_equal(np.asarray(imaging.enlarge(image, 7)), np.asarray(image).repeat(3, 0).repeat(3, 1))
    assert imaging.enlarge(image, 3) is image
    assert imaging.enlarge(noise(64, 64), 256).size == (256, 256)
