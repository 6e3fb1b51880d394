"""Model folders: what is checked before anything in one is used, and how models are found by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import robust_synthesis
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.errors import InvalidInput, ModelError, NotFound
from robust_synthesis.model_folder import (
    CARD,
    MODELS_VARIABLE,
    SEEDS,
    UNITS,
    UNITS_SHEET,
    WEIGHTS,
    Card,
    ModelFolder,
    available,
    find,
    write_card,
)
from robust_synthesis.testing import CLASSES, pictures, tiny_card, tiny_classifier, tiny_model_folder
from robust_synthesis.units import Units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "tiny").path


def edit(folder: Path, **changes: Any) -> None:
    """Change the card's JSON, whatever that does to it."""
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def test_a_folder_comes_back_as_it_was_written(folder: Path) -> None:
    opened = ModelFolder.open(folder)
    assert dataclasses.replace(opened.card, files={}) == tiny_card()
    assert set(opened.card.files) == {WEIGHTS, SEEDS, UNITS, UNITS_SHEET}
    classifier, kept = Classifier.load(folder), tiny_classifier()
    x = pictures(4)[0]
    assert classifier.version == opened.version
    assert torch.equal(classifier(x), kept(x))
    assert classifier.units == kept.units
    assert classifier.seeds is not None


def test_the_version_changes_with_the_content_of_any_file_and_with_nothing_else(tmp_path: Path, folder: Path) -> None:
    first = ModelFolder.open(folder).version
    assert tiny_model_folder(tmp_path / "elsewhere").version == first
    assert len(first) == 16
    assert tiny_model_folder(tmp_path / "other", seed=1).version != first
    assert write_card(folder, tiny_card("renamed")).version != first
    (folder / UNITS).write_text("[]")
    assert write_card(folder, tiny_card()).version != first


@pytest.mark.parametrize("name", [WEIGHTS, SEEDS, UNITS, UNITS_SHEET])
def test_a_file_that_is_missing_or_was_changed_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match=rf"{name} does not have the card's checksum"):
        ModelFolder.open(folder)
    assert ModelFolder.open(folder, verify=False).card.name == "tiny"
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing"):
        ModelFolder.open(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/weights", "..", ""])
def test_files_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("secret")
    edit(folder, files={WEIGHTS: ModelFolder.open(folder).card.files[WEIGHTS], name: "0" * 64})
    with pytest.raises(ModelError, match=r"outside the folder|is missing"):
        ModelFolder.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "architecture, classes, mean, name, size, std missing"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_card_that_is_no_card_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / CARD).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=message):
        ModelFolder.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown colour"),
        ({"format": 2}, "format is 2, this version reads 1"),
        ({"classes": ["one"]}, "two or more different names"),
        ({"classes": ["one", "one"]}, "two or more different names"),
        ({"classes": "abc"}, "classes must be a list"),
        ({"classes": [1, 2, 3, 4]}, "classes must be names"),
        ({"mean": [0.5]}, "three numbers"),
        ({"mean": ["a", "b", "c"]}, "finite numbers"),
        ({"std": [0.2, 0.2, 0]}, "std must be above 0"),
        ({"std": 0.2}, "std must be a list"),
        ({"mean": [float("nan"), 0, 0]}, "finite numbers"),
        ({"size": 4}, "between 8 and 4096"),
        ({"size": "16"}, "size must be a whole number"),
        ({"files": {}}, f"lists no {WEIGHTS}"),
        ({"files": [WEIGHTS]}, "files must be an object"),
        ({"files": None}, "files must be an object"),
        ({"defaults": []}, "defaults must be an object"),
        ({"defaults": {"generate": {"steps": 0}}}, "defaults of generate: steps: is 0"),
        ({"defaults": {"drive": {}}}, "defaults of drive: there is no such task"),
        ({"min_size": 33}, "min_size and max_size must rise"),
        ({"defaults": {"generate": 5}}, "defaults of generate"),
        ({"architecture": "resnet"}, "architecture must be an object"),
    ],
)
def test_a_wrong_field_of_the_card_is_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ModelError, match=message):
        ModelFolder.open(folder)


@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "vit"},
        {},
        {"kind": "resnet", "heads": 2},
        {"kind": "resnet", "block": "x"},
        {"kind": "resnet", "width": 0.5},
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(folder: Path, architecture: dict[str, Any]) -> None:
    edit(folder, architecture=architecture)
    with pytest.raises(ModelError, match="architecture that this version cannot build"):
        Classifier.load(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    edit(folder, architecture={"kind": "resnet", "depths": [1, 1], "width": 8})
    with pytest.raises(ModelError, match="the card says"):
        Classifier.load(folder)
    edit(folder, architecture=dict(tiny_card().architecture), classes=["a", "b"])
    with pytest.raises(ModelError, match=r"fc\.weight"):
        Classifier.load(folder)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"index": 1}]', '{"a": 1}'])
def test_a_catalogue_of_units_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / UNITS).write_text(content)
    with pytest.raises(ModelError, match="catalogue of units"):
        Units.load(write_card(folder, tiny_card()))


def test_a_path_that_is_no_model_folder_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        ModelFolder.open(tmp_path / "nothing")
    for look in (ModelFolder.open, find):
        with pytest.raises(ModelError, match=r"has no model\.json"):
            look(tmp_path)


def test_models_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "horse2zebra"):
        tiny_model_folder(tmp_path / name)
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert available() == robust_synthesis.models() == ["cifar10", "horse2zebra"]
    assert find("cifar10") == find(tmp_path / "cifar10") == tmp_path / "cifar10"


def test_an_unknown_model_is_answered_with_near_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(NotFound, match="there are none"):
        find("cifar10")
    tiny_model_folder(tmp_path / "cifar10")
    for name in ("cifar", "CIFAR-10"):
        with pytest.raises(NotFound, match="did you mean cifar10") as error:
            find(name)
        assert (error.value.field, error.value.name, error.value.known) == ("model", name, ["cifar10"])
    with pytest.raises(NotFound, match="choose one of cifar10"):
        find("../../nothing")


def test_a_class_is_found_by_name_in_any_case_and_by_number(classifier: Classifier) -> None:
    assert [classifier.card.class_index(name) for name in ("square", " Square ", "1")] == [1, 1, 1]
    with pytest.raises(NotFound, match=r"^target: there is no class 'circel'; did you mean circle"):
        classifier.card.class_index("circel")
    capitals = dataclasses.replace(classifier.card, classes=("Tabby Cat", "ZEBRA"))
    for wrong, near in (("tabby kat", "Tabby Cat"), ("Zebr", "ZEBRA")):
        with pytest.raises(NotFound, match=f"did you mean {near}"):
            capitals.class_index(wrong)
    with pytest.raises(NotFound, match="choose one of circle, square, stripes, waves"):
        classifier.card.class_index("4")
    digits = dataclasses.replace(classifier.card, classes=("1", "0", "7"))
    assert [digits.class_index(name) for name in ("0", "1", "7", "2")] == [1, 0, 2, 2]


def test_a_unit_is_found_by_name_and_by_number(classifier: Classifier) -> None:
    named = classifier.units.units[0]
    assert classifier.unit_index(named.name.upper()) == named.index
    assert [classifier.unit_index(unit) for unit in (5, "5")] == [5, 5]
    for wrong, error in ((8, InvalidInput), (-1, InvalidInput), ("8", InvalidInput), ("sky", NotFound)):
        with pytest.raises(error) as raised:
            classifier.unit_index(wrong)
        assert raised.value.field == "unit"


def test_long_lists_of_names_are_cut_short() -> None:
    card = dataclasses.replace(tiny_card(), classes=tuple(f"class {i}" for i in range(100)))
    with pytest.raises(NotFound, match=r"class 11, \.\.\. \(100 in all\)"):
        card.class_index("xyz")


def test_sizes_default_to_half_and_twice_the_training_size() -> None:
    assert (tiny_card().min_size, tiny_card().max_size) == (8, 32)
    assert dataclasses.replace(tiny_card(), min_size=16, max_size=17).max_size == 17


def test_a_card_survives_json() -> None:
    card = dataclasses.replace(tiny_card(), measured={"accuracy": 0.9}, classes=("été", *CLASSES[1:]))
    assert Card.from_json(card.to_json()) == card


def test_a_write_that_fails_leaves_the_old_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / CARD).read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_card(folder, tiny_card("renamed"))
    assert (folder / CARD).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS, SEEDS, UNITS, UNITS_SHEET])
