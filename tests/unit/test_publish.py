"""From a trained network to a model folder: what is in it, and that it is whole or not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import robust_synthesis
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.seeds import Seeds
from robust_synthesis.errors import InvalidInput
from robust_synthesis.files import new_folder
from robust_synthesis.model_folder import CARD, SEEDS, UNITS, UNITS_SHEET, WEIGHTS, ModelFolder, write_card
from robust_synthesis.testing import ARCHITECTURE, CLASSES, pictures, tiny_card, tiny_classifier, tiny_network
from robust_synthesis.training import publish as publishing
from robust_synthesis.training.catalogue import collect_units
from robust_synthesis.training.config import TrainConfig
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.training.normaliser import Normaliser
from robust_synthesis.training.publish import kept_defaults, publish

CONFIG = TrainConfig(
    data="somewhere/pictures", architecture=dict(ARCHITECTURE), epsilon=0.75, init="models/parent", hold_out=24
)
HISTORY = [
    {"epoch": 1.0, "clean_accuracy": 0.5, "robust_accuracy": 0.4, "best": 1.0},
    {"epoch": 2.0, "clean_accuracy": 0.6, "robust_accuracy": 0.3, "best": 0.0},
]


@pytest.fixture(scope="module")
def data() -> ImageSet:
    images, labels = pictures()
    return ImageSet((images * 255).round().byte(), labels, list(CLASSES))


def make(out: Path, data: ImageSet, seed: int = 0, **options: Any) -> ModelFolder:
    given = {"name": out.name, "role": "robust", "history": HISTORY}
    return publish(tiny_network(seed), data, CONFIG, Normaliser.fit(data), out, **given | options)


@pytest.fixture(scope="module")
def folder(data: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make(tmp_path_factory.mktemp("models") / "tiny", data)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_folder_holds_what_its_card_lists_and_nothing_else(folder: ModelFolder) -> None:
    assert set(contents(folder.path)) == {CARD, WEIGHTS, SEEDS, UNITS, UNITS_SHEET}
    assert set(folder.card.files) == {WEIGHTS, SEEDS, UNITS, UNITS_SHEET}
    assert [path.name for path in folder.path.parent.iterdir()] == ["tiny"]


def test_the_card_says_what_the_network_is_and_how_it_came_about(folder: ModelFolder, data: ImageSet) -> None:
    card = folder.card
    assert (card.name, card.role, card.size, card.classes) == ("tiny", "robust", 16, CLASSES)
    assert card.architecture == ARCHITECTURE
    pixels = data.floats(slice(None))
    assert card.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert card.std == pytest.approx(pixels.std(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert card.data == {"name": "pictures", "train_images": 72, "held_out_images": 24}
    assert card.training["objective"] == "adversarial"
    assert card.training["epsilon"] == 0.75
    assert card.training["epochs"] == 14


def test_the_card_has_the_held_out_scores_of_the_epoch_that_was_chosen(folder: ModelFolder) -> None:
    assert folder.card.training["held_out"]["epoch"] == 1
    assert folder.card.training["held_out"]["robust_accuracy"] == 0.4


def test_the_card_names_no_folder_of_the_machine_it_was_trained_on(folder: ModelFolder) -> None:
    assert folder.card.training["init"] == "parent"
    assert "somewhere" not in (folder.path / CARD).read_text()


def test_the_folder_classifies_as_the_network_does(folder: ModelFolder, data: ImageSet) -> None:
    loaded = Classifier.load(folder.path, device="cpu")
    expected = Classifier(tiny_network(), folder.card, device="cpu")
    x = data.floats(slice(0, 96, 5))
    with torch.no_grad():
        assert torch.allclose(loaded(x), expected(x), atol=0.02)  # fp16 weights
        assert torch.equal(loaded(x).argmax(1), expected(x).argmax(1))


@pytest.mark.parametrize(("format", "dtype"), [("fp32", b'"F32"'), ("fp16", b'"F16"'), ("int8", b'"I8"')])
def test_weights_are_stored_in_the_format_asked_for(format: str, dtype: bytes, data: ImageSet, tmp_path: Path) -> None:
    made = make(tmp_path / "tiny", data, weights_format=format, seeds=False, units=False)
    assert dtype in (made.path / WEIGHTS).read_bytes()


def test_the_seeds_are_the_gaussians_of_the_classes(folder: ModelFolder, data: ImageSet) -> None:
    seeds = Seeds.load(folder, classes=4)
    assert seeds is not None
    assert seeds.side == 16
    means = torch.stack([data.floats(data.labels == c).mean(0).flatten() for c in range(4)]).numpy()
    assert np.abs(seeds.mean - means).max() < 1e-3
    pixels = data.floats(data.labels == 2).flatten(1)
    variance = (seeds.factor[2] ** 2).sum(0) + seeds.spread[2] ** 2
    assert variance.mean() == pytest.approx(float(pixels.var(0, correction=0).mean()) + 1e-4, rel=0.03)


def test_seeds_of_large_images_are_fitted_at_16_pixels(tmp_path: Path) -> None:
    images, labels = pictures(size=32)
    data = ImageSet((images * 255).round().byte(), labels, list(CLASSES))
    seeds = Seeds.load(make(tmp_path / "tiny", data, units=False), classes=4)
    assert seeds is not None
    assert seeds.side == 16
    small = torch.nn.functional.avg_pool2d(data.floats(data.labels == 1), 2).mean(0).flatten()
    assert np.abs(seeds.mean[1] - small.numpy()).max() < 1e-3


def test_without_seeds_and_units_only_the_weights_are_left(data: ImageSet, tmp_path: Path) -> None:
    made = make(tmp_path / "tiny", data, seeds=False, units=False)
    assert set(contents(made.path)) == {CARD, WEIGHTS}


def test_the_catalogue_has_every_active_unit_strongest_first(folder: ModelFolder, data: ImageSet) -> None:
    units = json.loads((folder.path / UNITS).read_text())
    classifier = Classifier(tiny_network(), folder.card, device="cpu")
    with torch.no_grad():
        latent = classifier.logits_and_latent(data.floats(slice(None)))[1]
    top = latent.topk(9, dim=0).values.mean(0)
    assert {unit["index"] for unit in units} == {i for i in range(8) if top[i] > 0}
    assert [unit["activation"] for unit in units] == sorted((unit["activation"] for unit in units), reverse=True)
    for unit in units:
        assert unit["activation"] == pytest.approx(float(top[unit["index"]]), abs=1e-3)
        rows = latent[:, unit["index"]].topk(9).indices
        names = [CLASSES[int(label)] for label in data.labels[rows]]
        assert unit["classes"] == {name: names.count(name) for name in set(names)}


def test_a_units_name_says_what_most_of_its_images_show(folder: ModelFolder) -> None:
    for unit in json.loads((folder.path / UNITS).read_text()):
        (first, most), *rest = sorted(unit["classes"].items(), key=lambda item: -item[1])
        said, number = unit["name"].rsplit(" ", 1)
        assert int(number) == unit["index"]
        names = said.split("/")
        assert len(names) == (1 if most >= 6 or not rest else 2)
        assert unit["classes"][names[0]] == most
        assert names[0] == first or most == rest[0][1]


def test_a_unit_can_be_painted_by_its_suggested_name(folder: ModelFolder) -> None:
    name = json.loads((folder.path / UNITS).read_text())[0]
    assert Classifier.load(folder.path, device="cpu").unit_index(name["name"]) == name["index"]


def test_the_sheet_shows_the_images_that_activate_a_unit_most(data: ImageSet) -> None:
    classifier = tiny_classifier()
    units, sheet = collect_units(classifier, data)
    assert sheet.size == (8 + 3 * 9 * 48, 8 + -(-len(units) // 3) * (24 + 40 + 8))
    with torch.no_grad():
        latent = classifier.logits_and_latent(data.floats(slice(None)))[1]
    for place, unit in enumerate(units[:4]):
        best = data.images[int(latent[:, unit.index].argmax())].permute(1, 2, 0).numpy()
        left, top = 8 + place % 3 * 9 * 48, 24 + place // 3 * 72
        shown = sheet.crop((left, top, left + 40, top + 40))
        assert np.array_equal(
            np.asarray(shown), np.asarray(Image.fromarray(best).resize((40, 40), Image.Resampling.NEAREST))
        )


def test_the_catalogue_looks_at_no_more_images_than_its_limit(data: ImageSet) -> None:
    units, _ = collect_units(tiny_classifier(), data, limit=5)
    assert {sum(unit.classes.values()) for unit in units} == {5}


def test_a_published_model_generates(folder: ModelFolder) -> None:
    model = robust_synthesis.load(folder.path, device="cpu")
    result = model.generate("waves", seed=1, steps=5)
    assert result.image.size == (16, 16)


def test_the_defaults_of_an_older_card_are_kept(data: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    older = make(out, data, seeds=False, units=False)
    defaults = {"generate": {"epsilon": 3.5, "steps": 42}}
    write_card(out, dataclasses.replace(older.card, defaults=defaults, measured={"clean_accuracy": 0.9}))
    newer = make(out, data, seed=1, seeds=False, units=False)
    assert newer.card.defaults == defaults
    assert newer.card.measured == {}
    assert newer.version != older.version


def test_an_older_folder_is_replaced_whole(data: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    make(out, data)
    (out / "evaluation.json").write_text("{}")
    made = make(out, data, seeds=False, units=False)
    assert set(contents(out)) == {CARD, WEIGHTS}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert ModelFolder.open(out).version == made.version


@pytest.mark.parametrize("failure", [RuntimeError("disk"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("part", ["collect_units", "write_card"])
def test_a_failure_leaves_the_older_folder_as_it_was_and_nothing_else(
    part: str, failure: BaseException, data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny"
    make(out, data)
    before = contents(tmp_path)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(publishing, part, fail)
    with pytest.raises(type(failure)):
        make(out, data, seed=1)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_failure_without_an_older_folder_leaves_nothing(data: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a Gaussian seed needs at least 2"):
        make(tmp_path / "tiny", data.subset(data.labels != 3))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_the_folders_change_places_puts_the_older_one_back(
    data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny"
    make(out, data, seeds=False, units=False)
    before = contents(tmp_path)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(out, data, seed=1, seeds=False, units=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_model_folder_is_never_overwritten(kind: str, data: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    if kind == "folder":
        out.mkdir()
    (out / "thesis.tex" if kind == "folder" else out).write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match=r"^out: .*precious is something other than a model folder; choose another"):
        make(out, data)
    assert contents(tmp_path) == before


def test_a_card_that_cannot_be_read_is_never_overwritten(data: ImageSet, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("{")
    with pytest.raises(InvalidInput, match=r"^out: .* has a card that cannot be read; choose another folder or remove"):
        make(tmp_path, data)
    assert (tmp_path / CARD).read_text() == "{"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    assert kept_defaults(out) == {}
    with new_folder(out) as folder:
        (folder / "file").write_text("new")
    assert contents(out) == {"file": b"new"}


def test_nothing_is_visible_before_the_folder_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    with new_folder(out) as folder:
        (folder / "file").write_text("half")
        assert not out.exists()
    assert contents(out) == {"file": b"half"}


def test_a_torchvision_data_set_is_called_by_its_name(data: ImageSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, data="torchvision:cifar10:some/where", init=None)
    made = publish(
        tiny_network(),
        data,
        config,
        Normaliser.fit(data),
        tmp_path / "tiny",
        name="tiny",
        role="standard",
        history=[],
        seeds=False,
        units=False,
    )
    assert made.card.data["name"] == "cifar10"
    assert made.card.role == "standard"
    assert made.card.training["held_out"] == {}
    assert made.card.size == tiny_card().size
