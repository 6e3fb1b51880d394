"""Messages of the contract and the gateway's own types, there and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from robust_synthesis import messages
from robust_synthesis.bundle import Output
from robust_synthesis.errors import InvalidInput, NotFound
from robust_synthesis.gateway import convert
from robust_synthesis.gateway.jobs import Picture
from robust_synthesis.gateway.tickets import Outcome, Timings
from robust_synthesis.requests import Request
from robust_synthesis.specs import (
    SPECS,
    Generate,
    Inpaint,
    MaximizeClass,
    PaintFeatures,
    SketchToImage,
    Spec,
    SuperResolve,
    Translate,
)
from robust_synthesis.v1 import synthesis_pb2, task_pb2

DESCENT: dict[str, Any] = {
    "steps": 7,
    "step_size": 0.25,
    "epsilon": 3.5,
    "norm": "linf",
    "seed": 2**63 - 1,
    "random_start": True,
    "use_best": False,
    "exact": True,
}
FULL: tuple[Spec, ...] = (
    Generate(target="cat", start="noise", count=3, **DESCENT),
    Inpaint(target="cat", filling="smooth", penalty=2.0, hard_mask=False, **DESCENT),
    Translate(target="cat", **DESCENT),
    SuperResolve(factor=2, target="cat", upsampling="bicubic", **DESCENT),
    SketchToImage(target="cat", **DESCENT),
    PaintFeatures(unit=0, strength=0.5, penalty=0.0, hard_mask=False, **DESCENT),
    PaintFeatures(unit="ears", strength=0.5, **DESCENT),
    PaintFeatures(target="cat", **DESCENT),
    MaximizeClass(target="cat", **DESCENT),
)
BARE: tuple[Spec, ...] = (
    Generate(target="cat"),
    Inpaint(),
    Translate(),
    SuperResolve(),
    SketchToImage(target="cat"),
    PaintFeatures(unit=5),
    MaximizeClass(target="cat"),
)
GEOMETRY: dict[str, Any] = {"image": b"photo", "size": 32, "fit": "pad", "paste_back": True}


def request(spec: Spec, **fields: Any) -> Request:
    if not spec.needs_image:
        return Request(spec=spec, size=fields.get("size"))
    mask = {"box": (1, 2, 3, 4)} if spec.needs_mask and "mask" not in fields else {}
    return Request(spec=spec, **({"image": b"photo"} | mask | fields))


def test_every_task_is_tried() -> None:
    assert {spec.task for spec in FULL} == {spec.task for spec in BARE} == set(SPECS) == set(messages.TASKS.values())


@pytest.mark.parametrize("spec", FULL, ids=lambda spec: spec.task)
def test_a_request_with_every_field_comes_back_as_it_went(spec: Spec) -> None:
    for sent in [request(spec, **GEOMETRY)] + ([request(spec, mask=b"mask", **GEOMETRY)] if spec.needs_mask else []):
        task = messages.write_request(sent)
        assert task.WhichOneof("task") == spec.task
        assert messages.read_request(messages.chosen(task)) == sent


@pytest.mark.parametrize("spec", BARE, ids=lambda spec: spec.task)
def test_what_is_not_set_stays_unset(spec: Spec) -> None:
    sent = request(spec)
    assert messages.read_request(messages.chosen(messages.write_request(sent))) == sent


def test_every_parameter_of_every_spec_has_its_place_in_the_message() -> None:
    for task, kind in SPECS.items():
        message = getattr(task_pb2.TaskSpec(), task)
        for field in dataclasses.fields(kind):
            assert messages.field_path(message, field.name) is not None, (task, field.name)


def test_an_empty_message_has_the_defaults_of_the_specs() -> None:
    message = task_pb2.GenerateSpec(target="cat")
    assert messages.read_spec(message) == Generate(target="cat")
    assert messages.read_spec(task_pb2.InpaintSpec()) == Inpaint()
    assert messages.read_output(task_pb2.Output()) == Output("png", 90)


def test_output_goes_and_comes_back() -> None:
    for output in (Output("png", 1), Output("jpeg", 50), Output("webp", 100)):
        assert messages.read_output(messages.write_output(output)) == output


def ask(method: str, **fields: Any) -> Any:
    return getattr(synthesis_pb2, f"{method}Request")(**fields)


PHOTO = {"image": b"photo", "target": "cat"}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (ask("Generate"), "spec"),
        (ask("Generate", spec={}), "spec.target"),
        (ask("Generate", spec={"target": "cat", "count": 0}), "spec.count"),
        (ask("Generate", spec={"target": "cat", "start": 9}), "spec.start"),
        (ask("Generate", spec={"target": "cat", "descent": {"steps": 0}}), "spec.descent.steps"),
        (ask("Generate", spec={"target": "cat", "descent": {"norm": 7}}), "spec.descent.norm"),
        (ask("Generate", spec={"target": "cat", "descent": {"seed": -1}}), "spec.descent.seed"),
        (ask("Generate", spec={"target": "cat"}, output={"quality": 0}), "output.quality"),
        (ask("Generate", spec={"target": "cat"}, output={"format": 8}), "output.format"),
        (ask("Generate", spec={"target": "cat"}, request_id="ä"), "request_id"),
        (ask("Generate", spec={"target": "cat"}, request_id="x" * 129), "request_id"),
        (ask("MaximizeClass", spec={"target": "cat"}), "spec.image"),
        (ask("MaximizeClass", spec={**PHOTO, "placement": {"fit": 9}}), "spec.placement.fit"),
        (ask("Inpaint", spec={"image": b"x"}), "spec.region"),
        (ask("Inpaint", spec={"image": b"x", "region": {}}), "spec.region"),
        (ask("Inpaint", spec={"image": b"x", "region": {"mask": b""}}), "spec.region.mask"),
        (ask("Inpaint", spec={"region": {"mask": b"x"}}), "spec.image"),
        (ask("PaintFeatures", spec={"image": b"x", "region": {"mask": b"x"}}), "spec.brush"),
        (ask("PaintFeatures", spec={"unit_name": ""}), "spec.unit_name"),
        (ask("SuperResolve", spec={"image": b"x", "factor": 9}), "spec.factor"),
        (ask("StreamSynthesis"), "task"),
        (ask("StreamSynthesis", task={}), "task"),
        (ask("StreamSynthesis", task={"generate": {}}), "task.generate.target"),
        (
            ask("StreamSynthesis", task={"translate": {"image": b"x", "descent": {"epsilon": -1}}}),
            "task.translate.descent.epsilon",
        ),
    ],
)
def test_an_error_names_the_field_as_the_request_has_it(asked: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught, convert.naming(asked):
        convert.order(asked)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_what_a_worker_finds_is_named_so_too_and_stays_what_it_is() -> None:
    asked = ask("PaintFeatures", spec={"unit_name": "ears"})
    for field, path in {
        "unit": "spec.unit_name",
        "mask": "spec.region.mask",
        "box": "spec.region.box",
        "size": "spec.placement.size",
        "loss": "spec.descent",
        "model": "model",
        "elsewhere": "elsewhere",
    }.items():
        with pytest.raises(NotFound) as caught, convert.naming(asked):
            raise NotFound(field, "eras", ["ears"])
        assert caught.value.field == path
        assert "did you mean ears?" in caught.value.message


def outcome(started: dict[str, Any], seed: int = 4) -> Outcome:
    report = {"predicted": "dog", "probability_after": 0.75, "l2": 1.5, "linf": 0.25}
    picture = Picture(0, b"file", report, started, (2.0, 1.0), (0.25, 0.5))
    timings = Timings(queue_wait=1, total=3, compute=2, bundles=4, retries=1)
    return Outcome([picture], "tiny", "v1", seed, timings)


def test_a_result_has_the_task_as_it_ran_without_its_pictures() -> None:
    asked = request(Inpaint(), fit="stretch")
    ran: dict[str, Any] = {
        "steps": 10,
        "step_size": 0.2,
        "epsilon": 2.0,
        "norm": "l2",
        "penalty": 4.0,
        "target": "cat",
    }
    result = convert.result(outcome({"parameters": ran | {"size": 16}, "target": "cat"}), asked, Output("jpeg"), "call")
    assert result.task.WhichOneof("task") == "inpaint"
    again = messages.read_request(result.task.inpaint, image=b"photo")
    assert again == request(Inpaint(seed=4, **ran), size=16, fit="stretch")
    assert (result.task.inpaint.image, result.seed, result.model, result.model_version) == (b"", 4, "tiny", "v1")
    assert result.request_id == "call"
    (picture,) = result.pictures
    assert (picture.image, picture.format, picture.target) == (b"file", task_pb2.IMAGE_FORMAT_JPEG, "cat")
    assert (picture.predicted, picture.probability_before, picture.probability_after) == ("dog", 0.25, 0.75)
    assert (picture.l2, picture.linf, list(picture.losses), list(picture.probabilities)) == (
        1.5,
        0.25,
        [2, 1],
        [0.25, 0.5],
    )
    spent = result.timings
    assert (spent.queue_wait_seconds, spent.total_seconds, spent.compute_seconds) == (1, 3, 2)
    assert (spent.bundles, spent.retries) == (4, 1)


def test_the_target_of_painting_with_a_unit_is_the_unit() -> None:
    asked = request(PaintFeatures(unit="ears"))
    result = convert.result(outcome({"parameters": {"unit": "ears"}, "target": "cat"}), asked, Output(), "call")
    assert result.pictures[0].target == "ears"


def test_a_seed_derived_from_the_request_id_is_the_same_everywhere() -> None:
    asked = ask("Generate", spec={"target": "cat"}, request_id="one")
    seeds = {convert.order(asked).derived_seed for _ in range(2)}
    assert len(seeds) == 1
    assert 0 <= seeds.pop() < 2**63  # type: ignore[operator]
    assert convert.order(ask("Generate", spec={"target": "cat"})).derived_seed is None
