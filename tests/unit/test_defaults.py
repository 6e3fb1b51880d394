"""Which parameters a task runs with: the caller's before the card's before the paper's, scaled to the picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from robust_synthesis.defaults import PAPER, resolve
from robust_synthesis.specs import SPECS, Generate, Inpaint, PaintFeatures, Spec, SuperResolve
from robust_synthesis.testing import tiny_card

BARE = tiny_card(size=224, defaults={})
OWN = tiny_card(
    size=224, defaults={"generate": {"epsilon": 6.0, "step_size": 0.2, "steps": 50}, "inpaint": {"penalty": 3.0}}
)


def example(task: str) -> Spec:
    return SPECS[task](**({"unit": 0} if task == "paint_features" else {"target": "circle"}))


@pytest.mark.parametrize("task", SPECS)
def test_at_the_papers_size_the_papers_parameters_are_used(task: str) -> None:
    assert resolve(example(task), BARE, 224) == {"norm": "l2", **PAPER[task]}


@pytest.mark.parametrize("task", SPECS)
def test_epsilon_and_step_size_scale_with_the_picture_and_nothing_else_does(task: str) -> None:
    found = resolve(example(task), BARE, 56)
    for name, value in PAPER[task].items():
        assert found[name] == (value / 4 if name in ("epsilon", "step_size") else value), name


def test_the_cards_lengths_are_of_its_own_size_and_scale_from_there() -> None:
    small = tiny_card(size=32, defaults={"generate": {"epsilon": 6.0, "step_size": 0.5, "steps": 40}})
    assert resolve(Generate(target="circle"), small, 32)["epsilon"] == 6
    found = resolve(Generate(target="circle"), small, 64)
    assert (found["epsilon"], found["step_size"], found["steps"]) == (12, 1, 40)


@pytest.mark.parametrize("task", SPECS)
def test_an_l_inf_ball_lies_in_the_l2_ball_and_touches_it_with_its_corners(task: str) -> None:
    usual = resolve(example(task), BARE, 64)
    values = 3 * 64**2 / (8 if SPECS[task].needs_mask else 1)
    found = resolve(dataclasses.replace(example(task), norm="linf"), BARE, 64)
    assert found["epsilon"] * values**0.5 == pytest.approx(usual["epsilon"])
    assert found["step_size"] / found["epsilon"] == pytest.approx(usual["step_size"] / usual["epsilon"])
    assert found["epsilon"] < 0.6


def test_l_inf_lengths_are_per_value_and_the_same_at_every_size() -> None:
    spec = Generate(target="circle", norm="linf")
    card = tiny_card(size=32, defaults={"generate": {"norm": "linf", "epsilon": 0.1, "step_size": 0.01}})
    for card_or_paper in (card, BARE):
        small, large = (resolve(spec, card_or_paper, size) for size in (32, 128))
        assert small["epsilon"] == pytest.approx(large["epsilon"])
        assert small["step_size"] == pytest.approx(large["step_size"])
    back = resolve(Generate(target="circle", norm="l2"), card, 32)
    assert back["epsilon"] == pytest.approx(0.1 * (3 * 32 * 32) ** 0.5)


def test_a_step_size_that_the_card_leaves_out_follows_its_epsilon_and_steps() -> None:
    card = tiny_card(size=224, defaults={"generate": {"epsilon": 4.0, "steps": 30}})
    assert resolve(Generate(target="circle"), card, 224)["step_size"] == pytest.approx(1.5 * 4 / 30)
    assert resolve(Generate(target="circle", steps=15), card, 224)["step_size"] == pytest.approx(1.5 * 4 / 15)
    linf = tiny_card(size=224, defaults={"generate": {"norm": "linf", "epsilon": 0.06}})
    assert resolve(Generate(target="circle"), linf, 224)["step_size"] == pytest.approx(1.5 * 0.06 / 60)


def test_the_cards_defaults_beat_the_papers() -> None:
    assert resolve(Generate(target="circle"), OWN, 224) == {"norm": "l2", "epsilon": 6.0, "step_size": 0.2, "steps": 50}
    found = resolve(Inpaint(), OWN, 224)
    assert (found["penalty"], found["epsilon"], found["steps"]) == (3.0, 21.6, 720)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Generate, {"target": "circle", "epsilon": 2.0, "step_size": 0.3, "steps": 7, "norm": "linf"}),
        (Inpaint, {"penalty": 0.0, "filling": "smooth"}),
        (SuperResolve, {"upsampling": "bicubic", "steps": 3, "step_size": 0.1}),
        (PaintFeatures, {"unit": 1, "strength": 2.0, "penalty": 5.0}),
    ],
)
def test_the_callers_parameters_beat_everything(kind: type[Spec], given: dict[str, Any]) -> None:
    found = resolve(kind(**given), OWN, 224)
    assert {name: found[name] for name in given.keys() & found.keys()} == {
        name: value for name, value in given.items() if name in found
    }


@pytest.mark.parametrize(
    ("given", "step_size"),
    [
        ({}, 0.2),
        ({"steps": 25}, 0.4),
        ({"epsilon": 12.0}, 0.4),
        ({"epsilon": 12.0, "steps": 25}, 0.8),
        ({"epsilon": 12.0, "norm": "none"}, 0.2),
        ({"epsilon": 0.1, "norm": "linf", "steps": 25}, 0.2 * 50 / 6 * 0.1 / 25),
        ({"epsilon": 12.0, "step_size": 0.5}, 0.5),
        ({"steps": 10_000, "epsilon": 0.0}, 1e-6),
    ],
)
def test_a_step_size_that_nobody_chose_follows_epsilon_and_steps(given: dict[str, Any], step_size: float) -> None:
    assert resolve(Generate(target="circle", **given), OWN, 224)["step_size"] == pytest.approx(step_size)


def test_the_reach_of_all_steps_in_epsilons_stays_what_it_was() -> None:
    usual, fewer = resolve(Inpaint(), BARE, 64), resolve(Inpaint(steps=11, epsilon=0.7), BARE, 64)
    reaches = [found["step_size"] * found["steps"] / found["epsilon"] for found in (usual, fewer)]
    assert reaches[0] == pytest.approx(0.1 * 720 / 21.6)
    assert reaches[1] == pytest.approx(reaches[0])
