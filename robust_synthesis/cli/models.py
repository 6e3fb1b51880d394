"""`models`: the classifiers in the models directory, or of a server, and what their cards say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..model_folder import ModelFolder, available, find, models_directory
from .options import add_server, client

if TYPE_CHECKING:
    from ..client import Client


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser("models", help="list classifiers, or print one's card", description="List classifiers.")
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("name", nargs="?", help="print this one's card")
    add_server(parser)


def run(options: argparse.Namespace) -> None:
    if options.server:
        with client(options) as server:
            _of_server(server, options.name)
        return
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
        print(_line(name, folder.version, card.role, len(card.classes), card.size))


def _of_server(server: Client, name: str | None) -> None:
    if name:
        print(server.model(name).card_json, end="")
        return
    for model in server.models():
        print(_line(model.name, model.version, model.role, model.class_count, model.size))


def _line(name: str, version: str, role: str, classes: int, size: int) -> str:
    return f"{name:20} {version}  {role:9} {classes:4} classes, {size} px"
