"""`evaluate`."""
from __future__ import annotations

from typing import Any


def add_parser(verbs: Any) -> None:
    pass
