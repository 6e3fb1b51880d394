"""From a trained network to a model folder: weights, Gaussian seeds, catalogue of units, card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..calibration import calibrate_where_possible
from ..engine import weights
from ..engine.classifier import Classifier
from ..engine.networks import Network
from ..engine.seeds import Seeds
from ..errors import InvalidInput, ModelError
from ..files import atomic_write, new_folder
from ..imaging import save
from ..model_folder import CARD, SEEDS, UNITS, UNITS_SHEET, WEIGHTS, Card, ModelFolder, write_card
from .catalogue import collect_units
from .config import TrainConfig
from .datasets import ImageSet, name_of
from .normaliser import Normaliser


def kept_defaults(out: Path) -> Mapping[str, Mapping[str, Any]]:
    """The synthesis defaults that a new model folder at `out` takes over from the one that is there.

    Raises InvalidInput when `out` holds anything but a model folder, whose card can be read.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    if not (out / CARD).is_file():
        raise InvalidInput("out", f"{out} is something other than a model folder; choose another folder or remove it.")
    try:
        return Card.from_json((out / CARD).read_text(encoding="utf-8")).defaults
    except (ModelError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "out", f"{out} has a card that cannot be read; choose another folder or remove it."
        ) from error


def publish(
    network: Network,
    data: ImageSet,
    config: TrainConfig,
    normaliser: Normaliser,
    out: Path,
    *,
    name: str,
    role: str,
    history: list[dict[str, float]],
    weights_format: str = "fp16",
    seeds: bool = True,
    units: bool = True,
) -> ModelFolder:
    """Write a model folder for a network trained on `data`, less what was held out; calibrated, where int8 is made for it.

    An older one at `out` is replaced when the new one is whole; the synthesis defaults of its card are kept.
    """
    card = Card(
        name=name,
        architecture=config.architecture,
        classes=tuple(data.class_names),
        size=data.size,
        mean=_triple(normaliser.mean),
        std=_triple(normaliser.std),
        role=role,
        training=_hyperparameters(config)
        | {"held_out": next((epoch for epoch in reversed(history) if epoch["best"]), {})},
        data={
            "name": name_of(config.data),
            "train_images": len(data) - config.hold_out,
            "held_out_images": config.hold_out,
        },
        defaults=kept_defaults(out),
    )
    with new_folder(out) as folder:
        weights.write(folder / WEIGHTS, network.state_dict(), weights_format)
        if seeds:
            side = min(16, data.size)
            Seeds.fit(_pooled(data, side), data.labels, len(data.class_names), side=side).save(folder / SEEDS)
        if units:
            classifier = Classifier(network, card)
            catalogue, sheet = collect_units(classifier, data)
            with atomic_write(folder / UNITS) as file:
                text = json.dumps([dataclasses.asdict(unit) for unit in catalogue], indent=0, ensure_ascii=False)
                file.write(text.encode())
            save(sheet, folder / UNITS_SHEET, quality=60)
        write_card(folder, card)
        calibrate_where_possible(folder)
    return ModelFolder.open(out)


def _hyperparameters(config: TrainConfig) -> dict[str, Any]:
    hidden = ("data", "architecture", "init")
    found = {k: v for k, v in config.to_dict().items() if k not in hidden}
    if config.init:
        found["init"] = Path(config.init).name
    return found


def _pooled(data: ImageSet, side: int) -> Tensor:
    """All images, block-averaged to `side` pixels, without making floats of the whole set at once."""
    parts = (data.floats(slice(i, i + 1024)) for i in range(0, len(data), 1024))
    return torch.cat([F.adaptive_avg_pool2d(part, side) for part in parts])


def _triple(values: Tensor) -> tuple[float, float, float]:
    r, g, b = (round(float(v), 4) for v in values.flatten())
    return r, g, b
