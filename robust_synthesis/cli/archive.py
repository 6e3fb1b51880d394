"""`archive`: classifiers as TorchServe model archives."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..model_folder import ModelFolder, available, find, models_directory


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "archive",
        help="build TorchServe model archives",
        description="Write NAME.mar, which a stock TorchServe runs: classifier, handler and the code that they need.",
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model folders, or their names in the models directory (default: all there but judges)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: beside the model folder)")


def run(options: argparse.Namespace) -> None:
    from ..archive import build, verify

    for model in options.models or _all():
        path = build(model, options.out)
        card, version = verify(path)
        print(f"{path}: {card.name} {version}, {path.stat().st_size / 2**20:.1f} MiB")


def _all() -> list[str]:
    names = [name for name in available() if ModelFolder.open(find(name), verify=False).card.role != "judge"]
    if not names:
        raise ModelError(f"model: there are no classifiers in {models_directory()}; set ROBUST_SYNTHESIS_MODELS.")
    return names
