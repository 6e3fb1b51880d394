"""What a caller may ask for: bad input names its field and says what would be good."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from robust_synthesis.errors import InvalidInput
from robust_synthesis.specs import (
    MAX_SEED,
    SPECS,
    Generate,
    Inpaint,
    MaximizeClass,
    PaintFeatures,
    Spec,
    SuperResolve,
    with_seed,
)

GOOD: dict[type[Spec], dict[str, Any]] = {
    kind: {"unit": 1} if kind is PaintFeatures else {"target": "dog"} for kind in SPECS.values()
}


@pytest.mark.parametrize("kind", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "is 0; give a whole number from 1 to 10000"),
        ("steps", 10_001, "from 1 to 10000"),
        ("steps", 1.5, "must be a whole number, not 1.5"),
        ("steps", "10", "must be a whole number, not '10'"),
        ("steps", True, "must be a whole number, not True"),
        ("step_size", 0, "is 0; give a number above 0 and at most 1000"),
        ("step_size", -0.1, "above 0"),
        ("step_size", float("inf"), "is inf; give a finite number"),
        ("epsilon", -1, "is -1; give a number from 0 to 10000"),
        ("epsilon", float("nan"), "is nan; give a finite number"),
        ("epsilon", [1], "must be a number"),
        ("norm", "l3", "is 'l3'; choose l2, linf or none"),
        ("seed", -1, "from 0 to"),
        ("seed", MAX_SEED + 1, "from 0 to"),
        ("seed", 1.0, "must be a whole number"),
        ("use_best", "no", "must be true or false, not 'no'"),
        ("use_best", None, "is missing"),
        ("exact", 1, "must be true or false, not 1"),
        ("random_start", 0, "must be true or false, not 0"),
        ("target", 3, "must be text, not 3"),
    ],
)
def test_a_bad_parameter_of_any_task_is_named(kind: type[Spec], field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as error:
        kind(**{**GOOD[kind], field: value})
    assert error.value.field == field
    assert message in error.value.message
    assert str(error.value) == f"{field}: {error.value.message}"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Generate, "start", "grey"),
        (Generate, "start", None),
        (Generate, "count", 0),
        (Generate, "count", 257),
        (Generate, "count", None),
        (Generate, "target", None),
        (MaximizeClass, "target", None),
        (Inpaint, "penalty", -1),
        (Inpaint, "filling", "median"),
        (Inpaint, "hard_mask", "yes"),
        (SuperResolve, "factor", 1),
        (SuperResolve, "factor", 9),
        (SuperResolve, "factor", 2.5),
        (SuperResolve, "upsampling", "lanczos"),
        (PaintFeatures, "strength", 0),
        (PaintFeatures, "penalty", 1e7),
        (PaintFeatures, "unit", 2.5),
        (PaintFeatures, "unit", True),
    ],
)
def test_a_bad_parameter_of_one_task_is_named(kind: type[Spec], field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as error:
        kind(**{**GOOD[kind], field: value})
    assert error.value.field == field


@pytest.mark.parametrize("options", [{}, {"unit": 1, "target": "dog"}])
def test_painting_takes_either_a_unit_or_a_class(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="either a unit or a class") as error:
        PaintFeatures(**options)
    assert error.value.field == "unit"


@pytest.mark.parametrize("kind", SPECS.values(), ids=SPECS)
def test_limits_themselves_are_allowed(kind: type[Spec]) -> None:
    low = kind(**GOOD[kind], steps=1, step_size=1e-9, epsilon=0, norm="none", seed=0)
    high = kind(**GOOD[kind], steps=10_000, step_size=1000, epsilon=10_000.0, norm="linf", seed=MAX_SEED)
    assert (low.steps, high.epsilon, high.seed) == (1, 10_000.0, MAX_SEED)


@pytest.mark.parametrize("kind", SPECS.values(), ids=SPECS)
def test_specs_are_values(kind: type[Spec]) -> None:
    spec = kind(**GOOD[kind])
    assert spec == kind(**GOOD[kind])
    assert kind(**dataclasses.asdict(spec)) == spec
    assert SPECS[spec.task] is kind
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.steps = 3  # type: ignore[misc]


def test_tasks_say_whether_they_need_an_image_and_a_mask() -> None:
    assert {name for name, kind in SPECS.items() if not kind.needs_image} == {"generate"}
    assert {name for name, kind in SPECS.items() if kind.needs_mask} == {"inpaint", "paint_features"}


def test_a_missing_seed_is_drawn_and_a_given_one_kept() -> None:
    drawn = {with_seed(Generate(target="dog")).seed for _ in range(20)}
    assert len(drawn) == 20
    assert all(seed is not None and 0 <= seed < 2**31 for seed in drawn)
    assert with_seed(Generate(target="dog", seed=0)).seed == 0
