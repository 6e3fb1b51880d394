"""The library: every task in this process, from a model folder to pictures and a report."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import robust_synthesis
from robust_synthesis import specs
from robust_synthesis.errors import InvalidInput, NotFound
from robust_synthesis.library import Synthesizer
from robust_synthesis.results import Picture, Progress, Result
from robust_synthesis.testing import CLASSES, SIZE, mask, picture, tiny_card, tiny_model_folder

GRID = 0.5 * (3 * SIZE * SIZE) ** 0.5 / 65535
"""How far rounding to the 16-bit grid may lead out of an L2 ball."""

INPUTS: Mapping[str, tuple[Image.Image, ...]] = {
    "generate": (),
    "inpaint": (picture(seed=1), mask()),
    "translate": (picture(seed=2),),
    "super_resolve": (picture(seed=3),),
    "sketch_to_image": (picture(seed=4),),
    "paint_features": (picture(seed=5), mask()),
    "maximize_class": (picture(seed=6),),
}
every_task = pytest.mark.parametrize("task", INPUTS)


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    folder = tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")
    return robust_synthesis.load(folder.path, device="cpu", precision="fp32")


def make(synthesizer: Synthesizer, task: str, **options: Any) -> Result:
    """Run a task by name, towards the class of waves."""
    result = getattr(synthesizer, task)(*INPUTS[task], **{"target": "waves", **options})
    assert isinstance(result, Result)
    return result


@every_task
def test_every_task_makes_its_class_more_probable_inside_its_ball(synthesizer: Synthesizer, task: str) -> None:
    result = make(synthesizer, task, epsilon=2.5, steps=12)
    made = result.pictures[0]
    assert result.task == task == specs.SPECS[task].task
    assert made.probability_after > made.probability_before
    assert made.probability_after == max(made.probabilities) or task in ("inpaint", "paint_features")
    assert 0.1 < made.l2 <= 2.5 + GRID
    assert 0 < made.linf <= 1
    assert len(made.losses) == len(made.probabilities) == 13
    assert result.parameters["epsilon"] == 2.5
    assert made.start is not None
    assert made.image.size == made.start.size == (SIZE, SIZE)
    difference = (np.asarray(made.image, np.float32) - np.asarray(made.start, np.float32)) / 255
    assert float(np.sqrt((difference**2).sum())) == pytest.approx(made.l2, rel=0.02)


@every_task
def test_an_linf_ball_bounds_every_value(synthesizer: Synthesizer, task: str) -> None:
    made = make(synthesizer, task, norm="linf", epsilon=0.05, steps=8).pictures[0]
    assert 0.02 < made.linf <= 0.05 + 0.5 / 65535 + 1e-6


@every_task
def test_a_report_is_json_and_enough_to_make_the_picture_again(synthesizer: Synthesizer, task: str) -> None:
    result = make(synthesizer, task, steps=5, random_start=True)
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["model"] == "tiny"
    assert report["version"] == synthesizer.classifier.version
    assert report["seconds"] > 0
    assert report["parameters"].keys() >= {"target", "epsilon", "step_size", "steps", "norm", "size", "seed", "exact"}
    made = report["pictures"][0]
    assert made["target"] == result.pictures[0].target
    assert made["predicted"] in CLASSES
    assert made["losses"][0] >= min(made["losses"])
    again = make(synthesizer, task, **report["parameters"])
    assert again.image.tobytes() == result.image.tobytes()
    assert again.pictures[0].losses == result.pictures[0].losses


def test_painting_with_a_unit_activates_it(synthesizer: Synthesizer) -> None:
    unit = synthesizer.classifier.units.units[2]
    made = synthesizer.paint_features(picture(), mask(), unit=unit.name, steps=10, strength=1).pictures[0]
    assert min(made.losses) < made.losses[0] - 0.01
    assert made.losses[0] == pytest.approx(-_activation(synthesizer, picture(), unit.index), abs=1e-4)


def _activation(synthesizer: Synthesizer, image: Image.Image, unit: int) -> float:
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
    return float(synthesizer.classifier.logits_and_latent(torch.from_numpy(pixels))[1][0, unit])


def test_several_pictures_differ_and_each_can_be_made_alone(synthesizer: Synthesizer) -> None:
    several = synthesizer.generate("circle", seed=3, count=3, exact=True)
    assert [made.index for made in several.pictures] == [0, 1, 2]
    assert {made.seed for made in several.pictures} == {3}
    assert len({image.tobytes() for image in several.images}) == 3
    first = synthesizer.generate("circle", seed=3, exact=True)
    assert first.image.tobytes() == several.images[0].tobytes()
    assert first.pictures[0].losses == several.pictures[0].losses


def test_a_seed_is_drawn_where_none_is_given_and_reported(synthesizer: Synthesizer) -> None:
    drawn = synthesizer.generate("circle")
    assert drawn.pictures[0].seed is not None
    again = synthesizer.generate("circle", seed=drawn.pictures[0].seed)
    assert again.image.tobytes() == drawn.image.tobytes()


def test_inpainting_leaves_the_rest_of_the_photo_alone(synthesizer: Synthesizer) -> None:
    image = picture(seed=1)
    made = synthesizer.inpaint(image, mask(), "waves").image
    kept = np.asarray(mask()) == 0
    assert np.array_equal(np.asarray(made)[kept], np.asarray(image)[kept])
    assert not np.array_equal(np.asarray(made)[~kept], np.asarray(image)[~kept])
    boxed = synthesizer.inpaint(image, box=(4, 4, 8, 8), target="waves").image
    assert boxed.tobytes() == made.tobytes()


def test_an_edit_can_be_pasted_back_into_the_whole_photo(synthesizer: Synthesizer) -> None:
    photo = picture(48, seed=1).resize((96, 48))
    made = synthesizer.inpaint(photo, box=(40, 16, 16, 16), target="waves", paste_back=True)
    assert made.image.size == (96, 48)
    difference = np.abs(np.asarray(made.image, int) - np.asarray(photo, int)).max(axis=2)
    assert difference[16:32, 40:56].max() > 20
    assert difference[:, :36].max() == difference[:, 60:].max() == difference[:12].max() == 0


def test_photos_come_as_files_bytes_and_arrays_alike(synthesizer: Synthesizer, tmp_path: Path) -> None:
    image = picture(40)
    image.save(tmp_path / "photo.png")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    sources = (image, tmp_path / "photo.png", str(tmp_path / "photo.png"), buffer.getvalue(), np.asarray(image))
    made = {synthesizer.maximize_class(source, "circle", steps=3).image.tobytes() for source in sources}
    assert len(made) == 1


@pytest.mark.parametrize("size", [8, 24, 32])
def test_results_have_the_size_that_was_asked_for(synthesizer: Synthesizer, size: int) -> None:
    assert synthesizer.generate("circle", size=size).image.size == (size, size)
    enlarged = synthesizer.super_resolve(picture(40), "circle", size=size, factor=2, steps=4)
    assert enlarged.image.size == (size, size)
    assert enlarged.parameters["size"] == size


def test_progress_and_frames_show_the_way_there(synthesizer: Synthesizer) -> None:
    reports: list[Progress] = []
    result = synthesizer.generate("square", seed=1, steps=20, frames=5, on_progress=reports.append)
    made = result.pictures[0]
    assert [report.step for report in reports] == [4, 8, 12, 16, 20]
    assert reports[-1].loss == pytest.approx(made.losses[-1])
    assert reports[-1].probability == pytest.approx(made.probabilities[-1])
    assert [step for step, _ in made.frames] == [0, 4, 8, 12, 16, 20]
    assert made.start is not None
    assert made.frames[0][1].tobytes() == made.start.tobytes()
    assert len({frame.tobytes() for _, frame in made.frames}) == 6
    assert not synthesizer.generate("square", seed=1).pictures[0].frames


@pytest.mark.parametrize(("steps", "frames", "kept"), [(20, 3, 3), (20, 15, 15), (20, 20, 20), (20, 99, 20)])
def test_there_are_as_many_frames_as_asked_for(steps: int, frames: int, kept: int, synthesizer: Synthesizer) -> None:
    made = synthesizer.generate("square", seed=1, steps=steps, frames=frames).pictures[0]
    shown = [step for step, _ in made.frames]
    assert len(shown) == 1 + kept
    assert (shown[0], shown[-1], shown) == (0, steps, sorted(set(shown)))


def test_without_use_best_the_report_is_about_the_last_picture(synthesizer: Synthesizer) -> None:
    def made(use_best: bool) -> Picture:
        return synthesizer.maximize_class(
            picture(), "stripes", steps=12, step_size=12.0, epsilon=20.0, use_best=use_best
        ).pictures[0]

    last, best = made(False), made(True)
    assert last.losses == best.losses
    assert last.probability_after == last.probabilities[-1] < best.probability_after == max(best.probabilities)


def test_classes_are_ranked_by_probability(synthesizer: Synthesizer) -> None:
    found = synthesizer.classify(picture(40))
    assert set(found) == set(CLASSES)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert math.isclose(sum(found.values()), 1, abs_tol=1e-5)
    assert list(synthesizer.classify(picture(40), top=2)) == list(found)[:2]


def test_translation_between_two_domains_needs_no_class(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "animals", tiny_card(classes=("horse", "zebra")))
    synthesizer = robust_synthesis.load(folder.path, precision="fp32")
    before = next(iter(synthesizer.classify(picture())))
    made = synthesizer.translate(picture(), steps=30, epsilon=6.0).pictures[0]
    assert made.target == {"horse": "zebra", "zebra": "horse"}[before]
    assert made.predicted == made.target
    assert made.probability_after > 0.5 > made.probability_before


@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("size", lambda s: s.generate("circle", size=64)),
        ("size", lambda s: s.generate("circle", size=4)),
        ("count", lambda s: s.generate("circle", count=0)),
        ("start", lambda s: s.generate("circle", start="grey")),
        ("colour", lambda s: s.generate("circle", colour="red")),
        ("target", lambda s: s.generate(3)),
        ("fit", lambda s: s.maximize_class(picture(), "circle", fit="squeeze")),
        ("image", lambda s: s.maximize_class(b"GIF89a", "circle")),
        ("image", lambda s: s.maximize_class("no such file.png", "circle")),
        ("image", lambda s: s.make(specs.MaximizeClass(target="circle"))),
        ("mask", lambda s: s.inpaint(picture())),
        ("mask", lambda s: s.inpaint(picture(), Image.new("L", (SIZE, SIZE)))),
        ("mask", lambda s: s.inpaint(picture(), mask(20))),
        ("box", lambda s: s.inpaint(picture(), mask(), box=(1, 1, 2, 2))),
        ("box", lambda s: s.inpaint(picture(), box=(100, 100, 2, 2))),
        ("factor", lambda s: s.super_resolve(picture(), "circle", factor=3)),
        ("target", lambda s: s.translate(picture())),
        ("unit", lambda s: s.paint_features(picture(), mask())),
        ("unit", lambda s: s.paint_features(picture(), mask(), unit=99)),
        ("unit", lambda s: s.paint_features(picture(), mask(), unit="the sky")),
    ],
)
def test_errors_name_the_field(synthesizer: Synthesizer, field: str, ask: Callable[[Synthesizer], Result]) -> None:
    with pytest.raises(InvalidInput) as error:
        ask(synthesizer)
    assert error.value.field == field


def test_an_unknown_class_is_answered_with_near_names(synthesizer: Synthesizer) -> None:
    with pytest.raises(NotFound, match="did you mean waves"):
        synthesizer.generate("wave")


def test_a_result_saves_its_first_picture(synthesizer: Synthesizer, tmp_path: Path) -> None:
    result = synthesizer.generate("circle", seed=1)
    result.save(tmp_path / "circle.png")
    with Image.open(tmp_path / "circle.png") as saved:
        assert saved.tobytes() == result.image.tobytes()


def test_loading_takes_a_name_or_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model_folder(tmp_path / "small")
    monkeypatch.setenv("ROBUST_SYNTHESIS_MODELS", str(tmp_path))
    found: list[Any] = [robust_synthesis.load(model).classifier for model in ("small", folder.path, str(folder.path))]
    assert {classifier.version for classifier in found} == {folder.version}
    with pytest.raises(NotFound, match="did you mean small"):
        robust_synthesis.load("smal")
