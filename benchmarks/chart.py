"""Line charts as small SVG files, for results that people would rather look at than read."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

COLOURS = ("#1f77b4", "#d62728", "#0a7d36", "#9467bd", "#b08800", "#e377c2", "#6a737d")
INK, PALE, GRID = "#1b1f24", "#5b6470", "#d8dee4"
WIDE, HIGH, LEFT, TOP = 360, 250, 62, 60
"""Of a panel's plot, and where that of the first panel is."""
PITCH = LEFT + WIDE + 18
"""From one panel to the next."""
LEGEND_PITCH = 290


@dataclass(frozen=True)
class Chart:
    """Lines through points, over x at which there are few values."""

    title: str
    """What y is, with its unit."""
    x_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    from_zero: bool = True
    """Whether y begins at 0 rather than at the least value."""


def draw(charts: Sequence[Chart], title: str = "") -> str:
    """The text of an SVG file: panels side by side, which share a legend of all their lines."""
    names = list(dict.fromkeys(name for chart in charts for name in chart.lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    panels = [line for i, chart in enumerate(charts) for line in _panel(chart, LEFT + PITCH * i, colours)]
    wide = PITCH * len(charts) + 4
    columns = max(1, (wide - LEFT) // LEGEND_PITCH)
    legend = []
    for i, name in enumerate(names):
        x, y = LEFT + LEGEND_PITCH * (i % columns), TOP + HIGH + 62 + 20 * (i // columns)
        legend.append(f'<path d="M{x} {y - 5}h24" stroke="{colours[name]}" stroke-width="3"/>')
        legend.append(f'<text x="{x + 30}" y="{y}">{html.escape(name)}</text>')
    high = TOP + HIGH + 56 + 20 * math.ceil(len(names) / columns)
    font = f'font-family="sans-serif" font-size="13" fill="{INK}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" {font}>'
    back = f'<rect width="{wide}" height="{high}" fill="#fff"/>'
    heading = f'<text x="{LEFT}" y="24" font-size="16">{html.escape(title)}</text>' if title else ""
    return "\n".join([head, back + heading, *panels, *legend, "</svg>\n"])


def _panel(chart: Chart, left: int, colours: Mapping[str, str]) -> Iterator[str]:
    points = [point for line in chart.lines.values() for point in line]
    xs = sorted({x for x, _ in points})
    ticks = _ticks(0.0 if chart.from_zero else min(y for _, y in points), max(y for _, y in points))
    place: Callable[[float], float] = math.log if chart.log_x else float
    span = place(xs[-1]) - place(xs[0])

    def across(x: float) -> float:
        return left + WIDE * ((place(x) - place(xs[0])) / span if span else 0.5)

    def down(y: float) -> float:
        return TOP + HIGH * (ticks[-1] - y) / (ticks[-1] - ticks[0])

    yield f'<text x="{left}" y="{TOP - 12}" fill="{PALE}">{html.escape(chart.title)}</text>'
    for tick in ticks:
        yield f'<path d="M{left} {down(tick):.1f}h{WIDE}" stroke="{GRID}"/>'
        yield f'<text x="{left - 8}" y="{down(tick) + 4:.1f}" text-anchor="end" fill="{PALE}">{tick:g}</text>'
    for x in xs if len(xs) <= 12 else _ticks(xs[0], xs[-1]):
        if xs[0] <= x <= xs[-1]:
            yield f'<text x="{across(x):.1f}" y="{TOP + HIGH + 18}" text-anchor="middle" fill="{PALE}">{x:g}</text>'
    middle = left + WIDE / 2
    label = html.escape(chart.x_label)
    yield f'<text x="{middle:.0f}" y="{TOP + HIGH + 36}" text-anchor="middle" fill="{PALE}">{label}</text>'
    for name, line in chart.lines.items():
        at = [(across(x), down(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        yield f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2.5"/>'
        if len(at) <= 12:
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colours[name]}"/>' for x, y in at)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that hold all values between them."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if span / (size * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, max(last, first + 1) + 1)]
