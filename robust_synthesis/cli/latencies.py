"""What a gateway's /metrics say of the latency of every task."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

HISTOGRAM = "synthesis_task_duration_seconds"


@dataclass(frozen=True)
class Latency:
    """Of the requests of one task that ended well, in seconds."""

    task: str
    requests: int
    mean: float
    below: float
    """Bucket of the histogram that 95 % are within."""

    def __str__(self) -> str:
        noun = "request" if self.requests == 1 else "requests"
        return f"{self.task:16} {self.requests:3} {noun:8}  mean {self.mean:6.3f} s   95 % below {self.below:g} s"


def latencies(exposition: str) -> list[Latency]:
    """From the text that Prometheus reads, by task."""
    from prometheus_client.parser import text_string_to_metric_families

    counts: defaultdict[str, float] = defaultdict(float)
    sums: defaultdict[str, float] = defaultdict(float)
    buckets: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples if family.name == HISTOGRAM else ():
            task = sample.labels.get("task", "")
            if sample.labels.get("outcome") != "ok":
                continue
            if sample.name.endswith("_count"):
                counts[task] += sample.value
            elif sample.name.endswith("_sum"):
                sums[task] += sample.value
            elif sample.name.endswith("_bucket"):
                buckets[task][float(sample.labels["le"])] += sample.value
    return [
        Latency(
            task,
            int(count),
            round(sums[task] / count, 4),
            min(edge for edge, seen in buckets[task].items() if seen >= 0.95 * count),
        )
        for task, count in sorted(counts.items())
        if count
    ]
