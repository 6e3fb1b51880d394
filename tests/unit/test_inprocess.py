"""The engine in this process, with a tiny classifier."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
import torch

from robust_synthesis.archive import build
from robust_synthesis.bundle import Bundle, JobPart
from robust_synthesis.calibration import calibrate
from robust_synthesis.engine.precision import multiplies_int8
from robust_synthesis.gateway.backends.base import WorkerLost, WorkerUnavailable
from robust_synthesis.model_folder import UNITS, UNITS_SHEET
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate
from robust_synthesis.testing import tiny_model_folder
from robust_synthesis.wire import decode_reply, encode
from robust_synthesis.worker.compute import Compute
from robust_synthesis.worker.engine import InProcess, UnknownVersion
from robust_synthesis.worker.shelf import Places


def _bundle() -> bytes:
    return encode(Bundle("tiny", [JobPart(steps=3, request=Request(spec=Generate(target="circle", seed=1)))]))


@pytest.mark.parametrize("archived", [False, True])
def test_a_folder_and_an_archive_of_it_run_bundles(tmp_path: Path, archived: bool) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    path = build(folder.path) if archived else folder.path

    async def main() -> None:
        engine = InProcess(Places(paths=[path]), device="cpu")
        assert not engine.up
        await engine.start()
        try:
            assert engine.up
            (model,) = engine.models()
            assert (model.name, model.version, model.device) == ("tiny", folder.version, "cpu")
            assert set(model.step_seconds) == {1, 8}
            reply = decode_reply(await engine.run(_bundle(), model="tiny", version=folder.version, timeout=60))
            assert len(reply.jobs[0].loss) == 3
            files = await engine.catalogue("tiny", folder.version)
            assert files.units_json.encode() == (folder.path / UNITS).read_bytes()
            assert files.sheet == (folder.path / UNITS_SHEET).read_bytes()
            for ask in (engine.run(_bundle(), model="tiny", version="0", timeout=60), engine.catalogue("tiny", "0")):
                with pytest.raises(UnknownVersion):
                    await ask
        finally:
            await engine.close()

    asyncio.run(main())


@pytest.mark.skipif(not multiplies_int8(torch.device("cpu")), reason="this CPU does not multiply bytes")
def test_a_calibrated_classifier_runs_bundles_in_int8_and_says_so(tmp_path: Path) -> None:
    folder = calibrate(tiny_model_folder(tmp_path / "tiny").path)
    losses = {}

    async def main(precision: str) -> None:
        engine = InProcess(Places(paths=[folder.path]), device="cpu", precision=precision)
        await engine.start()
        try:
            assert engine.models()[0].precision == precision
            reply = decode_reply(await engine.run(_bundle(), model="tiny", version=folder.version, timeout=60))
            assert reply.precision == precision
            losses[precision] = reply.jobs[0].loss
        finally:
            await engine.close()

    for precision in ("int8", "fp32"):
        asyncio.run(main(precision))
    assert losses["int8"] != losses["fp32"]
    assert losses["int8"] == pytest.approx(losses["fp32"], rel=0.2, abs=0.05)


def test_a_bundle_that_hangs_is_lost_and_the_engine_is_down_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    release = threading.Event()

    def hang(self: Compute, data: bytes) -> bytes:
        release.wait(60)
        return b"late"

    async def main() -> None:
        engine = InProcess(Places(paths=[folder.path]), device="cpu")
        await engine.start()
        try:
            monkeypatch.setattr(Compute, "run", hang)
            runs = [engine.run(b"", model="tiny", version=None, timeout=0.1) for _ in range(2)]
            lost, refused = await asyncio.gather(*runs, return_exceptions=True)
            assert isinstance(lost, WorkerLost)
            assert isinstance(refused, WorkerUnavailable)
            assert not engine.up
            engine.changed.clear()
            release.set()
            await asyncio.wait_for(engine.changed.wait(), 10)
            assert engine.up
            assert await engine.run(b"", model="tiny", version=None, timeout=10) == b"late"
        finally:
            release.set()
            await engine.close()

    asyncio.run(main())


def test_the_time_of_a_bundle_begins_with_its_turn_and_a_stop_ends_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")

    def slow(self: Compute, data: bytes) -> bytes:
        time.sleep(2)
        return data

    async def main() -> None:
        engine = InProcess(Places(paths=[folder.path]), device="cpu")
        await engine.start()
        try:
            monkeypatch.setattr(Compute, "run", slow)
            runs = [engine.run(data, model="tiny", version=None, timeout=3.5) for data in (b"first", b"second")]
            assert await asyncio.gather(*runs) == [b"first", b"second"]
            last = [asyncio.ensure_future(engine.run(b"", model="tiny", version=None, timeout=30)) for _ in range(2)]
            await asyncio.sleep(0.2)
        finally:
            await engine.close()
        done, stopped = await asyncio.wait_for(asyncio.gather(*last, return_exceptions=True), 30)
        assert done == b""
        assert isinstance(stopped, WorkerUnavailable)
        with pytest.raises(WorkerUnavailable, match="stopped"):
            await engine.run(b"", model="tiny", version=None, timeout=30)

    asyncio.run(main())


def test_what_raises_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")

    def fail(self: Compute, data: bytes) -> bytes:
        raise MemoryError

    async def main() -> None:
        engine = InProcess(Places(paths=[folder.path]), device="cpu")
        await engine.start()
        try:
            monkeypatch.setattr(Compute, "run", fail)
            with pytest.raises(WorkerLost, match="MemoryError"):
                await engine.run(b"", model="tiny", version=None, timeout=10)
            assert engine.up
        finally:
            await engine.close()

    asyncio.run(main())
