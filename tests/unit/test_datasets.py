"""Labelled images from parquet, folders and torchvision; and that training never sees the test split."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from robust_synthesis.errors import DataError, InvalidInput
from robust_synthesis.training import datasets
from robust_synthesis.training._torchvision import torchvision
from robust_synthesis.training.datasets import ImageSet, load

NAMES = ["apple", "pear", "plum"]
Metadata = dict[bytes, bytes]
CLASS_NAMES: Metadata = {b"class_names": json.dumps(NAMES).encode()}
HUGGING_FACE: Metadata = {
    b"huggingface": json.dumps(
        {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}}}
    ).encode()
}


def png(colour: tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def shard(
    path: Path,
    pictures: Sequence[Any],
    labels: Sequence[int | None],
    *,
    metadata: Metadata | None = CLASS_NAMES,
    image: str = "image",
) -> None:
    cells = [{"bytes": data, "path": None} for data in pictures]
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array(cells, cell), "label": pa.array(labels, pa.int64())}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def folder(root: Path, classes: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Pictures of one grey each: 10 for the first of the first class, one more for every one after it."""
    grey = 10
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png((grey,) * 3, size))
            grey += 1
    return root


def greys(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("metadata", [CLASS_NAMES, HUGGING_FACE], ids=["class_names", "huggingface"])
def test_parquet_shards_are_read_in_order_with_their_class_names(tmp_path: Path, metadata: Metadata) -> None:
    shard(tmp_path / "train-00000-of-00002.parquet", [png((1, 2, 3)), png((4, 5, 6))], [2, 0], metadata=metadata)
    shard(tmp_path / "train-00001-of-00002.parquet", [png((7, 8, 9))], [1], metadata=metadata)
    found = load(tmp_path)
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (3, 3, 8, 8)
    assert found.images[:, :, 5, 5].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert found.labels.tolist() == [2, 0, 1]
    assert found.class_names == NAMES


def test_parquet_without_class_names_numbers_them(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png()] * 3, [0, 2, 1], metadata=None)
    assert load(tmp_path).class_names == ["class 0", "class 1", "class 2"]


def test_a_download_of_the_hub_is_read_with_its_data_folder_and_its_img_column(tmp_path: Path) -> None:
    shard(tmp_path / "data" / "train-00000-of-00001.parquet", [png((9, 9, 9)), png()], [1, 0], image="img")
    found = load(tmp_path)
    assert greys(found) == [9, 0]
    assert found.labels.tolist() == [1, 0]


def test_images_as_plain_bytes_are_read_too(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([png((5, 5, 5)), png()], pa.binary()), "label": [0, 1]})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    assert greys(load(tmp_path)) == [5, 0]


def test_floats_are_the_bytes_over_255(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png((0, 51, 255)), png()], [0, 1])
    pixel = load(tmp_path).floats(torch.tensor([0]))[0, :, 3, 3]
    assert torch.allclose(pixel, torch.tensor([0.0, 0.2, 1.0]))


def test_a_folder_per_class_takes_the_names_of_its_folders_in_order(tmp_path: Path) -> None:
    found = load(folder(tmp_path, {"pear": 1, "apple": 2}))
    assert found.class_names == ["apple", "pear"]
    assert sorted(zip(found.labels.tolist(), greys(found), strict=True)) == [(0, 11), (0, 12), (1, 10)]


def test_hidden_folders_and_other_files_are_no_classes(tmp_path: Path) -> None:
    folder(tmp_path, {"apple": 1, "pear": 1})
    (tmp_path / ".cache").mkdir()
    (tmp_path / "apple" / "notes.txt").write_text("not an image")
    found = load(tmp_path)
    assert found.class_names == ["apple", "pear"]
    assert len(found) == 2


def test_split_folders_are_told_apart(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"apple": 2, "pear": 1})
    folder(tmp_path / "test", {"apple": 1, "pear": 1})
    assert len(load(tmp_path)) == 3
    assert len(load(tmp_path, "test")) == 2
    assert load(tmp_path, "test").class_names == ["apple", "pear"]
    assert datasets.splits(tmp_path) == ["train", "test"]


def test_training_data_never_contain_the_test_split(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png((1, 1, 1)), png((2, 2, 2))], [0, 1])
    shard(tmp_path / "test-0.parquet", [png((200, 200, 200))], [0])
    train = load(tmp_path)
    assert greys(train) == [1, 2]
    rest, held_out = train.hold_out(1, seed=0)
    assert sorted(greys(rest) + greys(held_out)) == [1, 2]


def test_a_test_folder_beside_classes_is_refused_rather_than_trained_on(tmp_path: Path) -> None:
    folder(tmp_path, {"apple": 1, "pear": 1})
    folder(tmp_path / "test", {"apple": 1, "pear": 1})
    with pytest.raises(DataError, match=r"^data: .* has no split 'train', only test; expected train-\*.parquet or"):
        load(tmp_path)


def test_images_are_cropped_to_their_middle_square_and_resized(tmp_path: Path) -> None:
    wide = Image.new("RGB", (48, 16), "black")
    wide.paste((250, 250, 250), (16, 0, 32, 16))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wide.save(tmp_path / "a" / "wide.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b" / "tall.png")
    assert load(tmp_path).images.shape == (2, 3, 16, 16)
    assert set(load(tmp_path).images.flatten().tolist()) == {250}
    assert load(tmp_path, size=12).images.shape == (2, 3, 12, 12)
    assert int(load(tmp_path, size=12).images.min()) > 230  # Lanczos overshoots a little at the edges


def test_images_of_other_sizes_take_the_first_ones(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png(size=(12, 12)), png((9, 9, 9), size=(40, 30))], [0, 1])
    found = load(tmp_path)
    assert found.images.shape == (2, 3, 12, 12)
    assert set(found.images[1].flatten().tolist()) == {9}


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for name, picture in (("a", Image.new("L", (8, 8), 77)), ("b", Image.new("RGBA", (8, 8), (0, 0, 0, 0)))):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "0.png")
    assert load(tmp_path).images[:, :, 0, 0].tolist() == [[77] * 3, [255] * 3]


def test_a_limit_takes_the_first_rows_of_parquet(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png((i, 0, 0)) for i in range(3)], [0, 1, 2])
    shard(tmp_path / "train-1.parquet", [png((i, 0, 0)) for i in range(3, 6)], [0, 1, 2])
    assert greys(load(tmp_path, limit=2)) == [0, 1]
    assert greys(load(tmp_path, limit=4)) == [0, 1, 2, 3]
    assert greys(load(tmp_path, limit=99)) == [0, 1, 2, 3, 4, 5]


def test_a_limit_leaves_a_folder_all_its_classes(tmp_path: Path) -> None:
    found = load(folder(tmp_path, {"apple": 5, "pear": 5, "plum": 5}), limit=6)
    assert found.labels.bincount().tolist() == [2, 2, 2]


def numbered(count: int) -> ImageSet:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return ImageSet(images, torch.arange(count) % 2, ["a", "b"])


def test_what_is_held_out_is_disjoint_from_the_rest_and_both_are_everything() -> None:
    rest, held_out = numbered(50).hold_out(12, seed=3)
    assert (len(rest), len(held_out)) == (38, 12)
    assert sorted(greys(rest) + greys(held_out)) == list(range(50))
    assert held_out.labels.tolist() == [grey % 2 for grey in greys(held_out)]


def test_what_is_held_out_depends_on_the_seed_alone() -> None:
    first, again, other = (greys(numbered(50).hold_out(12, seed=seed)[1]) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_missing_folder_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data: .*nowhere is not a folder; give a folder of parquet shards or"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["parquet", "split folders", "classes alone"])
def test_a_missing_split_is_named_with_those_there_are(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        shard(tmp_path / "train-0.parquet", [png()] * 2, [0, 1])
    else:
        folder(tmp_path / ("train" if kind == "split folders" else ""), {"apple": 1, "pear": 1})
    with pytest.raises(DataError, match=r"^data: .* has no split 'test', only train; expected test-\*.parquet or a"):
        load(tmp_path, "test")


def test_an_empty_folder_is_told_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data: .* needs at least two sub-folders, one per class, with images"):
        load(tmp_path)


def test_one_class_is_too_few_as_folder_and_as_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data: .* needs at least two sub-folders, one per class"):
        load(folder(tmp_path / "folder", {"apple": 2}))
    shard(tmp_path / "train-0.parquet", [png()], [0], metadata={b"class_names": b'["apple"]'})
    with pytest.raises(DataError, match=r"^data: .* has the classes apple; a classifier needs two or more different"):
        load(tmp_path)


def test_equal_class_names_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png()] * 2, [0, 1], metadata={b"class_names": b'["apple", "apple"]'})
    with pytest.raises(DataError, match=r"has the classes apple, apple; a classifier needs two or more different ones"):
        load(tmp_path)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_class_is_refused(tmp_path: Path, label: int) -> None:
    shard(tmp_path / "train-0.parquet", [png()] * 2, [0, label])
    with pytest.raises(DataError, match=rf"^data: .* has a label {label}; with 3 classes give 0 to 2"):
        load(tmp_path)


@pytest.mark.parametrize("broken", [b"not an image", b"", png()[:45]], ids=["text", "empty", "truncated"])
def test_a_corrupt_image_is_named_with_its_row(tmp_path: Path, broken: bytes) -> None:
    shard(tmp_path / "train-0.parquet", [png(), broken], [0, 1])
    with pytest.raises(DataError, match=r"^data: row 1 of .*train-0.parquet is .*; \w+"):
        load(tmp_path)


def test_a_corrupt_image_is_named_with_its_file(tmp_path: Path) -> None:
    folder(tmp_path, {"apple": 1, "pear": 1})
    (tmp_path / "pear" / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    with pytest.raises(DataError, match=r"^data: .*1.jpg is damaged or incomplete and cannot be decoded; "):
        load(tmp_path)


def test_rows_without_image_bytes_or_label_are_named(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [png(), None], [0, 1])
    with pytest.raises(DataError, match=r"^data: row 1 of .* has no image bytes; write the file with images inside"):
        load(tmp_path)
    shard(tmp_path / "train-0.parquet", [png(), png()], [0, None])
    with pytest.raises(DataError, match=r"^data: row 1 of .* has no label; "):
        load(tmp_path)


def test_parquet_without_the_columns_or_damaged_is_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"photo": [b""], "label": [0]}), tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"^data: .*train-0.parquet has no column image, only photo, label; give image"):
        load(tmp_path)
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"^data: .*train-0.parquet is not a readable parquet file; copy it again"):
        load(tmp_path)


def test_parquet_without_rows_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.parquet", [], [])
    with pytest.raises(DataError, match=r"^data: .* holds no images; give a folder whose shards have rows"):
        load(tmp_path)


@pytest.mark.parametrize(("option", "value"), [("size", 7), ("size", 0), ("size", 5000), ("limit", 0), ("limit", -3)])
def test_sizes_and_limits_out_of_range_are_refused(tmp_path: Path, option: str, value: int) -> None:
    folder(tmp_path, {"apple": 1, "pear": 1})
    with pytest.raises(InvalidInput, match=rf"^{option}: is {value}; give a number"):
        load(tmp_path, **{option: value})  # type: ignore[arg-type]


def test_images_too_small_for_a_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data: .* has images of 4 pixels; give a size from 8 to 4096"):
        load(folder(tmp_path, {"apple": 1, "pear": 1}, size=(4, 4)))


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 as torchvision unpacks it, with two images a batch; its checksums are made to fit."""
    root = tmp_path / "torchvision"
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def batch(name: str, first: int) -> list[str]:
        rows = np.zeros((2, 3072), np.uint8)
        rows[:, 0] = first, first + 1  # red of the first pixel
        rows[:, 1] = 100  # red of the pixel to its right
        rows[:, 2048 + 32] = 50  # blue of the pixel below it
        return write(name, {"data": rows, "labels": [first % 10, (first + 1) % 10]})

    train = [batch(f"data_batch_{i + 1}", 2 * i) for i in range(5)]
    test = [batch("test_batch", 20)]
    _, md5 = write("batches.meta", {"label_names": names})
    archive = torchvision().datasets.CIFAR10
    monkeypatch.setattr(archive, "train_list", train)
    monkeypatch.setattr(archive, "test_list", test)
    monkeypatch.setattr(archive, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5})
    return root


def test_torchvision_imports_beside_a_torch_without_cuda() -> None:
    module = torchvision()
    assert module.__name__ == "torchvision"
    assert module.datasets.CIFAR10.base_folder == "cifar-10-batches-py"
    assert torchvision() is module


def test_torchvisions_cifar10_is_read_from_disk(cifar10: Path) -> None:
    found = load(f"torchvision:cifar10:{cifar10}")
    assert found.images.shape == (10, 3, 32, 32)
    assert found.images.is_contiguous()
    assert found.images[:, 0, 0, 0].tolist() == list(range(10))
    assert found.images[0, :, 0, 1].tolist() == [100, 0, 0]
    assert found.images[0, :, 1, 0].tolist() == [0, 0, 50]
    assert found.labels.tolist() == list(range(10))
    assert found.class_names[:2] == ["airplane", "automobile"]


def test_torchvisions_test_split_is_another_file(cifar10: Path) -> None:
    source = f"torchvision:cifar10:{cifar10}"
    assert load(source, "test").images[:, 0, 0, 0].tolist() == [20, 21]
    assert datasets.splits(source) == ["train", "test"]


def test_torchvisions_images_obey_limit_and_size(cifar10: Path) -> None:
    found = load(f"torchvision:cifar10:{cifar10}", size=16, limit=3)
    assert found.images.shape == (3, 3, 16, 16)
    assert found.labels.tolist() == [0, 1, 2]


def test_a_download_that_fails_says_where_the_data_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision().datasets.CIFAR10, "download", offline)
    with pytest.raises(
        DataError, match=r"^data: CIFAR-10 is neither in .* nor can it be downloaded \(no network\); give"
    ):
        load(f"torchvision:cifar10:{tmp_path}")


def test_other_torchvision_data_sets_are_refused() -> None:
    with pytest.raises(DataError, match=r"^data: torchvision:mnist is not supported; torchvision:cifar10 is"):
        load("torchvision:mnist")


@pytest.mark.parametrize(
    ("source", "name"),
    [("data/cifar10", "cifar10"), ("data/pets/", "pets"), ("torchvision:cifar10:some/root", "cifar10")],
)
def test_a_data_set_is_called_by_its_folder_or_its_torchvision_name(source: str, name: str) -> None:
    assert datasets.name_of(source) == name
