"""`evaluate`: every number on a classifier's card, measured again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..files import check_writable
from ..model_folder import CARD, find
from .options import progress_bar_for_counts

if TYPE_CHECKING:
    from ..engine.classifier import Classifier

DATA_VARIABLE = "ROBUST_SYNTHESIS_DATA"
PRECISION = "auto"
"""Pictures are made for measuring as they are for users; attacks and judges compute in fp32 whatever this says."""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "evaluate",
        help="measure a classifier and its pictures, and write the numbers on its card",
        description="Clean and robust accuracy (AutoAttack), and what an independent judge sees in generated, in-painted and "
        "super-resolved pictures. Writes evaluation.json and pictures into the model folder, and the headline on its card. "
        "An interrupted attack goes on where it stopped.",
    )
    parser.set_defaults(run=run, extra="evaluate")
    parser.add_argument("model", help="a model folder, or its name in the models directory")
    parser.add_argument("--data", help=f"its data set (default: ${DATA_VARIABLE}/NAME OF THE DATA)")
    parser.add_argument("--judge", help="an independent classifier (default: MODEL-judge, where there is one)")
    parser.add_argument("--standard-model", help="a standard twin (default: MODEL-standard, where there is one)")
    parser.add_argument("--only", default="", metavar="PARTS", help="parts to run, separated by commas")
    parser.add_argument("--images", type=int, help="pictures per part (default: 1,000 attacked, 500 made)")
    parser.add_argument("--l2", type=float, default=0.5, help="radius of the L2 attack (%(default)s)")
    parser.add_argument("--linf", type=float, help="radius of an L-inf attack")
    parser.add_argument("--standard", action="store_true", help="run all four attacks of AutoAttack")
    parser.add_argument("--sweep", action="store_true", help="in-paint and super-resolve at several epsilons")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of images (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluate"), help="where attacks keep their progress")
    parser.add_argument("--device", help="cpu, cuda or cuda:N")


def run(options: argparse.Namespace) -> None:
    from ..engine.classifier import Classifier
    from ..evaluation import EvaluationOptions, evaluate
    from ..evaluation.report import FILE
    from ..training import datasets

    path = find(options.model)
    check_writable(path / FILE, "model")
    classifier = Classifier.load(path, device=options.device, precision=PRECISION)
    chosen = EvaluationOptions(
        only=tuple(part.strip().replace("-", "_") for part in options.only.split(",") if part.strip()),
        images=options.images,
        l2=options.l2,
        linf=options.linf,
        standard=options.standard,
        sweep=options.sweep,
        seed=options.seed,
    )
    source = _data(options.data, classifier)
    size = classifier.card.size
    judge = _other(options.judge, path, "judge", options.device)
    generates = judge is not None and (not chosen.only or "generation" in chosen.only)
    with progress_bar_for_counts() as on_progress:
        found = evaluate(
            classifier,
            datasets.load(source, "test", size=size),
            judge=judge,
            contrast=_other(options.standard_model, path, "standard", options.device),
            train=datasets.load(source, "train", size=size) if generates else None,
            options=chosen,
            work=options.work,
            on_progress=on_progress,
            # After every part, so that an interruption loses only the one it fell into.
            on_part=lambda so_far: so_far.keep(path),
        )
    print(*found.summary(), sep="\n")
    print(f"written to {path / 'evaluation.json'} and {path / CARD}")


def _data(given: str | None, classifier: Classifier) -> str:
    if given is not None:
        return given
    root = os.environ.get(DATA_VARIABLE)
    name = classifier.card.data.get("name")
    if not root or not name:
        raise DataError(f"data: give --data, the data set of {classifier.card.name}, or set {DATA_VARIABLE}.")
    return str(Path(root) / str(name))


def _other(given: str | None, path: Path, role: str, device: str | None) -> Classifier | None:
    from ..engine.classifier import Classifier

    sibling = path.with_name(f"{path.name}-{role}")
    if given is None and not (sibling / CARD).is_file():
        return None
    return Classifier.load(given or sibling, device=device, precision=PRECISION)
