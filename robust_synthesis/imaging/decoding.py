"""Pictures from outside: any bytes, file, image or array to an RGB image in memory.

What arrives may be hostile. Only the formats below are opened, and bytes and pixels are counted from the header before
anything is decoded. Readers are chosen here rather than by `PIL.Image.open`, whose own pixel limit is a process-wide
warning. ICC profiles are ignored, and no metadata (GPS position, say) travels on into a result.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import InvalidInput

MAX_PIXELS = 50_000_000
MAX_BYTES = 32 * 2**20

Encoded = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]
"""An image file: its bytes, its path, or an open binary file, which is read to its end."""
Source = Encoded | Image.Image | NDArray[Any]

_READABLE = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_READERS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,
    b"MM\0+": TiffImageFile,
}
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Header(NamedTuple):
    """What a file says about itself: format (PNG, JPEG, WEBP, GIF, BMP, TIFF), and the size it is stored at, pixels."""

    format: str
    width: int
    height: int


def header(
    source: Encoded, *, field: str = "image", max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Header:
    """Format and stored size (an EXIF orientation may swap the sides later), without decoding a pixel.

    Raises InvalidInput for what is unreadable, empty, of another format, or above a limit.
    """
    image = _open(file_bytes(source, field, max_bytes), field, max_pixels)
    return Header(str(image.format), image.width, image.height)


def decode(
    source: Source, *, field: str = "image", max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """RGB image, upright, on white where it was transparent; of an animation, the first frame.

    Arrays are uint8, bool, or floats in [0, 1]; H x W, H x W x 3 or H x W x 4. Raises InvalidInput.
    """
    image = read(source, field=field, max_pixels=max_pixels, max_bytes=max_bytes)
    if image.mode == "RGB":
        return image
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def read(
    source: Source, *, field: str = "image", max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Image.Image:
    """As `decode`, with transparency kept: RGBA where the source has any, else RGB."""
    if isinstance(source, np.ndarray):
        image = _from_array(source, field, max_pixels)
    elif isinstance(source, Image.Image):
        image = source
        _check_size(*image.size, field, max_pixels)
    else:
        image = _open(file_bytes(source, field, max_bytes), field, max_pixels)
    try:
        image.load()
        image = _eight_bits(_upright(image), field)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except InvalidInput:
        raise
    except Exception as error:
        raise _damaged(field) from error
    image.info.clear()
    return image


def file_bytes(source: Encoded, field: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The file as it is. Raises InvalidInput where it cannot be read, is empty, or too large."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        try:
            with Path(source).open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError as error:
            raise InvalidInput(field, f"there is no file {os.fspath(source)!r}; check the path.") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a path"
            raise InvalidInput(field, f"cannot read {os.fspath(source)!r} ({reason}); give a readable file.") from error
    elif hasattr(source, "read"):
        data = source.read(max_bytes + 1)
        if not isinstance(data, bytes):
            raise InvalidInput(field, "is a file opened as text; open it in binary mode.")
    else:
        raise InvalidInput(field, f"is a {type(source).__name__}; give bytes, a path, a file, an image or an array.")
    if len(data) > max_bytes:
        raise InvalidInput(field, f"is larger than {max_bytes / 2**20:g} MiB; use a smaller copy.")
    if not data:
        raise InvalidInput(field, f"is empty (0 bytes); use a {_READABLE} file.")
    return data


def _open(data: bytes, field: str, max_pixels: int) -> ImageFile:
    """The file's header, with nothing decoded and both limits on pixels checked."""
    reader = next((reader for signature, reader in _READERS.items() if data.startswith(signature)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        reader = WebPImageFile  # which allocates the whole canvas as soon as it is made
        _check_size(*_webp_size(data, field), field, max_pixels)
    if reader is None:
        raise InvalidInput(field, f"is not a {_READABLE} file; convert it to one of these.")
    try:
        image = reader(io.BytesIO(data))
        sizes = [image.size]
        if isinstance(image, TiffImageFile):  # a small image may still declare a huge tile, which is decoded whole
            sizes.append((int(image.tag_v2.get(_TILE_WIDTH, 1)), int(image.tag_v2.get(_TILE_LENGTH, 1))))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(field, "has more pixels than can be decoded; use a smaller copy.") from error
    except Exception as error:  # Pillow's readers raise nearly every type on damaged data
        raise _damaged(field) from error
    for size in sizes:
        _check_size(*size, field, max_pixels)
    return image


def _webp_size(data: bytes, field: str) -> tuple[int, int]:
    """Canvas of a WebP file, from its first 30 bytes (RFC 9649, sections 2.5 to 2.7)."""
    if len(data) >= 30 and data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if len(data) >= 30 and data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(data) >= 30 and data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise _damaged(field)


def _check_size(width: int, height: int, field: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InvalidInput(field, f"has no pixels ({width} x {height}); use an image of at least 1 x 1.")
    if width * height > max_pixels:
        size = f"{width} x {height} pixels ({width * height / 1e6:.1f} megapixels)"
        raise InvalidInput(field, f"is {size}, above the limit of {max_pixels / 1e6:g} megapixels; use a smaller copy.")


def _damaged(field: str) -> InvalidInput:
    return InvalidInput(field, "is damaged or incomplete and cannot be decoded; send it again, or save it anew.")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata is no reason to refuse the picture
        return image


def _eight_bits(image: Image.Image, field: str) -> Image.Image:
    """Scale 16-bit, 32-bit and float greys to 8 bits.

    Modes I and F do not say what is white: it is the first of 1 (floats only), 255 and 65535 that no value exceeds,
    and where none fits, darkest to brightest becomes 0 to 255.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.float32)
    black, white = float(values.min()), float(values.max())
    if not np.isfinite(black + white):
        raise InvalidInput(field, "contains NaN or infinite values; use finite ones.")
    usual = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
    if black >= 0 and white <= usual[-1]:
        black, white = 0.0, float(next(limit for limit in usual if white <= limit))
    grey = Image.fromarray(to_uint8((values - black) / (white - black or 1)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(to_uint8(values != transparent)))
    return grey


def _from_array(values: NDArray[Any], field: str, max_pixels: int) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2 and (values.ndim != 3 or values.shape[2] not in (3, 4)):
        shape = " x ".join(map(str, values.shape)) or "nothing"
        raise InvalidInput(field, f"is an array of {shape}; give height x width, or height x width x 3 or 4.")
    _check_size(values.shape[1], values.shape[0], field, max_pixels)
    if values.dtype == np.bool_ or np.issubdtype(values.dtype, np.floating):
        if not ((values >= 0) & (values <= 1)).all():
            raise InvalidInput(field, "contains values outside 0 to 1, or NaN; scale floats to [0, 1].")
        values = to_uint8(values)
    if values.dtype != np.uint8:
        raise InvalidInput(field, f"is an array of {values.dtype}; give uint8, or floats in [0, 1].")
    return Image.fromarray(np.ascontiguousarray(values))


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """[0, 1] -> 0 to 255, to the nearest."""
    return (values.astype(np.float32) * 255 + 0.5).astype(np.uint8)
