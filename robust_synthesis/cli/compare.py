"""`compare`: how far an image must be moved before a robust and a standard classifier change their minds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import imaging
from ..files import check_writable
from .options import add_model


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "compare",
        help="the smallest change that flips a robust and a standard classifier",
        description="Find the smallest L2 change of each image that flips the prediction of a robust and of a standard "
        "classifier, and draw both. This is why synthesis needs a robust one.",
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("images", nargs="+", type=Path, help="any common image files")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="draw the comparison here")
    parser.add_argument(
        "--standard-model", default="cifar10-standard", metavar="NAME", help="the standard classifier (%(default)s)"
    )
    parser.add_argument("--fit", choices=imaging.FITS, default="crop", help="how it becomes a square (%(default)s)")
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    import torch

    from ..engine.classifier import Classifier
    from ..errors import InvalidInput
    from ..evaluation.parts import robustness_gap

    if options.out:
        imaging.check_suffix(options.out)
        check_writable(options.out)
    robust = Classifier.load(options.model, device=options.device)
    standard = Classifier.load(options.standard_model, device=options.device)
    if standard.card.classes != robust.card.classes or standard.card.size != robust.card.size:
        raise InvalidInput(
            "standard-model", f"has other classes or another size than {robust.card.name}; give its twin."
        )
    photos = [imaging.decode(path, field=f"image {path}") for path in options.images]
    squares = [imaging.to_square(photo, robust.card.size, options.fit) for photo in photos]
    images = torch.stack([torch.from_numpy(square) for square in squares])
    found = [robustness_gap.nearest_flips(network, images) for network in (robust, standard)]
    classes = robust.card.classes
    for i, path in enumerate(options.images):
        parts = [
            f"{name} {classes[int(flips.before[i])]} -> {classes[int(flips.after[i])]} at L2 {float(flips.distance[i]):.3f}"
            for name, flips in zip(("robust", "standard"), found, strict=True)
        ]
        print(f"{path}: " + "; ".join(parts))
    if options.out:
        imaging.save(robustness_gap.picture(images, found[0], found[1], classes, count=len(images)), options.out)
