"""Four workers do nearly four times as much as one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clients.loadgen.drive import Drive
from clients.loadgen.mix import Work, sending
from robust_synthesis.client.connection import Connection

from . import proofs
from .cluster import Cluster, simulated

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.usefixtures("possible")]
CALLERS, MEASURED, WARM_UP = 32, 60.0, 20.0
STEPS, DELAY = 10, 0.04


def test_throughput_follows_the_number_of_workers(tmp_path: Path) -> None:
    """Steps that sleep for every picture, so that a worker does as many in a second whatever its bundles are."""
    found: dict[int, float] = {}
    with Cluster(tmp_path, simulated(tmp_path, DELAY)) as running:
        for workers in (1, 2, 4):
            running.grow(gateways=2, workers=workers)
            found[workers] = asyncio.run(throughput(running.server))
    print(f"\njobs/s by workers: {found}")
    assert found[4] >= 3.4 * found[1]
    ideal = 1 / ((STEPS + 1) * DELAY)
    shown = {f"{workers} workers, jobs/s": round(each, 2) for workers, each in found.items()}
    shown |= {"4 workers to 1": round(found[4] / found[1], 2), "a worker that never waits, jobs/s": round(ideal, 2)}
    proofs.keep("cluster-throughput", shown, bars(found, ideal))


async def throughput(server: str) -> float:
    """Jobs a second of callers that ask one after the other, through both gateways."""
    connection = Connection(server)
    work = Work({"generate": 1}, steps=STEPS)
    async with sending(connection, work, connections=4) as send:
        drive = Drive(send)
        await drive.closed(CALLERS, WARM_UP + MEASURED)
    assert {sample.code for sample in drive.samples} == {"OK"}
    return sum(WARM_UP <= sample.ended < WARM_UP + MEASURED for sample in drive.samples) / MEASURED


def bars(found: Mapping[int, float], ideal: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(found)), list(found.values()), tick_label=[str(workers) for workers in found])
    axes.plot(range(len(found)), [ideal * workers for workers in found], "k_", markersize=40)
    axes.set(xlabel="workers (lines: if they never waited)", ylabel="jobs/s")
    return figure
