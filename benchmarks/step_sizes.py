"""Score against number of steps: how long a step should be, and whether it should shrink or have momentum.

    python -m benchmarks.step_sizes --model cifar10 --start noise --images 500 --out out/few-steps

Everything descends the same loss from the same seeds inside the same ball of radius epsilon. A rule's *reach* is the length of
its whole path, momentum aside, in radii: step size x steps / epsilon. Writes OUT.json and OUT.svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.chart import Chart, draw
from robust_synthesis import specs
from robust_synthesis.engine.ball import l2_norm, per_sample
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, quantise
from robust_synthesis.engine.turn import evaluate, step
from robust_synthesis.evaluation.frechet import frechet_distance
from robust_synthesis.evaluation.judge import Judge
from robust_synthesis.evaluation.proportion import Proportion
from robust_synthesis.evaluation.provenance import command, hardware, versions
from robust_synthesis.model_folder import find
from robust_synthesis.tasks import Inputs, Job, make_jobs
from robust_synthesis.training import datasets

STEPS = (5, 10, 20, 60)
BATCH = 32


@dataclass(frozen=True)
class Rule:
    """How long each of T steps is, as shares of epsilon, and how much of the last direction is kept."""

    name: str
    lengths: Callable[[int], Sequence[float]]
    momentum: float = 0.0


def constant(reach: float) -> Callable[[int], Sequence[float]]:
    return lambda steps: [reach / steps] * steps


def linear(reach: float) -> Callable[[int], Sequence[float]]:
    """Falling to 0."""
    return lambda steps: [2 * reach / steps * (1 - (i + 0.5) / steps) for i in range(steps)]


def cosine(reach: float) -> Callable[[int], Sequence[float]]:
    """Falling to 0 along half a wave."""
    return lambda steps: [reach / steps * (1 + math.cos(math.pi * (i + 0.5) / steps)) for i in range(steps)]


RULES = (
    Rule("reference: steps of epsilon / 60", lambda steps: [1 / 60] * steps),
    Rule("constant, reach 1.5", constant(1.5)),
    Rule("constant, reach 3.5", constant(3.5)),
    Rule("constant, reach 8", constant(8)),
    Rule("linear to 0, reach 8", linear(8)),
    Rule("cosine to 0, reach 8", cosine(8)),
    Rule("momentum 0.75, reach 3.5", constant(3.5), momentum=0.75),
)


def descend(
    classifier: Classifier, jobs: Sequence[Job], lengths: Sequence[float], momentum: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """(best pictures [B, 3, H, W] in 8 bits, their losses [B]) of each batch; the step itself is the engine's."""
    for first in range(0, len(jobs), BATCH):
        part = jobs[first : first + BATCH]
        problem = Problem.stack([job.problem for job in part]).to(classifier.device)
        x = torch.cat([job.state.x for job in part]).to(classifier.device)
        best, lowest, velocity = x, torch.full((len(part),), torch.inf, device=x.device), torch.zeros_like(x)
        for length in [*lengths, None]:
            found = evaluate(classifier, problem, x)
            better = found.loss < lowest
            lowest, best = torch.where(better, found.loss, lowest), torch.where(per_sample(better), x, best)
            if length is not None and found.gradient is not None:
                velocity = momentum * velocity + found.gradient / (per_sample(l2_norm(found.gradient)) + 1e-10)
                x = step(dataclasses.replace(problem, step_size=length * problem.epsilon), x, velocity)
        yield quantise(best, 255).cpu(), lowest.cpu()


def measure(
    classifier: Classifier, judge: Judge, real: Tensor, jobs: Sequence[Job], rule: Rule, steps: int
) -> dict[str, object]:
    """The scores of one rule at one number of steps."""
    started = time.perf_counter()
    batches = list(descend(classifier, jobs, rule.lengths(steps), rule.momentum))
    pictures, losses = (torch.cat(parts) for parts in zip(*batches, strict=True))
    targets = torch.tensor([job.target for job in jobs])
    seen, features = judge.look(pictures)
    judged = Proportion.of(seen == targets)
    return {
        "rule": rule.name,
        "steps": steps,
        "judged": judged.value,
        "interval": judged.interval,
        "fid": frechet_distance(features, real),
        "loss": float(losses.mean()),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10", help="a classifier with a judge beside it")
    parser.add_argument("--data", help="its data set (default: the folder on its card, in $ROBUST_SYNTHESIS_DATA)")
    parser.add_argument("--start", choices=specs.STARTS, default="noise")
    parser.add_argument("--epsilon", type=float, help="default: the card's")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--out", type=Path, default=Path("out/few-steps"))
    options = parser.parse_args()
    folder = find(options.model)
    classifier = Classifier.load(folder, precision="auto")
    judge = Judge(Classifier.load(folder.with_name(f"{folder.name}-judge")))
    card = classifier.card
    data = options.data or Path(os.environ["ROBUST_SYNTHESIS_DATA"]) / card.data["name"]
    _, real = judge.look_at_set(datasets.load(data, "test", size=card.size))
    count = max(2, options.images // len(card.classes))
    jobs = [
        job
        for name in card.classes
        for job in make_jobs(
            specs.Generate(target=name, start=options.start, seed=0, count=count, epsilon=options.epsilon),
            Inputs(card.size),
            classifier,
        )
    ]
    found = []
    for rule in RULES:
        for steps in options.steps:
            found.append(measure(classifier, judge, real, jobs, rule, steps))
            print(json.dumps(found[-1]), flush=True)
    report = {
        "model": card.name,
        "version": classifier.version,
        "start": options.start,
        "epsilon": float(jobs[0].problem.epsilon),
        "images": len(jobs),
        "judge": judge.network,
        "command": command(),
        "hardware": hardware(classifier.device),
        "precision": classifier.precision,
        "versions": versions(),
        "results": found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    title = f"{card.name}: {len(jobs)} pictures from {options.start}, L2 {report['epsilon']:g}"
    options.out.with_suffix(".svg").write_text(plot(title, found))


def plot(title: str, found: Sequence[dict[str, object]]) -> str:
    """Two panels over the number of steps: what the judge sees, and FID."""
    panels = (("judged as its class, %", "judged", 100.0), ("FID in the judge's features", "fid", 1.0))
    return draw([_panel(found, *panel) for panel in panels], title)


def _panel(found: Sequence[dict[str, object]], label: str, key: str, scale: float) -> Chart:
    lines = {
        rule.name: [
            (float(str(each["steps"])), scale * float(str(each[key]))) for each in found if each["rule"] == rule.name
        ]
        for rule in RULES
    }
    return Chart(label, "steps", lines, log_x=True, from_zero=False)


if __name__ == "__main__":
    main()
