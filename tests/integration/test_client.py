"""The client against a gateway that computes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robust_synthesis
from robust_synthesis import specs
from robust_synthesis.client import AsyncClient, Cancelled, Client, InvalidInput, NotFound, Overloaded, Progress
from robust_synthesis.gateway import errors
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.gateway.seams import Admission, Follow
from robust_synthesis.testing import CLASSES, SIZE, mask, picture, tiny_model_folder

STROKE = specs.PaintFeatures(target="waves", steps=20)
BOX = (2, 2, 8, 8)


class Reluctant(Admission):
    """Refuses so many requests."""

    def __init__(self) -> None:
        self.refusals = 0
        self.asked = 0

    @contextlib.asynccontextmanager
    async def admit(self, *arguments: Any, **options: Any) -> AsyncIterator[Follow]:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise errors.Overloaded("the queue is full.", retry_after_seconds=0.3)
        async with super().admit(*arguments, **options) as follow:
            yield follow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny").path


@pytest.fixture(scope="module")
def admission() -> Reluctant:
    return Reluctant()


@pytest.fixture(scope="module")
def server(folder: Path, admission: Reluctant) -> Iterator[str]:
    with serving(lambda: embedded(folder.parent), admission=admission) as target:
        yield target


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as one:
        yield one


def test_code_moves_between_this_process_and_a_server_with_one_line(client: Client, folder: Path) -> None:
    for maker in (robust_synthesis.load(folder), client):
        drawn = maker.inpaint(picture(), mask(), seed=1, exact=True, steps=15)
        assert drawn.image.size == (SIZE, SIZE)
    here = robust_synthesis.load(folder).inpaint(picture(), mask(), seed=1, exact=True, steps=15)
    assert here.image.tobytes() == drawn.image.tobytes()
    assert here.parameters == drawn.parameters
    assert here.pictures[0].losses == pytest.approx(drawn.pictures[0].losses)
    assert robust_synthesis.load(folder).classify(picture()) == pytest.approx(client.classify(picture()))


def test_a_result_is_all_that_it_takes_to_make_the_picture_again(client: Client) -> None:
    first = client.generate("waves", exact=True)
    parameters = {**first.parameters}
    again = client.generate(**parameters)
    assert again.image.tobytes() == first.image.tobytes()


def test_a_repeat_with_the_same_request_id_is_the_same_picture(client: Client) -> None:
    one, other = (client.generate("waves", request_id="picture 7") for _ in range(2))
    assert one.image.tobytes() == other.image.tobytes()
    with pytest.raises(InvalidInput, match=r"^request_id: "):
        client.generate("circle", request_id="picture 7")


def test_an_overloaded_server_is_asked_again_when_it_says_so(client: Client, admission: Reluctant, server: str) -> None:
    admission.refusals, admission.asked = 2, 0
    started = time.monotonic()
    client.generate("waves")
    assert time.monotonic() - started >= 0.6
    assert admission.asked == 3
    admission.refusals = 1
    with Client(server, attempts=1) as hasty, pytest.raises(Overloaded, match=r"^the queue is full\.$") as caught:
        hasty.generate("waves")
    assert caught.value.retry_after_seconds == 0.3


def test_units_come_with_examples(client: Client) -> None:
    units = client.units()
    assert units[0].examples is not None
    assert {unit.class_name for unit in units} <= set(CLASSES)
    assert client.paint_features(picture(), mask(), unit=units[-1].name, steps=3).pictures[0].steps == 3


def test_strokes_build_a_picture_and_can_be_undone(client: Client) -> None:
    with client.edit(picture()) as session:
        before = session.image
        assert before.tobytes() == picture().tobytes()
        edit = session.apply(STROKE, box=BOX)
        frames = list(edit)
        painted = edit.result().image
        assert all(isinstance(frame, Progress) for frame in frames)
        changed = (np.asarray(painted) != np.asarray(before)).any(axis=2)
        assert changed[2:10, 2:10].any()
        changed[2:10, 2:10] = False
        assert not changed.any()
        with pytest.raises(NotFound, match=r"^target: there is no class 'wave'"):
            session.apply(specs.PaintFeatures(target="wave"), box=BOX).result()
        session.apply(STROKE, mask=mask()).result()
        assert session.undoable == 2
        assert session.undo().tobytes() == painted.tobytes()
        assert session.undo().tobytes() == before.tobytes()
        with pytest.raises(InvalidInput, match="there is no edit to take back"):
            session.undo()
        assert session.open(None).getpixel((3, 3)) == (128, 128, 128)


@pytest.mark.asyncio
async def test_a_newer_stroke_takes_the_place_of_one_that_waits(server: str) -> None:
    long = specs.PaintFeatures(target="waves", steps=400)
    async with AsyncClient(server) as client, client.edit(picture()) as session:
        first = await session.apply(long, box=BOX)
        second = await session.apply(STROKE, box=BOX)
        third = await session.apply(STROKE, box=BOX)
        with pytest.raises(Cancelled, match="a newer edit took its place"):
            await second.result()
        assert any([frame.preview is not None async for frame in first])
        await asyncio.gather(first.result(), third.result())
        assert session.undoable == 2
        dropped = await session.apply(long, box=BOX)
        await session.cancel()
        with pytest.raises(Cancelled):
            await dropped.result()
        assert session.undoable == 2
