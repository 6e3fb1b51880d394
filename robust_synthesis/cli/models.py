"""`models`: the classifiers in the models directory, and what their cards say."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ModelError
from ..model_folder import ModelFolder, available, find, models_directory


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("models", help="list classifiers, or print one's card", description="List classifiers.")
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("name", nargs="?", help="print this one's card")


def run(options: argparse.Namespace) -> None:
    if options.name:
        print(ModelFolder.open(find(options.name)).card.to_json(), end="")
        return
    names = available()
    if not names:
        raise ModelError(f"model: there are no classifiers in {models_directory()}; set ROBUST_SYNTHESIS_MODELS.")
    for name in names:
        try:
            folder = ModelFolder.open(find(name), verify=False)
        except ModelError as error:
            print(f"{name:20} cannot be used: {error}")
            continue
        card = folder.card
        print(f"{name:20} {folder.version}  {card.role:9} {len(card.classes):4} classes, {card.size} px")
