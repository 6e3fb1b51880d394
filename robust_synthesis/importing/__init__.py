"""Other people's checkpoints as model folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..calibration import calibrate_where_possible
from ..engine import weights
from ..errors import InvalidInput
from ..files import new_folder
from ..model_folder import WEIGHTS, Card, ModelFolder, sha256, write_card
from . import checkpoint, layout
from .layout import Layout, Triple

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_STATISTICS: tuple[Triple, Triple] = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
IMAGENET_STATISTICS: tuple[Triple, Triple] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {"small": 32, "large": 224}


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    weights_format: str = "fp32",
) -> ModelFolder:
    """Turn a checkpoint of MadryLab robustness, RobustBench or torchvision into a model folder at `out`.

    The architecture, and where the file has them the statistics of the inputs, are read from the file; nothing in it is
    executed. `size` is the side of the training images in pixels (default 32 for a 3x3 stem, 224 for a 7x7 stem). The
    card's `training.statistics` says whether mean and std are the checkpoint's, given or assumed.

    Raises InvalidInput for an argument and ModelError for a checkpoint that cannot be used; `out` then stays as it was.
    """
    if weights_format not in weights.FORMATS:
        raise InvalidInput("weights_format", f"must be one of {', '.join(weights.FORMATS)}, not {weights_format!r}.")
    if not source.is_file():
        raise InvalidInput("checkpoint", f"there is no file {source}; give the path of a downloaded checkpoint.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput("out", f"{out} exists already and is not an empty folder; give a new name or remove it.")
    given = _given_statistics(mean, std)
    found = layout.recognise(checkpoint.read(source))
    (mean_used, std_used), origin = _statistics(found, given)
    card = Card(
        name=name or out.resolve().name,
        architecture=found.architecture,
        classes=_classes(found, classes),
        size=_size(found, size),
        mean=mean_used,
        std=std_used,
        training={"imported_from": source.name, "sha256": sha256(source), "statistics": origin},
    )
    return _write(out, card, found, weights_format)


def _given_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[Triple, Triple] | None:
    if mean is None and std is None:
        return None
    triples = []
    for field, values in (("mean", mean), ("std", std)):
        if values is None:
            raise InvalidInput(field, "mean and std go together; give both or neither.")
        if len(values) != 3 or not all(math.isfinite(v) for v in values) or (field == "std" and min(values) <= 0):
            bound = ", above 0" if field == "std" else ""
            raise InvalidInput(field, f"must be three numbers{bound}, one for each of red, green and blue.")
        triples.append((float(values[0]), float(values[1]), float(values[2])))
    return triples[0], triples[1]


def _statistics(found: Layout, given: tuple[Triple, Triple] | None) -> tuple[tuple[Triple, Triple], str]:
    """Mean and std of the inputs, and where they are from."""
    if own := found.statistics:
        for field, values, others in zip(("mean", "std"), own, given or own, strict=True):
            if any(abs(a - b) > 1e-3 for a, b in zip(values, others, strict=True)):
                raise InvalidInput(field, f"the checkpoint holds its own, {values}; leave mean and std out.")
        return own, "checkpoint"
    if given is not None:
        return given, "given"
    if found.stem == "large":
        return IMAGENET_STATISTICS, "assumed: ImageNet"
    if found.classes == len(CIFAR10):
        return CIFAR10_STATISTICS, "assumed: CIFAR-10"
    raise InvalidInput("mean", "the checkpoint has no mean and std; give both (0,0,0 and 1,1,1 if it used none).")


def _classes(found: Layout, given: Sequence[str] | None) -> tuple[str, ...]:
    if found.classes < 2:
        raise InvalidInput("checkpoint", "the network tells fewer than 2 classes apart; give a classifier.")
    if given is not None:
        names = tuple(name.strip() for name in given)
        if len(names) != found.classes:
            raise InvalidInput("classes", f"the network has {found.classes} classes; {len(names)} names were given.")
        if len(set(names)) != len(names) or "" in names:
            raise InvalidInput("classes", "the names must differ from each other, and none may be empty.")
        return names
    if found.stem == "small" and found.classes == len(CIFAR10):
        return CIFAR10
    return tuple(f"class {i}" for i in range(found.classes))


def _size(found: Layout, given: int | None) -> int:
    size = SIZES[found.stem] if given is None else given
    if not 8 <= size <= 4096:
        raise InvalidInput("size", f"must be between 8 and 4096 pixels, not {size}.")
    return size


def _write(out: Path, card: Card, found: Layout, weights_format: str) -> ModelFolder:
    """Write a folder, and read it back before it is in its place."""
    with new_folder(out) as folder:
        weights.write(folder / WEIGHTS, found.state, weights_format)
        weights.load_network(write_card(folder, card))
        calibrate_where_possible(folder)
    return ModelFolder.open(out)
