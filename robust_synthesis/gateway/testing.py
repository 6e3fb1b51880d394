"""Things to test a gateway with: workers that compute next to nothing and fail on demand, and time that costs no time.

async def main() -> None:
    dispatcher = Dispatcher(FakeBackend([FakeWorker("a")]), clock=asyncio.get_running_loop().time)
    await dispatcher.start()
    outcome = await dispatcher.submit(Request(spec=Generate(target="cat", steps=60, seed=1)), model="fake")
    assert json.loads(outcome.pictures[0].file) == expected(seed=1, steps=60)

run(main())
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

import numpy as np

from ..batch_sizes import padded
from ..bundle import PROTOCOL, Bundle, BundleTooLarge, Failure, FixedProblem, JobPart, JobReply, JobState, Reply
from ..defaults import resolve
from ..errors import InvalidInput
from ..model_folder import SEEDS, UNITS, Card
from ..units import CatalogueFiles
from ..wire import decode, encode_error, encode_reply
from .backends.base import ModelInfo, WorkerLost, WorkerUnavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
FIRST_LEVEL = 1000
"""Of every value of x at the start."""
PATIENCE = 60.0
"""Real seconds that `run` waits for a thread where there is no timer to jump to."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a clock that jumps to the next timer whenever nothing is left to do: an hour takes milliseconds.

    It stands still while a thread works.
    """
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(main)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        self.threads = 0
        """That work for it now."""
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: _JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waits = timeout is None or (timeout > 0 and self._loop.threads > 0)
        found = super().select(PATIENCE if waits else 0)
        if not found and waits:
            raise TimeoutError("everything waits for something that never comes")
        if not found and timeout:
            self._loop.jump(timeout)
        return found


def fake_model(
    name: str = "fake",
    version: str = "v1",
    *,
    size: int = 16,
    current: bool = True,
    step_seconds: Mapping[int, float] | None = None,
    protocol: int = PROTOCOL,
) -> ModelInfo:
    """A classifier of two classes that nothing computes with."""
    card = Card(
        name=name,
        architecture={},
        classes=("cat", "dog"),
        size=size,
        max_size=512,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        files={SEEDS: "", UNITS: ""},
    )
    return ModelInfo(name, version, card, current, step_seconds or {}, protocol)


def expected(*, seed: int, steps: int, index: int = 0) -> dict[str, Any]:
    """What the file of a picture says that a FakeWorker has computed, however it was cut into bundles."""
    return {"seed": seed, "index": index, "level": FIRST_LEVEL + steps, "best": FIRST_LEVEL + steps // 2}


def ten_milliseconds(batch: int) -> float:
    """For a step of any batch, like a GPU that has more room than work."""
    del batch
    return 0.01


class FakeWorker:
    """Speaks the bundle protocol; a step raises every value of x by one level, and the loss is least half-way.

    It computes one bundle after the other. On the clock of the event loop, a step of a batch takes `seconds(batch)`, and a bundle
    `latency` there and back. `bundles` and `evaluations` (by seed) are what it did. Set the other attributes to make it fail.
    """

    def __init__(
        self,
        name: str = "worker",
        models: Sequence[ModelInfo] | None = None,
        *,
        seconds: Callable[[int], float] = ten_milliseconds,
        latency: float = 0.0,
    ) -> None:
        self.name = name
        self.served = [fake_model()] if models is None else list(models)
        self.seconds = seconds
        self.latency = latency
        self.up = True
        self.evaluations: dict[int, int] = {}
        self.bundles: list[Bundle] = []
        """Those that it began to compute."""
        self.most_outstanding = 0
        self.outstanding = 0
        self.poison: set[int] = set()
        """Seeds of jobs that it dies of."""
        self.failures: dict[int, Failure] = {}
        """By seed: what it says of a job instead of computing it."""
        self.restart_seconds = 0.0
        """That it is unavailable after it died."""
        self.error = ""
        """Said of every bundle."""
        self.garbage = b""
        """The reply to every bundle."""
        self.computes = ("cpu", "fp32")
        """Device and precision."""
        self.max_bytes: int | None = None
        """Of a bundle."""
        self.holds = True
        """Where jobs stand, for those that have a key."""
        self.busy = False
        self.hangs = False
        self._problems: dict[str, FixedProblem] = {}
        self._held: dict[str, tuple[FixedProblem, JobState]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._starts_again = 0.0
        self._lives = 0

    def models(self) -> Sequence[ModelInfo]:
        return self.served

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        if not self.up or not any((info.name, info.version) == (model, version) for info in self.served):
            raise WorkerUnavailable(f"there is no {model} {version}.")
        return CatalogueFiles('[{"index": 3, "name": "ears", "activation": 1.5, "classes": {"cat": 9}}]')

    def forget(self) -> None:
        """Lose every fixed problem and where jobs stand, as by a restart."""
        self._problems.clear()
        self._held.clear()

    def die(self) -> None:
        """Lose the bundles that are outstanding, too."""
        self.forget()
        self._lives += 1
        self._starts_again = asyncio.get_running_loop().time() + self.restart_seconds

    async def run(self, bundle: bytes, *, model: str, version: str | None, timeout: float) -> bytes:
        if self.busy or asyncio.get_running_loop().time() < self._starts_again:
            raise WorkerUnavailable("is busy.")
        if self.max_bytes is not None and len(bundle) > self.max_bytes:
            raise BundleTooLarge(f"bundle: has {len(bundle)} bytes; send at most {self.max_bytes}.")
        read, life = decode(bundle), self._lives
        assert (read.model, read.version) == (model, version)
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(self.latency)
                answer = await self._in_turn(read, life)
                await asyncio.sleep(self.latency)
                return answer
        except TimeoutError as error:
            self.die()
            raise WorkerLost("hung.") from error
        finally:
            self.outstanding -= 1

    async def _in_turn(self, bundle: Bundle, life: int) -> bytes:
        async with self._one_at_a_time:
            if self.hangs:
                await asyncio.get_running_loop().create_future()
            if life == self._lives:
                answer = await self._answer(bundle)
            if life != self._lives:
                raise WorkerLost("died.")
            return answer

    async def _answer(self, bundle: Bundle) -> bytes:
        self.bundles.append(bundle)
        info = next((info for info in self.served if (info.name, info.version) == (bundle.model, bundle.version)), None)
        if self.error or info is None:
            return encode_error(self.error or f"model: this worker does not have {bundle.model} {bundle.version}.")
        jobs = [part if isinstance(part, Failure) else self._open(part, info) for part in bundle.jobs]
        work = [job for job in jobs if isinstance(job, _Work)]
        batches = _batches(work, info.batch_sizes)
        started = asyncio.get_running_loop().time()
        doomed = any(job.seed in self.poison for job in work)
        await asyncio.sleep(sum(self.seconds(size) * steps for size, steps in batches) / (2 if doomed else 1))
        if doomed:
            self.die()
            raise WorkerLost("died.")
        for job in work:
            self.evaluations[job.seed] = self.evaluations.get(job.seed, 0) + job.todo
        seconds = asyncio.get_running_loop().time() - started
        replies = [JobReply(failure=job) if isinstance(job, Failure) else self._reply(job) for job in jobs]
        measured = [(size, steps, self.seconds(size) * steps) for size, steps in batches]
        reply = Reply(info.name, info.version, replies, seconds, measured, *self.computes, holds=self.holds)
        return self.garbage or encode_reply(reply)

    def _open(self, part: JobPart, info: ModelInfo) -> _Work | Failure:
        try:
            problem = part.problem or self._problems.get(part.address or "")
            if part.held is not None:
                held = self._held.pop(part.key or "", None)
                if held is None or held[1].remaining != part.held:
                    return Failure("unknown_state", "this worker does not hold it; send its state.", "held")
                work = _Work(part, *held)
            elif part.state is None:
                work = _Work.start(part, info)
            elif problem is None:
                return Failure("unknown_problem", "this worker does not have it; send it again.", "problem")
            else:
                work = _Work(part, problem, part.state)
        except InvalidInput as error:
            return Failure.of(error)
        self._problems[work.problem.address] = work.problem
        return self.failures.get(work.seed, work)

    def _reply(self, work: _Work) -> JobReply:
        reply = work.reply()
        if reply.state is None or work.part.key is None or not self.holds:
            return reply
        best_x = work.state.best_x if reply.state.best_x is None else reply.state.best_x
        if best_x is None:
            return reply
        self._held[work.part.key] = work.problem, dataclasses.replace(reply.state, best_x=best_x)
        return dataclasses.replace(reply, held=True)


class _Work:
    """One job of a bundle."""

    def __init__(self, part: JobPart, problem: FixedProblem, state: JobState) -> None:
        self.part = part
        self.problem = problem
        self.state = state
        self.seed = int(problem.scalars["seed"])
        self.todo = min(part.steps, state.remaining)

    @classmethod
    def start(cls, part: JobPart, info: ModelInfo) -> _Work:
        request = part.request
        assert request is not None
        if request.spec.seed is None:
            raise InvalidInput("seed", "is missing.")
        size = request.size or info.card.size
        if not info.card.min_size <= size <= info.card.max_size:
            raise InvalidInput("size", f"is {size}.")
        steps = resolve(request.spec, info.card, size)["steps"]
        x = np.full((3, size, size), FIRST_LEVEL, np.uint16)
        problem = FixedProblem(x, None, {"seed": request.spec.seed, "index": part.index, "steps": steps})
        return cls(part, problem, JobState(x, steps + 1))

    def reply(self) -> JobReply:
        """Do the evaluations: all but a job's last are followed by a step."""
        x, best_x, best_loss = self.state.x, self.state.best_x, self.state.best_loss
        steps = int(self.problem.scalars["steps"])
        losses = []
        for left in range(self.state.remaining, self.state.remaining - self.todo, -1):
            loss = abs(int(x[0, 0, 0]) - FIRST_LEVEL - steps // 2) / 8
            if loss < best_loss:
                best_x, best_loss = x, loss
            losses.append(loss)
            x = x + np.uint16(1) if left > 1 else x
        improved = best_loss < self.state.best_loss
        starts = self.part.state is None and self.part.held is None
        started = {"parameters": {"steps": steps}, "target": "cat"} if starts else {}
        if self.todo < self.state.remaining:
            state = JobState(x, self.state.remaining - self.todo, best_x if improved else None, best_loss)
            problem = self.problem if starts else None
            return JobReply(started=started, problem=problem, state=state, loss=losses, probability=losses)
        if best_x is None:
            return JobReply(failure=Failure("invalid", "is missing; send it with the last bundle.", "best_x"))
        levels = {"level": int(x[0, 0, 0]), "best": int(best_x[0, 0, 0])}
        file = json.dumps({"seed": self.seed, "index": self.problem.scalars["index"], **levels}).encode()
        return JobReply(started=started, loss=losses, probability=losses, picture=file, report={"predicted": "cat"})


def _batches(work: Sequence[_Work], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(size with padding, steps): `exact` jobs alone, the others together as long as they last."""
    batches = [(1, job.todo) for job in work if job.part.exact]
    together = sorted(job.todo for job in work if not job.part.exact)
    done = 0
    for i, todo in enumerate(together):
        if todo > done:
            batches.append((padded(len(together) - i, sizes), todo - done))
            done = todo
    return batches


class FakeBackend:
    """Workers that come and go as a test says: change `members`, then set `changed`."""

    def __init__(self, members: Sequence[FakeWorker]) -> None:
        self.members = list(members)
        self.changed = asyncio.Event()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def workers(self) -> Sequence[FakeWorker]:
        return self.members
