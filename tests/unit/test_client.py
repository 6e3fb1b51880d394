"""Both clients against a gateway that is real but for its pictures: what they send, and what they return."""

from __future__ import annotations

import asyncio
import inspect
import io
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robust_synthesis import client as package
from robust_synthesis.client import (
    AsyncClient,
    Cancelled,
    Client,
    Progress,
    Queued,
    Result,
)
from robust_synthesis.client.testing import CALL_ID, CLASSES, SIZE, STEPS, VERSION, FakeGateway, colour
from robust_synthesis.imaging import encode

PHOTO = Image.new("RGB", (6, 4), (10, 20, 30))
MASK = Image.new("L", (6, 4), 255)


TASKS: dict[str, tuple[Any, ...]] = {
    "generate": ("dog",),
    "inpaint": (PHOTO, MASK),
    "translate": (PHOTO, "dog"),
    "super_resolve": (PHOTO,),
    "sketch_to_image": (PHOTO, "dog"),
    "paint_features": (PHOTO, MASK),
    "maximize_class": (PHOTO, "dog"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_its_method_and_comes_back_as_the_librarys_result(
    task: str, either: Any, gateway: FakeGateway
) -> None:
    more = {"target": "dog"} if task == "paint_features" else {}
    result = getattr(either, task)(*TASKS[task], seed=300, steps=6, size=8, **more)
    ((method, request),) = gateway.calls
    assert method == task.title().replace("_", "")
    assert (request.model, request.spec.descent.steps, request.spec.descent.seed) == ("fake", 6, 300)
    assert (result.task, result.model, result.version) == (task, "fake", VERSION)
    assert (result.device, result.precision) == ("cuda:0, cpu", "fp32")
    assert result.image.getpixel((0, 0)) == colour(300)
    assert result.parameters["steps"] == result.pictures[0].steps == 6
    assert result.pictures[0].probability_after == 0.75
    assert result.timings.bundles == 2
    assert result.seconds == result.timings.total_seconds == 2.0


def test_report_and_save_are_those_of_the_library(client: Client, tmp_path: Path) -> None:
    result = client.generate("dog", seed=5, count=2)
    report = result.report()
    assert report["parameters"]["count"] == len(report["pictures"]) == 2
    assert report["request_id"] == CALL_ID
    assert report["timings"]["compute_seconds"] == 1.0
    result.save(tmp_path / "dog.png")
    with Image.open(tmp_path / "dog.png") as saved:
        assert saved.getpixel((3, 3)) == colour(5)


def test_images_are_sent_from_images_arrays_bytes_and_paths(
    client: Client, gateway: FakeGateway, tmp_path: Path
) -> None:
    file = encode(PHOTO, "webp")
    (tmp_path / "photo.webp").write_bytes(file)
    for source in (PHOTO, np.asarray(PHOTO), file, tmp_path / "photo.webp", str(tmp_path / "photo.webp")):
        client.maximize_class(source, "dog")
    sent = [request.spec.image for _, request in gateway.calls]
    assert sent[2:] == [file] * 3
    for png in sent[:2]:
        with Image.open(io.BytesIO(png)) as image:
            assert (image.format, image.tobytes()) == ("PNG", PHOTO.tobytes())


def test_results_come_in_the_format_asked_for_with_the_file_itself(client: Client) -> None:
    (picture,) = client.generate("dog", seed=1, format="webp", quality=50).pictures
    assert picture.format == "webp"
    assert picture.file[8:12] == b"WEBP"
    assert "file" not in picture.report()


def test_where_the_photo_is_edited_and_how_it_is_placed_is_sent(client: Client, gateway: FakeGateway) -> None:
    result = client.inpaint(PHOTO, box="1,1,2,3", fit="pad", paste_back=True, size=24, model="other")
    ((_, request),) = gateway.calls
    box = request.spec.region.box
    assert (box.x, box.y, box.width, box.height) == (1, 1, 2, 3)
    assert (request.model, request.spec.placement.size, request.spec.placement.paste_back) == ("other", 24, True)
    assert {name: result.parameters[name] for name in ("fit", "box", "paste_back")} == {
        "fit": "pad",
        "box": "1,1,2,3",
        "paste_back": True,
    }


def test_every_call_has_a_request_id_of_its_own_or_the_callers(client: Client, gateway: FakeGateway) -> None:
    client.generate("dog")
    client.generate("dog")
    client.generate("dog", request_id="mine")
    ids = [request.request_id for _, request in gateway.calls]
    assert len(ids[0]) == len(ids[1]) == 32
    assert ids[0] != ids[1]
    assert ids[2] == "mine"


def test_models_and_units_and_classes_are_told(either: Any, gateway: FakeGateway) -> None:
    assert [each.name for each in either.models()] == ["fake"]
    model = either.model()
    assert (model.classes, model.size, model.card.size) == (CLASSES, SIZE, SIZE)
    gateway.units = 5
    units = either.units()
    assert [unit.unit for unit in units] == [0, 1, 2, 3, 4]
    assert units[4].examples.size == (SIZE, SIZE)
    assert either.units(examples=False)[0].examples is None
    assert either.classify(PHOTO, top=1, fit="stretch") == {"cat": 0.5}
    assert gateway.calls[-1][1].fit == 3


# Progress


def test_a_stream_tells_place_progress_and_result(client: Client) -> None:
    events = list(client.stream.generate("dog", seed=7, previews=True))
    assert events[0] == Queued(2, 1.5)
    middle, last = events[1], events[2]
    assert isinstance(middle, Progress)
    assert isinstance(last, Progress)
    assert (middle.step, middle.steps, last.step) == (STEPS // 2, STEPS, STEPS)
    assert middle.preview is not None
    assert last.preview is None
    assert isinstance(events[3], Result)
    assert events[3].image.getpixel((0, 0)) == colour(7)
    assert len(events) == 4


async def _listen(target: str) -> list[Any]:
    async with AsyncClient(target) as client:
        return [event async for event in client.stream.generate("dog", seed=7, previews=True)]


def test_a_stream_is_the_same_for_asyncio(client: Client, gateway: FakeGateway) -> None:
    for one, other in zip(client.stream.generate("dog", seed=7), asyncio.run(_listen(gateway.target)), strict=True):
        assert type(one) is type(other)


def test_on_progress_is_of_all_pictures_together_and_never_goes_back(either: Any) -> None:
    reports: list[Any] = []
    either.generate("dog", count=3, on_progress=reports.append)
    steps = [report.step for report in reports]
    assert steps == sorted(steps)
    assert (steps[-1], reports[-1].steps, len(reports)) == (STEPS, STEPS, 6)
    assert reports[-1].probability == 1.0


def test_frames_end_in_the_result(either: Any) -> None:
    (picture,) = either.generate("dog", seed=9, frames=5).pictures
    assert [step for step, _ in picture.frames] == [STEPS // 2, STEPS]
    assert picture.frames[-1][1].getpixel((0, 0)) == colour(9)
    assert len(either.generate("dog", frames=1).pictures[0].frames) == 1


def test_cancelling_a_stream_stops_the_computation(client: Client, gateway: FakeGateway) -> None:
    gateway.seconds = 0.01
    with client.stream.generate("dog", steps=10_000) as events:
        assert isinstance(next(events), Queued)
        assert gateway.computing.wait(5)
        events.cancel()
        with pytest.raises(Cancelled):
            next(events)
    assert gateway.stopped.wait(5)


def test_cancelling_the_task_that_waits_stops_the_computation(gateway: FakeGateway) -> None:
    gateway.seconds = 0.01

    async def give_up() -> None:
        async with AsyncClient(gateway.target) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.generate("dog", steps=10_000)
            events = client.stream.generate("dog", steps=10_000)
            assert isinstance(await anext(events), Queued)
            events.cancel()
            with pytest.raises(Cancelled):
                await anext(events)

    asyncio.run(give_up())
    assert gateway.stopped.wait(5)


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    names = [name for name in vars(Client) if not name.startswith("_")]
    assert {*names} == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in names:
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        if callable(one):
            assert [*inspect.signature(one).parameters.values()] == [*inspect.signature(other).parameters.values()]


def test_threads_share_a_client(client: Client) -> None:
    found: dict[int, Any] = {}

    def draw(seed: int) -> None:
        found[seed] = client.generate("dog", seed=seed).image.getpixel((0, 0))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: colour(seed) for seed in range(8)}


def test_the_base_install_is_enough() -> None:
    extras = (
        "torch",
        "safetensors",
        "grpc_health",
        "grpc_reflection",
        "prometheus_client",
        "pydantic_settings",
        "yaml",
    )
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in extras)
    modules = "robust_synthesis.client, robust_synthesis.client.testing, robust_synthesis.cli.main"
    code = f"import sys; {block}; import {modules}; assert 'robust_synthesis.gateway' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_that_is_exported_exists() -> None:
    assert all(hasattr(package, name) for name in package.__all__)


def test_threads_whose_first_calls_come_together_share_a_channel(gateway: FakeGateway) -> None:
    opened: list[Any] = []

    class Slow(Client):
        def _open(self) -> Any:
            opened.append(None)
            time.sleep(0.05)
            return super()._open()

    with Slow(gateway.target) as client, ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: client.models(), range(4)))) == 4
    assert len(opened) == 1
