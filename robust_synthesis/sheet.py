"""Contact sheets: labelled rows of small pictures, enlarged so that a person can see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .imaging import to_image

INK, FAINT, PAPER, ACCENT = "#1b1f24", "#6a737d", "#ffffff", "#0a7d36"
GAP, TITLE, NOTE, CAPTION = 8, 24, 20, 18
"""Height of each line and width of what is between pictures, pixels."""

_BLANK = 250
"""Grey level that paper has at least, also after lossy compression."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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

    @classmethod
    def of(cls, title: str, pictures: NDArray[Any], captions: Sequence[str] = (), note: str = "") -> Row:
        """A row of pictures [n, 3, H, W] in [0, 1]."""
        named = zip(pictures, captions or [""] * len(pictures), strict=True)
        return cls(title, note, [Cell(to_image(picture), caption) for picture, caption in named])


def draw(rows: Sequence[Row], *, side: int = 128, title: str = "", across: int = 1) -> Image.Image:
    """Rows under each other, `across` of them beside each other, every picture `side` pixels wide.

    Smaller pictures are enlarged by nearest neighbour. No line is left free for notes and captions that no row has.
    """
    label = TITLE + NOTE * any(row.note for row in rows)
    foot = CAPTION * any(cell.caption for row in rows for cell in row.cells)
    head = 40 if title else 0
    width, height = max((len(row.cells) for row in rows), default=0) * (side + GAP), label + side + foot + GAP
    extent = (max(GAP + across * width, 420), head + -(-len(rows) // across) * height + GAP)
    sheet = Image.new("RGB", extent, PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((GAP, 10), title, INK, _font(20))
    for place, row in enumerate(rows):
        left, top = GAP + place % across * width, head + place // across * height
        pen.text((left, top + 4), _shortened(row.title, _font(16), width * (across > 1)), INK, _font(16))
        pen.text((left, top + 25), row.note, FAINT, _font(12))
        for i, cell in enumerate(row.cells):
            _draw(sheet, pen, cell, (left + i * (side + GAP), top + label), side)
    return sheet


def strips(sheet: Image.Image, cells: int, *, side: int, across: int) -> list[Image.Image]:
    """The rows of a sheet that `draw` made without title, notes and captions: `cells` pictures each, without what is around.

    Also reads the sheets of the first classifiers, whose pictures touch.
    """
    margin, gap, label, foot, width = GAP, GAP, TITLE, GAP, cells * (side + GAP)
    if sheet.width == across * (cells * side + GAP):
        margin, gap, label, foot, width = 0, 0, 18, 0, cells * side + GAP
    height = label + side + foot
    found = []
    for place in range((sheet.height - margin) // height * across):
        left, top = margin + place % across * width, place // across * height + label
        strip = sheet.crop((left, top, left + cells * (side + gap) - gap, top + side))
        if strip.convert("L").point(lambda level: level < _BLANK).getbbox() is None:
            break  # the last line is not full
        found.append(strip)
    return found


def _draw(sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, place: tuple[int, int], side: int) -> None:
    left, top = place
    sheet.paste(_fit(cell.image, side), place)
    if cell.accent:
        pen.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), outline=ACCENT, width=2)
    caption = _shortened(cell.caption, _font(12), side)
    pen.text((left, top + side + 2), caption, ACCENT if cell.accent else FAINT, _font(12))


def _fit(image: Image.Image, side: int) -> Image.Image:
    method = Image.Resampling.NEAREST if image.width <= side else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((side, side), method)


def _shortened(text: str, font: Font, width: int) -> str:
    """As much of a line as is `width` pixels wide; 0 is any width."""
    while width and text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
