"""Tasks measured on tiny classifiers: who is driven where, how far, what is shown, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from robust_synthesis.drawings import SIDE, drawings
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.errors import NotFound
from robust_synthesis.evaluation import EvaluationOptions
from robust_synthesis.evaluation.judge import Judge
from robust_synthesis.evaluation.options import radii_of
from robust_synthesis.evaluation.parts import class_maximization, feature_painting, generation, sketches, translation
from robust_synthesis.evaluation.parts.names import file_name, shown
from robust_synthesis.testing import CLASSES, pictures, tiny_card, tiny_classifier
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.units import Unit

QUICK: dict[str, dict[str, Any]] = {
    task: {"epsilon": 8.0, "step_size": 2.0, "steps": 6} for task in ("translate", "maximize_class", "sketch_to_image")
}
QUICK["paint_features"] = {"epsilon": 3.0, "step_size": 1.0, "steps": 5}


def image_set(classes: tuple[str, ...]) -> ImageSet:
    pixels, labels = pictures(len(classes))
    return ImageSet((pixels * 255).round().to(torch.uint8), labels, list(classes))


@pytest.fixture(scope="module")
def quick() -> Classifier:
    return tiny_classifier(card=tiny_card(defaults=QUICK))


def test_translation_goes_both_ways_and_says_how_far() -> None:
    domains = ("horse", "zebra or/else")
    classifier = tiny_classifier(card=tiny_card(classes=domains, defaults=QUICK))
    found = translation.measure(classifier, image_set(domains), Judge(classifier), images=10)
    assert [(way.source, way.target) for way in found.ways] == [domains, domains[::-1]]
    for way in found.ways:
        assert way.judged.count == way.originals_right.count == 10
        assert way.judged.value > 1 - way.originals_right.value  # more see the other domain than before
        assert 0 < way.change.mean <= way.change.largest <= 8.01  # the ball, and the rounding to 8 bits
        assert way.parameters["steps"] == 6
    assert set(found.pictures) == {"translation-horse-to-zebra-or-else", "translation-zebra-or-else-to-horse"}
    assert {picture.size for picture in found.pictures.values()} == {(8 + 8 * 168, 8 + 2 * (24 + 160 + 18 + 8))}


def test_translation_shows_a_domain_of_which_there_are_no_photographs_in_neither_way() -> None:
    domains = ("horse", "zebra")
    classifier = tiny_classifier(card=tiny_card(classes=domains, defaults=QUICK))
    horses = image_set(domains).subset(torch.arange(4))
    (way,) = translation.measure(classifier, horses, Judge(classifier)).ways
    assert (way.source, way.judged.count) == ("horse", 4)


def test_class_maximization_drives_no_photograph_to_its_own_class(quick: Classifier) -> None:
    labels = [i % 7 for i in range(70)]
    goals = class_maximization.targets(labels, 7, seed=3)
    assert all(goal != label for goal, label in zip(goals, labels, strict=True))
    assert set(goals) == set(range(7))
    found = class_maximization.measure(quick, image_set(CLASSES), Judge(quick), images=25)
    assert found.judged.count == 25
    assert found.judged.value > 0.8
    assert found.pictures["class_maximization"].size == (8 + 10 * 136, 8 + 4 * (24 + 128 + 18 + 8))


def test_sketches_are_of_classes_that_the_classifier_has() -> None:
    names = ("ship", "frog", "aardvark", "orange")
    classifier = tiny_classifier(card=tiny_card(classes=names, defaults=QUICK))
    found = sketches.measure(classifier, Judge(classifier))
    assert found.classes == ("orange", "ship", "frog", "aardvark")
    assert found.judged.hits >= found.drawings_judged.hits
    assert found.judged.count == 4


def test_drawings_are_crude_flat_and_all_different() -> None:
    drawn = drawings(["king penguin", "x", "y", "orange", "school bus", "z", "w"], 6)
    assert [name for name, _ in drawn] == ["orange", "school bus", "king penguin", "x", "y", "z"]
    assert len({image.tobytes() for _, image in drawn}) == 6
    for _, image in drawn:
        assert image.size == (SIDE, SIDE)
        colours = image.getcolors(64)
        assert colours is not None
        assert 1 < len(colours) < 10


def test_painting_raises_each_unit_inside_its_mask_and_nothing_outside(quick: Classifier) -> None:
    found = feature_painting.measure(quick, image_set(CLASSES), images=6)
    assert len(found.edits) == 3
    for edit in found.edits:
        assert edit.after > edit.before
        assert 0 < edit.change <= 3.01
    assert found.outside == 0
    assert found.pictures["feature_painting"].width == 8 + 5 * 200


def test_painting_takes_the_units_that_are_asked_for(quick: Classifier) -> None:
    chosen = [quick.units.units[2].name, str(quick.units.units[1].index)]
    found = feature_painting.measure(quick, image_set(CLASSES), images=2, units=chosen)
    assert [edit.unit for edit in found.edits] == [quick.units.units[2].name, quick.units.units[1].name]
    with pytest.raises(NotFound, match="unit"):
        feature_painting.measure(quick, image_set(CLASSES), images=2, units=["lawn"])


def test_units_with_names_by_people_come_first_then_the_strongest_of_other_classes() -> None:
    units = [
        Unit(4, "dog 4", 3.0, {"dog": 9}),
        Unit(7, "dog 7", 2.0, {"dog": 8}),
        Unit(2, "cat 2", 1.5, {"cat": 9}),
        Unit(9, "grass", 0.5, {"dog": 5}),
    ]
    assert [unit.index for unit in feature_painting.choose(units)] == [9, 4, 2]
    assert [unit.index for unit in feature_painting.choose(units[:2])] == [4, 7]


def test_a_soft_box_is_whole_inside_and_nothing_far_outside() -> None:
    mask = feature_painting.soft_box(32, (0.0, 0.5, 1.0, 1.0))
    assert mask.shape == (1, 32, 32)
    assert mask[0, 16:].eq(1).all()
    assert mask[0, :14].eq(0).all()
    assert 0 < float(mask[0, 15, 0]) < 1


def test_generation_shows_twenty_of_many_classes_in_lines_of_ten() -> None:
    names = tuple(f"class {i}" for i in range(25))
    still = {"generate": {"epsilon": 0.0, "step_size": 0.1, "steps": 1}}
    classifier = tiny_classifier(card=tiny_card(classes=names, defaults=still))
    found = generation.measure(classifier, image_set(names), Judge(classifier), images=1)
    assert found.per_class == 2
    assert found.pictures["generation-noise"].size == (8 + 10 * 136, 8 + 4 * (24 + 128 + 18 + 8))


def test_twenty_classes_are_shown_spread_over_all() -> None:
    assert shown(["a", "b"]) == [0, 1]
    found = shown([str(i) for i in range(65)])
    assert (len(found), found[0], found[-1]) == (20, 0, 61)
    assert file_name("translation", "a b/c", "to", "../d") == "translation-a-b-c-to-d"


def test_attacks_have_the_radius_on_the_card_or_the_one_trained_against() -> None:
    card = tiny_card()
    assert radii_of(card) == {"l2": 0.5}
    trained = replace(card, training={"objective": "trades", "norm": "linf", "epsilon": 0.03})
    assert radii_of(trained) == {"linf": 0.03}
    assert radii_of(replace(trained, measured={"robust_accuracy": [{"norm": "l2", "epsilon": 1.0}]})) == {"l2": 1.0}
    assert radii_of(replace(card, training={"objective": "standard", "norm": "l2", "epsilon": 3.0})) == {"l2": 0.5}


def test_large_pictures_are_fewer() -> None:
    options = EvaluationOptions()
    assert [options.count("generation", size) for size in (32, 64, 128)] == [500, 500, 250]
    assert EvaluationOptions(images=7).count("accuracy", 128) == 7
    assert [len(options.grid_at(size)) for size in (32, 64)] == [4, 2]
