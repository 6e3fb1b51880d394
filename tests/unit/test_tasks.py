"""Every task as its row of the paper's table (Santurkar et al. 2019, appendix A): start, objective, ball, steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.engine.ball import L2, LINF
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import quantise
from robust_synthesis.engine.turn import evaluate
from robust_synthesis.errors import InvalidInput, NotFound
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
from robust_synthesis.tasks import Inputs, Job, make_jobs
from robust_synthesis.tasks.start import fill_hole
from robust_synthesis.tasks.super_resolve import enlarge
from robust_synthesis.testing import pictures, tiny_card, tiny_classifier

SIZE = 224
IMAGE = quantise(pictures(1, SIZE, 4)[0][0])
MASK = torch.zeros(1, SIZE, SIZE)
MASK[:, 80:140, 60:120] = 1
SOFT = torch.linspace(0, 1, SIZE).expand(1, SIZE, SIZE)


@pytest.fixture(scope="module")
def large() -> Classifier:
    """Four classes at the paper's 224 pixels, with nothing but the paper's parameters."""
    small = tiny_classifier()
    return Classifier(small.network, tiny_card(size=SIZE, defaults={}), seeds=small.seeds, units=small.units)


@pytest.fixture(scope="module")
def domains() -> Classifier:
    """A classifier of two domains."""
    return tiny_classifier(card=tiny_card(classes=("horse", "zebra"), size=16))


def job_of(spec: Spec, classifier: Classifier, image: Tensor | None = IMAGE, mask: Tensor | None = None) -> Job:
    return make_jobs(spec, Inputs(SIZE, image, mask), classifier)[0]


def loss_at(job: Job, classifier: Classifier, x: Tensor) -> float:
    return float(evaluate(classifier, job.problem, x[None], gradient=False).loss)


def cross_entropy(classifier: Classifier, x: Tensor, target: int) -> float:
    return float(F.cross_entropy(classifier(x[None]), torch.tensor([target])))


def outside(x: Tensor, center: Tensor, mask: Tensor) -> float:
    return float(((center - x) * (1 - mask)).square().mean())


def assert_row(job: Job, *, epsilon: float, step_size: float, steps: int) -> None:
    """The numbers of the table, and what all its rows have in common."""
    assert float(job.problem.epsilon) == pytest.approx(epsilon)
    assert float(job.problem.step_size) == pytest.approx(step_size)
    assert job.state.remaining.tolist() == [steps + 1]
    assert job.problem.norm.tolist() == [L2]
    assert job.problem.use_best.tolist() == [True]
    assert torch.equal(job.problem.center, job.state.x)
    assert torch.equal(job.state.best_x, job.state.x)


ELSEWHERE = pictures(1, SIZE, 8)[0][1]
CLASS_TASKS: Mapping[str, tuple[Spec, float, float, int]] = {
    "maximize_class": (MaximizeClass(target="waves"), 40, 1, 60),
    "sketch_to_image": (SketchToImage(target="waves"), 40, 1, 60),
    "translate": (Translate(target="waves"), 80, 0.5, 200),
}


@pytest.mark.parametrize("task", CLASS_TASKS)
def test_tasks_that_start_from_an_image_minimise_the_cross_entropy_of_their_class(large: Classifier, task: str) -> None:
    spec, epsilon, step_size, steps = CLASS_TASKS[task]
    job = job_of(spec, large)
    assert_row(job, epsilon=epsilon, step_size=step_size, steps=steps)
    assert torch.equal(job.state.x[0], IMAGE)
    assert job.target == 3
    assert loss_at(job, large, ELSEWHERE) == pytest.approx(cross_entropy(large, ELSEWHERE, 3), abs=1e-5)
    assert not bool(job.problem.fake_relu)
    assert not bool(job.problem.hard_mask)


def test_generation_starts_from_a_sample_of_its_class(large: Classifier) -> None:
    jobs = make_jobs(Generate(target="square", seed=3, count=3), Inputs(SIZE), large)
    assert large.seeds is not None
    for index, job in enumerate(jobs):
        assert_row(job, epsilon=40, step_size=1, steps=60)
        assert torch.equal(job.state.x[0], large.seeds.sample(1, SIZE, 3, index))
        assert job.index == index
        assert loss_at(job, large, ELSEWHERE) == pytest.approx(cross_entropy(large, ELSEWHERE, 1), abs=1e-5)
    assert not torch.equal(jobs[0].state.x, jobs[1].state.x)


def test_generation_from_noise_starts_alike_for_every_class(large: Classifier) -> None:
    starts = [job_of(Generate(target=t, start="noise", seed=3), large).state.x for t in ("circle", "waves")]
    assert torch.equal(starts[0], starts[1])
    assert float(starts[0].mean()) == pytest.approx(0.5, abs=0.01)


def test_generation_from_gaussians_needs_them(large: Classifier) -> None:
    bare = Classifier(tiny_classifier().network, large.card)
    with pytest.raises(InvalidInput, match="has no class Gaussians; use noise") as error:
        job_of(Generate(target="circle", seed=0), bare)
    assert error.value.field == "start"
    assert job_of(Generate(target="circle", start="noise", seed=0), bare).target == 0


def test_inpainting_starts_from_the_hole_filled_with_the_mean_and_holds_the_rest(large: Classifier) -> None:
    job = job_of(Inpaint(target="stripes"), large, mask=MASK)
    assert_row(job, epsilon=21.6, step_size=0.1, steps=720)
    start, inside = job.state.x[0], MASK[0] == 1
    assert torch.equal(start[:, ~inside], IMAGE[:, ~inside])
    mean = IMAGE[:, ~inside].mean(dim=1)
    assert float((start[:, inside] - mean[:, None]).abs().max()) < 1e-4
    expected = cross_entropy(large, ELSEWHERE, 2) + 10 * outside(ELSEWHERE, start, MASK)
    assert loss_at(job, large, ELSEWHERE) == pytest.approx(expected, abs=1e-5)
    assert bool(job.problem.fake_relu)
    assert bool(job.problem.hard_mask)
    assert not bool(job_of(Inpaint(hard_mask=False), large, mask=MASK).problem.hard_mask)


def test_a_hole_with_soft_edges_is_blended_and_a_hole_that_is_everything_has_the_mean_of_all() -> None:
    filled = fill_hole(IMAGE, SOFT)
    mean = (IMAGE * (1 - SOFT)).sum(dim=(1, 2)) / (1 - SOFT).sum()
    assert float((filled - (IMAGE * (1 - SOFT) + mean.view(3, 1, 1) * SOFT)).abs().max()) < 1e-6
    everything = fill_hole(IMAGE, torch.ones(1, SIZE, SIZE))
    assert float((everything - IMAGE.mean(dim=(1, 2), keepdim=True)).abs().max()) < 1e-6


def test_a_hole_filled_smoothly_continues_a_slope_and_leaves_the_rest() -> None:
    side = 64
    slope = torch.linspace(0, 1, side).expand(3, side, side)
    hole = torch.zeros(1, side, side)
    hole[:, 20:44, 20:44] = 1
    filled = fill_hole(torch.where(hole > 0, torch.rand(3, side, side), slope), hole, "smooth")
    assert torch.equal(filled * (1 - hole), slope * (1 - hole))
    assert float((filled - slope).abs().max()) < 0.01
    assert float((fill_hole(slope, hole) - slope).abs().max()) > 0.1


def holes(side: int) -> dict[str, torch.Tensor]:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    quarter = side // 4
    return {
        "centre": (rows >= quarter) & (rows < 3 * quarter) & (columns >= quarter) & (columns < 3 * quarter),
        "all but a border": columns < side - 3,
        "two pixels": ((rows == 2) & (columns == 3)) | ((rows == side - 2) & (columns == side - 1)),
        "a row": rows == side // 2,
        "a stroke": (rows - columns).abs() < 4,
        "scattered": torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.5,
    }


@pytest.mark.parametrize("side", [16, 64, 90])
@pytest.mark.parametrize("name", holes(16))
def test_a_smooth_filling_is_nearly_harmonic_whatever_the_hole(name: str, side: int) -> None:
    hole = holes(side)[name][None].float()
    rough = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
    image = F.interpolate(rough[None], size=(side, side), mode="bilinear")[0]
    image[:, side // 2 :] = 1 - image[:, side // 2 :]
    filled = fill_hole(image, hole, "smooth")
    x = filled
    for _ in range(5000):
        padded = F.pad(x[None], (1, 1, 1, 1), mode="replicate")[0]
        mean = (padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]) / 4
        x = torch.where(hole > 0, mean, image)
    marked = (filled - x)[:, hole[0] > 0]
    assert float(marked.abs().max()) < 0.2
    assert float(marked.square().mean().sqrt()) < 0.04
    assert torch.equal(filled * (1 - hole), image * (1 - hole))


def test_a_smooth_filling_ignores_what_is_in_the_hole_and_needs_something_to_continue() -> None:
    other = IMAGE + 0.1 * (SOFT >= 0.5)
    assert torch.equal(fill_hole(IMAGE, SOFT, "smooth") * (SOFT == 1), fill_hole(other, SOFT, "smooth") * (SOFT == 1))
    everything = torch.ones(1, SIZE, SIZE)
    assert torch.equal(fill_hole(IMAGE, everything, "smooth"), fill_hole(IMAGE, everything))


@pytest.mark.parametrize("factor", [7, 8])
def test_super_resolution_starts_from_the_image_enlarged_by_nearest_neighbour(large: Classifier, factor: int) -> None:
    spec = SuperResolve(factor=factor, target="circle")
    assert spec.input_size(SIZE) == SIZE // factor
    small = quantise(pictures(1, SIZE // factor)[0][0])
    job = job_of(spec, large, small)
    assert_row(job, epsilon=15, step_size=1, steps=50)
    assert torch.equal(job.state.x[0], small.repeat_interleave(factor, 1).repeat_interleave(factor, 2))
    assert loss_at(job, large, ELSEWHERE) == pytest.approx(cross_entropy(large, ELSEWHERE, 0), abs=1e-5)
    smooth = job_of(SuperResolve(factor=factor, target="circle", upsampling="bicubic"), large, small)
    assert torch.equal(smooth.state.x[0], quantise(enlarge(small, SIZE, "bicubic")))
    assert float((smooth.state.x - job.state.x).abs().max()) > 0.01


def test_super_resolution_needs_a_factor_that_divides_the_size() -> None:
    with pytest.raises(InvalidInput, match="224 pixels are not a multiple of 3") as error:
        SuperResolve(factor=3).input_size(SIZE)
    assert error.value.field == "factor"
    others = (kind for kind in SPECS.values() if kind is not SuperResolve)
    assert {
        kind(**({"unit": 1} if kind is PaintFeatures else {"target": "x"})).input_size(SIZE) for kind in others
    } == {SIZE}


def test_painting_with_a_unit_maximises_it_less_the_penalty(large: Classifier) -> None:
    job = job_of(PaintFeatures(unit=5), large, mask=SOFT)
    assert_row(job, epsilon=70, step_size=1, steps=140)
    assert torch.equal(job.state.x[0], IMAGE)
    latent = float(large.logits_and_latent(ELSEWHERE[None])[1][0, 5])
    assert latent > 0
    maximised = 0.1 * latent - 90 * outside(ELSEWHERE, IMAGE, SOFT)
    assert loss_at(job, large, ELSEWHERE) == pytest.approx(-maximised, abs=1e-5)
    assert bool(job.problem.fake_relu)
    assert bool(job.problem.hard_mask)
    assert not bool(job_of(PaintFeatures(unit=5, hard_mask=False), large, mask=SOFT).problem.hard_mask)
    assert large.units.units
    named = large.units.units[-1]
    assert int(job_of(PaintFeatures(unit=named.name), large, mask=SOFT).problem.unit) == named.index


def test_painting_with_a_class_minimises_its_cross_entropy_plus_the_penalty(large: Classifier) -> None:
    job = job_of(PaintFeatures(target="waves", strength=0.5, penalty=7), large, mask=SOFT)
    expected = 0.5 * cross_entropy(large, ELSEWHERE, 3) + 7 * outside(ELSEWHERE, IMAGE, SOFT)
    assert loss_at(job, large, ELSEWHERE) == pytest.approx(expected, abs=1e-5)
    assert job.target == 3


@pytest.mark.parametrize("source", [0, 1])
def test_translation_between_two_domains_goes_to_the_other_one(domains: Classifier, source: int) -> None:
    images = pictures(4, 16)[0]
    image = images[int((domains.probabilities(images).argmax(1) == source).nonzero()[0])]
    targets = [
        make_jobs(spec, Inputs(16, image), domains)[0].target for spec in (Translate(), Translate(target="zebra"))
    ]
    assert targets == [1 - source, 1]


def test_translation_among_many_classes_needs_the_one_to_go_to(large: Classifier) -> None:
    with pytest.raises(InvalidInput, match="more than two classes; name the one to translate to") as error:
        job_of(Translate(), large)
    assert error.value.field == "target"


def test_a_class_that_nobody_named_is_the_one_that_the_classifier_sees_in_the_start(large: Classifier) -> None:
    for spec, image, mask in (
        (Inpaint(), IMAGE, MASK),
        (SuperResolve(factor=8), pictures(1, 28)[0][2], None),
        (PaintFeatures(unit=0), IMAGE, MASK),
    ):
        job = job_of(spec, large, image, mask)
        assert job.target == int(large.probabilities(job.state.x).argmax())


@pytest.mark.parametrize("kind", SPECS.values(), ids=SPECS)
def test_what_a_task_needs_and_was_not_given_is_named(large: Classifier, kind: type[Spec]) -> None:
    spec = kind(**({"unit": 0} if kind is PaintFeatures else {"target": "circle"}))
    fields: list[Any] = []
    for inputs in (Inputs(SIZE), Inputs(SIZE, IMAGE)):
        try:
            make_jobs(spec, inputs, large)
        except InvalidInput as error:
            fields.append(error.field)
    assert fields == ["image"] * kind.needs_image + ["mask"] * kind.needs_mask


def test_unknown_classes_and_units_are_answered_with_those_there_are(large: Classifier) -> None:
    with pytest.raises(NotFound, match="did you mean stripes"):
        job_of(MaximizeClass(target="stripe"), large)
    with pytest.raises(InvalidInput, match="units 0 to 7") as error:
        job_of(PaintFeatures(unit=8), large, mask=MASK)
    assert error.value.field == "unit"


def test_the_ball_of_the_caller_reaches_the_problem(large: Classifier) -> None:
    job = job_of(
        MaximizeClass(target="waves", norm="linf", epsilon=0.1, step_size=0.02, steps=3, use_best=False), large
    )
    assert job.problem.norm.tolist() == [LINF]
    assert float(job.problem.epsilon) == pytest.approx(0.1)
    assert job.state.remaining.tolist() == [4]
    assert job.problem.use_best.tolist() == [False]
    assert job.parameters == {"norm": "linf", "epsilon": 0.1, "step_size": 0.02, "steps": 3}


def test_a_random_start_lies_on_the_sphere_and_follows_the_seed(large: Classifier) -> None:
    def start(seed: int) -> Tensor:
        spec = MaximizeClass(target="waves", random_start=True, seed=seed, epsilon=4.0)
        job = job_of(spec, large, 0.25 + 0.5 * IMAGE)
        return job.state.x - job.problem.center

    change = start(1)
    assert float(change.norm()) == pytest.approx(4.0, abs=0.01)
    assert float(change.mean()) == pytest.approx(0, abs=1e-4)
    assert torch.equal(start(1), change)
    assert float((start(2) - change).norm()) > 4


def test_a_random_start_in_an_linf_ball_is_uniform_and_respects_a_mask(large: Classifier) -> None:
    spec = Inpaint(target="waves", random_start=True, seed=1, norm="linf", epsilon=0.05)
    job = job_of(spec, large, 0.25 + 0.5 * IMAGE, MASK)
    change, inside = (job.state.x - job.problem.center)[0], MASK[0] == 1
    assert float(change[:, ~inside].abs().max()) == 0
    assert float(change[:, inside].abs().max()) == pytest.approx(0.05, abs=1e-4)
    assert float(change[:, inside].std()) == pytest.approx(0.1 / 12**0.5, rel=0.03)
