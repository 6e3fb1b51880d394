"""Sessions of edits over a dispatcher with fake workers, on a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from PIL import Image

from robust_synthesis import imaging
from robust_synthesis.bundle import Failure
from robust_synthesis.errors import InvalidInput, NotFound
from robust_synthesis.gateway.canvas import square
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.edit import EditSession, SessionLimits
from robust_synthesis.gateway.edits import (
    Action,
    Apply,
    Cancel,
    Current,
    Done,
    Event,
    Failed,
    Frame,
    Open,
    Undo,
    Unreadable,
)
from robust_synthesis.gateway.errors import Cancelled, JobLost, Overloaded, SessionIdle, ShuttingDown
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model, run
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.gateway.uploads import UploadLimits, Uploads
from robust_synthesis.model_folder import Card
from robust_synthesis.requests import Request
from robust_synthesis.specs import Generate, Inpaint, MaximizeClass, SuperResolve

BUNDLE = 0.05
"""Seconds of a bundle of an interactive job, where a step takes 10 ms."""


def now() -> float:
    return asyncio.get_running_loop().time()


def stroke(edit_id: int, steps: int = 60, **fields: Any) -> Apply:
    spec = MaximizeClass(target="cat", seed=edit_id, steps=steps)
    return Apply(edit_id, Request(spec=spec, image=b"", **fields))


def masked(edit_id: int, mask_bytes: int) -> Apply:
    spec = Inpaint(target="cat", seed=edit_id, steps=60)
    return Apply(edit_id, Request(spec=spec, image=b"", mask=bytes(mask_bytes)))


def photo(size: tuple[int, int] = (40, 30), colour: str = "red") -> bytes:
    return imaging.encode(Image.new("RGB", size, colour))


class FakeStudio:
    """A dispatcher's requests, let in unless `refusal` is set."""

    def __init__(self, dispatcher: Dispatcher, card: Card) -> None:
        self.dispatcher = dispatcher
        self.card = card
        self.refusal: Exception | None = None
        self.uploads = Uploads(UploadLimits(bytes=1000, share=1))
        self.begun: list[Request] = []
        self.inside = 0

    def model(self, name: str) -> tuple[str, Card]:
        if name not in ("", "fake"):
            raise NotFound("model", name, ["fake"])
        return "fake", self.card

    async def square(self, photo: bytes, size: int, fit: str) -> bytes:
        return await asyncio.to_thread(square, photo, size, fit)

    def hold(self, size: int) -> Callable[[], None]:
        return self.uploads.hold("painter", None, size).release

    @contextlib.asynccontextmanager
    async def begin(self, request: Request, model: str) -> AsyncIterator[Ticket]:
        if self.refusal is not None:
            raise self.refusal
        self.begun.append(request)
        self.inside += 1
        ticket = self.dispatcher.submit(request, model=model, interactive=True, previews=True)
        try:
            yield ticket
        finally:
            ticket.cancel()
            self.inside -= 1


class Caller:
    """The other side of a session: what it asks, and what it was told."""

    def __init__(self, session: EditSession, studio: FakeStudio) -> None:
        self.session = session
        self.studio = studio
        self.events: list[tuple[float, Event]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.unsent: asyncio.Queue[Action | None] = asyncio.Queue()
        self._news = asyncio.Event()
        self.serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        async with contextlib.aclosing(self.session.serve(self._actions())) as events:
            async for event in events:
                await self._receive(event)

    async def _actions(self) -> AsyncIterator[Action]:
        while (action := await self.unsent.get()) is not None:
            yield action

    async def _receive(self, event: Event) -> None:
        await self.reading.wait()
        self.events.append((now(), event))
        self._news.set()

    def ask(self, *actions: Action | None) -> None:
        for action in actions:
            self.unsent.put_nowait(action)

    async def wait_for(self, wanted: Callable[[Event], bool], times: int = 1) -> Any:
        """The event that is wanted, once it has come so often."""
        while len(found := [event for _, event in self.events if wanted(event)]) < times:
            self._news.clear()
            await self._news.wait()
        return found[times - 1]

    async def open(self, **fields: Any) -> Current:
        before = len(self.of(Current))
        self.ask(Open(**fields))
        return await self.wait_for(is_a(Current), before + 1)  # type: ignore[no-any-return]

    async def edited(self, edit: Apply) -> Done:
        self.ask(edit)
        return await self.wait_for(done(edit.edit_id))  # type: ignore[no-any-return]

    async def failure(self, times: int = 1) -> Failed:
        return await self.wait_for(is_a(Failed), times)  # type: ignore[no-any-return]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for _, event in self.events if isinstance(event, kind)]


def is_a(kind: type[Event]) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, kind)


def done(edit_id: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Done) and event.edit.edit_id == edit_id


def frame(edit_id: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Frame) and event.edit.edit_id == edit_id


def failed(edit_id: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Failed) and edit_of(event) == edit_id


def edit_of(failed: Failed) -> int:
    assert isinstance(failed.action, (Apply, Unreadable))
    return failed.action.edit_id


@contextlib.asynccontextmanager
async def calling(worker: FakeWorker | None = None, **limits: Any) -> AsyncIterator[Caller]:
    """A caller with a session. In the end nothing may be left of it."""
    model = fake_model(step_seconds={1: 0.01})
    worker = worker or FakeWorker(models=[model])
    dispatcher = Dispatcher(FakeBackend([worker]), clock=now)
    await dispatcher.start()
    studio = FakeStudio(dispatcher, model.card)
    before = asyncio.all_tasks()
    caller = Caller(EditSession(studio, SessionLimits(**limits)), studio)
    try:
        yield caller
    finally:
        caller.serving.cancel()
        await asyncio.gather(caller.serving, return_exceptions=True)
        assert dispatcher._jobs == {}
        assert studio.inside == 0
        await asyncio.sleep(1)  # a bundle that was outstanding ends
        assert asyncio.all_tasks() <= before
        await dispatcher.close(grace=0)


# From stroke to picture.


def test_the_photo_becomes_the_square_that_every_task_sees() -> None:
    async def main() -> None:
        async with calling() as caller:
            current = await caller.open(image=photo((40, 30)))
            assert (current.size, current.undoable) == (16, 0)
            assert current.picture == imaging.encode(imaging.squared(Image.new("RGB", (40, 30), "red"), 16))
            grey = await caller.open(size=24)
            assert Image.open(io.BytesIO(grey.picture)).getcolors() == [(24 * 24, (128, 128, 128))]
            padded = await caller.open(image=photo((40, 20), "blue"), fit="pad", size=32)
            assert Image.open(io.BytesIO(padded.picture)).size == (32, 32)

    run(main())


def test_frames_stream_while_an_edit_runs_and_its_result_is_the_next_start() -> None:
    async def main() -> None:
        async with calling() as caller:
            current = await caller.open()
            first = await caller.edited(stroke(1))
            assert caller.studio.begun[0].image == current.picture
            assert caller.studio.begun[0].size == 16
            steps = [event.progress.step for event in caller.of(Frame)]
            assert steps == list(range(5, 60, 5))
            assert first.undoable == 1
            picture = first.outcome.pictures[0].file
            assert json.loads(picture)["seed"] == 1
            second = await caller.edited(stroke(2))
            assert caller.studio.begun[1].image == picture
            assert second.undoable == 2
            kinds = [type(event) for _, event in caller.events]
            assert kinds == [Current, *[Frame] * 11, Done, *[Frame] * 11, Done]

    run(main())


def test_the_first_frame_comes_after_one_small_bundle() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            asked = now()
            caller.ask(stroke(1))
            await caller.wait_for(frame(1))
            assert now() - asked == pytest.approx(BUNDLE)

    run(main())


def test_a_generated_picture_replaces_the_current_one() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open(size=24)
            await caller.edited(Apply(7, Request(spec=Generate(target="dog", seed=7, steps=20))))
            assert caller.studio.begun[0].image is None
            assert caller.studio.begun[0].size == 24

    run(main())


def test_the_session_ends_when_the_caller_has_closed_its_side_and_the_last_edit_is_done() -> None:
    async def main() -> None:
        async with calling() as caller:
            caller.ask(Open(), stroke(1), stroke(2), None)
            await caller.serving
            assert [event.edit.edit_id for event in caller.of(Done)] == [1, 2]
            assert caller.of(Failed) == []

    run(main())


# More strokes than time.


def test_an_edit_that_waits_is_replaced_by_a_newer_one() -> None:
    async def main() -> None:
        async with calling() as caller:
            caller.ask(Open(), stroke(1))
            await caller.wait_for(frame(1))
            caller.ask(stroke(2), stroke(3), stroke(4))
            await caller.wait_for(done(4))
            assert [event.edit.edit_id for event in caller.of(Done)] == [1, 4]
            failed = caller.of(Failed)
            assert [edit_of(event) for event in failed] == [2, 3]
            assert all(isinstance(event.error, Cancelled) for event in failed)
            assert [request.spec.seed for request in caller.studio.begun] == [1, 4]
            assert caller.studio.begun[1].image == caller.of(Done)[0].outcome.pictures[0].file

    run(main())


def test_cancel_drops_what_runs_and_waits_and_keeps_the_picture() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01})])
        async with calling(worker) as caller:
            current = await caller.open()
            caller.ask(stroke(1, steps=5000))
            await caller.wait_for(frame(1), 3)
            caller.ask(stroke(2), Cancel())
            await caller.failure(2)
            assert [edit_of(event) for event in caller.of(Failed)] == [2, 1]
            await asyncio.sleep(60)
            assert worker.evaluations[1] <= 5 * 5
            assert 2 not in worker.evaluations
            await caller.edited(stroke(3))
            assert caller.studio.begun[-1].image == current.picture
            assert caller.of(Done)[0].undoable == 1

    run(main())


def test_a_change_of_target_while_frames_stream_goes_on_at_once() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.ask(stroke(1, steps=5000))
            await caller.wait_for(frame(1), 3)
            changed = now()
            caller.ask(Cancel(), stroke(2))
            await caller.wait_for(frame(2))
            assert now() - changed <= 2 * BUNDLE + 0.001
            after = [event for time, event in caller.events if time > changed]
            assert not any(frame(1)(event) for event in after)

    run(main())


def test_opening_another_picture_drops_what_is_under_way_and_the_history() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            await caller.edited(stroke(1))
            caller.ask(stroke(2, steps=5000))
            await caller.wait_for(frame(2))
            current = await caller.open(image=photo(colour="blue"))
            assert current.undoable == 0
            assert [edit_of(event) for event in caller.of(Failed)] == [2]
            await caller.edited(stroke(3))
            assert caller.studio.begun[-1].image == current.picture

    run(main())


# Undo.


def test_undo_brings_back_the_bytes_of_the_picture_before() -> None:
    async def main() -> None:
        async with calling() as caller:
            pictures = [(await caller.open(image=photo())).picture]
            for number in range(1, 4):
                pictures.append((await caller.edited(stroke(number))).outcome.pictures[0].file)
            for left in (2, 1, 0):
                caller.ask(Undo())
                current = await caller.wait_for(is_a(Current), 4 - left)
                assert (current.picture, current.undoable) == (pictures[left], left)
            caller.ask(Undo())
            failed = await caller.failure()
            assert isinstance(failed.error, InvalidInput)
            assert failed.error.field == "undo"
            await caller.edited(stroke(9))
            assert caller.studio.begun[-1].image == pictures[0]

    run(main())


def test_undo_takes_back_the_newest_edit_whether_it_waits_or_runs_or_is_done() -> None:
    async def main() -> None:
        async with calling() as caller:
            opened = await caller.open()
            first = (await caller.edited(stroke(1))).outcome.pictures[0].file
            caller.ask(stroke(2, steps=200))
            await caller.wait_for(frame(2))
            caller.ask(stroke(3), Undo())
            assert edit_of(await caller.failure()) == 3
            caller.ask(Undo())
            assert edit_of(await caller.failure(2)) == 2
            assert (await caller.wait_for(is_a(Current), 3)).picture == first
            caller.ask(Undo())
            assert (await caller.wait_for(is_a(Current), 4)).picture == opened.picture
            await asyncio.sleep(60)
            assert [event.edit.edit_id for event in caller.of(Done)] == [1]

    run(main())


@pytest.mark.parametrize(("limits", "kept"), [({"undo": 3}, 3), ({"undo_bytes": 150}, 2)])
def test_the_history_is_bounded(limits: dict[str, Any], kept: int) -> None:
    async def main() -> None:
        async with calling(**limits) as caller:
            await caller.open()
            results = [await caller.edited(stroke(number, steps=20)) for number in range(1, 7)]
            assert len(results[0].outcome.pictures[0].file) == 52
            assert [result.undoable for result in results[-2:]] == [kept, kept]
            caller.ask(*[Undo()] * (kept + 1))
            await caller.failure()
            oldest = caller.of(Current)[-1]
            assert (oldest.picture, oldest.undoable) == (results[-kept - 1].outcome.pictures[0].file, 0)

    run(main())


# What fails, fails alone.


@pytest.mark.parametrize("kind", ["invalid", "not_found", "memory", "internal"])
def test_an_edit_that_fails_leaves_the_session_and_its_picture_alone(kind: str) -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01})])
        worker.failures = {2: Failure(kind, "is empty (all black).", "mask")}
        async with calling(worker) as caller:
            await caller.open()
            first = await caller.edited(stroke(1))
            caller.ask(stroke(2), stroke(3))
            await caller.wait_for(done(3))
            (failed,) = caller.of(Failed)
            assert edit_of(failed) == 2
            assert isinstance(failed.error, (JobLost, InvalidInput))
            assert caller.studio.begun[-1].image == first.outcome.pictures[0].file

    run(main())


def test_an_edit_that_is_not_let_in_fails_alone() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.studio.refusal = Overloaded("queue: is full.", retry_after_seconds=2)
            caller.ask(stroke(1))
            assert (await caller.failure()).error is caller.studio.refusal
            caller.studio.refusal = None
            await caller.edited(stroke(2))

    run(main())


def test_a_mistake_of_the_program_in_an_edit_is_logged_and_fails_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.studio.refusal = RuntimeError("oops")
            caller.ask(stroke(1))
            assert isinstance((await caller.failure()).error, RuntimeError)
            caller.studio.refusal = None
            await caller.edited(stroke(2))

    run(main())
    assert "oops" in caplog.text


def test_a_photo_that_cannot_be_opened_changes_nothing() -> None:
    async def main() -> None:
        async with calling() as caller:
            current = await caller.open(image=photo())
            bad = [
                (Open(image=b"not a picture"), "image"),
                (Open(image=bomb()), "image"),
                (Open(size=7), "size"),
                (Open(size=513), "size"),
                (Open(model="fke"), "model"),
            ]
            for number, (action, field) in enumerate(bad, 1):
                caller.ask(action)
                failed = await caller.failure(number)
                assert failed.action is action
                assert isinstance(failed.error, InvalidInput)
                assert failed.error.field == field
            await caller.edited(stroke(1))
            assert caller.studio.begun[0].image == current.picture

    run(main())


def bomb() -> bytes:
    """A PNG of 40,000 x 40,000 pixels in its header, and none in it."""
    file = bytearray(photo())
    file[16:24] = (40_000).to_bytes(4, "big") * 2
    return bytes(file)


def test_edits_before_a_picture_is_open_and_what_cannot_be_read_fail_alone() -> None:
    async def main() -> None:
        async with calling() as caller:
            mistake = InvalidInput("action", "is missing.")
            caller.ask(stroke(5), Undo(), Unreadable(6, mistake), Cancel(), Open(), stroke(7), None)
            await caller.serving
            first, second, third = caller.of(Failed)
            assert edit_of(first) == 5
            assert [failed.error.field for failed in (first, second)] == ["open", "open"]
            assert (edit_of(third), third.error) == (6, mistake)
            assert [event.edit.edit_id for event in caller.of(Done)] == [7]

    run(main())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(spec=SuperResolve(), image=b""), "task"),
        (Request(spec=Generate(target="cat", count=2)), "count"),
        (Request(spec=MaximizeClass(target="cat"), image=b"", paste_back=True), "paste_back"),
    ],
)
def test_what_is_no_edit_is_refused(request_: Request, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Apply(1, request_)
    assert raised.value.field == field


# Callers that read slowly, do nothing, or leave; the end.


def test_a_slow_reader_gets_the_newest_frame_and_every_result() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.reading.clear()
            caller.ask(stroke(1, steps=200), stroke(2, steps=200))
            await asyncio.sleep(60)
            caller.reading.set()
            await caller.wait_for(done(2))
            assert [event.edit.edit_id for event in caller.of(Done)] == [1, 2]
            # One frame was on its way when the reader stopped.
            assert [event.progress.step for event in caller.of(Frame)] == [5, 195, 195]

    run(main())


def test_a_caller_that_reads_nothing_is_not_listened_to_for_ever() -> None:
    async def main() -> None:
        async with calling(unread_bytes=10 * 1024) as caller:
            await caller.open()
            caller.reading.clear()
            caller.ask(*[Unreadable(i, InvalidInput("task", "is missing.")) for i in range(1000)])
            await asyncio.sleep(60)
            assert caller.unsent.qsize() > 980
            caller.reading.set()
            await caller.failure(1000)
            assert [edit_of(event) for event in caller.of(Failed)] == list(range(1000))

    run(main())


def test_an_idle_session_ends_with_the_reason() -> None:
    async def main() -> None:
        async with calling(idle_seconds=100) as caller:
            await caller.open()
            await caller.edited(stroke(1, steps=200))
            await asyncio.sleep(99)
            caller.ask(Cancel())
            await asyncio.sleep(99)
            assert not caller.serving.done()
            with pytest.raises(SessionIdle, match="nothing was asked of the session for 100 s"):
                await caller.serving

    run(main())


def test_the_mask_of_an_edit_that_waits_counts_until_it_waits_no_more_and_one_too_large_fails_alone() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.ask(stroke(1), masked(2, 600))
            await caller.wait_for(frame(1))
            held = caller.studio.uploads
            assert held.bytes == 600
            caller.ask(masked(3, 700))
            await caller.wait_for(failed(2))
            assert held.bytes == 700
            other = held.hold("another", None, 250)
            caller.ask(masked(4, 800))
            await caller.wait_for(failed(4))
            assert isinstance(caller.of(Failed)[-1].error, Overloaded)
            assert held.bytes == 250
            caller.ask(masked(5, 100), Undo())
            await caller.wait_for(failed(5))
            caller.ask(masked(6, 100))
            await asyncio.sleep(0)
            caller.ask(None)
            await caller.serving
            other.release()
            assert held.bytes == 0

    run(main())


def test_what_makes_the_actions_end_ends_the_session() -> None:
    async def main() -> None:
        async def actions() -> AsyncIterator[Action]:
            yield Open()
            raise InvalidInput("request", "cannot be read.")

        async with calling() as caller:
            with pytest.raises(InvalidInput, match="cannot be read"):
                async for _ in EditSession(caller.studio).serve(actions()):
                    pass

    run(main())


def test_a_long_edit_is_not_idle_and_one_whose_frames_nobody_reads_is_in_the_end() -> None:
    async def main() -> None:
        async with calling(idle_seconds=10) as caller:
            await caller.open()
            await caller.edited(stroke(1, steps=5000))
            assert now() > 50
            caller.reading.clear()
            caller.ask(stroke(2), *[stroke(3)] * 100)
            await asyncio.sleep(100)
            assert [task for task in asyncio.all_tasks() if "EditSession" in repr(task)] == []
            caller.reading.set()
            with pytest.raises(SessionIdle):
                await caller.serving

    run(main())


def test_a_caller_that_leaves_takes_its_edits_along() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01})])
        async with calling(worker) as caller:
            await caller.open()
            caller.ask(stroke(1, steps=5000), stroke(2))
            await caller.wait_for(frame(1), 3)
            caller.serving.cancel()
            await asyncio.gather(caller.serving, return_exceptions=True)
            assert caller.studio.dispatcher._jobs == {}
            await asyncio.sleep(60)
            assert worker.evaluations[1] <= 5 * 5

    run(main())


def test_drain_ends_an_idle_session_at_once_and_a_busy_one_after_its_edit() -> None:
    async def main() -> None:
        async with calling() as caller:
            await caller.open()
            caller.session.drain()
            with pytest.raises(ShuttingDown):
                await caller.serving
        async with calling() as caller:
            await caller.open()
            caller.ask(stroke(1), stroke(2))
            await caller.wait_for(frame(1))
            caller.session.drain()
            caller.ask(stroke(3))
            with pytest.raises(ShuttingDown, match="go on at another one"):
                await caller.serving
            assert [event.edit.edit_id for event in caller.of(Done)] == [1]
            assert [edit_of(event) for event in caller.of(Failed)] == [2, 3]
            assert all(isinstance(event.error, ShuttingDown) for event in caller.of(Failed))

    run(main())


# Several at once.


def test_two_sessions_and_batch_jobs_share_a_worker_and_strokes_come_first() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.01})])
        async with calling(worker) as one:
            studio = one.studio
            two = Caller(EditSession(studio), studio)
            await one.open()
            await two.open()
            batch = [
                studio.dispatcher.submit(
                    Request(spec=Generate(target="cat", seed=seed, steps=300)), model="fake", caller="batch"
                )
                for seed in range(100, 164)
            ]
            await asyncio.sleep(1)
            for caller, number in ((one, 1), (two, 2)):
                asked = now()
                caller.ask(stroke(number))
                await caller.wait_for(frame(number))
                assert now() - asked < 2 * 0.15 + BUNDLE + 0.02  # after at most two bundles that were under way
                await caller.wait_for(done(number))
                assert now() - asked < 3
            assert {event.edit.edit_id for event in one.of(Done)} == {1}
            assert not all(ticket.done for ticket in batch)
            await asyncio.gather(*batch)
            two.serving.cancel()
            await asyncio.gather(two.serving, return_exceptions=True)

    run(main())
