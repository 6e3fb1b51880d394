"""A day of traffic against the policy in deploy/kubernetes/base/autoscaling.yaml, and how its threshold and times were chosen.

    python benchmarks/autoscale.py measure        # step times of this machine, one core -> results/step-times.json
    python benchmarks/autoscale.py measure --size 64 --device cuda --out gpu.json
    python benchmarks/autoscale.py day            # the day by the policy            -> results/autoscale.webp, autoscale.json
    python benchmarks/autoscale.py sweep          # thresholds and windows           -> results/autoscale-sweep.json, .webp
    python benchmarks/autoscale.py cold           # scale-to-zero: what the first job waits

Everything but `measure` computes from results/step-times.json, and needs no torch. The day has a quiet night, a busy evening, ten
minutes of three times the traffic at noon, and five times the traffic within a minute, for three, at eight in the evening.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # as a script, too, this finds its neighbour

from benchmarks.simulation import Cluster, Machine, Scaling, Trace, by_time  # noqa: E402

RESULTS = Path(__file__).parent / "results"
POLICY = ROOT / "deploy/kubernetes/base/autoscaling.yaml"
SIZES = (1, 2, 4, 8, 16)
HOUR = 3600.0
DAY = 24 * HOUR
JUMP = 0.05
"""Share of the day's mean at night, at least."""


def rate(time: float, mean: float) -> float:
    """Jobs a second at this time of the day."""
    usual = mean * (1 + JUMP - math.cos(2 * math.pi * (time - 5 * HOUR) / DAY))
    noon, evening = 12 * HOUR, 20 * HOUR
    if noon <= time < noon + 600:
        return 3 * usual
    if evening <= time < evening + 240:
        return usual * (1 + 4 * min(1.0, (time - evening) / 60))
    return usual


def traffic(mean: float, seconds: float = DAY, seed: int = 0) -> Iterator[float]:
    """Arrivals, a Poisson process of that rate (by thinning)."""
    drawn, most, time = random.Random(seed), 12 * mean, 0.0
    while True:
        time += drawn.expovariate(most)
        if time >= seconds:
            return
        if drawn.random() * most < rate(time, mean):
            yield time


def machine(options: argparse.Namespace) -> Machine:
    measured = json.loads((RESULTS / "step-times.json").read_text())
    times = {int(size): seconds for size, seconds in measured["step_seconds"].items()}
    return Machine(times, measured["size"], start=options.start)


def figures(trace: Trace, arrived: int) -> dict[str, Any]:
    """What the day came to."""
    return {
        "jobs": arrived,
        "refused": trace.refused,
        "wait_p50": round(trace.wait(0.5), 2),
        "wait_p95": round(trace.wait(0.95), 2),
        "wait_p99": round(trace.wait(0.99), 2),
        "longest_wait": round(trace.wait(1.0), 1),
        "worker_hours": round(trace.worker_hours, 1),
        "utilisation": round(trace.utilisation, 3),
        "most_workers": max(trace.wanted),
        "changes": trace.changes,
    }


def replay(options: argparse.Namespace, scaling: Scaling) -> tuple[Trace, dict[str, Any]]:
    arrivals = list(traffic(options.mean, options.hours * HOUR))
    trace = Cluster(machine(options), scaling, workers=max(1, scaling.least)).run(
        arrivals, options.steps + 1, options.hours * HOUR
    )
    return trace, figures(trace, len(arrivals))


def measure(options: argparse.Namespace) -> None:
    """The fastest of many, since the machine may have other work."""
    import torch

    from robust_synthesis.engine.classifier import Classifier
    from robust_synthesis.worker.compute import Compute

    torch.set_num_threads(options.threads)
    classifier = Classifier.load(options.model, device=options.device)
    classifier.card = dataclasses.replace(classifier.card, size=options.size or classifier.card.size)
    compute = Compute(classifier)
    for _ in range(options.rounds):
        compute.warm_up(SIZES)
    card = compute.classifier.card
    found = {
        "model": card.name,
        "size": card.size,
        "device": compute.describe()["device"],
        "precision": compute.describe()["precision"],
        "threads": options.threads,
        "torch": torch.__version__,
        "processor": _processor(),
        "step_seconds": {size: round(seconds, 6) for size, seconds in sorted(compute.step_seconds.items())},
    }
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def day(options: argparse.Namespace) -> None:
    scaling = Scaling.read(POLICY)
    trace, found = replay(options, scaling)
    shown = {
        "policy": dataclasses.asdict(scaling),
        "start": options.start,
        "mean_jobs_per_second": options.mean,
        **found,
    }
    (RESULTS / "autoscale.json").write_text(json.dumps(shown, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    plot_day(trace, options, scaling)


def plot_day(trace: Trace, options: argparse.Namespace, scaling: Scaling) -> None:
    from matplotlib.figure import Figure

    hours = [time / HOUR for time in trace.times]
    figure = Figure(figsize=(10, 8), layout="constrained")
    load, workers, wait, use = figure.subplots(4, 1, sharex=True)
    load.plot(hours, [rate(time, options.mean) for time in trace.times], lw=1)
    load.set(ylabel="jobs/s", title=f"threshold {scaling.threshold:g} image-steps, window {scaling.stabilisation:g} s")
    workers.step(hours, trace.wanted, where="post", lw=1, label="wanted")
    workers.step(hours, trace.ready, where="post", lw=1, label="ready")
    workers.set(ylabel="workers", ylim=(0, None))
    workers.legend(fontsize="small")
    for share, label in ((0.5, "p50"), (0.95, "p95"), (1.0, "longest")):
        times, values = by_time(trace.waits, 300, share)
        wait.plot([time / HOUR for time in times], values, lw=1, label=label)
    wait.set(ylabel="queue wait, s (of 5 min)", yscale="symlog", ylim=(0, None))
    wait.legend(fontsize="small")
    often = 20
    shares = [
        (hours[i], sum(trace.busy[i : i + often]) / max(1e-9, sum(trace.paid[i : i + often])))
        for i in range(0, len(hours), often)
    ]
    use.plot(*zip(*shares, strict=True), lw=1)
    use.set(ylabel="utilisation", xlabel="hour of the day", ylim=(0, 1), xlim=(0, options.hours))
    figure.savefig(RESULTS / "autoscale.webp", dpi=90)


def sweep(options: argparse.Namespace) -> None:
    """Of each combination, what it costs and what callers wait."""
    scaling = Scaling.read(POLICY)
    rows = []
    for window in options.windows:
        for threshold in options.thresholds:
            tried = dataclasses.replace(scaling, threshold=threshold, stabilisation=window)
            found = {"threshold": threshold, "window": window, **replay(options, tried)[1]}
            rows.append(found)
            print(" | ".join(str(value) for value in found.values()), flush=True)
    (RESULTS / "autoscale-sweep.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot_sweep(rows)


def plot_sweep(rows: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for window in sorted({row["window"] for row in rows}):
        own = [row for row in rows if row["window"] == window]
        hours, waits = [row["worker_hours"] for row in own], [row["wait_p99"] for row in own]
        axes.plot(hours, waits, "o-", lw=1, markersize=4, label=f"window {window:g} s")
        for row in own:
            axes.annotate(f"{row['threshold']:g}", (row["worker_hours"], row["wait_p99"]), fontsize=7)
    axes.set(xlabel="worker-hours of the day", ylabel="queue wait p99, s", yscale="log")
    axes.set_title("Each point is a threshold, in image-steps of a worker", fontsize="medium")
    axes.legend(fontsize="small")
    figure.savefig(RESULTS / "autoscale-sweep.webp", dpi=90)


def cold(options: argparse.Namespace) -> None:
    """A job every half an hour, so that each finds no worker."""
    scaling = dataclasses.replace(Scaling.read(POLICY), least=0, cooldown=900)
    drawn = random.Random(0)
    arrivals = [1800.0 * number + drawn.uniform(0, 60) for number in range(1, 101)]
    trace = Cluster(machine(options), scaling, workers=0).run(arrivals, options.steps + 1, 1800.0 * 102)
    print(json.dumps(figures(trace, len(arrivals)), indent=2))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, metavar="measure|day|sweep|cold")
    one = verbs.add_parser("measure")
    one.set_defaults(run=measure)
    one.add_argument("--model", type=Path, default=ROOT / "model_store/cifar10", metavar="FOLDER")
    one.add_argument("--device", default="cpu")
    one.add_argument("--size", type=int, help="side of the pictures (default: the classifier's)")
    one.add_argument("--out", type=Path, default=RESULTS / "step-times.json", metavar="FILE")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--rounds", type=int, default=20, help="of which the fastest step counts (%(default)s)")
    for name, run in (("day", day), ("sweep", sweep), ("cold", cold)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("--mean", type=float, default=10, help="jobs a second, over the day (%(default)s)")
        verb.add_argument("--steps", type=int, default=30, help="of a job (%(default)s)")
        verb.add_argument(
            "--start", type=float, default=60, help="seconds from the wish for a worker to its first bundle"
        )
        verb.add_argument("--hours", type=float, default=24, help="of the day, from midnight (%(default)s)")
        if name == "sweep":
            verb.add_argument("--thresholds", type=float, nargs="*", default=(15, 25, 40, 60, 90, 180))
            verb.add_argument("--windows", type=float, nargs="*", default=(120, 300, 600))
    options = parser.parse_args(arguments)
    RESULTS.mkdir(exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
