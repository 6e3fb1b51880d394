"""What a run measured: as JSON, as lines to read, as a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .drive import Sample

PERCENTILES = (50, 90, 95, 99, 99.9)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Seconds: of each the smallest value that so many of a hundred do not exceed (nearest rank), and the greatest."""
    ordered = sorted(values)
    if not ordered:
        return {}
    ranks = {f"p{q:g}": max(0, -int(-q * len(ordered) // 100) - 1) for q in PERCENTILES}
    return {name: ordered[rank] for name, rank in ranks.items()} | {"max": ordered[-1]}


def summary(samples: Sequence[Sample], warm_up: float = 0.0) -> dict[str, Any]:
    """Of the requests scheduled after the warm-up. Latencies are of those that succeeded, from their scheduled times."""
    counted = [sample for sample in samples if sample.scheduled >= warm_up]
    good = [sample for sample in counted if sample.code == "OK"]
    seconds = max((sample.ended for sample in counted), default=warm_up) - warm_up
    return {
        "seconds": seconds,
        "requests": len(counted),
        "codes": dict(Counter(sample.code for sample in counted)),
        "per_second": len(good) / seconds if seconds else 0.0,
        "latency": percentiles(sample.latency for sample in good),
        "latency_from_sending": percentiles(sample.service for sample in good),
        "lag": percentiles(sample.sent - sample.scheduled for sample in counted),
        "tasks": {
            task: {"requests": len(own), "latency": percentiles(own)}
            for task in sorted({sample.task for sample in good})
            if (own := [sample.latency for sample in good if sample.task == task])
        },
    }


def lines(found: dict[str, Any]) -> list[str]:
    """To read."""
    codes = ", ".join(f"{count} {code}" for code, count in sorted(found["codes"].items()))
    said = [
        f"{found['requests']} requests in {found['seconds']:.1f} s: {codes}; {found['per_second']:.2f} good ones a second"
    ]
    rows = {"latency": found["latency"], "from sending": found["latency_from_sending"], "sent late": found["lag"]}
    rows |= {task: each["latency"] for task, each in found["tasks"].items()}
    for name, values in rows.items():
        said.append(f"{name:>16}  " + "  ".join(f"{key} {1000 * value:.0f} ms" for key, value in values.items()))
    return said


def plot(samples: Sequence[Sample], path: Path, title: str) -> None:
    """Latency over the run, and its percentiles; the ending of the file's name says which format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    time, tail = figure.subplots(1, 2)
    for task in sorted({sample.task for sample in samples}):
        own = [sample for sample in samples if sample.task == task and sample.code == "OK"]
        time.plot([s.scheduled for s in own], [s.latency for s in own], ".", markersize=3, label=task)
    failed = [sample for sample in samples if sample.code != "OK"]
    if failed:
        time.plot([s.scheduled for s in failed], [s.latency for s in failed], "rx", markersize=4, label="not OK")
    time.set(xlabel="scheduled, s", ylabel="latency, s", title=title, ylim=(0, None))
    time.legend(fontsize="small")
    good = [sample for sample in samples if sample.code == "OK"]
    for label, values in {
        "from the scheduled time": sorted(sample.latency for sample in good),
        "from sending": sorted(sample.service for sample in good),
    }.items():
        share = [(rank + 1) / (len(values) + 1) for rank in range(len(values))]
        tail.plot([1 / (1 - each) for each in share], values, label=label)
    tail.set(xscale="log", xlabel="percentile", ylabel="latency, s", ylim=(0, None))
    tail.set_xticks([1, 2, 10, 100, 1000], ["0", "50", "90", "99", "99.9"])
    tail.legend(fontsize="small")
    figure.savefig(path)
