"""Which pictures of the way to a result are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stride(steps: int, frames: int) -> int:
    """Steps from one frame to the next: the most that make at least so many, or a frame for every step."""
    longest = math.ceil(steps / frames)
    return longest if math.ceil(steps / longest) >= frames else max(steps // frames, 1)


def evenly(seen: Sequence[T], most: int) -> tuple[T, ...]:
    """Up to `most` of them at even distances, the last among them."""
    count = min(most, len(seen))
    return tuple(seen[(i + 1) * len(seen) // count - 1] for i in range(count))
