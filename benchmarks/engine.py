"""Gradient steps on the input: our engine against the attacker of the paper's authors, on the same weights.

Both take the same number of steps of the same L2 attack from the same pictures. Their custom loss is cross-entropy given as
a function, which has their attacker run the network twice in a step. Neither has anything changed in its process: malloc has
its defaults, which cost both page faults (`robust_synthesis/memory.py`). On a GPU theirs may round to TF32, as torch has it by
default, and ours computes in fp32 without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_synthesis.engine import weights
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.precision import choose_precision
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.model_folder import ModelFolder

from . import authors
from .chart import Chart
from .figures import Figure, Measured
from .measure import Spread, ratio, take_turns

TITLE = "Engine against the authors' attacker"
KEEPS_MEMORY = False
"""Read by `__main__.py`; other sections run as services and commands do."""
EPSILON, STEP_SIZE = 10.0, 0.5
WORK = {"cpu": 16 * 64 * 64, "cuda": 2048 * 64 * 64}
"""Pixels that a turn computes: batch x side^2 x steps."""
TARGETS = {"cpu": {1: 2.5, 8: 3.5, 32: 3.5}, "cuda": {1: 5.0, 64: 2.5}}


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """The engine's figures, in the precision that users get. Raises ImportError without the package `robustness`."""
    classifier = Classifier.load(folder.path, precision="auto")
    slower = {"fp32", choose_precision(classifier.device, "auto")} - {classifier.precision}
    batches: tuple[int, ...] = (1, 8, 32)
    sides = (64,) if quick else (32, 64, 128)
    kind = classifier.device.type
    if kind == "cuda":
        batches = (*batches, 64)
    figures = []
    lines: dict[str, list[tuple[float, float]]] = {f"{side} px": [] for side in sides}
    with authors.attacker() as module:
        model = authors.attacker_model(module, weights.load_network(folder), folder.card).to(classifier.device)
        for side, batch in itertools.product(sides, batches):
            x, targets = pictures(classifier, batch, side)
            steps = turns(classifier, batch, side)
            subjects: dict[str, Callable[[], object]] = {
                "ours": ours(classifier, x, targets, steps),
                "theirs": partial(theirs, model, x, targets, steps),
            }
            if side == 64 or not quick:
                for name in sorted(slower):
                    subjects[f"ours in {name}"] = ours(classifier.in_precision(name), x, targets, steps)
            if side == 64:
                subjects["theirs, custom loss"] = partial(theirs, model, x, targets, steps, custom_loss=_cross_entropy)
            seconds = take_turns(subjects, rounds=5 if quick else 15)
            at = f"batch {batch}, {side} px"
            per_step = Spread.of([1000 * s / steps for s in seconds["ours"]])
            detail = f"{classifier.precision}, {per_step.median:.{2 if kind == 'cuda' else 1}f} ms a step"
            faster = ratio(seconds["theirs"], seconds["ours"])
            lines[f"{side} px"].append((batch, faster.median))
            figures.append(
                Figure.of(
                    at,
                    faster,
                    "authors' attacker",
                    target=TARGETS[kind].get(batch) if side == 64 else None,
                    detail=detail,
                )
            )
            for name in subjects.keys() - {"ours", "theirs"}:
                over, under = ("theirs", name) if name.startswith("ours") else (name, "ours")
                figures.append(Figure.of(f"{at}, {name}", ratio(seconds[over], seconds[under]), "authors' attacker"))
    chart = Chart("how many times as fast as the authors' attacker", "pictures in a batch", lines, log_x=True)
    return Measured(tuple(figures), (chart,))


def pictures(classifier: Classifier, batch: int, side: int) -> tuple[Tensor, Tensor]:
    """Where both start, [B, 3, H, W], and their target classes [B], on the classifier's device."""
    x = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(batch) % len(classifier.card.classes)
    return x.to(classifier.device), targets.to(classifier.device)


def turns(classifier: Classifier, batch: int, side: int) -> int:
    """Steps that each takes at a time."""
    return min(30, max(3, WORK[classifier.device.type] // (batch * side * side)))


def ours(classifier: Classifier, x: Tensor, targets: Tensor, steps: int) -> Callable[[], Tensor]:
    """Takes `steps` steps towards `targets` [B]: the pictures [B, 3, H, W]."""
    problem = Problem.stack(
        [
            Problem.single(picture, target=int(target), epsilon=EPSILON, step_size=STEP_SIZE)
            for picture, target in zip(x.cpu(), targets, strict=True)
        ]
    ).to(classifier.device)
    start = State.stack([State.start(picture, steps) for picture in x.cpu()]).to(classifier.device)

    def run() -> Tensor:
        state, _ = advance(classifier, problem, start, steps + 1)
        return _finished(state.result(problem))

    return run


def theirs(model: Any, x: Tensor, targets: Tensor, steps: int, **options: Any) -> Tensor:
    """The same by their attacker, with cuDNN as torch sets it up."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=False, allow_tf32=True):
        _, found = model(
            x,
            targets,
            make_adv=True,
            constraint="2",
            eps=EPSILON,
            step_size=STEP_SIZE,
            iterations=steps,
            targeted=True,
            use_best=True,
            do_tqdm=False,
            **options,
        )
    assert isinstance(found, Tensor)
    return _finished(found.detach())


def _finished(x: Tensor) -> Tensor:
    """The same, once a GPU has computed it."""
    if x.is_cuda:
        torch.cuda.synchronize()
    return x


def _cross_entropy(model: nn.Module, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(x)
    return F.cross_entropy(logits, targets, reduction="none"), logits
