"""One geometry for photo, mask and the way back; outside the mask a photo keeps every bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from robust_synthesis import imaging
from robust_synthesis.errors import InvalidInput

Floats = NDArray[np.float32]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def thirds(width: int = 90, height: int = 30) -> Image.Image:
    """Red, green and blue, side by side."""
    image = Image.new("RGB", (width, height), "red")
    image.paste((0, 255, 0), (width // 3, 0, 2 * width // 3, height))
    image.paste((0, 0, 255), (2 * width // 3, 0, width, height))
    return image


def plain(red: float, green: float, blue: float, size: int) -> Floats:
    """[3, size, size] of one colour."""
    return np.broadcast_to(np.array([red, green, blue], np.float32)[:, None, None], (3, size, size))


def painted(size: tuple[int, int], *boxes: tuple[int, int, int, int], level: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    for box in boxes:
        mask.paste(level, box)
    return mask


def mask_of(source: imaging.Source, image_size: tuple[int, int], size: int, fit: str = "crop") -> Floats:
    """What may be edited of a square of an image, by a mask drawn for the image."""
    return imaging.mask_square(imaging.drawn_mask(source, image_size, size), image_size, size, fit)


def box_of(box: str | tuple[int, int, int, int], image_size: tuple[int, int], size: int, fit: str = "crop") -> Floats:
    """The same, by a rectangle."""
    return imaging.mask_square(imaging.drawn_rectangle(box, image_size), image_size, size, fit, field="box")


def refused(field: str, call: object, *arguments: object, **options: object) -> str:
    assert callable(call)
    with pytest.raises(InvalidInput) as caught:
        call(*arguments, **options)
    assert caught.value.field == field
    return str(caught.value)


# Photo to square


@pytest.mark.parametrize("fit", imaging.FITS)
def test_an_image_of_the_right_size_is_returned_bit_for_bit(fit: str) -> None:
    image = noise(32, 32)
    square = imaging.to_square(image, 32, fit)
    assert square.shape == (3, 32, 32)
    assert square.dtype == np.float32
    assert square.flags["C_CONTIGUOUS"]
    assert np.array_equal(square, np.asarray(image).transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_crop_keeps_the_centre_without_resampling_where_it_fits() -> None:
    wide, tall = noise(50, 32), noise(32, 51)
    assert np.array_equal(imaging.to_square(wide, 32), imaging.to_square(wide.crop((9, 0, 41, 32)), 32))
    assert np.array_equal(imaging.to_square(tall, 32), imaging.to_square(tall.crop((0, 9, 32, 41)), 32))


def test_crop_shows_the_middle_third_only() -> None:
    square = imaging.to_square(thirds().crop((3, 0, 87, 30)), 8, "crop")
    assert np.abs(square[:, :, 1:-1] - np.array([0, 1, 0])[:, None, None]).max() < 0.01


def test_stretch_shows_all_of_it() -> None:
    square = imaging.to_square(thirds(), 90, "stretch")
    assert square[:, 45, [15, 45, 75]].T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_pad_shows_all_of_it_between_margins_of_the_edge_s_mean() -> None:
    square = imaging.to_square(Image.new("RGB", (60, 30), (255, 51, 0)), 20, "pad")
    assert np.array_equal(square, plain(1, 0.2, 0, 20))
    striped = imaging.to_square(thirds(), 30, "pad")
    assert striped[:, 15, [5, 15, 25]].T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    margin = striped[:, :9]
    assert np.array_equal(margin, np.broadcast_to(margin[:, :1, :1], margin.shape))
    assert np.abs(margin[:, 0, 0] - [30 / 80, 20 / 80, 30 / 80]).max() < 0.01  # of 80 pixels at the edge


def test_shrinking_averages_instead_of_picking() -> None:
    checkers = np.indices((512, 512)).sum(0) % 2 * np.uint8(255)
    square = imaging.to_square(Image.fromarray(np.stack([checkers.astype(np.uint8)] * 3, 2)), 32)
    assert np.abs(square - 0.5).max() < 0.02


@pytest.mark.parametrize("fit", imaging.FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5), (33, 64)])
def test_any_proportions_work(size: tuple[int, int], fit: str) -> None:
    square = imaging.to_square(Image.new("RGB", size, (255, 0, 51)), 16, fit)
    assert np.array_equal(square, plain(1, 0, 0.2, 16))


def test_an_unknown_fit_is_refused() -> None:
    assert refused("fit", imaging.to_square, noise(4, 4), 4, "cover") == "fit: is 'cover'; use crop, pad, stretch."


# Masks


def test_a_mask_of_the_photo_s_size_follows_the_photo_s_geometry() -> None:
    mask = painted((60, 30), (15, 0, 30, 30))
    left_half = np.zeros((1, 30, 30), np.float32)
    left_half[:, :, :15] = 1
    assert np.array_equal(mask_of(mask, (60, 30), 30, "crop"), left_half)
    padded = np.zeros((1, 30, 30), np.float32)
    padded[:, 7:22, 7:15] = 1
    padded[:, 7:22, 7] = 0.5
    assert np.abs(mask_of(mask, (60, 30), 30, "pad") - padded).max() <= 1 / 255
    stretched = np.zeros((1, 30, 30), np.float32)
    stretched[:, :, 7:15] = 1
    stretched[:, :, 7] = 0.5
    assert np.abs(mask_of(mask, (60, 30), 30, "stretch") - stretched).max() <= 1 / 255


def test_a_mask_of_the_square_s_size_is_taken_as_it_is() -> None:
    mask = painted((32, 32), (4, 5, 10, 12))
    for photo in ((32, 32), (640, 480)):
        square = mask_of(mask, photo, 32)
        assert square.shape == (1, 32, 32)
        assert square.dtype == np.float32
        assert np.array_equal(square[0], np.asarray(mask) / np.float32(255))


def test_the_margins_of_a_padded_photo_are_never_edited() -> None:
    everywhere = Image.new("L", (32, 32), 255)
    square = mask_of(everywhere, (64, 32), 32, "pad")
    assert square[0, :, 0].tolist() == [0] * 8 + [1] * 16 + [0] * 8


def test_grey_is_a_soft_edge() -> None:
    levels = np.array([[0, 51], [128, 255]], np.uint8)
    assert mask_of(levels, (2, 2), 2)[0].tolist() == (levels / np.float32(255)).tolist()


def test_what_is_covered_in_part_is_grey() -> None:
    assert mask_of(painted((4, 4), (0, 0, 1, 4)), (4, 4), 2)[0].tolist() == [[np.float32(128 / 255), 0]] * 2


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (230, 20, 60)])
def test_strokes_of_one_colour_on_a_transparent_layer_count_by_their_opacity(colour: tuple[int, int, int]) -> None:
    layer = Image.new("RGBA", (4, 1))
    layer.putpixel((1, 0), (*colour, 128))
    layer.putpixel((2, 0), (*colour, 255))
    layer.putpixel((3, 0), (255, 170, 85, 3))  # thin paint comes out of a canvas with rounded colours
    expected = np.array([[[0, 128, 255, 3]]], np.float32) / 255
    assert np.array_equal(mask_of(encoded(layer), (4, 1), 4, "stretch")[:, :1], expected)


def test_a_transparent_mask_of_several_colours_is_seen_on_black() -> None:
    layer = Image.new("RGBA", (3, 1))
    layer.putpixel((1, 0), (0, 0, 0, 255))
    layer.putpixel((2, 0), (255, 255, 255, 255))
    assert mask_of(encoded(layer), (3, 1), 3, "stretch")[0, 0].tolist() == [0, 0, 1]


def test_an_opaque_mask_with_an_alpha_channel_counts_by_its_grey() -> None:
    assert np.array_equal(
        mask_of(painted((8, 8), (2, 2, 5, 5)).convert("RGBA"), (8, 8), 8),
        mask_of(painted((8, 8), (2, 2, 5, 5)), (8, 8), 8),
    )


def test_one_bit_sixteen_bit_and_truth_masks_work() -> None:
    mask = painted((8, 8), (2, 2, 5, 5))
    expected = mask_of(mask, (8, 8), 8)
    truth = np.asarray(mask) > 0
    for other in (mask.convert("1"), Image.fromarray(truth.astype(np.uint16) * 65535), truth, truth.astype(float)):
        assert np.array_equal(mask_of(other, (8, 8), 8), expected)


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    message = refused("mask", mask_of, painted((30, 60), (0, 0, 9, 9)), (60, 30), 32)
    assert message == "mask: is 30 x 60 pixels but the image is 60 x 30; draw the mask at the size of the image."


def test_an_empty_mask_is_refused() -> None:
    expected = "mask: is empty (all black), so nothing may be edited; paint the part to edit white."
    assert refused("mask", mask_of, painted((8, 8)), (8, 8), 8) == expected
    assert refused("mask", mask_of, Image.new("RGBA", (8, 8)), (8, 8), 8) == expected
    assert refused("mask", mask_of, Image.new("RGBA", (8, 8), "white").convert("P"), (4, 4), 4)


def test_a_mask_that_the_geometry_cuts_away_is_refused() -> None:
    mask = painted((60, 30), (0, 0, 10, 30))
    assert "fit 'crop' keeps at 30 x 30 pixels" in refused("mask", mask_of, mask, (60, 30), 30)
    assert mask_of(mask, (60, 30), 30, "pad").any()


def test_a_damaged_mask_names_the_mask() -> None:
    assert refused("mask", mask_of, b"\x89PNG\r\n\x1a\n", (8, 8), 8).startswith("mask: is damaged")


# Rectangles


@pytest.mark.parametrize("box", ["4,5,6,7", " 4, 5 ,6,7 ", (4, 5, 6, 7)])
def test_a_rectangle_is_given_by_corner_and_extent(box: str | tuple[int, int, int, int]) -> None:
    expected = np.zeros((1, 32, 32), np.float32)
    expected[0, 5:12, 4:10] = 1
    assert np.array_equal(box_of(box, (32, 32), 32), expected)


def test_a_rectangle_is_in_pixels_of_the_photo_and_follows_its_geometry() -> None:
    mask = painted((64, 32), (20, 8, 40, 24))
    for fit in imaging.FITS:
        expected = mask_of(mask, (64, 32), 16, fit)
        assert np.array_equal(box_of("20,8,20,16", (64, 32), 16, fit), expected)


def test_a_rectangle_may_reach_the_border() -> None:
    assert box_of("6,7,2,1", (8, 8), 8).sum() == 2
    assert box_of("0,0,8,8", (8, 8), 8).sum() == 64


@pytest.mark.parametrize("box", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4"])
def test_what_is_no_rectangle_is_refused(box: str) -> None:
    assert refused("box", box_of, box, (8, 8), 8)


@pytest.mark.parametrize("box", ["8,0,4,4", "0,0,0,4", "-9,0,4,4", "-1,0,4,4", "5,0,4,4", "0,5,4,4"])
def test_a_rectangle_that_is_empty_or_leaves_the_image_is_refused(box: str) -> None:
    assert refused("box", box_of, box, (8, 8), 8)


# Back into the photo


@pytest.mark.parametrize("fit", imaging.FITS)
@pytest.mark.parametrize(("width", "height"), [(200, 150), (150, 200), (97, 203), (20, 17), (64, 64)])
def test_outside_the_mask_every_bit_of_the_photo_stays(width: int, height: int, fit: str) -> None:
    photo = noise(width, height)
    box = (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
    mask = box_of((box[0], box[1], box[2] - box[0], box[3] - box[1]), photo.size, 64, fit)
    out = np.asarray(imaging.paste_back(photo, np.ones((3, 64, 64)), mask, fit))
    before = np.asarray(photo)
    assert out.shape == before.shape
    reach = -(-max(width, height) // 64)  # a pixel of the square that the mask touches, in pixels of the photo
    outside = np.ones((height, width), bool)
    outside[box[1] - reach : box[3] + reach, box[0] - reach : box[2] + reach] = False
    assert np.array_equal(out[outside], before[outside])
    assert (out[height // 2, width // 2] == 255).all()


@pytest.mark.parametrize("fit", imaging.FITS)
def test_a_hard_mask_on_the_square_s_grid_is_never_left(fit: str) -> None:
    photo = noise(256, 256)
    mask = np.zeros((1, 64, 64), np.float32)
    mask[0, 10:20, 30:50] = 1
    mask[0, 15:40, 30:36] = 1
    out = np.asarray(imaging.paste_back(photo, np.ones((3, 64, 64)), mask, fit))
    outside = mask[0].repeat(4, 0).repeat(4, 1) == 0
    assert np.array_equal(out[outside], np.asarray(photo)[outside])
    deep = np.zeros((256, 256), bool)
    deep[42:78, 122:142] = True
    assert (out[deep] == 255).all()


def test_the_edit_fades_in_from_the_border_of_the_mask() -> None:
    photo = Image.new("RGB", (256, 256))
    mask = np.zeros((1, 32, 32), np.float32)
    mask[0, :, 16:] = 1
    row = np.asarray(imaging.paste_back(photo, np.ones((3, 32, 32)), mask))[128, :, 0].astype(int)
    assert not row[:128].any()
    assert (np.diff(row[127:134]) > 0).sum() >= 4
    assert (row[133:] == 255).all()


def test_a_mask_one_pixel_wide_still_edits() -> None:
    mask = np.zeros((1, 32, 32), np.float32)
    mask[0, 16, 16] = 1
    out = np.asarray(imaging.paste_back(Image.new("RGB", (160, 160)), np.ones((3, 32, 32)), mask))
    assert out[82, 82].tolist() == [255, 255, 255]
    assert out.any(axis=2).sum() <= 25


def test_a_grey_mask_blends() -> None:
    out = imaging.paste_back(Image.new("RGB", (90, 90)), np.ones((3, 30, 30)), np.full((1, 30, 30), 0.2))
    assert np.array_equal(np.unique(np.asarray(out)), [51])


def test_at_the_square_s_own_size_the_result_is_used_bit_for_bit() -> None:
    photo, edit = noise(64, 64), noise(64, 64, seed=1)
    mask = box_of("10,12,20,30", (64, 64), 64)
    out = np.asarray(imaging.paste_back(photo, imaging.to_square(edit, 64), mask))
    expected = np.where(mask[0, :, :, None] > 0, np.asarray(edit), np.asarray(photo))
    assert np.array_equal(out, expected)


def test_without_a_mask_all_that_the_square_saw_is_replaced() -> None:
    photo = noise(200, 100)
    cropped = np.asarray(imaging.paste_back(photo, np.ones((3, 16, 16)), None, "crop"))
    assert (cropped[:, 50:150] == 255).all()
    assert np.array_equal(cropped[:, :50], np.asarray(photo)[:, :50])
    assert np.array_equal(cropped[:, 150:], np.asarray(photo)[:, 150:])
    for fit in ("pad", "stretch"):
        assert (np.asarray(imaging.paste_back(photo, np.ones((3, 16, 16)), None, fit)) == 255).all()


@pytest.mark.parametrize("fit", imaging.FITS)
def test_there_and_back_lands_in_the_same_place(fit: str) -> None:
    photo = thirds(192, 96).resize((180, 120))
    out = np.asarray(imaging.paste_back(photo, imaging.to_square(photo, 60, fit), None, fit)).astype(int)
    assert np.abs(out - np.asarray(photo)).mean() < 6


def test_margins_are_not_pasted() -> None:
    result = np.zeros((3, 32, 32))
    result[:, 8:24] = 1
    assert (np.asarray(imaging.paste_back(noise(64, 32), result, None, "pad")) == 255).all()


def test_the_photo_itself_is_left_alone() -> None:
    photo = noise(20, 20)
    imaging.paste_back(photo, np.ones((3, 8, 8)))
    assert np.array_equal(np.asarray(photo), np.asarray(noise(20, 20)))


def test_arrays_of_other_shapes_are_refused() -> None:
    photo = noise(20, 20)
    assert "3 x s x s" in refused("result", imaging.paste_back, photo, np.ones((3, 8, 9)))
    assert "1 x 8 x 8" in refused("mask", imaging.paste_back, photo, np.ones((3, 8, 8)), np.ones((1, 9, 9)))
    assert "NaN" in refused("result", imaging.paste_back, photo, np.full((3, 8, 8), np.nan))
