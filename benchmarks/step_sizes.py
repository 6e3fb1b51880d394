"""Score against number of steps: how long a step should be, and whether it should shrink or have momentum.

    python benchmarks/step_sizes.py --model cifar10 --start noise --images 500 --out out/few-steps

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

from robust_synthesis import specs
from robust_synthesis.engine.ball import l2_norm, per_sample
from robust_synthesis.engine.chunk import objective, step
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, quantise
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
    colour: str
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
    Rule("reference: steps of epsilon / 60", "#6a737d", lambda steps: [1 / 60] * steps),
    Rule("constant, reach 1.5", "#b08800", constant(1.5)),
    Rule("constant, reach 3.5", "#1f77b4", constant(3.5)),
    Rule("constant, reach 8", "#0a7d36", constant(8)),
    Rule("linear to 0, reach 8", "#d62728", linear(8)),
    Rule("cosine to 0, reach 8", "#e377c2", cosine(8)),
    Rule("momentum 0.75, reach 3.5", "#9467bd", constant(3.5), momentum=0.75),
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
            point = x.detach().requires_grad_(True)
            loss, _ = objective(classifier, problem, point)
            (gradient,) = torch.autograd.grad(loss.sum(), point)
            better = loss.detach() < lowest
            lowest, best = torch.where(better, loss.detach(), lowest), torch.where(per_sample(better), x, best)
            if length is not None:
                velocity = momentum * velocity + gradient / (per_sample(l2_norm(gradient)) + 1e-10)
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
    """Two panels over the number of steps, on a logarithmic scale: what the judge sees, and FID."""
    panels = (("judged as its class, %", "judged", 100.0), ("FID in the judge's features", "fid", 1.0))
    drawn = [_panel(found, label, key, scale, 70 + 430 * i) for i, (label, key, scale) in enumerate(panels)]
    legend = [
        f'<path d="M{70 + 290 * (i % 3)} {383 + 20 * (i // 3)}h24" stroke="{rule.colour}" stroke-width="3"/>'
        f'<text x="{100 + 290 * (i % 3)}" y="{388 + 20 * (i // 3)}">{rule.name}</text>'
        for i, rule in enumerate(RULES)
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 440" font-family="sans-serif" font-size="13" fill="#1b1f24">'
        f'<rect width="900" height="440" fill="#fff"/><text x="70" y="24" font-size="16">{title}</text>'
        f"{''.join(drawn)}{''.join(legend)}</svg>\n"
    )


def _panel(found: Sequence[dict[str, object]], label: str, key: str, scale: float, left: int) -> str:
    wide, high, top = 360, 270, 60
    values = [scale * float(str(entry[key])) for entry in found]
    steps = sorted({int(str(entry["steps"])) for entry in found})
    low, up = min(values), max(values)
    low, up = low - 0.05 * (up - low), up + 0.05 * (up - low)

    def across(step: int) -> float:
        return left + wide * (math.log(step) - math.log(steps[0])) / (math.log(steps[-1]) - math.log(steps[0]))

    def down(value: float) -> float:
        return top + high * (up - value) / (up - low)

    parts = [f'<text x="{left}" y="48" fill="#5b6470">{label}</text>']
    for i in range(5):
        value = low + (up - low) * (i + 0.5) / 5
        parts.append(f'<path d="M{left} {down(value):.1f}h{wide}" stroke="#d8dee4"/>')
        parts.append(
            f'<text x="{left - 8}" y="{down(value) + 4:.1f}" text-anchor="end" fill="#5b6470">{value:.3g}</text>'
        )
    for step_count in steps:
        parts.append(
            f'<text x="{across(step_count):.1f}" y="350" text-anchor="middle" fill="#5b6470">{step_count}</text>'
        )
    for rule in RULES:
        points = [
            (across(int(str(entry["steps"]))), down(scale * float(str(entry[key]))))
            for entry in found
            if entry["rule"] == rule.name
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{rule.colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{rule.colour}"/>' for x, y in points]
    return "".join(parts)


if __name__ == "__main__":
    main()
