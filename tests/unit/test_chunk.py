"""Steps and chunks, against the algorithm of Santurkar et al. 2019 (appendix A) written out once more, one sample at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.engine.ball import NORMS
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import LEVELS, Problem, State, quantise
from robust_synthesis.testing import SIZE, tiny_network

CPU = torch.device("cpu")
MIDDLE = torch.zeros(1, SIZE, SIZE)
MIDDLE[:, 4:12, 4:12] = 1


@dataclass(frozen=True)
class Plain:
    """One job in plain numbers, and the algorithm for it: no folded batch norms, no batches, no grid."""

    weights: Mapping[str, Tensor]
    mean: Tensor
    std: Tensor
    target: int
    unit: int
    norm: str
    epsilon: float
    step_size: float
    ce: float = 1.0
    latent: float = 0.0
    penalty: float = 0.0
    fake_relu: bool = False
    mask: Tensor = dataclasses.field(default_factory=lambda: torch.ones(1, SIZE, SIZE))

    def problem(self, center: Tensor) -> Problem:
        return Problem.single(
            center,
            target=self.target,
            unit=self.unit,
            norm=NORMS[self.norm],
            epsilon=self.epsilon,
            step_size=self.step_size,
            ce_weight=self.ce,
            latent_weight=self.latent,
            penalty_weight=self.penalty,
            fake_relu=self.fake_relu,
            mask=self.mask,
        )

    def convolved(self, x: Tensor, conv: str, bn: str, stride: int = 1) -> Tensor:
        w = self.weights
        y = F.conv2d(x, w[f"{conv}.weight"], stride=stride, padding=w[f"{conv}.weight"].shape[-1] // 2)
        shape = (1, -1, 1, 1)
        y = (y - w[f"{bn}.running_mean"].view(shape)) / (w[f"{bn}.running_var"].view(shape) + 1e-5).sqrt()
        return y * w[f"{bn}.weight"].view(shape) + w[f"{bn}.bias"].view(shape)

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        y = self.convolved(x, f"{name}.conv1", f"{name}.bn1", stride).clamp(min=0)
        y = self.convolved(y, f"{name}.conv2", f"{name}.bn2")
        if f"{name}.downsample.0.weight" in self.weights:
            x = self.convolved(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return y + x

    def loss(self, x: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and target probability at x [3, H, W]."""
        y = (x[None].clamp(0, 1) - self.mean) / self.std
        y = self.convolved(y, "conv1", "bn1").clamp(min=0)
        y = self.block(y, "layer1.0", 1).clamp(min=0)
        y = self.block(y, "layer2.0", 2)
        relu = y.clamp(min=0)
        if self.fake_relu:
            relu = y + (relu - y).detach()
        latent = relu.mean(dim=(2, 3))[0]
        logits = self.weights["fc.weight"] @ latent + self.weights["fc.bias"]
        cross_entropy = torch.logsumexp(logits, 0) - logits[self.target]
        outside = ((center - x) * (1 - self.mask)).pow(2).sum() / x.numel()
        loss = self.ce * cross_entropy + self.latent * latent[self.unit] + self.penalty * outside
        return loss, logits.softmax(0)[self.target]

    def gradient(self, x: Tensor, center: Tensor) -> Tensor:
        """d(-loss)/dx: every loss is minimised."""
        point = x.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(-self.loss(point, center)[0], point)
        return g

    def step(self, x: Tensor, center: Tensor) -> Tensor:
        g = self.gradient(x, center)
        if self.norm == "linf":
            d = (x + self.step_size * g.sign() - center).clamp(-self.epsilon, self.epsilon)
        else:
            d = x + self.step_size * g / (g.pow(2).sum().sqrt() + 1e-10) - center
            length = d.pow(2).sum().sqrt()
            if self.norm == "l2" and length > self.epsilon:
                d = d * self.epsilon / length
        return (center + d).clamp(0, 1)


OBJECTIVES: Mapping[str, Mapping[str, float | bool | Tensor]] = {
    "class": {},
    "inpainting": {"penalty": 10.0, "fake_relu": True, "mask": MIDDLE},
    "painting": {"ce": 0.0, "latent": -0.1, "penalty": 90.0, "fake_relu": True, "mask": quantise(0.5 * MIDDLE + 0.25)},
}


def plain_jobs(classifier: Classifier, norm: str, epsilon: float, step_size: float, objective: str) -> list[Plain]:
    """Three jobs that differ in target and unit."""
    weights = tiny_network().state_dict()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (classifier.card.mean, classifier.card.std))
    return [
        Plain(weights, mean, std, i, 2 * i, norm, epsilon, step_size, **OBJECTIVES[objective])  # type: ignore[arg-type]
        for i in range(3)
    ]


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def at(x: Tensor, remaining: int) -> State:
    """Jobs that stand at x [B, 3, H, W] and have found nothing yet."""
    begun = torch.tensor([torch.inf]), torch.tensor([0.0]), torch.tensor([-1]), torch.tensor([remaining])
    return State.stack([State(x[i : i + 1], x[i : i + 1], *begun) for i in range(len(x))])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("norm", "epsilon", "step_size"),
    [("l2", 50.0, 0.5), ("l2", 2.0, 0.5), ("linf", 1.0, 0.02), ("linf", 0.1, 0.02), ("none", 0.0, 0.5)],
    ids=["l2 inside", "l2 at the edge", "linf inside", "linf at the edge", "unconstrained"],
)
def test_one_step_equals_the_plain_algorithm(
    classifier: Classifier, norm: str, epsilon: float, step_size: float, objective: str
) -> None:
    jobs = plain_jobs(classifier, norm, epsilon, step_size, objective)
    x, center = pictures(3, 1), pictures(3, 2)
    problem = Problem.stack([job.problem(c) for job, c in zip(jobs, center, strict=True)])
    state, trace = advance(classifier, problem, at(x, 5), 1, levels=None)
    for i, job in enumerate(jobs):
        loss, probability = job.loss(x[i], center[i])
        assert float(trace.loss[0, i]) == pytest.approx(float(loss), abs=1e-5)
        assert float(trace.probability[0, i]) == pytest.approx(float(probability), abs=1e-5)
        g = job.gradient(x[i], center[i]).abs()
        clear = g > 1e-5 * g.max()  # elsewhere the sign of the gradient, which L-inf steps by, is rounding
        assert float(clear.float().mean()) > 0.98
        assert float((state.x[i] - job.step(x[i], center[i]))[clear].abs().max()) < 1e-5
        assert float((state.x[i] - x[i]).abs().max()) > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_returns_the_best_picture_of_the_plain_algorithm(classifier: Classifier, objective: str) -> None:
    jobs = plain_jobs(classifier, "l2", 2.0, 0.4, objective)
    center = pictures(3, 2)
    problem = Problem.stack([job.problem(c) for job, c in zip(jobs, center, strict=True)])
    state, _ = advance(classifier, problem, at(center, 9), 9, levels=None)
    for i, job in enumerate(jobs):
        x = best_x = center[i]
        best_loss = float("inf")
        for evaluation in range(9):
            if (loss := float(job.loss(x, center[i])[0])) < best_loss:
                best_loss, best_x = loss, x
            if evaluation < 8:
                x = job.step(x, center[i])
        assert float(state.best_loss[i]) == pytest.approx(best_loss, abs=1e-5)
        assert float((state.best_x[i] - best_x).abs().max()) < 1e-5
        assert float((state.x[i] - x).abs().max()) < 1e-5


def class_job(*, seed: int = 0, steps: int = 12, **options: float | bool | Tensor) -> tuple[Problem, State]:
    """Towards class 1 from a random picture."""
    start = State.start(pictures(1, seed)[0], steps)
    terms = {"epsilon": 3.0, "step_size": 0.3, "target": 1} | options
    return Problem.single(start.x[0], **terms), start  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
def test_a_job_without_a_gradient_stays_where_it_is(classifier: Classifier, norm: str) -> None:
    problem, start = class_job(ce_weight=0.0, norm=NORMS[norm])
    state, trace = advance(classifier, problem, start, 13)
    assert torch.equal(state.x, start.x)
    assert torch.equal(trace.loss, torch.zeros(13, 1))


def test_a_hard_mask_leaves_every_bit_outside_it(classifier: Classifier) -> None:
    grey = MIDDLE.clone()
    grey[:, 4:6] *= 0.5
    problem, start = class_job(mask=grey, hard_mask=True, penalty_weight=10.0)
    state, _ = advance(classifier, problem, start, 13)
    outside = (grey == 0).expand_as(start.x[0])
    assert torch.equal(state.x[0][outside], start.x[0][outside])
    assert torch.equal(state.best_x[0][outside], start.x[0][outside])
    assert float((state.x - start.x).norm()) > 1


def test_a_soft_mask_pulls_the_outside_back_without_freezing_it(classifier: Classifier) -> None:
    def change(penalty: float) -> tuple[float, float]:
        problem, start = class_job(mask=MIDDLE, penalty_weight=penalty, steps=30)
        state, _ = advance(classifier, problem, start, 31)
        moved = (state.best_x - start.x).square()
        return float((moved * (1 - MIDDLE)).sum().sqrt()), float((moved * MIDDLE).sum().sqrt())

    (free, _), (pulled, inside) = change(0), change(2000)
    assert 0.01 < pulled < 0.5 * free
    assert inside > pulled


class Recorder:
    """A classifier that remembers every batch it was asked about."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.seen: list[Tensor] = []

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(x.detach().clone())
        return self.classifier.logits_and_latent(x, fake_relu)


def test_the_best_picture_is_the_one_whose_own_loss_was_lowest(classifier: Classifier) -> None:
    recorder = Recorder(classifier)
    problem, start = class_job(seed=3, epsilon=20.0, step_size=6.0)
    state, trace = advance(recorder, problem, start, 13)
    best = int(trace.loss[:, 0].argmin())
    assert 0 < best < 12, "the step is large so that the last picture is not the best"
    assert len(recorder.seen) == 13
    assert torch.equal(state.best_x, recorder.seen[best])
    assert float(state.best_loss) == float(trace.loss[best, 0])
    assert float(state.best_probability) == float(trace.probability[best, 0])
    assert (
        int(state.best_class) == int(trace.predicted[best, 0]) == int(classifier.probabilities(state.best_x).argmax())
    )
    assert torch.equal(state.result(problem), state.best_x)


def test_the_last_picture_is_judged_too(classifier: Classifier) -> None:
    recorder = Recorder(classifier)
    problem, start = class_job(steps=5, step_size=0.1)
    state, trace = advance(recorder, problem, start, 6)
    assert len(recorder.seen) == 6
    assert int(trace.loss[:, 0].argmin()) == 5
    assert torch.equal(state.best_x, state.x)
    assert torch.equal(recorder.seen[-1], state.x)
    assert int(state.remaining) == 0


def test_without_use_best_the_last_picture_is_returned(classifier: Classifier) -> None:
    problem, start = class_job(seed=3, epsilon=20.0, step_size=6.0, use_best=False)
    state, _ = advance(classifier, problem, start, 13)
    assert torch.equal(state.result(problem), state.x)
    assert not torch.equal(state.x, state.best_x)


@pytest.mark.parametrize("chunk", [10, 7])
def test_chunk_boundaries_leave_no_trace(classifier: Classifier, chunk: int) -> None:
    jobs = [class_job(seed=i, steps=60, step_size=0.1 * (i + 1)) for i in range(2)]  # 61 evaluations: a remainder
    problem, start = Problem.stack([p for p, _ in jobs]), State.stack([s for _, s in jobs])
    once, trace = advance(classifier, problem, start, 61)
    state, losses = start, []
    while (left := int(state.remaining.max())) > 0:
        state, part = advance(classifier, problem, state, min(chunk, left))
        losses.append(part.loss)
    for name, value in vars(once).items():
        assert torch.equal(getattr(state, name), value), name
    assert torch.equal(torch.cat(losses), trace.loss)


def test_a_finished_job_stays_as_it_is_while_its_neighbours_go_on(classifier: Classifier) -> None:
    short, long = class_job(seed=1, steps=3), class_job(seed=2, steps=9)
    problem, start = Problem.stack([short[0], long[0]]), State.stack([short[1], long[1]])
    done, _ = advance(classifier, problem, start, 4)
    later, _ = advance(classifier, problem, done, 6)
    assert done.remaining.tolist() == [0, 6]
    assert later.remaining.tolist() == [0, 0]
    assert later.best_class[0] == done.best_class[0]
    for name in ("x", "best_x", "best_loss", "best_probability"):
        assert torch.equal(getattr(later, name)[0], getattr(done, name)[0]), name
        assert not torch.equal(getattr(later, name)[1], getattr(done, name)[1]), name


def test_after_every_step_x_can_travel_in_two_bytes_a_value(classifier: Classifier) -> None:
    problem, state = class_job(steps=8)
    for _ in range(8):
        state, _ = advance(classifier, problem, state, 1)
        sixteen_bits = (state.x * LEVELS).round().to(torch.int32)
        assert torch.equal(sixteen_bits.float() / LEVELS, state.x)
        assert 0 <= int(sixteen_bits.min()) <= int(sixteen_bits.max()) <= LEVELS


def test_without_the_grid_the_same_pictures_come_out_up_to_its_spacing(classifier: Classifier) -> None:
    problem, start = class_job(steps=1)
    on, _ = advance(classifier, problem, start, 1)
    off, _ = advance(classifier, problem, start, 1, levels=None)
    assert 0 < float((on.x - off.x).abs().max()) <= 0.51 / LEVELS


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(sorted(NORMS)),
    epsilon=st.floats(0, 30),
    step_size=st.floats(1e-4, 50),
    penalty=st.sampled_from([0.0, 10.0]),
)
def test_every_result_is_a_picture_inside_its_ball(
    classifier: Classifier, seed: int, norm: str, epsilon: float, step_size: float, penalty: float
) -> None:
    if norm == "linf":
        epsilon /= 30
    problem, start = class_job(
        seed=seed, steps=3, norm=NORMS[norm], epsilon=epsilon, step_size=step_size, penalty_weight=penalty
    )
    state, _ = advance(classifier, problem, start, 4)
    for x in (state.x, state.best_x):
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        change = x - problem.center
        if norm == "l2":
            assert float(change.norm()) <= epsilon + 0.5 * change.numel() ** 0.5 / LEVELS + 1e-5
        elif norm == "linf":
            assert float(change.abs().max()) <= epsilon + 0.5 / LEVELS + 1e-6
