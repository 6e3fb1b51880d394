"""When requests should be sent, in seconds from the start, whatever becomes of those before: an open loop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

KINDS = ("poisson", "constant", "burst")


def arrivals(kind: str, rate: float, seconds: float, *, burst: int = 10, seed: int = 0) -> Iterator[float]:
    """`rate` requests a second on average. Of `burst`, so many come at once, and bursts as a Poisson process."""
    drawn = random.Random(seed)
    events = rate / burst if kind == "burst" else rate
    time = 0.0
    for number in itertools.count(1):
        time = number / events if kind == "constant" else time + drawn.expovariate(events)
        if time >= seconds:
            return
        for _ in range(burst if kind == "burst" else 1):
            yield time
