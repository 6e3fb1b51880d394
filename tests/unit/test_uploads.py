"""Who may send how much at a time, before it is let in."""

from __future__ import annotations

import asyncio

import pytest

from robust_synthesis.errors import InvalidInput
from robust_synthesis.gateway.errors import Overloaded, QuotaExceeded
from robust_synthesis.gateway.testing import run
from robust_synthesis.gateway.uploads import Held, UploadLimits, Uploads


def bounded(size: int = 100, patience: float = 10, share: float = 0.5) -> Uploads:
    return Uploads(UploadLimits(size, share, patience))


async def _soon(held: asyncio.Task[Held]) -> Held:
    async with asyncio.timeout(0.001):
        return await held


def test_those_for_whom_there_is_no_room_wait_in_order_until_others_have_arrived() -> None:
    async def main() -> None:
        uploads = bounded()
        first = await uploads.room("", None, 60)
        second, third = (asyncio.create_task(uploads.room("", None, 50)) for _ in range(2))
        await asyncio.sleep(1)
        assert not second.done()
        assert not third.done()
        first.change(10)
        (await _soon(second)).release()
        (await _soon(third)).release()
        first.release()
        first.release()
        assert uploads.bytes == 0

    run(main())


def test_who_has_its_share_waits_for_its_own_and_holds_nobody_else_up() -> None:
    async def main() -> None:
        uploads = bounded()
        own = await uploads.room("greedy", None, 40)
        waits = asyncio.create_task(uploads.room("greedy", None, 40))
        await asyncio.sleep(0)
        other = await uploads.room("another", None, 40)
        assert not waits.done()
        with pytest.raises(QuotaExceeded, match="of your requests arrive"):
            await waits
        own.release()
        larger = await uploads.room("greedy", 0.1, 60)  # anybody may have one
        assert uploads.bytes == 100
        other.release()
        larger.release()

    run(main())


def test_who_waits_too_long_is_told_to_come_back_and_who_leaves_keeps_nothing() -> None:
    async def main() -> None:
        uploads = bounded(patience=2)
        held = await uploads.room("", None, 100)
        started = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded) as refused:
            await uploads.room("", None, 1)
        assert asyncio.get_running_loop().time() - started == pytest.approx(2)
        assert refused.value.retry_after_seconds == 5
        leaves = asyncio.create_task(uploads.room("", None, 1))
        await asyncio.sleep(0)
        held.release()  # it has its room, and is cancelled before it knows
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert uploads.bytes == 0

    run(main())


def test_a_bound_that_no_request_fits_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one request may have 65") as refused:
        UploadLimits(bytes=64 * 2**20).check(64 * 2**20 + 1)
    assert refused.value.field == "upload_mib"
