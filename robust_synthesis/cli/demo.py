"""`demo`: every task on real pictures, a PNG each, one contact sheet, and the numbers."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from .. import imaging
from ..files import check_writable
from ..results import Picture, Result
from ..sheet import Cell, Row, draw
from .options import add_model, load, progress_bar, write_json

if TYPE_CHECKING:
    from ..library import Synthesizer

SHEET = "contact-sheet.png"
SHOWN = 5
"""Pictures of the way there, on the sheet."""
FRAMES = 4 * SHOWN
"""To choose them from."""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "demo",
        help="run every task on real pictures and draw a contact sheet",
        description="Run every task on real pictures: a PNG per task, contact-sheet.png and demo.json.",
    )
    parser.set_defaults(run=run, extra="demo")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="FOLDER", help="where to write (%(default)s)"
    )
    parser.add_argument("--image", type=Path, metavar="FILE", help="your own photo instead of scikit-image's cat")
    parser.add_argument(
        "--class", dest="target", metavar="NAME", help="what it shows (default: what the classifier sees in it)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (%(default)s)")
    add_model(parser)


@dataclass(frozen=True)
class Example:
    """A task on a picture: what goes in, as cells, and how to run it."""

    name: str
    title: str
    inputs: list[Cell]
    run: Callable[..., Result]
    """Takes `seed`, `frames` and `on_progress`."""
    side_by_side: bool = False
    """Show the results of many pictures rather than the way to one."""


def run(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    check_writable(options.out / SHEET)
    synthesizer = load(options)
    card = synthesizer.classifier.card
    photo = imaging.decode(options.image) if options.image else _cat()
    target = _shown(synthesizer, photo, options)
    rows: list[Row] = []
    reports: dict[str, Any] = {}
    for example in _examples(synthesizer, photo, target):
        with progress_bar(example.title) as on_progress:
            result = example.run(seed=options.seed, frames=FRAMES, on_progress=on_progress)
        row = _row(example, result)
        rows.append(row)
        reports[example.name] = result.report()
        imaging.save(draw([row], side=192), options.out / f"{example.name}.png")
        print(f"{example.name:20} {result.seconds:5.1f} s   {row.note}")
    title = f"Robust Synthesis: every task with one classifier, {card.name} ({card.size} px)"
    imaging.save(draw(rows, title=title), options.out / SHEET)
    seconds = time.perf_counter() - started
    report = {"model": card.name, "version": synthesizer.classifier.version, "seconds": round(seconds, 2)}
    write_json(options.out / "demo.json", report | {"tasks": reports})
    print(f"{len(rows)} tasks in {seconds:.0f} s; look at {options.out / SHEET}")


def _shown(synthesizer: Synthesizer, photo: Image.Image, options: argparse.Namespace) -> str:
    """The class of the photo: as it is named, ours known, any other predicted."""
    card = synthesizer.classifier.card
    if options.target is not None:
        return card.classes[card.class_index(options.target)]
    if options.image is None and "cat" in card.classes:
        return "cat"
    return next(iter(synthesizer.classify(photo, top=1)))


def _examples(synthesizer: Synthesizer, photo: Image.Image, target: str) -> Iterator[Example]:
    card = synthesizer.classifier.card
    size = card.size
    small = imaging.squared(photo, size)
    seen = Cell(small, f"input: {target}")
    others = [name for name in card.classes if name != target]
    goal = "dog" if "dog" in others else others[0]
    starts = {"gaussian": "Generation from class Gaussians", "noise": "Generation from plain noise"}
    if synthesizer.classifier.seeds is None:
        del starts["gaussian"]
    for start, title in starts.items():
        yield Example(
            f"generate-{start}",
            title,
            [],
            lambda start=start, **kw: _every_class(synthesizer, start=start, **kw),
            side_by_side=True,
        )
    hole = size * 3 // 8
    box = (size // 2, size // 4, hole, hole)
    yield Example(
        "inpaint",
        f"In-painting a {target}",
        [seen, Cell(_marked(small, box), "hole")],
        lambda **kw: synthesizer.inpaint(small, box=box, target=target, **kw),
    )
    yield Example(
        "translate",
        f"Image-to-image translation, {target} to {goal}",
        [seen],
        lambda **kw: synthesizer.translate(small, goal, **kw),
    )
    low = imaging.squared(photo, size // 4)
    yield Example(
        "super-resolve",
        f"Super-resolution x4, {size // 4} to {size} pixels",
        [Cell(small, "original"), Cell(low, f"input: {size // 4} x {size // 4}")],
        lambda **kw: synthesizer.super_resolve(low, target, factor=4, **kw),
    )
    sketch, drawn = _sketch(list(card.classes))
    yield Example(
        "sketch-to-image",
        f"Sketch to {drawn}",
        [Cell(sketch, "input: a drawing")],
        lambda **kw: synthesizer.sketch_to_image(sketch, drawn, **kw),
    )
    area = (0, 0, size, size // 2)
    yield Example(
        "paint-features-class",
        f"Painting with a class: {goal} in the upper half",
        [seen, Cell(_marked(small, area), "where")],
        lambda **kw: synthesizer.paint_features(small, box=area, target=goal, **kw),
    )
    if units := synthesizer.classifier.units.units:
        unit = next((unit for unit in units if unit.name.startswith(f"{goal} ")), units[0])
        yield Example(
            "paint-features-unit",
            f"Painting with a latent unit: {unit.name}",
            [seen, Cell(_marked(small, area), "where")],
            lambda **kw: synthesizer.paint_features(small, box=area, unit=unit.index, **kw),
        )
    yield Example(
        "maximize-class",
        f"Class maximisation: {others[-1]}",
        [seen],
        lambda **kw: synthesizer.maximize_class(small, others[-1], **kw),
    )


def _every_class(synthesizer: Synthesizer, **options: Any) -> Result:
    """A picture of each of up to ten classes, as one result."""
    parts = [synthesizer.generate(name, **options) for name in synthesizer.classifier.card.classes[:10]]
    first = parts[0]
    pictures = tuple(picture for part in parts for picture in part.pictures)
    seconds = sum(part.seconds for part in parts)
    parameters = {name: value for name, value in first.parameters.items() if name != "target"}
    return dataclasses.replace(first, parameters=parameters, seconds=seconds, pictures=pictures)


def _row(example: Example, result: Result) -> Row:
    if example.side_by_side:
        cells = [Cell(p.image, f"{p.target} {p.probability_after:.2f}", accent=True) for p in result.pictures]
        after = sum(p.probability_after for p in result.pictures) / len(cells)
        before = sum(p.probability_before for p in result.pictures) / len(cells)
        return Row(example.title, _note(result, before, after), cells)
    picture = result.pictures[0]
    caption = f"{picture.target} {picture.probability_after:.2f}"
    cells = [*example.inputs, *_way(picture), Cell(picture.image, caption, accent=True)]
    return Row(example.title, _note(result, picture.probability_before, picture.probability_after), cells)


def _way(picture: Picture) -> list[Cell]:
    """The start, and pictures at even distances between it and the end."""
    way = [frame for frame in picture.frames if frame[0] < picture.steps]
    wanted = [picture.steps * i / SHOWN for i in range(SHOWN)]
    chosen = dict(min(way, key=lambda frame: abs(frame[0] - step)) for step in wanted)
    return [Cell(frame, "start" if step == 0 else f"step {step}") for step, frame in chosen.items()]


def _note(result: Result, before: float, after: float) -> str:
    p = result.parameters
    return f"epsilon {p['epsilon']:.3g}, {p['steps']} steps; probability of the class {before:.2f} -> {after:.2f}"


def _marked(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture, enlarged, with a rectangle of it tinted."""
    scale = max(1, 128 // image.width)
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    tint = large.copy()
    x, y, w, h = (scale * v for v in box)
    ImageDraw.Draw(tint).rectangle((x, y, x + w - 1, y + h - 1), fill="#ff3b6b")
    return Image.blend(large, tint, 0.6)


def _cat() -> Image.Image:
    """Chelsea the cat, by Stefan van der Walt, public domain; shipped by scikit-image."""
    from skimage import data

    photo = Image.fromarray(data.chelsea())  # type: ignore[no-untyped-call]
    return photo.crop((60, 0, 360, 300))


def _sketch(classes: list[str]) -> tuple[Image.Image, str]:
    """A crude drawing on a flat background, and what it is of."""
    image = Image.new("RGB", (256, 256), "#9cc7ea")
    pen = ImageDraw.Draw(image)
    if "ship" not in classes:
        pen.rectangle((0, 150, 256, 256), "#5b9a44")
        pen.ellipse((60, 80, 200, 190), "#7a4a24")
        return image, classes[0]
    pen.rectangle((0, 165, 256, 256), "#2f5f8f")
    pen.polygon([(40, 150), (216, 150), (190, 190), (66, 190)], "#5a3a2a")
    pen.rectangle((90, 118, 150, 150), "#e8e8e8")
    pen.rectangle((120, 60, 128, 118), "#444444")
    pen.polygon([(130, 62), (190, 112), (130, 112)], "#f4f4f4")
    return image, "ship"
