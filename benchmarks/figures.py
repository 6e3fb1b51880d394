"""What `python -m benchmarks` keeps: figures with their spread, target, hardware and versions; JSON, and a Markdown table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from robust_synthesis.files import atomic_write

from .chart import Chart, draw
from .measure import Spread


@dataclass(frozen=True)
class Figure:
    """One measured ratio."""

    name: str
    """What was measured, under which conditions: `batch 8, 64 px`."""
    value: float
    low: float
    high: float
    """Median, 10th and 90th percentile over the rounds."""
    against: str
    """What it is a ratio to, measured in the same run."""
    target: float | None = None
    higher_is_better: bool = True
    detail: str = ""

    @classmethod
    def of(cls, name: str, spread: Spread, against: str, **more: Any) -> Figure:
        return cls(name, spread.median, spread.low, spread.high, against, **more)

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    def worse_than(self, other: Figure) -> bool:
        """Whether the difference is more than both spreads explain."""
        return self.high < other.low if self.higher_is_better else self.low > other.high


@dataclass(frozen=True)
class Measured:
    """What a benchmark finds."""

    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Section(Measured):
    """The figures of one benchmark, and how they came about."""

    _: KW_ONLY
    name: str
    title: str
    quick: bool
    hardware: str
    versions: dict[str, str]
    finished: str
    seconds: float
    notes: tuple[str, ...] = ()
    gpu: bool = False

    @classmethod
    def read(cls, path: Path) -> Section:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["figures"] = tuple(Figure(**figure) for figure in found["figures"])
        found["charts"] = tuple(Chart(**chart) for chart in found["charts"])
        found["notes"] = tuple(found["notes"])
        return cls(**found)

    def worse_figures(self, stored: Section) -> list[str]:
        """Names of the figures that got worse than the stored ones of the same hardware and extent."""
        if (stored.hardware, stored.quick) != (self.hardware, self.quick):
            return []
        before = {figure.name: figure for figure in stored.figures}
        return [f.name for f in self.figures if f.name in before and f.worse_than(before[f.name])]

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"{self.name}{'-gpu' if self.gpu else ''}{'' if self.quick else '-full'}"

    def markdown(self) -> str:
        rows = [
            f"### {self.title}{', on a GPU' if self.gpu else ''}",
            "",
            "| | ratio | to | target |",
            "|---|---|---|---|",
        ]
        for figure in self.figures:
            sign = "" if figure.target is None else ("at least " if figure.higher_is_better else "at most ")
            target = "" if figure.target is None else f"{sign}{figure.target:g}{'' if figure.reached else ' (missed)'}"
            detail = f"; {figure.detail}" if figure.detail else ""
            value = f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
            rows.append(f"| {figure.name}{detail} | {value} | {figure.against} | {target} |")
        rows += ["", *(line for note in self.notes for line in (note, ""))]
        if self.charts:
            rows += [f"![{'; '.join(chart.title for chart in self.charts)}]({self.stem}.svg)", ""]
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        rows.append(f"{self.hardware}; {packages}; {self.finished}, {self.seconds:.0f} s.")
        return "\n".join(rows) + "\n"


class Results:
    """A folder with one JSON file per section, and `README.md`, the tables of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, section: Section, *, replace: bool = False) -> Path:
        """Keep a section. Where figures got worse than those that are kept, it goes beside them, unless `replace`."""
        path = self.folder / f"{section.stem}.json"
        worse = section.worse_figures(Section.read(path)) if path.exists() else []
        self.folder.mkdir(parents=True, exist_ok=True)
        if worse and not replace:
            path = path.with_suffix(".worse.json")
        elif section.charts:
            _write(path.with_suffix(".svg"), draw(section.charts, section.title))
        _write(path, json.dumps(dataclasses.asdict(section), indent=1) + "\n")
        self._write_table()
        return path

    def _write_table(self) -> None:
        sections = [Section.read(path) for path in self._kept()]
        text = "\n".join(["# Results\n", "Medians, 10th to 90th percentile.\n", *(s.markdown() for s in sections)])
        _write(self.folder / "README.md", text)

    def _kept(self) -> Sequence[Path]:
        return sorted(path for path in self.folder.glob("*.json") if not path.name.endswith(".worse.json"))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
