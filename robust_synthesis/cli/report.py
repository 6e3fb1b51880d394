"""`report`: the page of HTML about an evaluated classifier, written again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..files import check_writable
from ..model_folder import find

REPORTS = Path("out/reports")


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "report",
        help="write the page of HTML about an evaluated classifier",
        description="One self-contained page: the card, every number that `evaluate` wrote into the model folder, and its "
        "pictures. Computes nothing.",
    )
    parser.set_defaults(run=run, extra="evaluate")
    parser.add_argument("model", help="a model folder, or its name in the models directory")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"(default: {REPORTS}/NAME.html)")


def run(options: argparse.Namespace) -> None:
    from ..evaluation.report.page import write_page

    path = find(options.model)
    out = options.out or REPORTS / f"{path.name}.html"
    check_writable(out)
    write_page(path, out)
    print(f"written to {out}")
