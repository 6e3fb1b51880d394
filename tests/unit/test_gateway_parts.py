"""Limits, previews, catalogues, the choice of a classifier, lines of the log: what needs no server."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robust_synthesis import imaging
from robust_synthesis.errors import InvalidInput, ModelError, NotFound
from robust_synthesis.gateway import calls
from robust_synthesis.gateway.backends.base import ModelInfo
from robust_synthesis.gateway.catalogues import Catalogues, read
from robust_synthesis.gateway.desk import Desk
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.errors import NoWorker, Unsuitable
from robust_synthesis.gateway.limits import Limits
from robust_synthesis.gateway.logs import JsonFormatter, TextFormatter
from robust_synthesis.gateway.model_servicer import ModelServicer
from robust_synthesis.gateway.models import Models, check_suits
from robust_synthesis.gateway.previews import encode_preview
from robust_synthesis.gateway.server import Options
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model
from robust_synthesis.requests import Request
from robust_synthesis.sheet import Cell, Row, draw
from robust_synthesis.specs import Generate, Inpaint, PaintFeatures
from robust_synthesis.units import SHEET_ACROSS, SHEET_SIDE, CatalogueFiles
from robust_synthesis.v1 import model_pb2

PHOTO = imaging.encode(Image.new("RGB", (20, 10)))


def check(limits: Limits, request: Request) -> None:
    limits.check_parameters(request)
    limits.check_pictures(request)


def test_a_request_within_the_limits_passes_and_one_beyond_names_its_field() -> None:
    limits = Limits(image_bytes=500, pixels=200, steps=10, pictures=2)
    fits = Request(spec=Inpaint(steps=10), image=PHOTO, mask=PHOTO)
    check(limits, fits)
    large = imaging.encode(Image.new("RGB", (20, 11)))
    for request, field in (
        (Request(spec=Inpaint(steps=11), image=PHOTO, mask=PHOTO), "steps"),
        (Request(spec=Generate(target="x", count=3)), "count"),
        (Request(spec=Inpaint(), image=large, mask=PHOTO), "image"),
        (Request(spec=Inpaint(), image=PHOTO, mask=large), "mask"),
        (Request(spec=Inpaint(), image=PHOTO + bytes(500), mask=PHOTO), "image"),
    ):
        with pytest.raises(InvalidInput) as caught:
            check(limits, request)
        assert caught.value.field == field


@pytest.mark.parametrize("field", ["image_bytes", "pixels", "steps", "pictures"])
def test_limits_that_make_no_sense_are_refused(field: str) -> None:
    for value in (0, 2**40):
        with pytest.raises(InvalidInput) as caught:
            Limits(**{field: value})
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"listen": "50051"}, "listen"),
        ({"listen": "localhost:99999"}, "listen"),
        ({"deadline": 0}, "deadline"),
        ({"grace": -1}, "grace"),
        ({"connection_age": float("nan")}, "connection_age"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Options(**options)
    assert caught.value.field == field


def test_a_preview_shows_the_levels_of_x() -> None:
    x = np.zeros((3, 32, 32), np.uint16)
    x[0], x[1] = 65535, 128 * 257
    shown = np.asarray(Image.open(io.BytesIO(encode_preview(x))).convert("RGB")).astype(int)
    assert shown.shape == (32, 32, 3)
    assert np.abs(shown - (255, 128, 0)).max() <= 3


def served(*infos: ModelInfo) -> FakeBackend:
    return FakeBackend([FakeWorker(models=list(infos))])


def with_role(name: str, role: str) -> ModelInfo:
    info = fake_model(name)
    return dataclasses.replace(info, card=dataclasses.replace(info.card, role=role))


def of_classes(name: str, *classes: str) -> ModelInfo:
    info = fake_model(name)
    return dataclasses.replace(info, card=dataclasses.replace(info.card, classes=classes))


def test_the_default_is_what_was_configured_or_the_only_one_or_the_robust_one_of_most_classes() -> None:
    assert Models(served(fake_model("a")), "b").default() == "b"
    assert Models(served(with_role("a", "standard"))).default() == "a"
    assert Models(served(fake_model("a"), with_role("b", "standard"))).default() == "a"
    assert Models(served(fake_model("a"), of_classes("b", "cat", "dog", "fox"), fake_model("c"))).default() == "b"
    several = Models(served(fake_model("a"), fake_model("b"), fake_model("a", "old", current=False)))
    assert several.default() == ""
    assert {name: info.version for name, info in several.current().items()} == {"a": "v1", "b": "v1"}
    with pytest.raises(InvalidInput, match=r"no default; it has a, b\."):
        several.get("")
    with pytest.raises(NotFound):
        several.get("c")
    assert several.find("c") is None


def test_what_a_classifier_lacks_is_said() -> None:
    info = fake_model()
    bare = dataclasses.replace(info, card=dataclasses.replace(info.card, files={}))
    named = Request(spec=PaintFeatures(unit="ears"), image=PHOTO, mask=PHOTO)
    for request in (Request(spec=Generate(target="cat")), named):
        check_suits(request, info)
        with pytest.raises(Unsuitable):
            check_suits(request, bare)
    check_suits(Request(spec=Generate(target="cat", start="noise")), bare)
    check_suits(Request(spec=PaintFeatures(unit=3), image=PHOTO, mask=PHOTO), bare)


def catalogue(gap: bool) -> CatalogueFiles:
    """Five units of two examples each, of which four are on the sheet; every picture has its own grey."""
    rows = [[Image.new("RGB", (SHEET_SIDE, SHEET_SIDE), (20 * i + 10 * j,) * 3) for j in range(2)] for i in range(4)]
    sheet = draw(
        [Row(f"u{i}", "", [Cell(each) for each in row]) for i, row in enumerate(rows)],
        side=SHEET_SIDE,
        across=SHEET_ACROSS,
    )
    if not gap:
        sheet = Image.new("RGB", (SHEET_ACROSS * (2 * SHEET_SIDE + 8), 2 * (SHEET_SIDE + 18)), "white")
        for i, row in enumerate(rows):
            for j, each in enumerate(row):
                sheet.paste(each, (i % 3 * (2 * SHEET_SIDE + 8) + j * SHEET_SIDE, i // 3 * (SHEET_SIDE + 18) + 18))
    units = [{"index": 9 - i, "name": f"u{i}", "activation": 1.0, "classes": {"cat": 2}} for i in range(5)]
    return CatalogueFiles(json.dumps(units), imaging.encode(sheet, "webp", 100))


@pytest.mark.parametrize("gap", [True, False])
def test_every_unit_gets_its_own_examples_from_the_sheet(gap: bool) -> None:
    entries = read(catalogue(gap))
    assert [entry.unit.index for entry in entries] == [5, 6, 7, 8, 9]
    assert entries[0].examples == b""
    for i, entry in enumerate(reversed(entries[1:])):
        strip = Image.open(io.BytesIO(entry.examples)).convert("L")
        assert strip.size == (2 * SHEET_SIDE + 8 * gap, SHEET_SIDE)
        assert strip.getpixel((20, 20)) == pytest.approx(20 * i, abs=3)
        assert strip.getpixel((strip.width - 20, 20)) == pytest.approx(20 * i + 10, abs=3)


def test_a_classifier_without_a_catalogue_has_no_units() -> None:
    assert read(CatalogueFiles()) == ()


def test_a_catalogue_is_fetched_once_from_a_worker_that_answers() -> None:
    async def main() -> None:
        down, up = FakeWorker("down"), FakeWorker("up")
        down.up = False
        catalogues = Catalogues(FakeBackend([down, up]))
        found = await asyncio.gather(*(catalogues.get(fake_model()) for _ in range(3)))
        assert [entry.unit.name for entry in found[0]] == ["ears"]
        assert found[0] is found[1] is found[2]
        up.up = False
        assert await catalogues.get(fake_model()) is found[0]
        with pytest.raises(NoWorker):
            await catalogues.get(fake_model(version="v2"))

    asyncio.run(main())


class Catalogued(FakeWorker):
    """Waits with its catalogue until it is told."""

    def __init__(self, units_json: str = "[]") -> None:
        super().__init__()
        self.units_json = units_json
        self.asked = 0
        self.tells = asyncio.Event()

    async def catalogue(self, model: str, version: str) -> CatalogueFiles:
        del model, version
        self.asked += 1
        await self.tells.wait()
        return CatalogueFiles(self.units_json)


def test_who_asks_for_a_catalogue_does_not_wait_for_others_and_may_leave() -> None:
    async def main() -> None:
        worker = Catalogued()
        worker.served.append(fake_model("other"))
        catalogues = Catalogues(FakeBackend([worker]))
        leaves, stays, other = (asyncio.create_task(catalogues.get(fake_model(n))) for n in ("fake", "fake", "other"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert worker.asked == 2
        leaves.cancel()
        worker.tells.set()
        assert (await stays, await other) == ([], [])
        assert worker.asked == 2

    asyncio.run(main())


@pytest.mark.parametrize("units_json", ["{", '[{"index": 1}]', '[{"number": 1}]'])
def test_a_catalogue_that_cannot_be_read_hides_no_classifier_and_is_asked_for_again(units_json: str) -> None:
    async def main() -> None:
        worker = Catalogued(units_json)
        worker.tells.set()
        backend = FakeBackend([worker])
        models = Models(backend)
        servicer: Any = ModelServicer(Desk(Dispatcher(backend), models), models, Catalogues(backend))
        listed = await servicer.ListModels(model_pb2.ListModelsRequest(), None)
        assert [(each.name, each.unit_count) for each in listed.models] == [("fake", 0)]
        with pytest.raises(ModelError):
            await servicer.ListUnits(model_pb2.ListUnitsRequest(), None)
        worker.units_json = "[]"
        assert not (await servicer.ListUnits(model_pb2.ListUnitsRequest(), None)).units

    asyncio.run(main())


def test_a_line_of_the_log_is_json_with_the_call_that_it_belongs_to() -> None:
    record = logging.LogRecord("gateway", logging.WARNING, "file", 1, "says %s", ("ä\n",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "says ä\n"

    async def main() -> None:
        calls.begin(calls.Call("/Service/Method", caller="alice", id="7"))
        record.__dict__["seconds"] = 0.5
        line = JsonFormatter().format(record)
        assert "\n" not in line
        assert json.loads(line).items() >= {"level": "warning", "request_id": "7", "seconds": 0.5}.items()

    asyncio.run(main())
    assert "request_id" not in json.loads(JsonFormatter().format(record))


def test_a_line_of_text_has_the_request_id_above_the_trace_that_belongs_to_it() -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        trace = (RuntimeError, error, error.__traceback__)
    record = logging.LogRecord("gateway", logging.ERROR, "file", 1, "%s failed", ("Generate",), trace)

    async def main() -> list[str]:
        calls.begin(calls.Call("/Service/Method", id="7"))
        return TextFormatter().format(record).splitlines()

    lines = asyncio.run(main())
    assert lines[0].endswith("ERROR Generate failed [7]")
    assert lines[-1] == "RuntimeError: why"
    assert TextFormatter().format(record).splitlines()[0].endswith("ERROR Generate failed")
