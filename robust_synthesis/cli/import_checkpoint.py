"""`import`: other people's checkpoints become model folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InvalidInput


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "import",
        help="convert a checkpoint to a model folder",
        description="Convert a MadryLab robustness, RobustBench or torchvision-style checkpoint, without running its code.",
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("checkpoint", type=Path, help="a .pt, .pth or .ckpt file, or a state dict as .safetensors")
    parser.add_argument("out", type=Path, help="the model folder to write")
    parser.add_argument("--name", help="default: the folder's name")
    parser.add_argument("--classes", help="class names separated by commas, or a text file with one a line")
    parser.add_argument("--mean", help="R,G,B of the normalisation, where the checkpoint has none")
    parser.add_argument("--std", help="R,G,B of the normalisation, where the checkpoint has none")
    parser.add_argument("--size", type=int, help="side of its images, pixels")
    parser.add_argument(
        "--weights-format", choices=("fp32", "fp16", "int8"), default="fp32", help="how to store them (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    from ..importing import import_checkpoint

    folder = import_checkpoint(
        options.checkpoint,
        options.out,
        name=options.name,
        classes=_classes(options.classes),
        mean=_triple("mean", options.mean),
        std=_triple("std", options.std),
        size=options.size,
        weights_format=options.weights_format,
    )
    print(f"{folder.path}: {folder.card.architecture}, {len(folder.card.classes)} classes, {folder.card.size} px")


def _classes(given: str | None) -> list[str] | None:
    if given is None:
        return None
    try:
        text = Path(given).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("classes", f"{given!r} is not UTF-8 text; save it as such.") from error
    except OSError:  # no such file, or a list that is too long for the name of one
        return [name.strip() for name in given.split(",")]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _triple(field: str, given: str | None) -> tuple[float, float, float] | None:
    if given is None:
        return None
    try:
        r, g, b = (float(part) for part in given.split(","))
    except ValueError as error:
        raise InvalidInput(field, f"is {given!r}; give three numbers, such as 0.49,0.48,0.45.") from error
    return r, g, b
