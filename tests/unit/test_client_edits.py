"""Sessions of edits, with asyncio and without."""

from __future__ import annotations

import asyncio
import io

import pytest
from google.rpc import code_pb2
from PIL import Image

from robust_synthesis import specs
from robust_synthesis.bundle import Output
from robust_synthesis.client import (
    AsyncClient,
    Cancelled,
    Client,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from robust_synthesis.client.edits import Book
from robust_synthesis.client.testing import FakeGateway, bad_field, colour, status

PHOTO = Image.new("RGB", (6, 4), (10, 20, 30))
MASK = Image.new("L", (6, 4), 255)


STROKE = specs.PaintFeatures(target="dog", seed=11, steps=4)


def test_edits_build_on_each_other_and_can_be_undone(client: Client, gateway: FakeGateway) -> None:
    with client.edit(PHOTO, size=32, fit="pad") as session:
        opened = gateway.calls[0][1].open
        assert (opened.model, opened.placement.size, opened.placement.fit) == ("fake", 32, 2)
        assert session.image.getpixel((0, 0)) == (128, 128, 128)
        edit = session.apply(STROKE, box=(0, 0, 4, 4))
        result = edit.result()
        assert result.image.getpixel((0, 0)) == session.image.getpixel((0, 0)) == colour(11)
        assert result.parameters["box"] == (0, 0, 4, 4)
        assert session.undoable == 1
        assert session.undo().getpixel((0, 0)) == (128, 128, 128)
        assert session.undoable == 0


def test_an_edits_frames_come_while_it_is_computed(client: Client, gateway: FakeGateway) -> None:
    gateway.seconds = 0.02
    with client.edit() as session:
        frames = list(session.apply(STROKE, mask=MASK))
    assert frames[0].step == 2
    assert frames[0].preview is not None
    assert frames[-1].step == 4


def test_a_failed_edit_leaves_the_session(client: Client, gateway: FakeGateway) -> None:
    details = bad_field("task.paint_features.target", "there is no class 'dgo'.")
    gateway.refusals.append(status(code_pb2.NOT_FOUND, "NOT_FOUND", "x", details))
    with client.edit() as session:
        with pytest.raises(NotFound, match=r"^target: there is no class"):
            session.apply(STROKE, box=(0, 0, 1, 1)).result()
        assert session.apply(STROKE, box=(0, 0, 1, 1)).result().image.getpixel((0, 0)) == colour(11)


def test_a_session_that_cannot_begin_says_why(client: Client, gateway: FakeGateway) -> None:
    gateway.errors.append(status(code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", "show a key."))
    with pytest.raises(Unauthenticated, match="show a key"), client.edit():
        pass


def test_leaving_a_session_drops_what_is_under_way(client: Client, gateway: FakeGateway) -> None:
    gateway.seconds = 0.01
    with client.edit() as session:
        edit = session.apply(specs.Generate(target="dog", steps=10_000))
        assert gateway.computing.wait(5)
    assert gateway.stopped.wait(5)
    with pytest.raises(Cancelled):
        edit.result()
    with pytest.raises(Cancelled):
        session.apply(STROKE, box=(0, 0, 1, 1))


def test_a_session_for_asyncio_does_the_same(gateway: FakeGateway) -> None:
    gateway.seconds = 0.01
    details = bad_field("task.paint_features.target", "there is no class 'dgo'.")
    gateway.refusals.append(status(code_pb2.NOT_FOUND, "NOT_FOUND", "x", details))

    async def draw() -> None:
        async with AsyncClient(gateway.target) as client:
            async with client.edit(PHOTO) as session:
                with pytest.raises(NotFound):
                    await (await session.apply(STROKE, box=(0, 0, 4, 4))).result()
                edit = await session.apply(STROKE, box=(0, 0, 4, 4))
                frames = [frame async for frame in edit]
                assert frames[0].preview is not None
                assert (await edit.result()).image.getpixel((0, 0)) == colour(11)
                assert (await session.undo()).getpixel((0, 0)) == (128, 128, 128)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await (await session.apply(specs.Generate(target="dog", steps=1000))).result()
            with pytest.raises(Cancelled):
                await session.apply(STROKE, box=(0, 0, 1, 1))
            gateway.errors.append(status(code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", "show a key."))
            with pytest.raises(Unauthenticated, match="show a key"):
                async with client.edit():
                    pass

    asyncio.run(draw())
    assert gateway.stopped.wait(5)


def test_an_edit_whose_mask_is_read_while_the_session_ends_ends_with_it() -> None:
    book = Book("gateway:1", model="", size=None, fit="crop", output=Output())

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            book.end(Unavailable("the server has gone."))
            return super().read(size)

    file = io.BytesIO()
    MASK.save(file, "png")
    _, stroke = book.apply(STROKE, Slow(file.getvalue()), None)  # type: ignore[arg-type]
    assert stroke.done
    with pytest.raises(Unavailable):
        _ = stroke.result
