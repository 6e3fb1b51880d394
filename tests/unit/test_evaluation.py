"""A whole evaluation of a tiny classifier: what must be equal is equal, what is missing is said, what was measured is kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.errors import DataError, InvalidInput, NotFound
from robust_synthesis.evaluation import IMAGES, Evaluation, EvaluationOptions, evaluate
from robust_synthesis.evaluation.judge import Judge, clean_accuracy
from robust_synthesis.evaluation.parts import generation, inpainting
from robust_synthesis.evaluation.parts import super_resolution as super_resolution_part
from robust_synthesis.evaluation.record import FILE
from robust_synthesis.evaluation.synthesis import Made
from robust_synthesis.specs import SPECS
from robust_synthesis.testing import CLASSES, pictures, tiny_card, tiny_classifier
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.units import Units

STILL: dict[str, dict[str, Any]] = {task: {"epsilon": 0.0, "step_size": 0.1, "steps": 1} for task in SPECS}
STILL["super_resolve"]["upsampling"] = "bicubic"
"""Parameters that leave every start as it is."""


@pytest.fixture(scope="module")
def test_set() -> ImageSet:
    pixels, labels = pictures()
    return ImageSet((pixels * 255).round().to(torch.uint8), labels, list(CLASSES))


@pytest.fixture(scope="module")
def still() -> Classifier:
    return tiny_classifier(card=tiny_card(defaults=STILL))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(tiny_classifier(7))


def test_clean_accuracy_counts_every_image(classifier: Classifier, test_set: ImageSet) -> None:
    told: list[int] = []
    found = clean_accuracy(classifier, test_set, lambda done, _: told.append(done))
    right = classifier.probabilities(test_set.floats(slice(None))).argmax(1) == test_set.labels
    assert (found.hits, found.count) == (int(right.sum()), len(test_set))
    assert told == [0, len(test_set)]


def test_generation_that_may_not_move_scores_as_its_seeds(still: Classifier, judge: Judge, test_set: ImageSet) -> None:
    found = generation.measure(still, test_set, judge, images=12)
    assert [contest.start for contest in found.contests] == ["gaussian", "noise"]
    for contest, setting in zip(found.contests, found.settings, strict=True):
        assert contest.robust == contest.seeds == setting.judged
        assert contest.seeds.count == 12
        assert contest.standard is None
        assert setting.fid == pytest.approx(found.seeds_fid[setting.start], rel=0.02)
    assert found.real_fid is None


def test_a_standard_classifier_starts_at_the_same_seeds_with_the_same_parameters(
    classifier: Classifier, test_set: ImageSet
) -> None:
    """So a twin without Gaussians and with other defaults, judged by the classifier itself, gains exactly as much."""
    twin = tiny_classifier(card=tiny_card("twin", defaults=STILL))
    twin.seeds = None
    found = generation.measure(classifier, test_set, Judge(classifier), contrast=twin, images=16, grid=[(8.0, 5)])
    for contest in found.contests:
        assert contest.standard == contest.robust
        assert contest.robust.hits > contest.seeds.hits
        assert contest.standard_gain == 1
    assert found.settings[-1].parameters["epsilon"] == 4  # at 16 pixels half of what the grid says at 32
    assert found.settings[-1].parameters["steps"] == 5
    sizes = {name: picture.size for name, picture in found.pictures.items()}
    assert sizes.keys() == {"generation-gaussian", "generation-noise", "generation-settings"}
    assert sizes["generation-gaussian"] == (8 + 4 * 136, 8 + 3 * (24 + 128 + 18 + 8))


def test_real_pictures_are_as_diverse_as_real_pictures(judge: Judge, test_set: ImageSet) -> None:
    reference = generation._Reference(judge, test_set)
    real = Made(
        test_set.floats(slice(None)), test_set.floats(slice(None)), test_set.labels, torch.ones(len(test_set)), {}
    )
    setting = reference.setting("gaussian", real)
    assert [setting.pixel_diversity, setting.feature_diversity] == pytest.approx([1, 1])
    assert setting.fid == pytest.approx(0, abs=1e-3)


def test_inpainting_that_may_not_move_scores_as_mean_filling(
    still: Classifier, judge: Judge, test_set: ImageSet
) -> None:
    found = inpainting.measure(still, test_set, judge, images=20)
    assert found.hole == 6
    (ours,) = found.settings
    assert ours.true_class == ours.predicted_class == found.mean
    assert ours.true_class_recovered in (0, None)
    assert found.telea.psnr > found.mean.psnr  # on smooth pictures


def test_sweep_of_inpainting_scales_its_epsilons(still: Classifier, judge: Judge, test_set: ImageSet) -> None:
    found = inpainting.measure(still, test_set, judge, images=2, sweep=True)
    assert [setting.parameters["epsilon"] for setting in found.settings] == [0, 0.25, 0.5, 1, 1.5]


def test_super_resolution_that_may_not_move_scores_as_its_start(
    still: Classifier, judge: Judge, test_set: ImageSet
) -> None:
    found = super_resolution_part.measure(still, test_set, judge, images=20)
    (ours,) = found.settings
    assert ours.true_class == ours.predicted_class == found.bicubic
    assert found.bicubic.psnr > found.nearest.psnr  # on smooth pictures


def test_what_cannot_be_measured_is_skipped_and_said(classifier: Classifier, test_set: ImageSet) -> None:
    bare = tiny_classifier(card=classifier.card)
    bare.units = Units()
    found = evaluate(bare, test_set, options=EvaluationOptions(l2=None), command="evaluate")
    assert list(found.parts) == ["accuracy"]
    assert found.skipped.keys() == set(IMAGES) - {"accuracy"}
    assert found.headline()["robust_accuracy"] == []
    with pytest.raises(InvalidInput, match=r"only: generation needs .* --judge"):
        evaluate(classifier, test_set, options=EvaluationOptions(only=("generation",)))


def test_an_evaluation_is_saved_part_by_part_and_read_back(
    classifier: Classifier, test_set: ImageSet, tmp_path: Path
) -> None:
    told: list[str] = []
    options = EvaluationOptions(only=("judge", "robustness_gap"), images=3)
    other = tiny_classifier(5)

    def save(so_far: Evaluation) -> None:
        told.append("saved " + " ".join(so_far.save(tmp_path).parts))

    found = evaluate(
        classifier,
        test_set,
        judge=other,
        contrast=other,
        options=options,
        command="robust-synthesis evaluate tiny",
        on_progress=lambda part, done, total: told.append(f"{part} {done}/{total}"),
        on_part=save,
    )
    assert told == [
        *("judge 0/96", "judge 96/96", "saved judge"),
        *("robustness_gap 0/6", "robustness_gap 3/6", "robustness_gap 6/6", "saved judge robustness_gap"),
    ]
    report = json.loads((tmp_path / FILE).read_text())
    assert report == found.report()
    assert re.search(r'"interval": \[0\.\d+, 0\.\d+\]', (tmp_path / FILE).read_text())
    assert report["parts"]["judge"]["command"] == "robust-synthesis evaluate tiny"
    assert report["parts"]["judge"]["versions"]["torch"] == torch.__version__
    assert report["headline"]["smallest_l2_flip"].keys() == {"robust", "standard"}
    assert Evaluation.read(tmp_path).headline() == found.headline()
    with Image.open(tmp_path / "robustness_gap.webp") as picture:
        assert picture.format == "WEBP"


def test_every_part_says_where_and_how_precisely_it_was_computed(test_set: ImageSet) -> None:
    half = tiny_classifier(card=tiny_card(defaults=STILL), precision="bf16")
    options = EvaluationOptions(only=("judge", "inpainting"), images=2)
    found = evaluate(half, test_set, judge=half, options=options).report()["parts"]
    assert {name: part["precision"] for name, part in found.items()} == {"judge": "fp32", "inpainting": "bf16"}
    assert {part["device"] for part in found.values()} == {"cpu"}


def test_an_evaluation_from_before_precision_was_written_down_is_read_as_fp32(
    classifier: Classifier, test_set: ImageSet, tmp_path: Path
) -> None:
    evaluate(classifier, test_set, options=EvaluationOptions(only=("accuracy",), l2=None)).save(tmp_path)
    report = json.loads((tmp_path / FILE).read_text())
    for name in ("device", "precision"):
        del report["parts"]["accuracy"][name]
    (tmp_path / FILE).write_text(json.dumps(report))
    assert Evaluation.read(tmp_path).parts["accuracy"].precision == "fp32"


def test_saving_keeps_other_parts_of_the_same_weights_only(
    classifier: Classifier, test_set: ImageSet, tmp_path: Path
) -> None:
    judged = evaluate(classifier, test_set, judge=classifier, options=EvaluationOptions(only=("judge",)))
    measured = evaluate(classifier, test_set, options=EvaluationOptions(only=("accuracy",), l2=None))
    judged.save(tmp_path)
    both = measured.save(tmp_path)
    assert list(both.parts) == ["judge", "accuracy"]
    assert "judge" not in both.skipped
    assert replace(measured, version="after the card was written").save(tmp_path).parts.keys() == both.parts.keys()
    assert list(replace(measured, network="other weights").save(tmp_path).parts) == ["accuracy"]


def test_a_second_evaluation_runs_only_what_is_missing(classifier: Classifier, test_set: ImageSet) -> None:
    options = EvaluationOptions(only=("accuracy", "judge"), l2=None)
    first = evaluate(classifier, test_set, judge=classifier, options=EvaluationOptions(only=("judge",)))
    assert list(evaluate(classifier, test_set, judge=classifier, options=options, known=first).parts) == ["accuracy"]
    other = tiny_classifier(9)
    assert list(evaluate(other, test_set, judge=classifier, options=options, known=first).parts) == [
        "accuracy",
        "judge",
    ]


def test_every_part_has_a_headline_and_lines_to_print(still: Classifier, test_set: ImageSet) -> None:
    other = tiny_classifier(5)
    options = EvaluationOptions(images=8, l2=0.01, grid=())
    found = evaluate(still, test_set, judge=other, contrast=other, options=options, command="x")
    assert list(found.parts) == [name for name in IMAGES if name != "translation"]
    assert found.skipped == {"translation": "needs a classifier of two domains"}
    assert found.headline().keys() == {
        *("clean_accuracy", "robust_accuracy", "judge", "generation_judged", "generation"),
        *("class_maximization", "inpainting", "super_resolution", "sketches", "smallest_l2_flip", "commands"),
    }
    lines = "\n".join(found.summary())
    for words in ("robust accuracy, l2 0.01", "bare seeds", "OpenCV Telea", "bicubic", "flips the prediction"):
        assert words in lines


def test_mistakes_are_named(classifier: Classifier, test_set: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="did you mean generation"):
        EvaluationOptions(only=("generatoin",))
    with pytest.raises(InvalidInput, match="images: is 0"):
        EvaluationOptions(images=0)
    with pytest.raises(InvalidInput, match="l2: is nan"):
        EvaluationOptions(l2=float("nan"))
    birds = tiny_classifier(card=tiny_card(classes=("bird", "cat")))
    with pytest.raises(InvalidInput, match="judge: has other classes than tiny"):
        evaluate(classifier, test_set, judge=birds)
    with pytest.raises(InvalidInput, match="data: has other classes than tiny"):
        evaluate(birds, test_set)
    with pytest.raises(InvalidInput, match="data: is 8 pixels wide, tiny 16"):
        evaluate(classifier, ImageSet(test_set.images[..., :8, :8], test_set.labels, test_set.class_names))
    with pytest.raises(DataError, match="no images"):
        evaluate(classifier, test_set.subset(torch.arange(0)))
    (tmp_path / FILE).write_text("{")
    with pytest.raises(DataError, match="delete it and evaluate again"):
        Evaluation.read(tmp_path)
