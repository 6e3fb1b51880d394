"""Turns on a GPU: recorded as CUDA graphs, with fused convolutions; and on any device the tensors that graphs work on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robust_synthesis.engine import graphs
from robust_synthesis.engine.ball import NORMS
from robust_synthesis.engine.chunk import Trace, advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.fused import FusedResNet
from robust_synthesis.engine.graphs import Board
from robust_synthesis.engine.problem import LEVELS, Problem, State, quantise
from robust_synthesis.engine.turn import Evaluation, evaluate
from robust_synthesis.testing import SIZE, pictures, tiny_card, tiny_classifier
from robust_synthesis.worker.transport import finite, to_levels

ARCHITECTURE = {"kind": "resnet", "block": "basic", "depths": [1, 2, 2], "width": 16, "stem": "small"}
MIDDLE = torch.zeros(1, SIZE, SIZE)
MIDDLE[:, 4:12, 4:12] = 1
LATER = ("x", "best_x", "best_loss", "best_probability", "best_class", "remaining")


def batch(device: str = "cpu", *, steps: int = 12) -> tuple[Problem, State]:
    """Eight jobs of every norm and objective, which take from 1 to `steps` steps."""
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"mask": MIDDLE, "penalty_weight": 10.0, "norm": NORMS["none"]},
        {"ce_weight": 0.0, "latent_weight": -1.0, "unit": 2, "fake_relu": True},
        {"norm": NORMS["linf"], "epsilon": 0.1, "step_size": 0.02, "mask": MIDDLE, "hard_mask": True},
    )
    jobs = []
    for i in range(8):
        terms: dict[str, Any] = {"epsilon": 3.0, "step_size": 0.3, "target": i % 4} | kinds[i % len(kinds)]
        start = State.start(pictures(1, seed=i)[0][0], 1 + (steps - 1) * i // 7)
        jobs.append((Problem.single(start.x[0], **terms), start))
    to = torch.device(device)
    return Problem.stack([p for p, _ in jobs]).to(to), State.stack([s for _, s in jobs]).to(to)


def assert_equal(found: tuple[State, Trace], wanted: tuple[State, Trace]) -> None:
    for name in LATER:
        assert torch.equal(getattr(found[0], name), getattr(wanted[0], name)), name
    assert torch.equal(found[1].loss, wanted[1].loss)
    assert torch.equal(found[1].probability, wanted[1].probability)
    assert torch.equal(found[1].predicted, wanted[1].predicted)


def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Board, "_record", lambda *_: None)


class Repeating:
    """A graph where there is no GPU: what was captured is done at every replay, and not before."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.replay = work

    def pool(self) -> tuple[int, int]:
        return 0, 1


def on_a_board(classifier: Classifier, problem: Problem, state: State, k: int) -> tuple[State, Trace]:
    after, *traced = graphs.advance(classifier, problem, state, k, penalised=True, levels=LEVELS)
    return after, Trace(*traced)


@pytest.fixture
def repeating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of the CPU."""
    graphs.forget()
    monkeypatch.setattr(graphs, "capture", lambda work, *_: (Repeating(work), None))


@pytest.mark.usefixtures("repeating")
def test_turns_on_tensors_that_stay_are_those_of_the_loop(classifier: Classifier) -> None:
    problem, state = batch()
    for k in (1, 5, 4, 7):  # three evaluations more than the longest job needs
        after, trace = on_a_board(classifier, problem, state, k)
        assert_equal((after, trace), advance(classifier, problem, state, k))
        state = after
    assert state.remaining.tolist() == [0] * 8
    assert graphs.recorded(classifier) == 2, "with a gradient and without"


@pytest.mark.usefixtures("repeating")
def test_tensors_that_stay_are_no_part_of_what_is_returned(classifier: Classifier) -> None:
    problem, state = batch()
    first, _ = on_a_board(classifier, problem, state, 2)
    kept = {name: getattr(first, name).clone() for name in LATER}
    on_a_board(classifier, problem, first, 4)
    for name, value in kept.items():
        assert torch.equal(getattr(first, name), value), name


@pytest.mark.usefixtures("repeating")
def test_graphs_that_were_not_used_for_long_are_recorded_again(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    problem, state = batch()
    wanted = [advance(classifier, problem.rows(slice(n)), state.rows(slice(n)), 13) for n in (1, 2, 4, 8)]
    for _ in range(2):
        for n, each in zip((1, 2, 4, 8), wanted, strict=True):
            assert_equal(on_a_board(classifier, problem.rows(slice(n)), state.rows(slice(n)), 13), each)
    assert graphs.recorded(classifier) == 4


def test_what_cannot_be_recorded_is_launched_kernel_by_kernel(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs.forget()
    monkeypatch.setattr(graphs, "capture", refuse)
    problem, state = batch()
    assert_equal(on_a_board(classifier, problem, state, 13), advance(classifier, problem, state, 13))
    assert graphs.recorded(classifier) == 0
    assert (
        caplog.messages
        == [
            "a CUDA graph could not be recorded, steps will be slower: operation not permitted when stream is capturing"
        ]
        * 2
    )
    graphs.forget()


@pytest.mark.parametrize("times", [1, 2])
def test_where_memory_is_too_small_the_graphs_give_theirs_back(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    graphs.forget()
    monkeypatch.setattr(graphs, "capture", lambda work, *_: (Repeating(work), None))
    problem, state = batch()
    on_a_board(classifier, problem.rows(slice(4)), state.rows(slice(4)), 13)
    left = times

    def fill(work: Callable[[], object], *_: Any) -> tuple[Repeating, None]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Repeating(work), None

    monkeypatch.setattr(graphs, "capture", fill)
    if times == 2:
        with pytest.raises(torch.OutOfMemoryError):
            on_a_board(classifier, problem, state, 13)
        assert graphs.recorded(classifier) == 0
    else:
        assert_equal(on_a_board(classifier, problem, state, 13), advance(classifier, problem, state, 13))
        assert graphs.recorded(classifier) == 2, "those of four jobs are gone"


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def on_gpu(request: pytest.FixtureRequest) -> Classifier:
    """A random classifier on the GPU, wide enough for fused convolutions."""
    return tiny_classifier(card=tiny_card(architecture=ARCHITECTURE), device="cuda", precision=request.param)


@pytest.mark.gpu
def test_graphs_give_the_bits_of_turns_that_are_launched_kernel_by_kernel(
    on_gpu: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, state = batch("cuda")
    recorded = advance(on_gpu, problem, state, 13)
    graphs.forget()
    unrecorded(monkeypatch)
    assert_equal(recorded, advance(on_gpu, problem, state, 13))
    graphs.forget()


@pytest.mark.gpu
def test_they_are_recorded(on_gpu: Classifier, caplog: pytest.LogCaptureFixture) -> None:
    graphs.forget()
    problem, state = batch("cuda")
    advance(on_gpu, problem, state, 13)
    assert not caplog.records
    assert graphs.recorded(on_gpu) == 2, "with a gradient and without"


@pytest.mark.gpu
def test_the_same_jobs_have_the_same_bits_in_chunks_of_any_length(on_gpu: Classifier) -> None:
    problem, state = batch("cuda", steps=60)
    once, trace = advance(on_gpu, problem, state, 61)
    losses = []
    while (left := int(state.remaining.max())) > 0:
        state, part = advance(on_gpu, problem, state, min(7, left))
        losses.append(part.loss)
    for name in LATER:
        assert torch.equal(getattr(state, name), getattr(once, name)), name
    assert torch.equal(torch.cat(losses), trace.loss)


@pytest.mark.gpu
def test_neighbours_leave_no_trace(on_gpu: Classifier) -> None:
    problem, state = batch("cuda")
    turned = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    others = Problem(**{name: value[turned] for name, value in vars(problem).items()})
    elsewhere = State(**{name: value[turned] for name, value in vars(state).items()})
    after, trace = advance(on_gpu, problem, state, 13)
    found, moved = advance(on_gpu, others, elsewhere, 13)
    assert torch.equal(found.best_x, after.best_x[turned])
    assert torch.equal(moved.loss, trace.loss[:, turned])


@pytest.mark.gpu
def test_a_gpu_finds_what_a_cpu_finds() -> None:
    card = tiny_card(architecture=ARCHITECTURE)
    reference, classifier = tiny_classifier(card=card), tiny_classifier(card=card, device="cuda")
    for steps, apart in ((1, 1e-4), (8, 2e-2)):
        wanted, trace = advance(reference, *batch(steps=steps), steps + 1)
        found, losses = advance(classifier, *batch("cuda", steps=steps), steps + 1)
        assert float((losses.loss[0].cpu() - trace.loss[0]).abs().max()) < 1e-4
        assert float((found.x.cpu() - wanted.x).abs().mean()) < apart


@pytest.mark.gpu
def test_fused_convolutions_are_the_network_up_to_rounding() -> None:
    card = tiny_card(architecture=ARCHITECTURE)
    exact = tiny_classifier(card=card, device="cuda")
    rounded = exact.in_precision("bf16")
    assert isinstance(rounded._rounded, FusedResNet)
    apart = exact.in_precision("bf16")
    apart._rounded = rounded._rounded.network
    problem, state = batch("cuda")
    wanted, found, unfused = (evaluate(each, problem, state.x) for each in (exact, rounded, apart))
    assert float((found.loss - wanted.loss).abs().max()) < 0.1

    def likeness(evaluation: Evaluation) -> Tensor:
        assert evaluation.gradient is not None
        assert wanted.gradient is not None
        return torch.cosine_similarity(evaluation.gradient.flatten(1), wanted.gradient.flatten(1))

    assert float(likeness(found).min()) > 0.95
    assert float(likeness(found).mean()) > float(likeness(unfused).mean()) - 0.01


@pytest.mark.gpu
def test_pixels_come_down_from_a_gpu_as_they_are() -> None:
    x = torch.randint(0, LEVELS + 1, (4, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)) / LEVELS
    there = quantise(x.cuda())
    assert (to_levels(there) == to_levels(x)).all()
    there[2, 0, 0, 0] = torch.nan
    assert finite(there) == finite(there.cpu()) == [True, True, False, True]


@pytest.mark.gpu
def test_other_threads_may_use_the_gpu_while_graphs_are_recorded(on_gpu: Classifier) -> None:
    wanted = advance(on_gpu, *batch("cuda"), 13)
    ended = threading.Event()
    failures: list[Exception] = []

    def compute() -> None:
        try:
            while not ended.is_set():
                torch.ones(1 << 20, device="cuda").sum().item()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for _ in range(3):
            graphs.forget()
            found = advance(on_gpu, *batch("cuda"), 13)
            assert graphs.recorded(on_gpu) == 2
    finally:
        ended.set()
        thread.join()
    assert not failures
    assert_equal(found, wanted)


@pytest.mark.gpu
def test_a_graph_outlives_the_thread_that_recorded_it(on_gpu: Classifier) -> None:
    wanted = advance(on_gpu, *batch("cuda"), 13)
    graphs.forget()
    thread = threading.Thread(target=lambda: advance(on_gpu, *batch("cuda"), 13))
    thread.start()
    thread.join()
    assert graphs.recorded(on_gpu) == 2
    on_gpu(torch.zeros(3, 3, 24, 24, device="cuda"))
    assert_equal(advance(on_gpu, *batch("cuda"), 13), wanted)


@pytest.mark.gpu
def test_graphs_share_their_memory(on_gpu: Classifier) -> None:
    graphs.forget()
    problem, state = batch("cuda")
    problem, state = Problem.stack([problem] * 4), State.stack([state] * 4)
    sizes = []
    for n in (32, 16, 8, 4, 2, 1):
        advance(on_gpu, problem.rows(slice(n)), state.rows(slice(n)), 13)
        gc.collect()
        torch.cuda.empty_cache()
        sizes.append(torch.cuda.memory_reserved())
    assert sizes[-1] < 1.5 * sizes[0]


@pytest.mark.gpu
def test_what_memory_held_before_is_no_part_of_a_result(on_gpu: Classifier) -> None:
    problem, state = batch("cuda")
    wanted = evaluate(on_gpu, problem, state.x)
    torch.full((1 << 24,), torch.nan, device="cuda")  # freed at once
    found = evaluate(on_gpu, problem, state.x)
    assert torch.equal(found.loss, wanted.loss)
    assert wanted.gradient is not None
    assert found.gradient is not None
    assert torch.equal(found.gradient, wanted.gradient)
