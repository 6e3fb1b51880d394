"""What `python -m benchmarks` keeps: figures with their spread, target, hardware and versions; JSON, and a Markdown table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_synthesis.files import atomic_write

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
class Section:
    """The figures of one benchmark, and how they came about."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    quick: bool
    hardware: str
    versions: dict[str, str]
    finished: str
    seconds: float
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Section:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["figures"] = tuple(Figure(**figure) for figure in found["figures"])
        found["notes"] = tuple(found["notes"])
        return cls(**found)

    def worse_figures(self, stored: Section) -> list[str]:
        """Names of the figures that got worse than the stored ones of the same hardware and extent."""
        if (stored.hardware, stored.quick) != (self.hardware, self.quick):
            return []
        before = {figure.name: figure for figure in stored.figures}
        return [f.name for f in self.figures if f.name in before and f.worse_than(before[f.name])]

    def markdown(self) -> str:
        rows = [f"### {self.title}", "", "| | ratio | to | target |", "|---|---|---|---|"]
        for figure in self.figures:
            sign = "" if figure.target is None else ("at least " if figure.higher_is_better else "at most ")
            target = "" if figure.target is None else f"{sign}{figure.target:g}{'' if figure.reached else ' (missed)'}"
            detail = f"; {figure.detail}" if figure.detail else ""
            value = f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
            rows.append(f"| {figure.name}{detail} | {value} | {figure.against} | {target} |")
        rows += ["", *self.notes]
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        rows.append(f"{self.hardware}; {packages}; {self.finished}, {self.seconds:.0f} s.")
        return "\n".join(rows) + "\n"


class Results:
    """A folder with one JSON file per section, and `README.md`, the tables of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stored(self, name: str, quick: bool) -> Section | None:
        path = self._path(name, quick)
        return Section.read(path) if path.exists() else None

    def write(self, section: Section, *, replace: bool = False) -> Path:
        """Keep a section. Where figures got worse than those that are kept, it goes beside them, unless `replace`."""
        stored = self.stored(section.name, section.quick)
        worse = section.worse_figures(stored) if stored else []
        path = self._path(section.name, section.quick)
        if worse and not replace:
            path = path.with_suffix(".worse.json")
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write((json.dumps(dataclasses.asdict(section), indent=1) + "\n").encode())
        self._write_table()
        return path

    def _path(self, name: str, quick: bool) -> Path:
        return self.folder / f"{name}{'' if quick else '-full'}.json"

    def _write_table(self) -> None:
        sections = [Section.read(path) for path in self._kept()]
        text = "\n".join(["# Results\n", "Medians, 10th to 90th percentile.\n", *(s.markdown() for s in sections)])
        with atomic_write(self.folder / "README.md") as file:
            file.write(text.encode())

    def _kept(self) -> Sequence[Path]:
        return sorted(path for path in self.folder.glob("*.json") if not path.name.endswith(".worse.json"))
