"""A verb for every task."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import imaging, specs
from ..errors import InvalidInput
from ..files import check_writable
from ..results import Picture, Result
from .options import add_model_or_server, progress_bar, synthesizer, write_json

if TYPE_CHECKING:
    from ..client import Client
    from ..library import Synthesizer

HELP: dict[type[specs.Spec], str] = {
    specs.Generate: "make pictures of a class from random seeds",
    specs.Inpaint: "fill a hole with what the class would have there",
    specs.Translate: "turn an image of one domain into another",
    specs.SuperResolve: "enlarge a small image, adding the detail its class has",
    specs.SketchToImage: "turn a crude drawing into a picture of a class",
    specs.PaintFeatures: "paint with a latent unit or a class inside a mask",
    specs.MaximizeClass: "add the features of a class to an image",
}

MAX_SIDE = 16_383
"""Of an enlarged picture, pixels; it is also the most that WebP can hold."""

_AIM = "the class to aim at"
_CLASS_HELP: dict[type[specs.Spec], str] = {
    specs.Inpaint: "what the picture shows (default: what the classifier sees in it)",
    specs.Translate: "the class to turn it into (default, where there are two: the other one)",
    specs.SuperResolve: "what the picture shows (default: what the classifier sees in it)",
    specs.PaintFeatures: "the class to paint with, where no unit is",
}


def add_parser(verbs: Any) -> None:
    for kind, text in HELP.items():
        parser = verbs.add_parser(kind.task.replace("_", "-"), help=text, description=(kind.__doc__ or "").strip())
        parser.set_defaults(run=run, spec=kind, extra="serve")
        _add_inputs(parser, kind)
        _add_parameters(parser, kind)
        _add_outputs(parser)


def _add_inputs(parser: argparse.ArgumentParser, kind: type[specs.Spec]) -> None:
    if kind.needs_image:
        parser.add_argument("image", type=Path, help="any common image file; a photo is cropped to a square")
        parser.add_argument("--fit", choices=imaging.FITS, default="crop", help="how it becomes a square (%(default)s)")
    if kind.needs_mask:
        group = parser.add_mutually_exclusive_group(required=True)
        group.add_argument("--mask", type=Path, help="an image of the photo's size, white where it may be edited")
        group.add_argument("--box", metavar="X,Y,W,H", help="edit this rectangle, in pixels of the photo")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    required = fields["target"].default is dataclasses.MISSING
    parser.add_argument("--class", dest="target", required=required, metavar="NAME", help=_CLASS_HELP.get(kind, _AIM))
    add_model_or_server(parser)
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the result (default: the classifier's)")


def _add_parameters(parser: argparse.ArgumentParser, kind: type[specs.Spec]) -> None:
    group = parser.add_argument_group("parameters (default: those of the classifier's card)")
    group.add_argument("--steps", type=int, metavar="N", help="steps of gradient descent")
    group.add_argument("--step-size", type=float, metavar="X", help="length of a step, in the norm of the ball")
    group.add_argument(
        "--epsilon", type=float, metavar="X", help="radius of the ball around the start, in pixel values of [0, 1]"
    )
    group.add_argument("--norm", choices=specs.NORMS, help="shape of the ball; none: no ball")
    group.add_argument(
        "--seed", type=int, metavar="N", help="of everything random; chosen and printed where none is given"
    )
    group.add_argument("--random-start", action="store_true", help="start at a random point of the ball")
    group.add_argument("--last", dest="use_best", action="store_false", help="keep the last picture, not the best")
    group.add_argument("--exact", action="store_true", help="same bits on the same kind of machine")
    names = {field.name for field in dataclasses.fields(kind)}
    if "start" in names:
        group.add_argument("--start", choices=specs.STARTS, default="gaussian", help="what to start from (%(default)s)")
        group.add_argument("--count", type=int, default=1, metavar="N", help="how many pictures (%(default)s)")
    if "factor" in names:
        group.add_argument("--factor", type=int, default=4, metavar="N", help="enlargement, 2 to 8 (%(default)s)")
        group.add_argument("--upsampling", choices=specs.UPSAMPLINGS, help="how the start is enlarged")
    if "filling" in names:
        group.add_argument("--filling", choices=specs.FILLINGS, help="what the hole has in it at the start")
    if "unit" in names:
        group.add_argument("--unit", type=_unit, help="number or name of a latent unit to paint with")
        group.add_argument("--strength", type=float, metavar="X", help="weight of what is painted")
    if "penalty" in names:
        group.add_argument("--penalty", type=float, metavar="X", help="weight of changes outside the mask")
        group.add_argument(
            "--hard-mask",
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help="leave everything outside the mask exactly as it is, or only pull it back",
        )


def _unit(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="PNG, JPEG or WebP file; several are numbered"
    )
    group.add_argument("--enlarge", type=int, default=1, metavar="N", help="write every pixel N times as wide and high")
    group.add_argument("--gif", type=Path, metavar="FILE", help="save the way there as an animation (.gif or .webp)")
    group.add_argument(
        "--report", type=Path, metavar="FILE", help="save parameters, probabilities and distances as JSON"
    )
    if any(action.dest == "mask" for action in parser._actions):
        group.add_argument(
            "--paste-back", action="store_true", help="write the whole photo at its own resolution, with the edit in it"
        )


def run(options: argparse.Namespace) -> None:
    """Make the pictures, write them, print a line each."""
    kind: type[specs.Spec] = options.spec
    names = {field.name for field in dataclasses.fields(kind)}
    spec = kind(**{name: value for name, value in vars(options).items() if name in names})
    if not 1 <= options.enlarge <= 64:
        raise InvalidInput("enlarge", f"is {options.enlarge}; give a whole number from 1 to 64.")
    _check_outputs(options)
    with synthesizer(options) as maker, progress_bar(kind.task) as on_progress:
        _check_side(options, maker)
        result = maker.make(
            spec,
            getattr(options, "image", None),
            getattr(options, "mask", None),
            box=getattr(options, "box", None),
            size=options.size,
            paste_back=getattr(options, "paste_back", False),
            fit=getattr(options, "fit", "crop"),
            frames=30 if options.gif else 0,
            on_progress=on_progress,
        )
    _write(options, result)


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse, before the work rather than after it, what cannot be written."""
    imaging.check_suffix(options.out)
    if options.gif:
        imaging.check_suffix(options.gif, animated=True, field="gif")
    count = getattr(options, "count", 1)
    given = [("report", options.report)] if options.report else []
    for field, path in (("out", options.out), ("gif", options.gif)):
        given += [(field, _numbered(path, index, count)) for index in range(count) if path]
    for field, path in given:
        check_writable(path, field)
    if len({path.resolve() for _, path in given}) < len(given):
        raise InvalidInput("out", "two outputs have the same name; give each its own.")


def _check_side(options: argparse.Namespace, maker: Synthesizer | Client) -> None:
    """The same, once the classifier's size is known."""
    side = options.size or maker.side()
    if getattr(options, "paste_back", False):
        header = imaging.header(options.image)
        side = max(header.width, header.height)
    if side * options.enlarge <= MAX_SIDE:
        return
    if options.enlarge > 1:
        largest = side * options.enlarge
        raise InvalidInput("enlarge", f"makes a side of {largest} pixels; choose at most {MAX_SIDE} together.")
    if options.out.suffix.lower() == ".webp":
        raise InvalidInput("out", f"is WebP, which cannot hold {side} pixels; write a PNG.")


def _write(options: argparse.Namespace, result: Result) -> None:
    for picture in result.pictures:
        path = _numbered(options.out, picture.index, len(result.pictures))
        image = picture.image
        imaging.save(imaging.enlarge(image, max(image.size) * options.enlarge), path)
        print(_line(path, picture))
        if options.gif:
            frames = [frame for _, frame in picture.frames]
            imaging.animation(frames, _numbered(options.gif, picture.index, len(result.pictures)))
    if options.report:
        write_json(options.report, result.report())


def _numbered(path: Path, index: int, count: int) -> Path:
    return path if count == 1 else path.with_stem(f"{path.stem}-{index + 1}")


def _line(path: Path, picture: Picture) -> str:
    return (
        f"{path}: {picture.target} {picture.probability_before:.3f} -> {picture.probability_after:.3f}, "
        f"seen as {picture.predicted}, L2 {picture.l2:.2f}, {picture.steps} steps, seed {picture.seed}"
    )
