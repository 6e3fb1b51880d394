"""Contact sheets: labelled rows of small pictures, enlarged so that a person can see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER, ACCENT = "#1b1f24", "#6a737d", "#ffffff", "#0a7d36"


@dataclass(frozen=True)
class Cell:
    """A picture with a caption; `accent` marks results."""

    image: Image.Image
    caption: str = ""
    accent: bool = False


@dataclass(frozen=True)
class Row:
    """A title, a line of explanation, and pictures."""

    title: str
    note: str
    cells: Sequence[Cell]


def draw(rows: Sequence[Row], *, side: int = 128, title: str = "") -> Image.Image:
    """Rows under each other, every picture `side` pixels wide, enlarged by nearest neighbour where it is smaller."""
    gap, label, caption = 8, 44, 18
    across = max(len(row.cells) for row in rows)
    head = 40 if title else 0
    height = head + len(rows) * (label + side + caption + gap) + gap
    width = max(gap + across * (side + gap), 420)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((gap, 10), title, INK, _font(20))
    top = head
    for row in rows:
        pen.text((gap, top + 4), row.title, INK, _font(16))
        pen.text((gap, top + 25), row.note, FAINT, _font(12))
        for i, cell in enumerate(row.cells):
            left = gap + i * (side + gap)
            sheet.paste(_fit(cell.image, side), (left, top + label))
            if cell.accent:
                pen.rectangle(
                    (left - 2, top + label - 2, left + side + 1, top + label + side + 1), outline=ACCENT, width=2
                )
            pen.text((left, top + label + side + 2), cell.caption, ACCENT if cell.accent else FAINT, _font(12))
        top += label + side + caption + gap
    return sheet


def _fit(image: Image.Image, side: int) -> Image.Image:
    method = Image.Resampling.NEAREST if image.width <= side else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((side, side), method)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
