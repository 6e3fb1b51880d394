"""Labelled images in memory, read from parquet, from a folder per class, or from torchvision.

All images of a set have one size. They are kept as bytes: 50,000 CIFAR-10 images take 150 MB.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


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


def load(source: str | Path, split: str = "train", *, size: int | None = None, limit: int | None = None) -> ImageSet:
    """Read a data set.

    `source` is a folder of `{split}-*.parquet` shards in the Hugging Face image layout (column `image` with JPEG or PNG
    bytes, column `label`), a folder with one sub-folder of images per class (optionally below `{split}/`), or
    `torchvision:cifar10[:ROOT]`. Images are centre-cropped to a square and resized to `size` pixels (default: the size of
    the first image).

    Raises DataError when there is nothing to read.
    """
    text = str(source)
    if text.startswith("torchvision:"):
        return _head(_torchvision(text.removeprefix("torchvision:"), split), limit)
    path = Path(source)
    if not path.is_dir():
        raise DataError(
            f"data: {path} is not a folder; give a folder of parquet shards or of one sub-folder per class."
        )
    shards = sorted(path.glob(f"{split}-*.parquet"))
    if shards:
        return _parquet(shards, size, limit)
    root = path / split if (path / split).is_dir() else path
    if root == path and split != "train":
        raise DataError(f"data: {path} has no split {split!r}; expected {split}-*.parquet or a sub-folder {split}/.")
    return _folder(root, size, limit)


def _parquet(shards: list[Path], size: int | None, limit: int | None) -> ImageSet:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("data: reading parquet needs pyarrow; pip install 'robust-synthesis[train]'.") from error
    pictures: list[tuple[bytes, str]] = []
    labels: list[int] = []
    names: list[str] | None = None
    for shard in shards:
        table = parquet.read_table(shard, columns=["image", "label"])
        names = names or _class_names(table.schema.metadata or {})
        for row, label in zip(table.column("image").to_pylist(), table.column("label").to_pylist(), strict=True):
            pictures.append((row["bytes"], f"{shard.name}:{len(pictures)}"))
            labels.append(int(label))
            if limit is not None and len(labels) == limit:
                break
        if limit is not None and len(labels) == limit:
            break
    if not labels:
        raise DataError(f"data: {shards[0].parent} holds no images.")
    names = names or [f"class {i}" for i in range(max(labels) + 1)]
    images = _decode(((io.BytesIO(data), name) for data, name in pictures), len(labels), size)
    return ImageSet(images, torch.tensor(labels), names)


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    if b"class_names" in metadata:
        return [str(name) for name in json.loads(metadata[b"class_names"])]
    if b"huggingface" in metadata:
        features = json.loads(metadata[b"huggingface"]).get("info", {}).get("features", {})
        return [str(name) for name in features.get("label", {}).get("names", [])] or None
    return None


def _folder(root: Path, size: int | None, limit: int | None) -> ImageSet:
    classes = sorted(child.name for child in root.iterdir() if child.is_dir())
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ][:limit]
    if len(classes) < 2 or not files:
        raise DataError(f"data: {root} needs at least two sub-folders, one per class, with images in them.")
    images = _decode(((file, str(file)) for file, _ in files), len(files), size)
    return ImageSet(images, torch.tensor([label for _, label in files]), classes)


def _torchvision(spec: str, split: str) -> ImageSet:
    name, _, root = spec.partition(":")
    if name != "cifar10":
        raise DataError(f"data: torchvision:{name} is not supported; torchvision:cifar10 is.")
    from ._torchvision import torchvision

    found = torchvision().datasets.CIFAR10(root or "data", train=split == "train", download=True)
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(found.targets), list(found.classes))


def _head(images: ImageSet, limit: int | None) -> ImageSet:
    return images if limit is None else images.subset(torch.arange(min(limit, len(images))))


def _decode(pictures: Iterable[tuple[io.BytesIO | Path, str]], count: int, size: int | None) -> Tensor:
    images: Tensor | None = None
    for i, (file, name) in enumerate(pictures):
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"data: {name} is not a readable image; remove or replace it.") from error
        size = size or min(picture.size)
        if picture.size != (size, size):
            picture = _square(picture, size)
        if images is None:
            images = torch.empty(count, 3, size, size, dtype=torch.uint8)
        images[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert images is not None
    return images


def _square(picture: Image.Image, size: int) -> Image.Image:
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3)
