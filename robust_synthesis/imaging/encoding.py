"""Pictures to the outside: arrays to images, images to bytes, files and animations."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InvalidInput
from ..files import atomic_write
from .decoding import Source, decode, file_bytes, header, read, to_uint8
from .png import png

_FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_ANIMATED = {".gif": "GIF", ".webp": "WEBP"}
_SMALL = 512**2
"""Pixels of a PNG for which speed counts more than bytes."""


def to_image(array: NDArray[Any], *, field: str = "image") -> Image.Image:
    """[3, H, W] floats -> RGB image, to the nearest level; values outside [0, 1] are clipped, NaN is refused."""
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[0] != 3 or not array.size:
        raise InvalidInput(field, f"is an array of shape {array.shape}; give 3 x height x width.")
    if not np.isfinite(array).all():
        raise InvalidInput(field, "contains NaN or infinite values; use finite ones.")
    return Image.fromarray(np.ascontiguousarray(to_uint8(array.clip(0, 1)).transpose(1, 2, 0)))


def encode(image: Image.Image, format: str = "png", quality: int = 90) -> bytes:
    """The image as a png, jpeg or webp file; `quality` (1 to 100) is for the latter two.

    JPEG keeps colour at full resolution, since at 64 pixels halving it shows.
    """
    name = _FORMATS.get(format.lower())
    if name is None:
        raise InvalidInput("format", f"{format!r} is unknown; use {', '.join(_FORMATS)}.")
    if not 1 <= quality <= 100:
        raise InvalidInput("quality", f"is {quality}; use 1 to 100.")
    if image.mode not in (("L", "RGB") if name == "JPEG" else ("L", "RGB", "RGBA")):
        image = decode(image)
    if name == "PNG" and image.mode == "RGB" and image.width * image.height <= _SMALL:
        return png(np.asarray(image))
    options = {
        "PNG": {"compress_type": zlib.Z_RLE},  # photographs: no larger than by default, in a quarter of the time
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality},
    }
    return _file(image, name, **options[name])


def to_file(source: Source, *, field: str = "image") -> bytes:
    """A picture as a file that can be sent: files are left as they are, images and arrays become PNG, without loss.

    Raises InvalidInput as `decode` does, but for damage that the header does not show.
    """
    if isinstance(source, (Image.Image, np.ndarray)):
        source = encode(read(source, field=field))
    data = file_bytes(source, field)
    header(data, field=field)
    return data


def save(picture: Image.Image, path: str | Path, *, quality: int = 90) -> None:
    """Write an image, whole or not at all, in the format that the suffix names."""
    path = Path(path)
    format = _SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise _unknown_suffix(path, _SUFFIXES)
    _write(encode(picture, format, quality), path)


def animation(
    frames: Iterable[Image.Image],
    path: str | Path,
    seconds_per_frame: float = 0.1,
    *,
    last_frame: float = 1.5,
    at_least: int = 256,
) -> None:
    """Write a looping .gif or .webp, whole or not at all, as `animated` makes it."""
    path = Path(path)
    name = _ANIMATED.get(path.suffix.lower())
    if name is None:
        raise _unknown_suffix(path, _ANIMATED)
    _write(animated(frames, name, seconds_per_frame, last_frame=last_frame, at_least=at_least), path)


def animated(
    frames: Iterable[Image.Image],
    format: str,
    seconds_per_frame: float = 0.1,
    *,
    last_frame: float = 1.5,
    at_least: int = 256,
) -> bytes:
    """A looping gif or webp file, with frames enlarged to `at_least` pixels.

    The last frame stays for `last_frame` seconds. GIF counts time in hundredths of a second.
    """
    name = _ANIMATED.get(f".{format.lower()}")
    if name is None:
        raise InvalidInput("format", f"{format!r} cannot be animated; use gif or webp.")
    if not 0.02 <= seconds_per_frame <= 60:
        raise InvalidInput("seconds_per_frame", f"is {seconds_per_frame:g}; use 0.02 (which browsers can show) to 60.")
    if not 0 <= last_frame <= 60:
        raise InvalidInput("last_frame", f"is {last_frame:g}; use 0 to 60 seconds.")
    pictures = [enlarge(frame if frame.mode == "RGB" else decode(frame), at_least) for frame in frames]
    if not pictures:
        raise InvalidInput("frames", "is empty; give at least one image.")
    if len({picture.size for picture in pictures}) > 1:
        raise InvalidInput("frames", "differ in size; give images of one size.")
    each, last = round(seconds_per_frame * 100) * 10, round(max(last_frame, seconds_per_frame) * 100) * 10
    durations = [each] * (len(pictures) - 1) + [last]
    options = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0, "quality": 90}
    return _file(pictures[0], name, **options)


def check_suffix(path: str | Path, *, animated: bool = False, field: str = "out") -> None:
    """Raise InvalidInput unless `save` (or `animation`) can write a file of this name; before a long job, not after it."""
    suffixes: Iterable[str] = _ANIMATED if animated else _SUFFIXES
    if Path(path).suffix.lower() not in suffixes:
        raise InvalidInput(field, f"{str(path)!r} has no suffix that can be written; use {', '.join(suffixes)}.")


def enlarge(image: Image.Image, at_least: int) -> Image.Image:
    """The image with its pixels repeated a whole number of times, so that its longer side has `at_least` pixels."""
    factor = math.ceil(at_least / max(image.size))
    if factor <= 1:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _file(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, name, **options)
    except (OSError, ValueError, RuntimeError) as error:
        size = f"{image.width} x {image.height} pixels"
        raise InvalidInput("format", f"{name} cannot hold {size}; use a smaller image, or PNG.") from error
    return file.getvalue()


def _write(data: bytes, path: Path) -> None:
    try:
        with atomic_write(path) as file:
            file.write(data)
    except (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInput("out", f"cannot write {str(path)!r} ({error.strerror}); choose another path.") from error


def _unknown_suffix(path: Path, suffixes: Iterable[str]) -> InvalidInput:
    return InvalidInput("out", f"{path.name!r} does not end in a known suffix; use {', '.join(suffixes)}.")
