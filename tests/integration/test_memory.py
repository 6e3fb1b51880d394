"""A worker that has computed thousands of bundles is as large as one that has computed a few hundred."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import psutil
import pytest

from robust_synthesis import specs
from robust_synthesis.bundle import Bundle, JobPart, Output
from robust_synthesis.requests import Request
from robust_synthesis.testing import mask, picture, tiny_card, tiny_model_folder
from robust_synthesis.wire import decode_reply, encode
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe

pytestmark = [pytest.mark.real, pytest.mark.slow]
BUNDLES, SETTLED = 3000, 500
JVM_BOUND = 600 * 2**20


def bundle(number: int, image: bytes, white: bytes) -> bytes:
    """Jobs of different tasks, each new, of which some end and some are abandoned."""
    edit = Request(spec=specs.Inpaint(target="waves", seed=number), image=image, mask=white)
    new = Request(spec=specs.Generate(target="square", seed=number))
    return encode(Bundle("tiny", [JobPart(10_001, new, output=Output()), JobPart(2, new), JobPart(2, edit)]))


def test_memory_stays_where_it_was_after_the_first_bundles(tmp_path: Path) -> None:
    files = []
    for drawn in (picture(64), mask(64)):
        file = io.BytesIO()
        drawn.save(file, "PNG")
        files.append(file.getvalue())
    folder = tiny_model_folder(tmp_path / "tiny", tiny_card(size=64)).path

    async def scenario() -> tuple[dict[str, int], dict[str, int]]:
        engine = TorchServe(Places(paths=[folder]))
        await engine.start()

        def resident() -> dict[str, int]:
            return {role: psutil.Process(pids[0]).memory_info().rss for role, pids in engine.processes().items()}

        settled: dict[str, int] = {}
        try:
            for number in range(BUNDLES):
                reply = await engine.run(bundle(number, *files), model="tiny", version=None, timeout=60)
                assert all(job.failure is None for job in decode_reply(reply).jobs)
                if number == SETTLED:
                    settled = resident()
            return settled, resident()
        finally:
            await engine.close()

    settled, end = asyncio.run(scenario())
    megabytes = {role: (settled[role] >> 20, end[role] >> 20) for role in end}
    print(f"\nMB after {SETTLED} and after {BUNDLES} bundles: {megabytes}")
    assert end["worker"] <= 1.05 * settled["worker"]
    assert end["jvm"] <= JVM_BOUND
