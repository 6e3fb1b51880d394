"""torch.compile against the engine as it is: the network, forward and towards the input, by inductor for each batch size.

The rest of a step, which is little, stays as it is in both. What compiling takes is counted in batches of jobs of 60 steps that
the engine would have done in that time. On a CPU it needs a C++ compiler.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.precision import choose_precision
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.engine.turn import Differentiable
from robust_synthesis.model_folder import ModelFolder

from .figures import Figure, Measured
from .measure import Spread, ratio, take_turns

TITLE = "torch.compile"
SIDE = 64
STEPS = 60
WORK = 96
"""Pictures x evaluations of a turn."""


class Compiled:
    """A classifier whose network is compiled."""

    def __init__(self, classifier: Classifier) -> None:
        self._compiled = torch.compile(classifier.logits_and_latent, dynamic=False)

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self._compiled(x, fake_relu)
        return found


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Speed and warm-up by batch size."""
    classifier = Classifier.load(folder.path)
    classifier = classifier.in_precision(choose_precision(classifier.device, "auto"))  # int8 is none of torch.compile's
    figures = []
    for batch in (1, 16) if quick else (1, 8, 16, 32):
        x = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        problem = Problem.stack([Problem.single(each, target=0, epsilon=10.0, step_size=0.1) for each in x])
        state = State.stack([State.start(each, 1_000) for each in x])
        problem, state = problem.to(classifier.device), state.to(classifier.device)
        compiled = Compiled(classifier)
        k = max(3, WORK // batch)
        begun = time.perf_counter()
        found, _ = advance(compiled, problem, state, 1)
        found.x.cpu()
        warm_up = time.perf_counter() - begun
        difference = float((found.x - advance(classifier, problem, state, 1)[0].x).abs().max()) * 255

        def turn(subject: Differentiable, problem: Problem = problem, state: State = state, k: int = k) -> None:
            advance(subject, problem, state, k)[0].x.cpu()

        seconds = take_turns(
            {"eager": partial(turn, classifier), "compiled": partial(turn, compiled)}, 7 if quick else 21
        )
        job = (STEPS + 1) * Spread.of(seconds["eager"]).median / k
        detail = (
            f"compiling takes {warm_up:.0f} s, or {warm_up / job:.0f} batches of jobs; "
            f"{classifier.precision}, at most {difference:.2g} grey levels away after one step"
        )
        faster = ratio(seconds["eager"], seconds["compiled"])
        figures.append(Figure.of(f"compiled, batch {batch}, {SIDE} px", faster, "the engine as it is", detail=detail))
    return Measured(tuple(figures))
