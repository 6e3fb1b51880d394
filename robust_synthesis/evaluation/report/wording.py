"""How numbers are written, for terminals and pages alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Numbers = Mapping[str, Any]


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"


def sure(proportion: Numbers) -> str:
    """A proportion with its 95 % interval and count."""
    low, high = proportion["interval"]
    return f"{percent(proportion['value'])} ({100 * low:.1f} to {100 * high:.1f}) of {proportion['count']:,}"


def number(value: float | None) -> str:
    return "none found" if value is None else f"{value:.3g}"


def moved(change: Numbers) -> str:
    """An L2 change."""
    return f"L2 change {change['mean']:.3g}, at most {change['largest']:.3g}"


def settings(parameters: Numbers) -> str:
    """Parameters of a task, such as "L2 3.5, 30 steps of 0.4"."""
    ball = "no ball" if parameters["norm"] == "none" else f"{parameters['norm'].upper()} {parameters['epsilon']:g}"
    others = [
        f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in parameters.items()
        if name not in ("norm", "epsilon", "steps", "step_size")
    ]
    return ", ".join([ball, f"{parameters['steps']} steps of {parameters['step_size']:.3g}", *others])
