"""`classify`: class probabilities of images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import imaging
from ..errors import InvalidInput
from .options import add_model_or_server, synthesizer


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "classify", help="class probabilities of images", description="Class probabilities of images."
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("images", nargs="+", type=Path, help="any common image files")
    add_model_or_server(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to print (%(default)s)")
    parser.add_argument("--fit", choices=imaging.FITS, default="crop", help="how it becomes a square (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")


def run(options: argparse.Namespace) -> None:
    if options.top < 1:
        raise InvalidInput("top", f"is {options.top}; give a whole number from 1.")
    with synthesizer(options) as judge:
        for path in options.images:
            try:
                found = judge.classify(path, fit=options.fit, top=options.top)
            except InvalidInput as error:
                raise error.at(f"image {path}") if error.field == "image" else error from None
            if options.json:
                print(json.dumps({"image": str(path), "probabilities": found}))
            else:
                print(f"{path}: " + ", ".join(f"{name} {probability:.3f}" for name, probability in found.items()))
