"""Crude drawings on a flat background, as a person makes them with a mouse: what sketch-to-image is given.

`DRAWINGS` has one per class that can be drawn with a few shapes; any other class gets a blob. Coordinates are shares of the side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw

SIDE = 512
SKY, SEA, GRASS, SAND, WHITE, GREY = "#a9d3f5", "#3f7fbf", "#7fb05a", "#d9c79a", "#f2f2f2", "#9a9a9a"
BLACK, RED, ORANGE, YELLOW, GREEN, BROWN = "#1d1d1d", "#c8281e", "#f08a1d", "#f3d32e", "#4f8f3a", "#7a4f2a"
BLOBS = (ORANGE, GREEN, BROWN, RED, SEA, YELLOW)


class Canvas:
    """A flat background, drawn on in shares of its side."""

    def __init__(self, background: str) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), background)
        self._pen = ImageDraw.Draw(self.image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._pen.rectangle([SIDE * v for v in (left, top, right, bottom)], colour)

    def disc(self, x: float, y: float, wide: float, colour: str, high: float | None = None) -> None:
        """An ellipse around (x, y) with these half axes; a circle unless `high` is given."""
        high = wide if high is None else high
        self._pen.ellipse([SIDE * v for v in (x - wide, y - high, x + wide, y + high)], colour)

    def shape(self, colour: str, *points: tuple[float, float]) -> None:
        self._pen.polygon([(SIDE * x, SIDE * y) for x, y in points], colour)

    def line(self, colour: str, width: float, *points: tuple[float, float]) -> None:
        self._pen.line([(SIDE * x, SIDE * y) for x, y in points], colour, round(SIDE * width), joint="curve")


def drawings(classes: Sequence[str], count: int) -> list[tuple[str, Image.Image]]:
    """(class, drawing) of up to `count` of the classes: first those in `DRAWINGS`, in its order, then blobs of others."""
    known = [name for name in DRAWINGS if name in classes]
    others = [name for name in classes if name not in DRAWINGS]
    return [
        (name, DRAWINGS[name]().image if name in DRAWINGS else _blob(i).image)
        for i, name in enumerate([*known, *others][:count])
    ]


def _blob(number: int) -> Canvas:
    canvas = Canvas(WHITE)
    shape = random.Random(number)
    for _ in range(4):
        x, y = shape.uniform(0.4, 0.6), shape.uniform(0.4, 0.6)
        canvas.disc(x, y, shape.uniform(0.15, 0.3), BLOBS[number % len(BLOBS)], shape.uniform(0.12, 0.25))
    return canvas


def _ball(colour: str, background: str = WHITE) -> Canvas:
    canvas = Canvas(background)
    canvas.disc(0.5, 0.53, 0.32, colour)
    canvas.line(BROWN, 0.03, (0.5, 0.22), (0.54, 0.12))
    canvas.disc(0.63, 0.16, 0.09, GREEN, 0.045)
    return canvas


def _lemon() -> Canvas:
    canvas = Canvas(WHITE)
    canvas.disc(0.5, 0.5, 0.34, YELLOW, 0.25)
    canvas.disc(0.86, 0.5, 0.06, YELLOW)
    return canvas


def _banana() -> Canvas:
    canvas = Canvas(WHITE)
    canvas.disc(0.5, 0.42, 0.4, YELLOW, 0.36)
    canvas.disc(0.5, 0.26, 0.4, WHITE, 0.34)
    canvas.box(0.08, 0.3, 0.14, 0.4, BROWN)
    return canvas


def _goldfish() -> Canvas:
    canvas = Canvas(SEA)
    canvas.disc(0.45, 0.5, 0.27, ORANGE, 0.17)
    canvas.shape(ORANGE, (0.66, 0.5), (0.92, 0.3), (0.86, 0.5), (0.92, 0.72))
    canvas.disc(0.29, 0.45, 0.03, BLACK)
    return canvas


def _bus() -> Canvas:
    canvas = Canvas(SKY)
    canvas.box(0, 0.75, 1, 1, GREY)
    canvas.box(0.1, 0.3, 0.9, 0.75, "#f0b31a")
    for left in (0.16, 0.35, 0.54, 0.73):
        canvas.box(left, 0.36, left + 0.12, 0.5, BLACK)
    for x in (0.28, 0.72):
        canvas.disc(x, 0.76, 0.09, BLACK)
    return canvas


def _alp() -> Canvas:
    canvas = Canvas(SKY)
    canvas.shape(GREY, (0, 0.8), (0.35, 0.2), (0.55, 0.5), (0.7, 0.35), (1, 0.8))
    canvas.shape(WHITE, (0.23, 0.4), (0.35, 0.2), (0.46, 0.37), (0.36, 0.33))
    canvas.shape(WHITE, (0.62, 0.42), (0.7, 0.35), (0.8, 0.5), (0.7, 0.44))
    canvas.box(0, 0.8, 1, 1, GREEN)
    return canvas


def _ladybug() -> Canvas:
    canvas = Canvas(GRASS)
    canvas.disc(0.5, 0.25, 0.14, BLACK)
    canvas.disc(0.5, 0.55, 0.3, RED, 0.32)
    canvas.line(BLACK, 0.02, (0.5, 0.24), (0.5, 0.86))
    for x, y in ((0.36, 0.45), (0.64, 0.45), (0.34, 0.65), (0.66, 0.65)):
        canvas.disc(x, y, 0.06, BLACK)
    return canvas


def _penguin() -> Canvas:
    canvas = Canvas("#dfe9f2")
    canvas.disc(0.5, 0.56, 0.22, BLACK, 0.36)
    canvas.disc(0.5, 0.62, 0.14, WHITE, 0.26)
    canvas.disc(0.5, 0.2, 0.13, BLACK)
    canvas.disc(0.42, 0.27, 0.05, ORANGE)
    canvas.disc(0.58, 0.27, 0.05, ORANGE)
    canvas.shape(ORANGE, (0.34, 0.95), (0.5, 0.9), (0.66, 0.95))
    return canvas


def _ship() -> Canvas:
    canvas = Canvas(SKY)
    canvas.box(0, 0.65, 1, 1, SEA)
    canvas.shape(GREY, (0.08, 0.55), (0.92, 0.55), (0.8, 0.75), (0.2, 0.75))
    canvas.box(0.35, 0.38, 0.65, 0.55, WHITE)
    canvas.box(0.46, 0.22, 0.56, 0.38, RED)
    return canvas


def _airplane() -> Canvas:
    canvas = Canvas(SKY)
    canvas.disc(0.5, 0.5, 0.42, WHITE, 0.08)
    canvas.shape(GREY, (0.45, 0.5), (0.6, 0.5), (0.72, 0.78), (0.62, 0.78))
    canvas.shape(GREY, (0.45, 0.48), (0.58, 0.48), (0.66, 0.28), (0.59, 0.28))
    canvas.shape(WHITE, (0.8, 0.47), (0.92, 0.46), (0.95, 0.28), (0.88, 0.28))
    return canvas


def _automobile() -> Canvas:
    canvas = Canvas(WHITE)
    canvas.box(0, 0.72, 1, 1, GREY)
    canvas.shape(
        RED, (0.05, 0.5), (0.27, 0.48), (0.38, 0.3), (0.68, 0.3), (0.8, 0.48), (0.95, 0.52), (0.95, 0.7), (0.05, 0.7)
    )
    canvas.shape(SKY, (0.33, 0.47), (0.41, 0.34), (0.65, 0.34), (0.72, 0.47))
    for x in (0.25, 0.75):
        canvas.disc(x, 0.71, 0.1, BLACK)
    return canvas


def _truck() -> Canvas:
    canvas = Canvas(SKY)
    canvas.box(0, 0.75, 1, 1, GREY)
    canvas.box(0.3, 0.2, 0.95, 0.72, WHITE)
    canvas.box(0.06, 0.38, 0.28, 0.72, SEA)
    canvas.box(0.09, 0.42, 0.2, 0.54, BLACK)
    for x in (0.2, 0.65, 0.85):
        canvas.disc(x, 0.74, 0.08, BLACK)
    return canvas


def _bird() -> Canvas:
    canvas = Canvas(GRASS)
    canvas.disc(0.47, 0.5, 0.24, BROWN, 0.17)
    canvas.disc(0.68, 0.34, 0.11, BROWN)
    canvas.shape(ORANGE, (0.77, 0.31), (0.9, 0.36), (0.77, 0.38))
    canvas.shape(BROWN, (0.3, 0.47), (0.06, 0.4), (0.1, 0.56))
    canvas.line(ORANGE, 0.02, (0.45, 0.65), (0.45, 0.85))
    canvas.line(ORANGE, 0.02, (0.53, 0.65), (0.53, 0.85))
    canvas.disc(0.71, 0.32, 0.018, BLACK)
    return canvas


def _frog() -> Canvas:
    canvas = Canvas(SAND)
    canvas.disc(0.5, 0.58, 0.3, GREEN, 0.22)
    canvas.disc(0.5, 0.42, 0.24, GREEN, 0.15)
    for x in (0.36, 0.64):
        canvas.disc(x, 0.28, 0.07, GREEN)
        canvas.disc(x, 0.27, 0.035, BLACK)
    canvas.disc(0.2, 0.76, 0.14, GREEN, 0.06)
    canvas.disc(0.8, 0.76, 0.14, GREEN, 0.06)
    return canvas


def _horse(stripes: bool = False) -> Canvas:
    body = WHITE if stripes else BROWN
    canvas = Canvas(GRASS)
    canvas.box(0, 0, 1, 0.3, SKY)
    for x in (0.28, 0.36, 0.6, 0.68):
        canvas.box(x, 0.6, x + 0.05, 0.9, body)
    canvas.disc(0.5, 0.52, 0.27, body, 0.15)
    canvas.shape(body, (0.64, 0.52), (0.74, 0.2), (0.86, 0.24), (0.78, 0.5))
    canvas.disc(0.86, 0.26, 0.1, body, 0.06)
    canvas.line(BLACK, 0.025, (0.24, 0.48), (0.16, 0.68))
    if stripes:
        for x in (0.3, 0.38, 0.46, 0.54, 0.62):
            canvas.line(BLACK, 0.025, (x, 0.4), (x - 0.02, 0.64))
        for y in (0.28, 0.36, 0.44):
            canvas.line(BLACK, 0.02, (0.69, y), (0.8, y + 0.04))
    return canvas


DRAWINGS: Mapping[str, Callable[[], Canvas]] = {
    "orange": lambda: _ball(ORANGE),
    "apple": lambda: _ball(RED),
    "banana": _banana,
    "goldfish": _goldfish,
    "school bus": _bus,
    "ladybug": _ladybug,
    "king penguin": _penguin,
    "alp": _alp,
    "lemon": _lemon,
    "ship": _ship,
    "airplane": _airplane,
    "automobile": _automobile,
    "truck": _truck,
    "bird": _bird,
    "frog": _frog,
    "horse": _horse,
    "zebra": lambda: _horse(stripes=True),
}
