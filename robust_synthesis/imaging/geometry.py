"""A photo and its mask to the classifier's square, and an edited square back into the photo."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from PIL.Image import Resampling

from ..errors import InvalidInput
from .decoding import Source, decode, read, to_uint8
from .encoding import to_image

FITS = ("crop", "pad", "stretch")
"""crop: the central square. pad: everything, with margins. stretch: everything, its proportions lost."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; pixels."""


class Frame(NamedTuple):
    """The box of the photo that is seen, and the box of the square that it fills."""

    seen: Box
    filled: Box

    @classmethod
    def of(cls, image_size: tuple[int, int], size: int, fit: str) -> Frame:
        width, height = image_size
        if fit == "stretch":
            return cls((0, 0, width, height), (0, 0, size, size))
        if fit == "crop":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            return cls((left, top, left + side, top + side), (0, 0, size, size))
        if fit == "pad":
            w, h = (max(1, round(side * size / max(image_size))) for side in image_size)
            left, top = (size - w) // 2, (size - h) // 2
            return cls((0, 0, width, height), (left, top, left + w, top + h))
        raise InvalidInput("fit", f"is {fit!r}; use {', '.join(FITS)}.")


def to_square(image: Image.Image, size: int, fit: str = "crop") -> NDArray[np.float32]:
    """A decoded image -> [3, size, size] in [0, 1], whole multiples of 1/255: `squared` as an array."""
    square: NDArray[np.float32]
    square = np.divide(np.asarray(squared(image, size, fit)).transpose(2, 0, 1), 255, dtype=np.float32, order="C")
    return square


def squared(image: Image.Image, size: int, fit: str = "crop") -> Image.Image:
    """A decoded image as an RGB image of `size` x `size` pixels.

    An image of exactly that size comes back bit for bit. The margins of `pad` have the mean colour of its edge.
    """
    frame = Frame.of(image.size, size, fit)
    rgb = image if image.mode == "RGB" else decode(image)
    seen = rgb.resize(_extent(frame.filled), Resampling.LANCZOS, box=frame.seen, reducing_gap=3.0)
    if seen.size == (size, size):
        return seen
    content = np.asarray(seen)
    edge = np.concatenate([content[0], content[-1], content[:, 0], content[:, -1]])
    square = np.empty((size, size, 3), np.uint8)
    square[:] = np.rint(edge.mean(axis=0))
    square[_slices(frame.filled)] = content
    return Image.fromarray(square)


def drawn_mask(source: Source, image_size: tuple[int, int], size: int, *, field: str = "mask") -> Image.Image:
    """A mask drawn for an image of `image_size` (width, height), in grey; white may be edited, black is kept.

    It has the size of the image, and follows its geometry, or of the square itself. White may be edited, greys are soft
    edges. Where the transparency varies and all that is painted has one colour, as drawing tools write it, the opacity
    counts instead; other transparent masks are seen on black. Raises InvalidInput where nothing may be edited.
    """
    mask = _strength(read(source, field=field))
    if mask.size not in (image_size, (size, size)):
        sizes = f"{mask.width} x {mask.height} pixels but the image is {image_size[0]} x {image_size[1]}"
        raise InvalidInput(field, f"is {sizes}; draw the mask at the size of the image.")
    if not mask.getbbox():
        raise InvalidInput(field, "is empty (all black), so nothing may be edited; paint the part to edit white.")
    return mask


def drawn_rectangle(
    box: str | tuple[int, int, int, int], image_size: tuple[int, int], *, field: str = "box"
) -> Image.Image:
    """The mask of the rectangle "x,y,width,height", in pixels of the upright image.

    x and y are its upper left corner. Raises InvalidInput where it is empty, or sticks out of the image.
    """
    x, y, width, height = box_numbers(box, field=field)
    right, bottom = x + width, y + height
    if not (0 <= x < right <= image_size[0] and 0 <= y < bottom <= image_size[1]):
        whole = f"the image of {image_size[0]} x {image_size[1]}"
        raise InvalidInput(field, f"{x},{y},{width},{height} is no part of {whole}; keep it inside, at least 1 x 1.")
    mask = Image.new("L", image_size)
    mask.paste(255, (x, y, right, bottom))
    return mask


def box_numbers(box: str | tuple[int, int, int, int], *, field: str = "box") -> tuple[int, int, int, int]:
    """x, y, width and height of "x,y,width,height". Raises InvalidInput."""
    if not isinstance(box, str):
        return box
    if not re.fullmatch(r"\s*-?\d{1,9}\s*(,\s*-?\d{1,9}\s*){3}", box):
        raise InvalidInput(field, f"is {box!r}; give x,y,width,height in pixels, such as 20,20,24,24.")
    x, y, width, height = (int(number) for number in box.split(","))
    return x, y, width, height


def mask_square(
    mask: Image.Image, image_size: tuple[int, int], size: int, fit: str = "crop", *, field: str = "mask"
) -> NDArray[np.float32]:
    """A grey mask of the image's or the square's size -> [1, size, size]; 1 may be edited, 0 is kept.

    Each value is the area covered, so that pixels cut by an edge are grey.
    """
    frame = Frame.of(image_size, size, fit)
    box = frame.seen if mask.size == image_size else frame.filled
    square = np.zeros((1, size, size), np.float32)
    covered = mask.resize(_extent(frame.filled), Resampling.BOX, box=box)
    square[0][_slices(frame.filled)] = np.asarray(covered, np.float32) / 255
    if not square.any():
        kept = f"fit {fit!r} keeps at {size} x {size} pixels"
        raise InvalidInput(field, f"has nothing to edit in what {kept}; mark a larger part, or use fit 'pad'.")
    return square


def paste_back(
    photo: Image.Image,
    result: NDArray[Any],
    mask: NDArray[Any] | None = None,
    fit: str = "crop",
    *,
    drawn: Image.Image | None = None,
) -> Image.Image:
    """The decoded photo, at its own resolution, with an edited square [3, s, s] put back where it came from.

    With a mask [1, s, s], only pixels of the photo inside the mask change: at its border the edit fades in over half
    a pixel of the square, inwards. Without one, all that the square saw is replaced. Nothing changes where a mask that
    was `drawn` at the photo's size is black, though a pixel of the square may reach over its edge.
    """
    size = np.shape(result)[-1]
    if np.shape(result) != (3, size, size):
        raise InvalidInput("result", f"is an array of shape {np.shape(result)}; give 3 x s x s.")
    if mask is not None and np.shape(mask) != (1, size, size):
        raise InvalidInput("mask", f"is an array of shape {np.shape(mask)}; give 1 x {size} x {size}.")
    frame = Frame.of(photo.size, size, fit)
    extent = _extent(frame.seen)
    edited = to_image(result, field="result").crop(frame.filled).resize(extent, Resampling.BICUBIC)
    out = photo.copy() if photo.mode == "RGB" else decode(photo)
    out.paste(edited, frame.seen, None if mask is None else _fade(mask, frame, extent))
    if drawn is not None and drawn.size == photo.size:
        out.paste(photo.convert("RGB"), None, drawn.point(lambda value: 255 * (value == 0)))
    return out


def _fade(mask: NDArray[Any], frame: Frame, extent: tuple[int, int]) -> Image.Image:
    """The part of the mask that fills `frame`, enlarged to `extent` without reaching beyond its own pixels."""
    strength = Image.fromarray(to_uint8(np.asarray(mask)[0].clip(0, 1))).crop(frame.filled)
    inside = strength.point(lambda value: 255 * (value > 0))
    fading = inside.resize(extent, Resampling.BILINEAR).point(lambda value: max(0, 2 * value - 255))
    parts = (strength.resize(extent, Resampling.BILINEAR), fading, inside.resize(extent, Resampling.NEAREST))
    return ImageChops.multiply(ImageChops.multiply(parts[0], parts[1]), parts[2])


def _strength(mask: Image.Image) -> Image.Image:
    """Grey image of how far each pixel may be edited, from an RGB or RGBA mask."""
    if mask.mode == "RGB":
        return mask.convert("L")
    alpha = mask.getchannel("A")
    opacity = np.asarray(alpha)
    least, most = int(opacity.min()), int(opacity.max())
    # Thin paint has rounded colours, so only what is at least half as opaque as the thickest is compared.
    thick = np.asarray(mask)[opacity >= most / 2][:, :3]
    if least != most and np.ptp(thick, axis=0).max() <= 8:
        return alpha
    return ImageChops.multiply(mask.convert("L"), alpha)


def _extent(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box[1], box[3]), slice(box[0], box[2])
