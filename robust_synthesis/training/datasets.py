"""Labelled images in memory, read from parquet, from a folder per class, or from torchvision.

All images of a set have one size. They are kept as bytes: 50,000 CIFAR-10 images take 150 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, InvalidInput
from ..imaging import Source, decode, squared

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_TORCHVISION = "torchvision:"
_SPLITS = ("train", "validation", "val", "test")
_SIZES = range(8, 4097)


@dataclass(frozen=True)
class ImageSet:
    """images: uint8 [N, 3, H, W]; labels: int64 [N]; class_names: C names."""

    images: Tensor
    labels: Tensor
    class_names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        return self.images.shape[-1]

    def to(self, device: torch.device | str) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device), self.class_names)

    def subset(self, index: Tensor) -> ImageSet:
        return ImageSet(self.images[index], self.labels[index], self.class_names)

    def floats(self, index: Tensor | slice) -> Tensor:
        """Images in [0, 1], float32 [n, 3, H, W]."""
        return self.images[index].float() / 255

    def hold_out(self, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
        """Split into (the rest, `count` images drawn at random): for choosing checkpoints without looking at test."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[count:]), self.subset(order[:count])


def name_of(source: str) -> str:
    """What a data set is called on a card: its folder's name, or torchvision's."""
    if source.startswith(_TORCHVISION):
        return source.split(":")[1]
    return Path(source).absolute().name


def splits(source: str | Path) -> list[str]:
    """The splits that a data set has; a folder of classes that has none is all `train`."""
    if str(source).startswith(_TORCHVISION):
        return ["train", "test"]
    path = Path(source)
    return [name for name in _SPLITS if _shards(path, name) or (path / name).is_dir()] or ["train"]


def load(source: str | Path, split: str = "train", *, size: int | None = None, limit: int | None = None) -> ImageSet:
    """Read a data set.

    `source` is a folder of `{split}-*.parquet` shards in the Hugging Face layout (column `image` or `img` with bytes of an
    image file, column `label`), a folder with one sub-folder of images per class (optionally below `{split}/`), or
    `torchvision:cifar10[:ROOT]`. Images are centre-cropped to a square and resized to `size` pixels (default: the shorter
    side of the first image). `limit` takes the first images; of a folder, as many of each class.

    Raises DataError when there is nothing to read, and InvalidInput for a size or limit out of range.
    """
    if size is not None and size not in _SIZES:
        raise InvalidInput("size", f"is {size}; give a number of pixels from {_SIZES[0]} to {_SIZES[-1]}.")
    if limit is not None and limit < 1:
        raise InvalidInput("limit", f"is {limit}; give a number of images from 1.")
    if str(source).startswith(_TORCHVISION):
        return _torchvision(str(source).removeprefix(_TORCHVISION), split, size, limit)
    path = Path(source)
    if not path.is_dir():
        raise DataError(
            f"data: {path} is not a folder; give a folder of parquet shards or of one sub-folder per class."
        )
    found = splits(path)
    if split not in found:
        raise DataError(
            f"data: {path} has no split {split!r}, only {', '.join(found)}; "
            f"expected {split}-*.parquet or a sub-folder {split}/."
        )
    if shards := _shards(path, split):
        return _checked(_parquet(shards, size, limit), path)
    root = path / split if (path / split).is_dir() else path
    return _checked(_folder(root, size, limit), root)


def _shards(path: Path, split: str) -> list[Path]:
    return sorted(path.glob(f"{split}-*.parquet")) or sorted((path / "data").glob(f"{split}-*.parquet"))


def _checked(images: ImageSet, path: Path) -> ImageSet:
    names, count = images.class_names, len(images.class_names)
    if count < 2 or len(set(names)) < count:
        raise DataError(
            f"data: {path} has the classes {', '.join(names)}; a classifier needs two or more different ones."
        )
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= count:
        raise DataError(
            f"data: {path} has a label {low if low < 0 else high}; with {count} classes give 0 to {count - 1}."
        )
    if images.size not in _SIZES:
        raise DataError(
            f"data: {path} has images of {images.size} pixels; give a size from {_SIZES[0]} to {_SIZES[-1]}."
        )
    return images


def _parquet(shards: list[Path], size: int | None, limit: int | None) -> ImageSet:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("data: reading parquet needs pyarrow; pip install 'robust-synthesis[train]'.") from error
    pictures: list[tuple[bytes, str]] = []
    labels: list[int] = []
    names: list[str] | None = None
    for shard in shards:
        if len(labels) == limit:
            break
        try:
            schema = parquet.read_schema(shard)
            image = next((name for name in ("image", "img") if name in schema.names), "image")
            if missing := {image, "label"} - set(schema.names):
                columns = ", ".join(schema.names)
                raise DataError(f"data: {shard} has no column {missing.pop()}, only {columns}; give image and label.")
            table = parquet.read_table(shard, columns=[image, "label"])
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"data: {shard} is not a readable parquet file; copy it again.") from error
        if limit is not None:
            table = table.slice(0, limit - len(labels))
        names = names or _class_names(table.schema.metadata or {})
        for i, (cell, label) in enumerate(zip(table[image].to_pylist(), table["label"].to_pylist(), strict=True)):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes) or label is None:
                what = "label" if isinstance(data, bytes) else "image bytes"
                raise DataError(
                    f"data: row {i} of {shard} has no {what}; write the file with images inside and labels."
                )
            pictures.append((data, f"row {i} of {shard}"))
            labels.append(int(label))
    if not labels:
        raise DataError(f"data: {shards[0].parent} holds no images; give a folder whose shards have rows.")
    names = names or [f"class {i}" for i in range(max(labels) + 1)]
    return ImageSet(_decode(pictures, len(labels), size), torch.tensor(labels), names)


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    if b"class_names" in metadata:
        return [str(name) for name in json.loads(metadata[b"class_names"])]
    if b"huggingface" in metadata:
        features = json.loads(metadata[b"huggingface"]).get("info", {}).get("features", {})
        return [str(name) for name in features.get("label", {}).get("names", [])] or None
    return None


def _folder(root: Path, size: int | None, limit: int | None) -> ImageSet:
    classes = sorted(child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    found = [
        (place, label, file)
        for label, name in enumerate(classes)
        for place, file in enumerate(
            sorted(file for file in (root / name).rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        )
    ]
    # By place first, so that a limit leaves images of every class.
    files = [(file, label) for _, label, file in sorted(found)[:limit]]
    if len(classes) < 2 or not files:
        raise DataError(f"data: {root} needs at least two sub-folders, one per class, with images in them.")
    images = _decode(((file, str(file)) for file, _ in files), len(files), size)
    return ImageSet(images, torch.tensor([label for _, label in files]), classes)


def _torchvision(spec: str, split: str, size: int | None, limit: int | None) -> ImageSet:
    name, _, root = spec.partition(":")
    if name != "cifar10":
        raise DataError(f"data: torchvision:{name} is not supported; torchvision:cifar10 is.")
    from ._torchvision import torchvision

    datasets = torchvision().datasets
    try:
        found = datasets.CIFAR10(root or "data", train=split == "train", download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"data: CIFAR-10 is neither in {root or 'data'} nor can it be downloaded ({error}); "
            "give torchvision:cifar10:ROOT with the folder that holds cifar-10-batches-py."
        ) from error
    pixels, labels = found.data[:limit], torch.tensor(found.targets[:limit])
    if size in (None, pixels.shape[1]):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    else:
        images = _decode(((picture, f"image {i}") for i, picture in enumerate(pixels)), len(pixels), size)
    return ImageSet(images, labels, list(found.classes))


def _decode(pictures: Iterable[tuple[Source, str]], count: int, size: int | None) -> Tensor:
    """Images uint8 [count, 3, size, size] of (picture, what to call it in messages)."""
    images: Tensor | None = None
    for i, (source, name) in enumerate(pictures):
        try:
            picture = decode(source)
        except InvalidInput as error:
            raise DataError(f"data: {name} {error.message}") from error
        size = size or min(picture.size)
        if images is None:
            images = torch.empty(count, 3, size, size, dtype=torch.uint8)
        images[i] = torch.from_numpy(np.array(squared(picture, size))).permute(2, 0, 1)
    assert images is not None
    return images
