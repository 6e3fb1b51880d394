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
from .report import REPORTS

if TYPE_CHECKING:
    from ..engine.classifier import Classifier

DATA_VARIABLE = "ROBUST_SYNTHESIS_DATA"
PRECISION = "auto"
"""Pictures are made for measuring as they are for users; attacks and judges compute in fp32 whatever this says."""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "evaluate",
        help="measure a classifier and its pictures, and write the numbers on its card",
        description="Clean and robust accuracy (AutoAttack), and what an independent judge sees in the pictures of every task. "
        "Writes evaluation.json and pictures into the model folder after each part, the headline on its card, and one page of "
        "HTML. An interrupted attack goes on where it stopped; --missing runs only what an interrupted evaluation has not.",
    )
    parser.set_defaults(run=run, extra="evaluate")
    parser.add_argument("model", help="a model folder, or its name in the models directory")
    parser.add_argument("--data", help=f"its data set (default: ${DATA_VARIABLE}/NAME OF THE DATA)")
    parser.add_argument("--judge", help="an independent classifier (default: MODEL-judge, where there is one)")
    parser.add_argument("--standard-model", help="a standard twin (default: MODEL-standard, where there is one)")
    parser.add_argument("--only", default="", metavar="PARTS", help="parts to run, separated by commas")
    parser.add_argument(
        "--missing", action="store_true", help="run only parts that these weights have no numbers of yet"
    )
    parser.add_argument(
        "--images", type=int, help="pictures per part (default: 1,000 attacked, 250 to 500 made, fewer if large)"
    )
    parser.add_argument(
        "--l2", type=float, help="radius of the L2 attack (default: that on the card, or trained against)"
    )
    parser.add_argument("--linf", type=float, help="radius of an L-inf attack")
    parser.add_argument("--standard", action="store_true", help="run all four attacks of AutoAttack")
    parser.add_argument("--sweep", action="store_true", help="in-paint and super-resolve at several epsilons")
    parser.add_argument(
        "--units",
        default="",
        metavar="NAMES",
        help="latent units to paint with above, below, in the middle (default: three)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of images (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluate"), help="where attacks keep their progress")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the page of HTML (default: out/reports/NAME.html)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N")


def run(options: argparse.Namespace) -> None:
    from ..engine.classifier import Classifier
    from ..evaluation import Evaluation, EvaluationOptions, evaluate
    from ..evaluation.options import radii_of
    from ..evaluation.record import FILE
    from ..evaluation.report.page import write_page
    from ..training import datasets

    path = find(options.model)
    check_writable(path / FILE, "model")
    classifier = Classifier.load(path, device=options.device, precision=PRECISION)
    page = options.report or REPORTS / f"{path.name}.html"
    check_writable(page, "report")
    given = {"l2": options.l2, "linf": options.linf}
    radii = given if any(given.values()) else {"l2": None, "linf": None} | radii_of(classifier.card)
    chosen = EvaluationOptions(
        only=tuple(part.replace("-", "_") for part in _listed(options.only)),
        units=tuple(_listed(options.units)),
        images=options.images,
        l2=radii["l2"],
        linf=radii["linf"],
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
            known=Evaluation.read(path) if options.missing and (path / FILE).is_file() else None,
            on_progress=on_progress,
            # After every part, so that an interruption loses only the one it fell into.
            on_part=lambda so_far: so_far.keep(path),
        )
    print(*found.summary(), sep="\n")
    write_page(path, page)
    print(f"written to {path / FILE}, {path / CARD} and {page}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
