"""Labelled rows of pictures: what the numbers look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..imaging import enlarge, to_image

GAP, LINE = 4, 16


def sheet(
    rows: Sequence[tuple[str, Tensor]],
    columns: Sequence[str],
    *,
    captions: Mapping[int, Sequence[str]] | None = None,
    side: int = 96,
) -> Image.Image:
    """Rows of (label, pictures [n, 3, H, W] in [0, 1]) below column titles; small pictures are enlarged to `side` pixels.

    `captions` are written into the pictures of the rows that it has.
    """
    font = ImageFont.load_default(size=12)
    margin = max(int(font.getlength(line)) for label, _ in rows for line in label.split("\n")) + 2 * GAP
    tiles = [[enlarge(to_image(picture.numpy()), side) for picture in pictures] for _, pictures in rows]
    cell = tiles[0][0].width + GAP
    page = Image.new("RGB", (margin + cell * max(map(len, tiles)), LINE + GAP + cell * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for i, title in enumerate(columns):
        draw.text((margin + i * cell, GAP // 2), _shortened(title, font, cell - GAP), "black", font)
    for j, ((label, _), row) in enumerate(zip(rows, tiles, strict=True)):
        top = LINE + GAP + j * cell
        draw.text((GAP, top + GAP), label, "black", font)
        for i, tile in enumerate(row):
            page.paste(tile, (margin + i * cell, top))
        for i, caption in enumerate((captions or {}).get(j, ())):
            place = (margin + i * cell + 2, top + cell - GAP - LINE)
            draw.rectangle(draw.textbbox(place, caption, font), "white")
            draw.text(place, caption, "black", font)
    return page


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-1]
    return text
