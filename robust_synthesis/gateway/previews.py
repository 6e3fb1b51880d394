"""Unfinished pictures, small enough to be sent with every progress."""

from __future__ import annotations

import asyncio

import numpy as np
from PIL import Image

from ..bundle import Pixels
from ..imaging import encode

QUALITY = 75


async def preview(x: Pixels) -> bytes:
    """[3, H, W] on the 16-bit grid -> JPEG, made off the event loop."""
    return await asyncio.to_thread(encode_preview, x)


def encode_preview(x: Pixels) -> bytes:
    """The same, here."""
    levels = ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    return encode(Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0))), "jpeg", QUALITY)
