"""From a trained network to a model folder: weights, Gaussian seeds, catalogue of units, card."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from ..engine import weights
from ..engine.classifier import Classifier
from ..engine.networks import Network
from ..engine.seeds import Seeds
from ..errors import InvalidInput, ModelError
from ..files import atomic_write
from ..model_folder import CARD, SEEDS, UNITS, UNITS_SHEET, WEIGHTS, Card, ModelFolder, write_card
from ..units import Unit
from .config import TrainConfig
from .datasets import ImageSet, name_of
from .trainer import Normaliser

TOP = 9


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


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when the block ends well, and leaves nothing behind when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder, older = Path(name) / "new", Path(name) / "older"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(older)
        try:
            folder.rename(out)
        except BaseException:
            if older.exists():
                older.rename(out)
            raise


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
    """Write a model folder for a network trained on `data`.

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
        data={"name": name_of(config.data), "train_images": len(data)},
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
            with atomic_write(folder / UNITS_SHEET) as file:
                file.write(sheet)
        write_card(folder, card)
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


@torch.no_grad()
def collect_units(
    classifier: Classifier, data: ImageSet, *, limit: int = 10_000, shown: int = 96
) -> tuple[list[Unit], bytes]:
    """The catalogue of the latent's units, strongest first, and a WebP sheet of the top images of the first `shown`.

    Looks at up to `limit` images of `data`.
    """
    count = min(limit, len(data))
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count]
    batches = (data.floats(part).to(classifier.device) for part in torch.split(index, 256))
    latent = torch.cat([classifier.logits_and_latent(images)[1].cpu() for images in batches])
    values, rows = latent.topk(min(TOP, count), dim=0)
    strength = values.mean(0)
    order = [int(i) for i in strength.argsort(descending=True) if strength[i] > 0]
    units = []
    for unit in order:
        classes = Counter(data.class_names[int(data.labels[index[row]])] for row in rows[:, unit])
        units.append(
            Unit(
                index=unit,
                name=_suggest(classes, unit),
                activation=round(float(strength[unit]), 4),
                classes=dict(classes.most_common()),
            )
        )
    pictures = {unit.index: data.images[index[rows[:, unit.index]]] for unit in units[:shown]}
    return units, _sheet(units[:shown], pictures)


def _suggest(classes: Counter[str], unit: int) -> str:
    total = sum(classes.values())
    (first, most), *rest = classes.most_common(2)
    if most >= 0.6 * total or not rest:
        return f"{first} {unit}"
    return f"{first}/{rest[0][0]} {unit}"


def _sheet(units: list[Unit], pictures: dict[int, Tensor]) -> bytes:
    """Units as labelled rows of thumbnails, three units across."""
    thumb, label, across = 40, 14, 3
    width = TOP * thumb + 8
    rows = -(-len(units) // across)
    sheet = Image.new("RGB", (across * width, max(1, rows) * (thumb + label + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, unit in enumerate(units):
        left, top = (i % across) * width, (i // across) * (thumb + label + 4)
        draw.text((left + 2, top), unit.name, fill="black")
        for j, pixels in enumerate(pictures[unit.index]):
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((thumb, thumb), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left + j * thumb, top + label))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=60, method=6)
    return buffer.getvalue()
