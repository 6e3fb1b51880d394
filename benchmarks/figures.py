"""What `python -m benchmarks` keeps: figures with their spread, target, hardware and versions; JSON, and a Markdown table."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
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

    @property
    def wanted(self) -> str:
        """The target in words; empty without one."""
        if self.target is None:
            return ""
        return f"at {'least' if self.higher_is_better else 'most'} {self.target:g}"

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

    @classmethod
    def read(cls, path: Path) -> Section:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["figures"] = tuple(Figure(**figure) for figure in found["figures"])
        found["charts"] = tuple(Chart(**chart) for chart in found["charts"])
        found["notes"] = tuple(found["notes"])
        return cls(**found)

    def worse_figures(self, stored: Section) -> list[str]:
        """Names of the figures that got worse than the stored ones."""
        before = {figure.name: figure for figure in stored.figures}
        return [f.name for f in self.figures if f.name in before and f.worse_than(before[f.name])]

    @property
    def place(self) -> str:
        """The hardware that it is compared by: of a GPU without the CPU that launches its kernels."""
        return self.hardware.partition(";")[0]

    @property
    def path(self) -> Path:
        """Of its JSON file, below the folder of all results: hardware, name and extent."""
        folder = re.sub(r"[^a-z0-9]+", "-", self.place.lower()).strip("-")
        return Path(folder, f"{self.name}{'' if self.quick else '-full'}.json")

    def markdown(self) -> str:
        extent = "" if self.quick else ", the whole grid"
        rows = [f"### {self.title}{extent}", "", "| | ratio | to | target |", "|---|---|---|---|"]
        for figure in self.figures:
            target = f"{figure.wanted}{' (missed)' if figure.reached is False else ''}"
            detail = f"; {figure.detail}" if figure.detail else ""
            value = f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
            rows.append(_row([f"{figure.name}{detail}", value, figure.against, target]))
        rows += ["", *(line for note in self.notes for line in (note, ""))]
        if self.charts:
            rows += [f"![{'; '.join(chart.title for chart in self.charts)}]({self.path.with_suffix('.svg').name})", ""]
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        rows.append(f"{self.hardware}; {packages}; {self.finished}, {self.seconds:.0f} s.")
        return "\n".join(rows) + "\n"


class Results:
    """A folder for every hardware, with a JSON file per section and their tables; above them the headline figures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, section: Section, *, replace: bool = False) -> Path:
        """Keep a section. Where figures got worse than those that are kept, it goes beside them, unless `replace`."""
        path = self.folder / section.path
        worse = section.worse_figures(Section.read(path)) if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        if worse and not replace:
            path = path.with_suffix(".worse.json")
        elif section.charts:
            _write(path.with_suffix(".svg"), draw(section.charts, section.title))
        else:
            path.with_suffix(".svg").unlink(missing_ok=True)
        _write(path, json.dumps(dataclasses.asdict(section), indent=1) + "\n")
        self.write_tables()
        return path

    def write_tables(self) -> None:
        """The Markdown files, from the JSON files that are there."""
        kept = [Section.read(path) for path in sorted(self.folder.glob("*/*.json")) if ".worse" not in path.suffixes]
        links = {}
        for place, each in itertools.groupby(kept, key=lambda section: section.place):
            sections = list(each)
            table = sections[0].path.parent / "README.md"
            links[place] = f"[{place}]({table.as_posix()})"
            text = [f"# {place}\n", "Medians, 10th to 90th percentile.\n", *(s.markdown() for s in sections)]
            _write(self.folder / table, "\n".join(text))
        rows = [
            "# Results",
            "",
            "What has a target, on every hardware that it was measured on. *In full* is the whole grid.",
            "",
        ]
        rows += [_row(["", *links.values(), "target"]), _row(["---"] * (len(links) + 2))]
        rows += [_row(cells) for cells in _headlines(kept, list(links))]
        _write(self.folder / "README.md", "\n".join(rows) + "\n")


def _headlines(sections: Iterable[Section], places: Sequence[str]) -> Iterator[list[str]]:
    """Name, a cell for each place, and target of every figure with a target, by title."""
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for section in sorted(sections, key=lambda section: not section.quick):
        for figure in section.figures:
            if figure.target is not None:
                cells = found.setdefault((section.title, figure.name, figure.wanted), {})
                extent = "" if section.quick else " in full"
                missed = "" if figure.reached else " (missed)"
                cells.setdefault(section.place, []).append(f"{figure.value:.2f}{extent}{missed}")
    for (title, name, target), cells in sorted(found.items(), key=lambda item: item[0][0]):
        yield [f"{title}: {name}", *("; ".join(cells.get(place, [])) for place in places), target]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
