"""What the benchmarks keep, and that they overwrite nothing silently."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import robust_synthesis
from benchmarks.__main__ import main
from benchmarks.batching import Handler, WholeRequests
from benchmarks.chart import Chart, draw
from benchmarks.figures import Figure, Results, Section
from benchmarks.measure import Spread, percentile, ratio, take_turns, under_way
from robust_synthesis.gateway.testing import run
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate, Spec
from robust_synthesis.testing import tiny_model_folder


def section(*figures: Figure, hardware: str = "a machine", quick: bool = True) -> Section:
    return Section(
        figures,
        name="engine",
        title="Engine",
        quick=quick,
        hardware=hardware,
        versions={"torch": "2"},
        finished="2026-01-01",
        seconds=1.0,
        notes=("Why.",),
    )


def figure(value: float, *, higher: bool = True, target: float | None = None) -> Figure:
    return Figure.of("b", Spread(value, value - 0.1, value + 0.1), "theirs", target=target, higher_is_better=higher)


def test_a_ratio_is_taken_round_by_round() -> None:
    assert ratio([2, 4, 9], [1, 2, 3]) == Spread(2, 2, 3)


def test_subjects_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert [len(found) for found in seconds.values()] == [2, 2]


@pytest.mark.parametrize(("higher", "worse"), [(True, 1.5), (False, 2.5)])
def test_a_worse_figure_goes_beside_the_stored_one(tmp_path: Path, higher: bool, worse: float) -> None:
    results = Results(tmp_path)
    first = results.write(section(figure(2, higher=higher)))
    beside = results.write(section(figure(worse, higher=higher)))
    assert beside.name == "engine.worse.json"
    assert Section.read(first).figures[0].value == 2
    assert Section.read(beside).figures[0].value == worse
    assert "2.00 (1.90 to 2.10)" in (first.parent / "README.md").read_text()
    assert results.write(section(figure(worse, higher=higher)), replace=True) == first
    assert Section.read(first).figures[0].value == worse


@pytest.mark.parametrize(
    "other", [section(figure(1.85)), section(figure(1), hardware="another"), section(figure(1), quick=False)]
)
def test_within_the_spread_or_elsewhere_nothing_is_worse(tmp_path: Path, other: Section) -> None:
    results = Results(tmp_path)
    results.write(section(figure(2)))
    path = results.write(other)
    assert not path.name.endswith(".worse.json")
    assert Section.read(path) == other


def test_a_section_that_has_no_chart_any_more_leaves_none(tmp_path: Path) -> None:
    results, chart = Results(tmp_path), Chart("speed", "batch", {"a": [(1, 1), (2, 3)]})
    path = results.write(replace(section(figure(2)), charts=(chart,))).with_suffix(".svg")
    assert path.exists()
    results.write(section(figure(2)))
    assert not path.exists()


def test_a_gpu_is_the_same_beside_another_cpu(tmp_path: Path) -> None:
    results = Results(tmp_path)
    first = results.write(section(figure(2), hardware="A GPU; a CPU, 2 threads"))
    worse = results.write(section(figure(1), hardware="A GPU; another CPU, 16 threads"))
    assert (first.parent.name, worse.name) == ("a-gpu", "engine.worse.json")


def test_the_table_says_which_targets_were_missed() -> None:
    text = section(figure(2, target=2.5), figure(3, target=2.5), figure(2, target=2.5, higher=False)).markdown()
    assert text.count("at least 2.5 (missed)") == 1
    assert text.count("at least 2.5") == 2
    assert "at most 2.5 |" in text
    assert replace(figure(2), target=None).reached is None


def test_the_table_has_every_section_that_is_kept(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write(section(figure(2)))
    results.write(replace(section(figure(3)), name="roofline", title="Roofline"))
    text = (tmp_path / "a-machine/README.md").read_text()
    assert text.index("### Engine") < text.index("### Roofline")


def test_headline_figures_of_all_hardware_are_side_by_side(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write(section(figure(2, target=2.5)))
    results.write(section(figure(2.75, target=2.5), quick=False))
    results.write(section(figure(3, target=2.5), hardware="Ours (AVX2), 2 threads"))
    results.write(replace(section(figure(7)), name="roofline", title="Roofline"))
    (row,) = [line for line in (tmp_path / "README.md").read_text().splitlines() if "Engine: b" in line]
    assert row == "| Engine: b | 2.00 (missed); 2.75 in full | 3.00 | at least 2.5 |"
    assert "(ours-avx2-2-threads/README.md)" in (tmp_path / "README.md").read_text()
    assert "Roofline" not in (tmp_path / "README.md").read_text()


def test_work_that_reaches_beyond_the_window_counts_in_part() -> None:
    assert under_way([(0, 4), (4, 6), (9, 13), (13, 14)], begin=2, end=10) == pytest.approx(0.5 + 1 + 0.25)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile([3, 1, 2], q) for q in (0, 50, 95)] == [1, 2, 3]
    assert percentile(range(1, 101), 95) == 95


def test_a_chart_has_its_points_where_their_values_are() -> None:
    chart = Chart("latency, s", "clients", {"a & b": [(1, 0.5), (4, 1.5), (16, 2)], "c": [(1, 1)]}, log_x=True)
    svg = ElementTree.fromstring(draw([chart], "Both"))
    texts = [text.text for text in svg.iterfind(".//{*}text")]
    assert {"Both", "latency, s", "clients", "a & b", "c", "16", "0", "2"} <= set(texts)
    first, second = (line.get("points") for line in svg.iterfind(".//{*}polyline"))
    points = [tuple(map(float, point.split(","))) for point in str(first).split()]
    (left, low), (middle, _), (right, high) = points
    assert middle == pytest.approx((left + right) / 2)
    assert low > high
    (between,) = (float(point.split(",")[1]) for point in str(second).split())
    assert between == pytest.approx(low - (low - high) / 3)


def test_a_chart_is_drawn_beside_the_table_that_shows_it(tmp_path: Path) -> None:
    chart = Chart("jobs/s", "clients", {"ours": [(1, 2), (2, 3)]})
    kept = replace(section(figure(2)), charts=(chart,))
    path = Results(tmp_path).write(kept)
    ((read, _),) = [chart.lines["ours"] for chart in Section.read(path).charts]
    assert tuple(read) == (1, 2)
    assert "![jobs/s](engine.svg)" in (path.parent / "README.md").read_text()
    ElementTree.parse(path.with_suffix(".svg"))


def test_a_handler_of_whole_requests_computes_what_each_asked_for_and_leaving_changes_nothing(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    asked = [
        Generate(target="circle", seed=seed, steps=steps, start="noise") for seed, steps in enumerate((3, 9, 5, 9))
    ]
    library = robust_synthesis.load(folder.path)
    for leave in (False, True):
        files = Handler(folder, leave=leave).handle(asked)
        for file, spec in zip(files, asked, strict=True):
            found = np.asarray(Image.open(io.BytesIO(file)), int)
            expected = np.asarray(library.answer(Request(spec=spec)).image, int)
            assert np.abs(found - expected).mean() < 0.5
            assert (
                np.abs(found - np.asarray(library.answer(Request(spec=replace(spec, seed=9))).image, int)).mean() > 10
            )


def test_requests_that_wait_share_a_batch_and_a_delay_lets_others_join() -> None:
    batches: list[int] = []

    class Counting(Handler):
        def __init__(self) -> None: ...

        def handle(self, batch: Sequence[Spec]) -> list[bytes]:
            batches.append(len(batch))
            return [b""] * len(batch)

    async def main(delay: float) -> list[int]:
        batches.clear()
        requests = WholeRequests(Counting(), 4, delay, thread)
        worker = asyncio.create_task(requests.work())

        async def later(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await requests.submit(Generate(target="circle"))

        await asyncio.gather(*(later(seconds) for seconds in (0, 0, 0.05, 0.05, 0.05, 0.5)))
        worker.cancel()
        return list(batches)

    with ThreadPoolExecutor(1) as thread:
        assert run(main(0.0)) == [2, 3, 1]
        assert run(main(0.1)) == [4, 1, 1]


def test_a_command_measures_writes_and_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_model_folder(tmp_path / "tiny").path
    command = ["benchmarks", "roofline", "--model", str(tiny), "--results", str(tmp_path / "figures")]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    (kept,) = (tmp_path / "figures").glob("*/*.json")
    assert all(figure.value > 0 for figure in Section.read(kept).figures)
