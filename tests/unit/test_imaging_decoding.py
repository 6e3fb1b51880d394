"""Any picture becomes the RGB pixels a person would see; anything else is refused, cheaply, in one sentence."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from robust_synthesis import imaging
from robust_synthesis.errors import InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ORIENTATION = 274


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(source: imaging.Source) -> list[Any]:
    """Decoded pixels, row by row, as lists of [red, green, blue]."""
    image = imaging.decode(source)
    assert image.mode == "RGB"
    rows: list[Any] = np.asarray(image).tolist()
    return rows


def grey(*levels: int) -> list[Any]:
    return [[[level] * 3 for level in levels]]


def noise(width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body


def tiff(**tags: int) -> bytes:
    """One grey 1 x 1 pixel, with LZW compression, and the tags given by number as t<number>."""
    entries = {256: 1, 257: 1, 258: 8, 259: 5, 262: 1, 277: 1} | {int(name[1:]): tag for name, tag in tags.items()}
    fields = b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_decode_to_the_same_pixels(format: str) -> None:
    image = noise()
    assert np.array_equal(np.asarray(imaging.decode(encoded(image, format))), np.asarray(image))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_decode_to_nearly_the_same_pixels(format: str) -> None:
    decoded = imaging.decode(encoded(Image.new("RGB", (16, 16), (200, 60, 30)), format))
    assert np.abs(np.asarray(decoded).astype(int) - (200, 60, 30)).max() <= 4


def test_bytes_path_open_file_image_and_array_are_the_same_picture(tmp_path: Path) -> None:
    image = noise()
    data = encoded(image)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = np.asarray(image)
    sources: list[imaging.Source] = [data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data)]
    for source in [*sources, image, expected, expected.astype(np.float32) / 255, expected / 255]:
        assert np.array_equal(np.asarray(imaging.decode(source)), expected)


def test_the_caller_s_image_is_left_alone() -> None:
    image = Image.open(io.BytesIO(encoded(noise(), exif=exif(6))))
    imaging.decode(image).paste(0, (0, 0, 4, 4))
    assert image.size == (32, 24)
    assert np.array_equal(np.asarray(image), np.asarray(noise()))


def test_a_single_pixel_works() -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))) == [[[1, 2, 3]]]


@pytest.mark.parametrize("format", FORMATS)
def test_header_tells_format_and_size(format: str) -> None:
    assert imaging.header(encoded(noise(), format)) == (format, 32, 24)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_kind_of_webp_states_its_size(mode: str, options: dict[str, Any]) -> None:
    assert imaging.header(encoded(Image.new(mode, (301, 77), (9, 9, 9)), "WEBP", **options)) == ("WEBP", 301, 77)


# What a person would see


def test_grey_becomes_rgb() -> None:
    assert pixels(encoded(Image.fromarray(np.array([[0, 7, 255]], np.uint8)))) == grey(0, 7, 255)


def test_one_bit_becomes_black_and_white() -> None:
    assert pixels(png(4, 1, 1, 0, b"\0\x50")) == grey(0, 255, 0, 255)


def test_grey_with_alpha_lies_on_white() -> None:
    values = np.array([[[0, 255], [0, 0], [100, 255], [0, 128]]], np.uint8)
    assert pixels(encoded(Image.fromarray(values, "LA"))) == grey(0, 255, 100, 127)


def test_alpha_lies_on_white() -> None:
    values = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 51]]], np.uint8)
    assert pixels(encoded(Image.fromarray(values))) == [[[255, 0, 0], [255, 255, 255], [255, 204, 204]]]
    assert pixels(values) == pixels(encoded(Image.fromarray(values)))


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_palette_with_transparency_lies_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, transparency=transparency)) == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(encoded(image)) == [[[10, 20, 30], [40, 50, 60]]]


def test_cmyk_becomes_rgb() -> None:
    red = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert Image.open(io.BytesIO(red)).mode == "CMYK"
    assert np.abs(np.asarray(imaging.decode(red)).astype(int) - (255, 0, 0)).max() <= 3


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    levels = (0, 256, 1000, 32768, 65535)
    expected = grey(0, 1, 4, 128, 255)
    values = np.array([levels], np.uint16)
    assert pixels(png(5, 1, 16, 0, b"\0" + struct.pack(">5H", *levels))) == expected
    assert pixels(encoded(Image.fromarray(values), "TIFF")) == expected
    assert pixels(Image.fromarray(values)) == expected
    assert pixels(Image.fromarray(values.astype(np.int32))) == expected
    assert pixels(Image.fromarray(values.astype(np.float32))) == expected


def test_sixteen_bits_with_a_transparent_level_lie_on_white() -> None:
    transparent = chunk(b"tRNS", struct.pack(">H", 1000))
    assert pixels(png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 1001), transparent)) == grey(255, 4)


def test_floats_are_scaled_by_the_range_they_are_in() -> None:
    def floats(*values: float) -> Image.Image:
        return Image.fromarray(np.array([values], np.float32))

    assert pixels(encoded(floats(0, 0.5, 1), "TIFF")) == grey(0, 128, 255)
    assert pixels(floats(0, 51, 255)) == grey(0, 51, 255)
    assert pixels(floats(-2, 0, 2)) == grey(0, 128, 255)
    assert pixels(floats(-5, -5)) == grey(0, 0)
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        imaging.decode(floats(0, np.nan))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert pixels(data) == [[[255, 0, 0]] * 8] * 8


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270)])
def test_exif_orientation_is_applied(format: str, orientation: int, turn: Image.Transpose) -> None:
    data = encoded(noise(), format, exif=exif(orientation))
    assert np.array_equal(np.asarray(imaging.decode(data)), np.asarray(noise().transpose(turn)))


def test_a_turned_photo_has_its_sides_swapped() -> None:
    assert imaging.decode(encoded(noise(), "JPEG", exif=exif(6))).size == (24, 32)


def test_damaged_exif_does_not_spoil_the_picture() -> None:
    assert imaging.decode(encoded(noise(), "JPEG", exif=b"Exif\0\0garbage")).size == (32, 24)


def test_no_metadata_is_left() -> None:
    tags = exif(6)
    tags[0x010E] = "taken at home"
    assert imaging.decode(encoded(noise(), "JPEG", exif=tags, icc_profile=b"profile", comment=b"x")).info == {}


# What is refused


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        imaging.decode(source, **options)
    assert caught.value.field == options.get("field", "image")
    return str(caught.value)


def test_empty_bytes_are_refused() -> None:
    assert refused(b"") == "image: is empty (0 bytes); use a PNG, JPEG, WebP, GIF, BMP or TIFF file."


def test_the_message_names_the_caller_s_field() -> None:
    assert refused(b"", field="reference").startswith("reference: ")


@pytest.mark.parametrize("data", [b"hello", b"%PDF-1.7", b"%!PS-Adobe", b"RIFF\0\0\0\0WAVEfmt ", b"\0" * 100])
def test_other_formats_are_refused(data: bytes) -> None:
    assert refused(data) == "image: is not a PNG, JPEG, WebP, GIF, BMP or TIFF file; convert it to one of these."


def test_formats_that_pillow_knows_but_we_do_not_are_refused() -> None:
    assert "convert it" in refused(encoded(noise(), "PPM"))
    assert "convert it" in refused(encoded(noise(), "ICO"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(format: str, kept: float) -> None:
    data = encoded(noise(), format)
    assert "damaged or incomplete" in refused(data[: int(len(data) * kept)])


@pytest.mark.parametrize("format", FORMATS)
def test_corrupt_files_raise_nothing_but_invalid_input(format: str) -> None:
    data = encoded(noise(12, 9), format)
    chance = random.Random(format)
    for _ in range(150):
        corrupt = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            corrupt[chance.randrange(len(corrupt))] = chance.randrange(256)
        with contextlib.suppress(InvalidInput):
            assert imaging.decode(corrupt, max_pixels=10_000).mode == "RGB"


def test_a_huge_image_is_refused_from_its_header() -> None:
    bomb = png(20_000, 20_000, 1, 0, b"")
    expected = "image: is 20000 x 20000 pixels (400.0 megapixels), above the limit of 50 megapixels; "
    began = time.perf_counter()
    tracemalloc.start()
    assert refused(bomb).startswith(expected)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert time.perf_counter() - began < 0.5
    with pytest.raises(InvalidInput, match="above the limit"):
        imaging.header(bomb)


@pytest.mark.parametrize("format", FORMATS)
def test_the_pixel_limit_comes_before_decoding(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(), format)
    assert imaging.decode(data, max_pixels=32 * 24).size == (32, 24)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("was decoded"))
    assert "above the limit" in refused(data, max_pixels=32 * 24 - 1)


def test_a_webp_canvas_is_refused_before_it_is_allocated() -> None:
    data = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 65_535)[:3] * 2
    assert "65536 x 65536" in refused(data)


def test_a_small_tiff_with_a_huge_tile_is_refused() -> None:
    assert "9000 x 9000" in refused(tiff(t322=9000, t323=9000, t324=8, t325=100))


def test_a_gif_frame_larger_than_its_screen_is_refused() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0)
    for side in (8_000, 10_000, 65_535):
        frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\0;"
        assert "pixels" in refused(screen + frame)


def test_images_and_arrays_have_the_pixel_limit_too() -> None:
    assert "above the limit" in refused(noise(), max_pixels=100)
    assert "above the limit" in refused(np.asarray(noise()), max_pixels=100)


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    data = encoded(noise())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path, io.BytesIO(data)):
        assert "is larger than" in refused(source, max_bytes=len(data) - 1)
    assert imaging.decode(data, max_bytes=len(data)).size == (32, 24)
    assert refused(bytes(40 * 2**20)) == "image: is larger than 32 MiB; use a smaller copy."


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "absent.png")
    assert "Is a directory" in refused(tmp_path)
    assert "cannot read" in refused("a\0b")


@pytest.mark.parametrize("source", [None, 5, io.StringIO("text"), Image.new("RGB", (0, 4))])
def test_what_is_no_picture_is_refused(source: Any) -> None:
    assert refused(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2, 3), np.inf), "outside 0 to 1"),
        (np.full((2, 2, 3), 1.01), "outside 0 to 1"),
        (np.full((2, 2, 3), -0.01), "outside 0 to 1"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((3, 9, 9)), "3 x 9 x 9"),
        (np.zeros((2, 2, 2)), "2 x 2 x 2"),
        (np.zeros(()), "height x width"),
        (np.zeros((0, 4)), "no pixels"),
    ],
)
def test_unusable_arrays_are_refused(array: NDArray[Any], message: str) -> None:
    assert message in refused(array)


def test_arrays_of_one_channel_and_of_truth_are_grey() -> None:
    assert pixels(np.array([[0, 0.5, 1]])) == grey(0, 128, 255)
    assert pixels(np.array([[[0], [9]]], np.uint8)) == grey(0, 9)
    assert pixels(np.array([[False, True]])) == grey(0, 255)
