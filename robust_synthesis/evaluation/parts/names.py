"""What the files and the examples of a part are called, and which classes they show."""

from __future__ import annotations

import re
from collections.abc import Sequence

SHOWN = 20
"""Classes on a sheet, at most."""
ACROSS = 10
"""Pictures beside each other."""


def file_name(*words: str) -> str:
    """A picture's name from words that may be names of classes, so of any characters."""
    return "-".join(re.sub(r"\W+", "-", word).strip("-") for word in words)


def shown(classes: Sequence[str]) -> list[int]:
    """Indices of up to SHOWN classes, spread evenly over all."""
    count = min(SHOWN, len(classes))
    return [i * len(classes) // count for i in range(count)]
