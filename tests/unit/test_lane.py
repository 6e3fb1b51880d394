"""What the death of a worker means for the bundles that were sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from robust_synthesis.gateway.backends.base import WorkerLost, WorkerUnavailable
from robust_synthesis.worker.torchserve.client import WorkerDied
from robust_synthesis.worker.torchserve.lane import Lane


class _Sent:
    """Bundles that TorchServe has, each ended by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.deaths = 0
        self.lane = Lane("tiny", "v1", on_death=self._died, clock=lambda: self.now)
        self.calls: list[asyncio.Future[bytes]] = []

    def _died(self) -> None:
        self.deaths += 1

    async def send(self, timeout: float = 10) -> asyncio.Task[bytes]:
        call: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.calls.append(call)

        async def work() -> bytes:
            return await call

        task = asyncio.create_task(self.lane.run(work, timeout))
        await _settle()
        return task


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _ready() -> _Sent:
    sent = _Sent()
    sent.lane.ready(1234)
    return sent


def _outcome(task: asyncio.Task[bytes]) -> object:
    return task.exception() or task.result()


def test_answers_come_back() -> None:
    async def main() -> None:
        sent = _ready()
        task = await sent.send()
        sent.calls[0].set_result(b"reply")
        assert await task == b"reply"
        assert sent.lane.outstanding == 0

    asyncio.run(main())


def test_of_two_bundles_the_one_that_ran_is_lost_and_the_other_did_not_run() -> None:
    async def main() -> None:
        sent = _ready()
        tasks = [await sent.send(), await sent.send()]
        sent.calls[0].set_exception(WorkerDied("died"))
        await _settle()
        assert isinstance(_outcome(tasks[0]), WorkerLost)
        assert isinstance(_outcome(tasks[1]), WorkerUnavailable)
        assert (sent.lane.pid, sent.deaths, sent.lane.outstanding) == (None, 1, 1)  # TorchServe still has the second

    asyncio.run(main())


def test_nothing_is_sent_while_there_is_no_worker() -> None:
    async def main() -> None:
        sent = _ready()
        sent.lane.down()
        task = await sent.send()
        assert isinstance(_outcome(task), WorkerUnavailable)
        sent.lane.ready(99)
        again = await sent.send()
        sent.calls[-1].set_result(b"reply")
        assert await again == b"reply"

    asyncio.run(main())


def test_the_time_of_a_bundle_begins_with_its_turn() -> None:
    async def main() -> None:
        sent = _ready()
        first, second = await sent.send(timeout=10), await sent.send(timeout=10)
        sent.now = 9
        assert not sent.lane.overdue
        sent.calls[0].set_result(b"")
        await _settle()
        sent.now = 18
        assert not sent.lane.overdue
        sent.now = 19.5
        assert sent.lane.overdue
        sent.calls[1].set_result(b"")
        await asyncio.gather(first, second)
        assert not sent.lane.overdue

    asyncio.run(main())


def test_a_death_that_torchserve_does_not_report_is_a_loss_of_the_first_bundle() -> None:
    async def main() -> None:
        sent = _ready()
        tasks = [await sent.send(), await sent.send()]
        sent.lane.down()
        sent.now = 3
        assert sent.lane.down_for == 3
        sent.lane.abandon("died")
        await _settle()
        assert isinstance(_outcome(tasks[0]), WorkerLost)
        assert isinstance(_outcome(tasks[1]), WorkerUnavailable)

    asyncio.run(main())


def test_the_end_of_torchserve_loses_all() -> None:
    async def main() -> None:
        sent = _ready()
        tasks = [await sent.send(), await sent.send()]
        sent.lane.abandon("gone", all_lost=True)
        await _settle()
        assert [type(_outcome(task)) for task in tasks] == [WorkerLost, WorkerLost]

    asyncio.run(main())


def test_a_cancelled_caller_does_not_cancel_what_torchserve_computes_anyway() -> None:
    async def main() -> None:
        sent = _ready()
        task = await sent.send()
        task.cancel()
        await _settle()
        assert sent.lane.outstanding == 1
        sent.calls[0].set_result(b"")
        await _settle()
        assert sent.lane.outstanding == 0
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("end", [lambda call: call.set_exception(KeyError("x")), lambda call: call.cancel()])
def test_any_other_end_of_a_call_is_a_loss(end: Callable[[asyncio.Future[bytes]], None]) -> None:
    async def main() -> None:
        sent = _ready()
        task = await sent.send()
        end(sent.calls[0])
        await _settle()
        assert isinstance(_outcome(task), WorkerLost)
        assert sent.lane.pid == 1234

    asyncio.run(main())
