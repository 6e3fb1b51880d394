"""The batch sizes that are computed: batches of other sizes are padded, so that there are few kinds to prepare and to measure."""

from __future__ import annotations

from collections.abc import Iterable

LARGEST = 32
POWERS = (1, 2, 4, 8, 16, 32)
"""On a GPU, where each has CUDA graphs of its own and small batches take about as long as each other."""
FINE = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)
"""On a CPU, where every picture takes time."""


def batch_sizes(device: str) -> tuple[int, ...]:
    """For a type of device, such as cpu or cuda."""
    return FINE if device == "cpu" else POWERS


def checked(sizes: Iterable[int]) -> tuple[int, ...]:
    """What a worker says, in order; POWERS where it says nothing, as older ones, or nonsense."""
    found = tuple(sorted(set(sizes)))
    return found if found and found[0] == 1 and found[-1] == LARGEST else POWERS


def padded(jobs: int, sizes: Iterable[int]) -> int:
    """The smallest of `sizes` that holds so many jobs; their number where none does."""
    return min((size for size in sizes if size >= jobs), default=jobs)
