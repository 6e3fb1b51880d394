"""`demo`: every task on real pictures over a gateway, a PNG each, one contact sheet, and the numbers."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from .. import imaging
from ..client import Client, Unit
from ..drawings import drawings
from ..files import check_writable
from ..model_folder import SEEDS, Card, ModelFolder, available, find
from ..results import Picture, Result
from ..sheet import Cell, Row, draw
from .latencies import latencies
from .options import MODEL, add_model, add_precision, progress_bar, write_json
from .own_gateway import own_gateway

SHEET = "contact-sheet.png"
SHOWN = 5
"""Pictures of the way there, on the sheet."""
FRAMES = 4 * SHOWN
"""To choose them from."""
SHOWN_MODEL = "imagenet64"
"""Of the models directory, where it is there."""
CATS, GOALS, UNITS = ("cat", "tabby"), ("dog", "golden retriever"), ("orange and black wings",)
"""What scikit-image's cat is called, what it becomes, and what it is painted with, in one classifier or another."""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "demo",
        help="run every task on real pictures and draw a contact sheet",
        description="Start a gateway over TorchServe, run every task on real pictures through it, and write a PNG per task, "
        "contact-sheet.png and demo.json.",
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
    parser.add_argument(
        "--backend",
        choices=("torchserve", "embedded"),
        default="torchserve",
        help="who computes: a TorchServe below the gateway, or, without Java, the gateway itself (%(default)s)",
    )
    add_model(parser, SHOWN_MODEL if SHOWN_MODEL in available() else MODEL)
    add_precision(parser)


@dataclass(frozen=True)
class Service:
    """A gateway's client, and what its classifier is."""

    client: Client
    card: Card
    units: list[Unit]


@dataclass(frozen=True)
class Example:
    """A task on a picture: what goes in, as cells, and how to run it."""

    name: str
    title: str
    inputs: list[Cell]
    run: Callable[..., Result]
    """Takes `seed` and `on_progress`, and `frames` where the way is shown."""
    side_by_side: bool = False
    """Show the results of many pictures rather than the way to one."""


def run(options: argparse.Namespace) -> None:
    started = time.perf_counter()
    check_writable(options.out / SHEET)
    folder = ModelFolder.open(find(options.model))
    if options.target is not None:
        folder.card.class_index(options.target)
    photo = imaging.decode(options.image) if options.image else _cat()
    print(f"starting a gateway ({options.backend})", flush=True)
    chosen = {"backend": options.backend, "device": options.device, "precision": options.precision}
    with own_gateway([options.model], **chosen) as gateway:
        with Client(gateway.server) as client:
            service = Service(client, folder.card, client.units(examples=False))
            print(f"ready after {time.perf_counter() - started:.1f} s", flush=True)
            rows, reports = _run(service, photo, options)
        measured = gateway.metrics()
    title = f"Robust Synthesis: every task with one classifier, {service.card.name} ({service.card.size} px)"
    imaging.save(draw(rows, title=title), options.out / SHEET)
    seconds = time.perf_counter() - started
    tasks = latencies(measured)
    report = {
        "model": service.card.name,
        "version": folder.version,
        "backend": options.backend,
        "seconds": round(seconds, 2),
    }
    latency = {each.task: dataclasses.asdict(each) for each in tasks}
    write_json(options.out / "demo.json", report | {"latency": latency, "tasks": reports})
    print("\nlatency by task, from /metrics:", *tasks, sep="\n  ")
    print(f"\n{len(rows)} tasks in {seconds:.0f} s; look at {options.out / SHEET}")


def _run(service: Service, photo: Image.Image, options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Every example: a row of the sheet, and a report."""
    rows: list[Row] = []
    reports: dict[str, Any] = {}
    for example in _examples(service, photo, _shown(service, photo, options)):
        began = time.perf_counter()
        frames = {} if example.side_by_side else {"frames": FRAMES}
        with progress_bar(example.title) as on_progress:
            result = example.run(seed=options.seed, on_progress=on_progress, **frames)
        seconds = time.perf_counter() - began
        row = _row(example, result)
        rows.append(row)
        reports[example.name] = result.report() | {"wall_seconds": round(seconds, 3)}
        imaging.save(draw([row], side=192), options.out / f"{example.name}.png")
        print(f"{example.name:20} {seconds:5.1f} s   {row.note}", flush=True)
    return rows, reports


def _shown(service: Service, photo: Image.Image, options: argparse.Namespace) -> str:
    """The class of the photo: as it is named, ours known, any other predicted."""
    if options.target is not None:
        return service.card.classes[service.card.class_index(options.target)]
    named = () if options.image else CATS
    return _first(named, service.card.classes) or next(iter(service.client.classify(photo, top=1)))


def _first(names: Sequence[str], among: Sequence[str]) -> str | None:
    return next((name for name in names if name in among), None)


def _examples(service: Service, photo: Image.Image, target: str) -> Iterator[Example]:
    client, card = service.client, service.card
    size = card.size
    small = imaging.squared(photo, size)
    seen = Cell(small, f"input: {target}")
    others = [name for name in card.classes if name != target]
    goal = _first(GOALS, others) or others[0]
    starts = {"gaussian": "Generation from class Gaussians", "noise": "Generation from plain noise"}
    if SEEDS not in card.files:
        del starts["gaussian"]
    for start, title in starts.items():
        yield Example(
            f"generate-{start}",
            title,
            [],
            lambda start=start, **kw: _every_class(service, start=start, **kw),
            side_by_side=True,
        )
    hole = size * 3 // 8
    box = (size // 2, size // 4, hole, hole)
    yield Example(
        "inpaint",
        f"In-painting a {target}",
        [seen, Cell(_marked(small, box), "hole")],
        lambda **kw: client.inpaint(small, box=box, target=target, **kw),
    )
    yield Example(
        "translate",
        f"Image-to-image translation, {target} to {goal}",
        [seen],
        lambda **kw: client.translate(small, goal, **kw),
    )
    low = imaging.squared(photo, size // 4)
    yield Example(
        "super-resolve",
        f"Super-resolution x4, {size // 4} to {size} pixels",
        [Cell(small, "original"), Cell(low, f"input: {size // 4} x {size // 4}")],
        lambda **kw: client.super_resolve(low, target, factor=4, **kw),
    )
    ((drawn, sketch),) = drawings(card.classes, 1)
    yield Example(
        "sketch-to-image",
        f"Sketch to {drawn}",
        [Cell(sketch, "input: a drawing")],
        lambda **kw: client.sketch_to_image(sketch, drawn, **kw),
    )
    area = (0, 0, size, size // 2)
    yield Example(
        "paint-features-class",
        f"Painting with a class: {goal} in the upper half",
        [seen, Cell(_marked(small, area), "where")],
        lambda **kw: client.paint_features(small, box=area, target=goal, **kw),
    )
    if units := service.units:
        unit = min(units, key=lambda u: (u.name not in UNITS, not u.name.startswith(f"{goal} ")))
        yield Example(
            "paint-features-unit",
            f"Painting with a latent unit: {unit.name or unit.unit}",
            [seen, Cell(_marked(small, area), "where")],
            lambda **kw: client.paint_features(small, box=area, unit=unit.unit, **kw),
        )
    yield Example(
        "maximize-class",
        f"Class maximisation: {others[-1]}",
        [seen],
        lambda **kw: client.maximize_class(small, others[-1], **kw),
    )


def _every_class(service: Service, **options: Any) -> Result:
    """A picture of each of up to ten classes, asked for all at once, as one result."""
    classes = service.card.classes
    count = min(10, len(classes))
    names = [classes[i * len(classes) // count] for i in range(count)]
    with ThreadPoolExecutor(len(names)) as pool:
        parts = list(pool.map(lambda name: service.client.generate(name, **options), names))
    pictures = tuple(picture for part in parts for picture in part.pictures)
    seconds = max(part.seconds for part in parts)
    parameters = {name: value for name, value in parts[0].parameters.items() if name != "target"}
    return dataclasses.replace(parts[0], parameters=parameters, seconds=seconds, pictures=pictures)


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
    """Pictures at even distances between the start and the end."""
    way = [frame for frame in picture.frames if frame[0] < picture.steps]
    wanted = [picture.steps * i / SHOWN for i in range(SHOWN)]
    chosen = dict(min(way, key=lambda frame: abs(frame[0] - step)) for step in wanted)
    return [Cell(frame, f"step {step}") for step, frame in chosen.items()]


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
