"""Sessions of edits over real gRPC, with a tiny classifier in the gateway's process."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2
from numpy.typing import NDArray
from PIL import Image

from robust_synthesis import imaging
from robust_synthesis.gateway.edit import SessionLimits
from robust_synthesis.gateway.running import embedded, running
from robust_synthesis.gateway.server import Gateway, Options
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker
from robust_synthesis.testing import SIZE, mask, picture, tiny_card, tiny_model_folder
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

PHOTO = imaging.encode(picture(SIZE, seed=3))
MASK = imaging.encode(mask(SIZE))
INSIDE = np.asarray(mask(SIZE)) > 0
LONG = 10_000
"""Steps of an edit that does not end by itself within a test."""
PATIENCE = 30.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "tiny")
    return directory


@contextlib.asynccontextmanager
async def gateway_of(models: Path, limits: SessionLimits | None = None, **parts: Any) -> AsyncIterator[Gateway]:
    async with running(embedded(models), Options(sessions=limits or SessionLimits()), **parts) as gateway:
        yield gateway


class Session:
    """A caller's side of a session; everything it is told is in `events`."""

    def __init__(self, gateway: Gateway, timeout: float | None = None) -> None:
        self.channel = grpc.aio.insecure_channel(gateway.target)
        stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(self.channel)
        self.call = stub.Edit(timeout=timeout)
        self.events: list[Any] = []

    async def ask(self, **action: Any) -> None:
        await self.call.write(synthesis_pb2.EditRequest(**action))

    async def read(self) -> Any:
        """The next event's content, None at the end. Raises what the call ends with."""
        async with asyncio.timeout(PATIENCE):
            event = await self.call.read()
        if not isinstance(event, synthesis_pb2.EditResponse):
            return None  # grpc.aio.EOF
        self.events.append(getattr(event, str(event.WhichOneof("event"))))
        return self.events[-1]

    async def until(self, kind: type[Any], edit_id: int | None = None) -> Any:
        """The next event of a kind, or of an edit."""
        while True:
            event = await self.read()
            assert event is not None, "the session has ended"
            if isinstance(event, kind) and edit_id in (None, getattr(event, "edit_id", None)):
                return event

    async def open(self, image: bytes = PHOTO, **fields: Any) -> Any:
        await self.ask(open={"image": image, **fields})
        return await self.until(Current)

    async def stroke(self, edit_id: int, **fields: Any) -> None:
        await self.ask(apply={"edit_id": edit_id, "task": stroke(**fields)})

    async def edited(self, edit_id: int, **fields: Any) -> Any:
        await self.stroke(edit_id, **fields)
        return await self.until(Result, edit_id)

    async def rest(self) -> list[Any]:
        """Everything up to the end."""
        found = []
        while (event := await self.read()) is not None:
            found.append(event)
        return found


Current, Frame = synthesis_pb2.CurrentPicture, synthesis_pb2.EditFrame
Result, Failure = synthesis_pb2.EditResult, synthesis_pb2.EditFailure


def stroke(target: str = "waves", steps: int = 10, **fields: Any) -> dict[str, Any]:
    """A class painted in the middle, with a hard mask."""
    spec = {"region": {"mask": MASK}, "target": target, "descent": {"steps": steps, "seed": 1}}
    return {"paint_features": spec | fields}


@contextlib.asynccontextmanager
async def session(gateway: Gateway, timeout: float | None = None) -> AsyncIterator[Session]:
    one = Session(gateway, timeout)
    try:
        yield one
    finally:
        await one.channel.close(None)


def pixels(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def violations(failure: Any) -> list[str]:
    found = []
    for packed in failure.details:
        bad = error_details_pb2.BadRequest()
        if packed.Unpack(bad):
            found += [violation.field for violation in bad.field_violations]
    return found


def reason(failure: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    assert failure.details[0].Unpack(info)
    return str(info.reason)


async def nothing_left(gateway: Gateway) -> None:
    """Until no session and no job is left. Fails after a while."""
    async with asyncio.timeout(PATIENCE):
        while len(gateway.sessions) or gateway.dispatcher.requests:
            await asyncio.sleep(0.01)


def test_a_stroke_changes_what_its_mask_marks_and_nothing_else_and_shows_how(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            current = await caller.open()
            before = pixels(current.image)
            assert (current.size, current.undoable) == (SIZE, 0)
            assert np.array_equal(before, pixels(PHOTO))
            result = await caller.edited(1, steps=300)
            after = pixels(result.result.pictures[0].image)
            assert (before[INSIDE] != after[INSIDE]).any(-1).mean() > 0.9
            assert np.array_equal(before[~INSIDE], after[~INSIDE])
            frames = [event for event in caller.events if isinstance(event, Frame)]
            assert [type(event) for event in caller.events] == [Current, *[Frame] * len(frames), Result]
            steps = [frame.progress.step for frame in frames]
            assert len(steps) > 1
            assert steps == sorted(set(steps))
            assert {frame.progress.steps for frame in frames} == {300}
            shown = np.abs(pixels(frames[-1].progress.preview).astype(int) - before)  # with what JPEG does to it
            assert shown[INSIDE].mean() > 3 * shown[~INSIDE].mean()
            picture = result.result.pictures[0]
            assert picture.probability_after > picture.probability_before
            assert result.result.task.paint_features.descent.steps == 300
            assert result.result.request_id

    asyncio.run(main())


def test_every_edit_starts_from_the_result_of_the_last_and_undo_restores_the_bytes(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            files = [(await caller.open()).image]
            box = {"region": {"box": {"x": 0, "y": 0, "width": 4, "height": SIZE}}}
            strokes: list[dict[str, Any]] = [{}, box, {"target": "square"}]
            for number, fields in enumerate(strokes, 1):
                result = await caller.edited(number, **fields)
                assert result.undoable == number
                files.append(result.result.pictures[0].image)
            changed = (pixels(files[1]) != pixels(files[2])).any(-1)
            assert changed[:, :4].mean() > 0.9
            assert not changed[:, 4:].any()
            for left in (2, 1, 0):
                await caller.ask(undo={})
                current = await caller.until(Current)
                assert (current.image, current.undoable) == (files[left], left)
            again = await caller.edited(9)
            assert again.result.pictures[0].image == files[1]

    asyncio.run(main())


def test_tasks_without_a_mask_and_generated_pictures_are_edits_too(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.open(placement={"size": 24, "fit": "FIT_PAD"})
            tasks: dict[str, dict[str, Any]] = {
                "generate": {"target": "circle"},
                "maximize_class": {"target": "square"},
                "sketch_to_image": {"target": "square"},
                "translate": {"target": "stripes"},
                "inpaint": {"region": {"box": {"x": 8, "y": 8, "width": 8, "height": 8}}},
            }
            seen = set()
            for number, (name, spec) in enumerate(tasks.items(), 1):
                task = {name: spec | {"descent": {"steps": 3, "seed": 1}}}
                await caller.ask(apply={"edit_id": number, "task": task})
                result = await caller.until(Result, number)
                file = result.result.pictures[0].image
                assert pixels(file).shape == (24, 24, 3)
                assert result.result.task.WhichOneof("task") == name
                seen.add(file)
            assert len(seen) == len(tasks)

    asyncio.run(main())


def test_results_come_in_the_format_asked_for_while_the_session_keeps_every_level(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            before = (await caller.open(output={"format": "IMAGE_FORMAT_JPEG", "quality": 60})).image
            result = await caller.edited(1)
            picture = result.result.pictures[0]
            assert Image.open(io.BytesIO(picture.image)).format == "JPEG"
            assert picture.format == 2
            await caller.edited(2)
            await caller.ask(undo={})
            kept = pixels((await caller.until(Current)).image)
            assert np.array_equal(kept[~INSIDE], pixels(before)[~INSIDE])
            assert not np.array_equal(kept, pixels(picture.image))

    asyncio.run(main())


def test_a_new_stroke_replaces_the_one_that_waits_and_a_new_target_takes_over_while_frames_stream(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.open()
            await caller.stroke(1, steps=LONG)
            await caller.until(Frame, 1)
            await caller.stroke(2)
            await caller.stroke(3, target="circle")
            replaced = await caller.until(Failure)
            assert (replaced.edit_id, replaced.code, reason(replaced)) == (2, code_pb2.CANCELLED, "CANCELLED")
            await caller.ask(cancel={})
            cancelled = [await caller.until(Failure), await caller.until(Failure)]
            assert {failure.edit_id for failure in cancelled} == {1, 3}
            await caller.stroke(4, target="circle")
            result = await caller.until(Result)
            assert (result.edit_id, result.undoable) == (4, 1)
            assert result.result.pictures[0].target == "circle"
            assert len(gateway.dispatcher.requests) == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("task", "field", "code"),
    [
        ({}, "apply.task", code_pb2.INVALID_ARGUMENT),
        (stroke(target="wvaes"), "apply.task.paint_features.target", code_pb2.NOT_FOUND),
        (stroke(region={"mask": b"no picture"}), "apply.task.paint_features.region.mask", code_pb2.INVALID_ARGUMENT),
        (
            stroke(region={"mask": imaging.encode(Image.new("L", (SIZE, SIZE)))}),
            "apply.task.paint_features.region.mask",
            code_pb2.INVALID_ARGUMENT,
        ),
        (
            stroke(region={"mask": imaging.encode(mask(2 * SIZE))}),
            "apply.task.paint_features.region.mask",
            code_pb2.INVALID_ARGUMENT,
        ),
        (stroke(region={}), "apply.task.paint_features.region", code_pb2.INVALID_ARGUMENT),
        (stroke(image=PHOTO), "apply.task.paint_features.image", code_pb2.INVALID_ARGUMENT),
        (stroke(placement={"size": 32}), "apply.task.paint_features.placement.size", code_pb2.INVALID_ARGUMENT),
        (stroke(steps=20_000), "apply.task.paint_features.descent.steps", code_pb2.INVALID_ARGUMENT),
        ({"super_resolve": {}}, "apply.task", code_pb2.INVALID_ARGUMENT),
        ({"generate": {"target": "circle", "count": 2}}, "apply.task.generate.count", code_pb2.INVALID_ARGUMENT),
    ],
)
def test_an_edit_with_a_mistake_fails_alone_and_names_it(
    models: Path, task: dict[str, Any], field: str, code: int
) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.open()
            await caller.ask(apply={"edit_id": 5, "task": task})
            failure = await caller.until(Failure)
            assert (failure.edit_id, failure.code, violations(failure)) == (5, code, [field])
            assert failure.message.startswith(f"{field}: ")
            assert (await caller.edited(6)).edit_id == 6

    asyncio.run(main())


@pytest.mark.parametrize(
    ("action", "field", "code"),
    [
        ({}, "action", code_pb2.INVALID_ARGUMENT),
        ({"undo": {}}, "undo", code_pb2.INVALID_ARGUMENT),
        ({"open": {"image": b"no picture"}}, "open.image", code_pb2.INVALID_ARGUMENT),
        ({"open": {"model": "tinny"}}, "open.model", code_pb2.NOT_FOUND),
        ({"open": {"placement": {"size": 3}}}, "open.placement.size", code_pb2.INVALID_ARGUMENT),
        ({"open": {"placement": {"fit": 77}}}, "open.placement.fit", code_pb2.INVALID_ARGUMENT),
        ({"open": {"placement": {"paste_back": True}}}, "open.placement.paste_back", code_pb2.INVALID_ARGUMENT),
        ({"open": {"output": {"quality": 0}}}, "open.output.quality", code_pb2.INVALID_ARGUMENT),
        ({"open": {"output": {"format": 9}}}, "open.output.format", code_pb2.INVALID_ARGUMENT),
    ],
)
def test_an_action_with_a_mistake_fails_alone_and_names_it(
    models: Path, action: dict[str, Any], field: str, code: int
) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.open()
            await caller.ask(**action)
            failure = await caller.until(Failure)
            assert (failure.edit_id, failure.code, violations(failure)) == (0, code, [field])
            assert (await caller.edited(6)).undoable == 1

    asyncio.run(main())


def test_an_edit_before_a_picture_is_open_fails_and_the_session_goes_on(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.stroke(1)
            failure = await caller.read()
            assert (failure.edit_id, failure.code) == (1, code_pb2.INVALID_ARGUMENT)
            assert (await caller.open(b"")).size == SIZE
            assert (await caller.edited(2)).undoable == 1

    asyncio.run(main())


def test_the_session_ends_when_the_caller_closes_its_side_and_the_last_edit_is_done(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as caller:
            await caller.open()
            await caller.stroke(1, steps=100)
            await caller.call.done_writing()
            events = await caller.rest()
            assert isinstance(events[-1], Result)
            assert await caller.call.code() is grpc.StatusCode.OK
            await nothing_left(gateway)

    asyncio.run(main())


def leave(caller: Session) -> None:
    caller.call.cancel()


def vanish(caller: Session) -> Any:
    return caller.channel.close(None)


@pytest.mark.parametrize("go", [leave, vanish])
def test_a_caller_that_leaves_frees_everything(models: Path, go: Callable[[Session], Any]) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway:
            tasks = len(asyncio.all_tasks())
            async with session(gateway) as caller:
                await caller.open()
                await caller.stroke(1, steps=LONG)
                await caller.until(Frame)
                await caller.stroke(2)
                assert len(gateway.sessions) == len(gateway.dispatcher.requests) == 1
                leaving = go(caller)
                if leaving is not None:
                    await leaving
                await nothing_left(gateway)
            async with asyncio.timeout(PATIENCE):
                while len(asyncio.all_tasks()) > tasks:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_the_calls_deadline_ends_the_session_and_its_edit(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway, timeout=1.5) as caller:
            await caller.open()
            await caller.stroke(1, steps=LONG)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.rest()
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await nothing_left(gateway)

    asyncio.run(main())


def test_an_idle_session_ends_with_a_status_that_says_so(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models, SessionLimits(idle_seconds=0.5)) as gateway, session(gateway) as caller:
            await caller.open()
            await caller.edited(1, steps=800)
            with pytest.raises(grpc.aio.AioRpcError, match=r"nothing was asked of the session for 0\.5 s") as raised:
                await caller.rest()
            assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await nothing_left(gateway)

    asyncio.run(main())


def test_no_more_sessions_than_allowed(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models, SessionLimits(sessions=1)) as gateway, session(gateway) as caller:
            await caller.open()
            async with session(gateway) as second:
                with pytest.raises(grpc.aio.AioRpcError, match="as many as this server allows") as raised:
                    await second.rest()
                assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await caller.call.done_writing()
            await caller.rest()
            await nothing_left(gateway)
            async with session(gateway) as third:
                assert (await third.open()).size == SIZE

    asyncio.run(main())


def test_when_the_gateway_stops_the_running_edit_ends_and_the_session_is_told(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as busy, session(gateway) as idle:
            await idle.open()
            await busy.open()
            await busy.stroke(1, steps=1000)
            await busy.until(Frame)
            await busy.stroke(2)
            await busy.ask(undo={})
            await busy.until(Current)
            await busy.stroke(3)
            await busy.ask()  # its failure says that the session has read the stroke before
            await busy.until(Failure, 0)
            stopping = asyncio.create_task(gateway.stop(grace=PATIENCE))
            for caller, codes in ((idle, []), (busy, [(3, code_pb2.UNAVAILABLE)])):
                before = len(caller.events)
                with pytest.raises(grpc.aio.AioRpcError, match="the gateway is shutting down") as raised:
                    await caller.rest()
                found = caller.events[before:]
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
                failures = [(event.edit_id, event.code) for event in found if isinstance(event, Failure)]
                assert failures == codes
                results = [event.edit_id for event in found if isinstance(event, Result)]
                assert results == [1] * (caller is busy)
            await stopping

    asyncio.run(main())


def test_with_no_worker_a_picture_cannot_be_opened_and_the_caller_is_told_why() -> None:
    async def main() -> None:
        backend = FakeBackend([])
        async with running(backend) as gateway, session(gateway) as caller:
            await caller.ask(open={"image": PHOTO})
            failure = await caller.until(Failure)
            assert (failure.code, reason(failure)) == (code_pb2.UNAVAILABLE, "NO_WORKER")
            backend.members.append(FakeWorker())
            backend.changed.set()
            assert (await caller.open()).size == 16

    asyncio.run(main())


def test_two_sessions_and_batch_jobs_go_on_side_by_side(models: Path) -> None:
    async def main() -> None:
        async with gateway_of(models) as gateway, session(gateway) as one, session(gateway) as two:
            stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(one.channel)
            descent = task_pb2.Descent(steps=LONG, seed=1)
            spec = task_pb2.GenerateSpec(target="circle", count=16, descent=descent)
            batch = stub.Generate(synthesis_pb2.GenerateRequest(spec=spec))
            async with asyncio.timeout(PATIENCE):
                while not gateway.dispatcher.requests or not next(iter(gateway.dispatcher.requests)).begun:
                    await asyncio.sleep(0.01)

            async def paint(caller: Session, target: str) -> list[Any]:
                await caller.open()
                return [await caller.edited(number, target=target, steps=100) for number in range(1, 4)]

            found = await asyncio.gather(paint(one, "circle"), paint(two, "waves"))
            for results, target in zip(found, ("circle", "waves"), strict=True):
                assert [result.undoable for result in results] == [1, 2, 3]
                assert {result.result.pictures[0].target for result in results} == {target}
            assert not batch.done()
            batch.cancel()

    asyncio.run(main())


def test_callers_that_read_nothing_are_not_listened_to_and_leave_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_model_folder(tmp_path / "tiny", tiny_card(size=128))
    photo = imaging.encode(Image.effect_noise((400, 400), 90))
    message = synthesis_pb2.EditRequest(open=synthesis_pb2.OpenPicture(image=photo))

    async def flood(call: Any) -> None:
        for _ in range(100):
            await call.write(message)

    async def main() -> None:
        async with gateway_of(tmp_path, SessionLimits(unread_bytes=2**14)) as gateway, session(gateway) as caller:
            channel = grpc.aio.insecure_channel(gateway.target, options=[("grpc.http2.bdp_probe", 0)])
            stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            calls = [stub.Edit() for _ in range(20)]
            floods = [asyncio.create_task(flood(call)) for call in calls]
            done, _ = await asyncio.wait(floods, timeout=3)
            assert done == set()
            await caller.open()
            box = {"x": 0, "y": 0, "width": 64, "height": 64}
            assert (await caller.edited(1, steps=2, region={"box": box})).undoable == 1
            for call in calls:
                call.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
            await channel.close(None)
            async with asyncio.timeout(PATIENCE):
                while len(gateway.sessions) > 1:
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
