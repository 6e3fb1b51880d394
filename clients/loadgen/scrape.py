"""What servers' /metrics said before and after: how counters and histograms grew, and where gauges ended."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

Snapshot = Mapping[str, float]
"""Sums over the servers. `name{label="value"}`, without the labels `le` and `backend`."""
FORGOTTEN = ("le", "backend")


def snapshot(urls: Sequence[str]) -> Snapshot:
    """Raises OSError."""
    found: dict[str, float] = defaultdict(float)
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as response:
            text = response.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith(("_bucket", "_created")) or sample.name.startswith("python_"):
                    continue
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items() if name not in FORGOTTEN)
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] += sample.value
    return found


def grown(before: Snapshot, after: Snapshot) -> dict[str, dict[str, float]]:
    """`grew` and `ended`, of all that is not zero."""
    counts = ("_total", "_count", "_sum")
    grew: dict[str, float] = {}
    ended: dict[str, float] = {}
    for name, value in sorted(after.items()):
        if name.partition("{")[0].endswith(counts):
            grew[name] = value - before.get(name, 0.0)
        else:
            ended[name] = value
    return {"grew": {k: v for k, v in grew.items() if v}, "ended": {k: v for k, v in ended.items() if v}}
