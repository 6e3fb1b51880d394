"""The gateway over real gRPC, with a tiny classifier in its process, or a worker that is told how to behave."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from PIL import Image

from robust_synthesis import imaging
from robust_synthesis.bundle import Reply
from robust_synthesis.engine.precision import choose_precision
from robust_synthesis.errors import SynthesisError, Unauthenticated
from robust_synthesis.gateway import calls
from robust_synthesis.gateway.backends.base import Backend, ModelInfo
from robust_synthesis.gateway.errors import Overloaded
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.limits import Limits
from robust_synthesis.gateway.running import embedded, running
from robust_synthesis.gateway.seams import Admission, Follow, Observer
from robust_synthesis.gateway.server import REFLECTION_V1, SERVICES, Gateway, Options
from robust_synthesis.gateway.testing import FakeBackend, FakeWorker, fake_model
from robust_synthesis.messages import chosen
from robust_synthesis.model_folder import Card
from robust_synthesis.requests import Request
from robust_synthesis.testing import CLASSES, SIZE, mask, picture, tiny_model_folder
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2

SERVICE = "robust_synthesis.v1.SynthesisService"
CPU_PRECISION = choose_precision(torch.device("cpu"), "auto")
PHOTO = imaging.encode(picture(24, seed=3))
MASK = imaging.encode(mask(24))
DESCENT = {"steps": 6, "seed": 5, "exact": True}
SPECS: dict[str, dict[str, Any]] = {
    "Generate": {"target": "circle", "count": 2},
    "Inpaint": {"image": PHOTO, "region": {"mask": MASK}},
    "Translate": {"image": PHOTO, "target": "waves"},
    "SuperResolve": {"image": PHOTO, "factor": 2},
    "SketchToImage": {"image": PHOTO, "target": "square"},
    "PaintFeatures": {"image": PHOTO, "region": {"box": {"x": 2, "y": 2, "width": 9, "height": 9}}, "unit": 3},
    "MaximizeClass": {"image": PHOTO, "target": "stripes"},
}
TASKS = dict(zip(SPECS, (field.name for field in task_pb2.TaskSpec.DESCRIPTOR.fields), strict=True))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "tiny")
    return directory


class Client:
    """Every service of a gateway, on one connection."""

    def __init__(self, gateway: Gateway) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        self.channel = grpc.aio.insecure_channel(gateway.target, options=options)
        self.synthesis: Any = synthesis_pb2_grpc.SynthesisServiceStub(self.channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    async def make(self, method: str, spec: dict[str, Any], **fields: Any) -> synthesis_pb2.SynthesisResult:
        answer = await getattr(self.synthesis, method)(ask(method, spec=spec, **fields), timeout=60)
        result: synthesis_pb2.SynthesisResult = answer.result
        return result


@contextlib.asynccontextmanager
async def connected(
    backend: Path | Backend, options: Options | None = None, **parts: Any
) -> AsyncIterator[tuple[Gateway, Client]]:
    started = embedded(backend) if isinstance(backend, Path) else backend
    async with running(started, options, **parts) as gateway:
        client = Client(gateway)
        try:
            yield gateway, client
        finally:
            await client.channel.close(None)


def ask(method: str, **fields: Any) -> Any:
    return getattr(synthesis_pb2, f"{method}Request")(**fields)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    trailers: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        found[kind.__name__] = kind()
        packed.Unpack(found[kind.__name__])
    return found


class Counter(Observer):
    """Counts bundles, and says when the first has come back."""

    def __init__(self) -> None:
        self.sent = 0
        self.returned = 0
        self.finished: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self.rejected: list[str] = []
        self.running = asyncio.Event()

    def bundle_sent(self, plan: Plan) -> None:
        del plan
        self.sent += 1

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        del plan, reply
        self.returned += 1
        if self.returned == 2:
            self.running.set()

    def request_rejected(self, request: Request, model: str, error: SynthesisError) -> None:
        del request, model
        self.rejected.append(type(error).__name__)

    def request_finished(self, ticket: Any, error: Any) -> None:
        del ticket
        self.finished.append(type(error).__name__)

    def call_finished(self, method: str, code: str, seconds: float) -> None:
        del seconds
        self.calls.append((method.rpartition("/")[2], code))

    async def idle(self) -> None:
        """Until nothing is outstanding, and no more has come for a while."""
        async with asyncio.timeout(20):
            sent = -1
            while self.sent > sent or self.returned < self.sent:
                sent = self.sent
                await asyncio.sleep(0.3)


# Every method.


def test_every_task_makes_pictures_that_its_response_can_make_again(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            for method, spec in SPECS.items():
                result = await client.make(method, {**spec, "descent": DESCENT})
                assert (result.model, len(result.model_version)) == ("tiny", 16)
                assert [(each.device, each.precision) for each in result.computations] == [("cpu", CPU_PRECISION)]
                assert [each.index for each in result.pictures] == list(range(spec.get("count", 1)))
                for each in result.pictures:
                    assert opened(each.image).size == (SIZE, SIZE)
                    assert opened(each.image).format == "PNG"
                    assert len(each.losses) == len(each.probabilities) == 7
                    assert each.predicted in CLASSES
                    assert each.l2 > 0
                assert (result.seed, result.timings.bundles >= 1, result.timings.total_seconds > 0) == (5, True, True)
                task = task_pb2.TaskSpec.FromString(result.task.SerializeToString())
                ran: Any = chosen(task)
                assert (result.task.WhichOneof("task"), ran.descent.steps, ran.descent.epsilon > 0) == (
                    TASKS[method],
                    6,
                    True,
                )
                if method != "Generate":
                    ran.image = PHOTO
                if method == "Inpaint":
                    assert ran.target in CLASSES
                    ran.region.mask = MASK
                again = (await getattr(client.synthesis, method)(ask(method, spec=ran, model=result.model))).result
                assert [each.image for each in again.pictures] == [each.image for each in result.pictures]
                assert again.task == result.task

    asyncio.run(main())


def test_a_stream_says_its_place_then_its_progress_then_its_result(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            descent = {"steps": 400, "seed": 5, "exact": True}
            task = {"maximize_class": {**SPECS["MaximizeClass"], "descent": descent}}
            call = client.synthesis.StreamSynthesis(ask("StreamSynthesis", task=task, previews=True))
            events = [event async for event in call]
            kinds = [event.WhichOneof("event") for event in events]
            assert kinds == ["queued", *["progress"] * (len(events) - 2), "result"]
            assert events[0].queued.position == 0
            progress = [event.progress for event in events[1:-1]]
            steps = [each.step for each in progress]
            assert steps == sorted(set(steps))
            assert (steps[-1], {each.steps for each in progress}) == (400, {400})
            assert progress[-1].loss < progress[0].loss
            for each in progress[:-1]:
                shown = opened(each.preview)
                assert (shown.size, shown.format) == ((SIZE, SIZE), "JPEG")
            alone = await client.make("MaximizeClass", task["maximize_class"])
            assert [each.image for each in alone.pictures] == [each.image for each in events[-1].result.pictures]
            assert events[-1].result.request_id == dict(await call.trailing_metadata())["request-id"]

    asyncio.run(main())


def test_previews_are_sent_only_where_they_are_asked_for(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            task = {"generate": {"target": "circle", "descent": {"steps": 300}}}
            events = [each async for each in client.synthesis.StreamSynthesis(ask("StreamSynthesis", task=task))]
            assert len(events) > 3
            assert not any(each.progress.preview for each in events)

    asyncio.run(main())


def test_results_have_the_format_that_was_asked_for(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            for number, name in ((task_pb2.IMAGE_FORMAT_JPEG, "JPEG"), (task_pb2.IMAGE_FORMAT_WEBP, "WEBP")):
                output = task_pb2.Output(format=number, quality=50)
                (made,) = (await client.make("Generate", {"target": "circle"}, output=output)).pictures
                assert (made.format, opened(made.image).format) == (number, name)

    asyncio.run(main())


def test_a_request_id_is_the_seed_of_a_request_without_one(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            spec = {"target": "circle", "descent": {"exact": True}}
            first = await client.make("Generate", spec, request_id="one")
        async with connected(models) as (_, client):
            assert (await client.make("Generate", spec, request_id="one")).pictures == first.pictures
            assert (await client.make("Generate", spec, request_id="two")).seed != first.seed

    asyncio.run(main())


def test_models_are_listed_described_and_asked(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            listed = await client.models.ListModels(model_pb2.ListModelsRequest())
            (summary,) = listed.models
            assert (listed.default_model, summary.name, summary.role, summary.data) == (
                "tiny",
                "tiny",
                "robust",
                "pictures",
            )
            assert (summary.size, summary.class_count) == (SIZE, 4)
            found = await client.models.GetModel(model_pb2.GetModelRequest())
            assert (found.summary, list(found.classes)) == (summary, list(CLASSES))
            assert (found.min_size, found.max_size) == (8, 32)
            assert '"architecture"' in found.card_json

            classified = await client.models.Classify(model_pb2.ClassifyRequest(image=PHOTO))
            assert list(classified.computations) == [task_pb2.Computation(device="cpu", precision=CPU_PRECISION)]
            probabilities = [each.probability for each in classified.classes]
            assert {each.name for each in classified.classes} == set(CLASSES)
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) == pytest.approx(1, abs=1e-5)
            top = await client.models.Classify(model_pb2.ClassifyRequest(image=PHOTO, top=2))
            assert list(top.classes) == list(classified.classes[:2])
            assert (top.model, top.model_version) == ("tiny", summary.version)

            units: list[model_pb2.Unit] = []
            token, pages = "", 0
            while pages == 0 or token:
                page = await client.models.ListUnits(model_pb2.ListUnitsRequest(page_size=3, page_token=token))
                units, token, pages = units + list(page.units), page.next_page_token, pages + 1
            whole = await client.models.ListUnits(model_pb2.ListUnitsRequest())
            assert (units, pages, len(units)) == (list(whole.units), -(-summary.unit_count // 3), summary.unit_count)
            assert [each.unit for each in units] == sorted({each.unit for each in units})
            for each in units:
                assert each.class_name in CLASSES
                assert opened(each.examples).size == (9 * 48 - 8, 40)
            bare = await client.models.ListUnits(model_pb2.ListUnitsRequest(without_examples=True))
            assert not any(each.examples for each in bare.units)
            painted = {**SPECS["PaintFeatures"], "unit_name": units[0].name}
            del painted["unit"]
            assert (await client.make("PaintFeatures", painted)).pictures[0].target == units[0].name

    asyncio.run(main())


# What is wrong.


@pytest.mark.parametrize(
    ("method", "fields", "code", "field"),
    [
        ("Generate", {}, "INVALID_ARGUMENT", "spec"),
        ("Generate", {"spec": {"target": "circel"}}, "NOT_FOUND", "spec.target"),
        ("Generate", {"spec": {"target": "circle"}, "model": "tyni"}, "NOT_FOUND", "model"),
        ("Generate", {"spec": {"target": "circle", "size": 99}}, "INVALID_ARGUMENT", "spec.size"),
        ("Generate", {"spec": {"target": "circle", "count": 3}}, "INVALID_ARGUMENT", "spec.count"),
        (
            "Generate",
            {"spec": {"target": "circle", "descent": {"steps": 1001}}},
            "INVALID_ARGUMENT",
            "spec.descent.steps",
        ),
        ("Generate", {"spec": {"target": "circle"}, "request_id": "\n"}, "INVALID_ARGUMENT", "request_id"),
        ("Translate", {"spec": {"image": PHOTO}}, "INVALID_ARGUMENT", "spec.target"),
        ("Translate", {"spec": {"image": b"no image", "target": "waves"}}, "INVALID_ARGUMENT", "spec.image"),
        ("Translate", {"spec": {"image": PHOTO[:99], "target": "waves"}}, "INVALID_ARGUMENT", "spec.image"),
        (
            "Translate",
            {"spec": {"image": imaging.encode(Image.new("RGB", (50, 50))), "target": "waves"}},
            "INVALID_ARGUMENT",
            "spec.image",
        ),
        ("SuperResolve", {"spec": {"image": PHOTO, "factor": 3}}, "INVALID_ARGUMENT", "spec.factor"),
        ("Inpaint", {"spec": {"image": PHOTO, "region": {"mask": b"x"}}}, "INVALID_ARGUMENT", "spec.region.mask"),
        (
            "Inpaint",
            {"spec": {"image": PHOTO, "region": {"box": {"x": 99, "width": 1, "height": 1}}}},
            "INVALID_ARGUMENT",
            "spec.region.box",
        ),
        (
            "Inpaint",
            {"spec": {"image": PHOTO, "region": {"box": {"x": 1, "width": 2**32 - 1, "height": 1}}}},
            "INVALID_ARGUMENT",
            "spec.region.box",
        ),
        ("PaintFeatures", {"spec": {**SPECS["PaintFeatures"], "unit": 999}}, "INVALID_ARGUMENT", "spec.unit"),
        ("StreamSynthesis", {}, "INVALID_ARGUMENT", "task"),
        ("StreamSynthesis", {"task": {"generate": {"target": "x"}}}, "NOT_FOUND", "task.generate.target"),
    ],
)
def test_what_cannot_be_used_is_named(models: Path, method: str, fields: dict[str, Any], code: str, field: str) -> None:
    async def main() -> None:
        options = Options(limits=Limits(steps=1000, pictures=2, pixels=1000))
        async with connected(models, options) as (gateway, client):
            call = getattr(client.synthesis, method)(ask(method, **fields))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [each async for each in call] if method == "StreamSynthesis" else await call
            error = caught.value
            assert error.code() is grpc.StatusCode[code]
            found = details(error)
            (violation,) = found["BadRequest"].field_violations
            assert violation.field == field
            assert error.details() == f"{field}: {violation.description}"
            assert found["ErrorInfo"].domain == "robust-synthesis"
            assert not gateway.dispatcher.requests

    asyncio.run(main())


def test_the_models_service_names_fields_too(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            for method, request, field in (
                ("GetModel", model_pb2.GetModelRequest(model="tyni"), "model"),
                ("Classify", model_pb2.ClassifyRequest(), "image"),
                ("Classify", model_pb2.ClassifyRequest(image=b"x"), "image"),
                ("Classify", model_pb2.ClassifyRequest(image=PHOTO, top=0), "top"),
                ("ListUnits", model_pb2.ListUnitsRequest(page_size=1001), "page_size"),
                ("ListUnits", model_pb2.ListUnitsRequest(page_token="²"), "page_token"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await getattr(client.models, method)(request)
                assert details(caught.value)["BadRequest"].field_violations[0].field == field

    asyncio.run(main())


def test_bytes_that_are_no_message_are_the_callers_mistake(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            for body in (b"\xff\xff\xff", b"\x0a\x02\xc3\x28"):  # no message; a text that is not UTF-8
                call: Any = client.channel.unary_unary(f"/{SERVICE}/Generate", None, None)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(body)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "UTF-8" in str(caught.value.details())

    asyncio.run(main())


def test_a_message_above_the_limit_is_refused(models: Path) -> None:
    async def main() -> None:
        async with connected(models, Options(limits=Limits(image_bytes=2**20))) as (_, client):
            for size, code in ((3 * 2**20, "RESOURCE_EXHAUSTED"), (2**20 + 1, "INVALID_ARGUMENT")):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.make("Translate", {"image": b"x" * size, "target": "waves"})
                assert caught.value.code() is grpc.StatusCode[code]

    asyncio.run(main())


def test_a_classifier_without_what_a_task_needs_is_a_failed_precondition() -> None:
    async def main() -> None:
        backend = FakeBackend([FakeWorker(models=[bare()])])
        async with connected(backend) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.make("Generate", {"target": "cat"})
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert details(caught.value)["ErrorInfo"].reason == "UNSUITABLE_MODEL"
            await client.make("Generate", {"target": "cat", "start": "START_NOISE"})

    asyncio.run(main())


def bare() -> ModelInfo:
    info = fake_model()
    return dataclasses.replace(info, card=dataclasses.replace(info.card, files={}))


def test_a_mistake_of_ours_is_internal_and_says_nothing(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def request_queued(self, ticket: Any) -> None:
            del ticket
            raise RuntimeError("secret")

    async def main() -> None:
        async with connected(models, observer=Broken()) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.make("Generate", {"target": "circle"})
            error = caught.value
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in str(error.details()) + str(error.trailing_metadata())
            assert details(error)["ErrorInfo"].reason == "INTERNAL"
            trailers: Any = error.trailing_metadata()
            (record,) = [each for each in caplog.records if each.exc_info]
            assert record.__dict__["request_id"] == dict(trailers)["request-id"]
            assert "secret" in str(record.exc_info)

    asyncio.run(main())


# Callers go, and time passes.


def long(steps: int = 10_000) -> dict[str, Any]:
    return {"target": "circle", "descent": {"steps": steps}}


@pytest.mark.parametrize("leave", ["cancel", "disconnect", "deadline"])
@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_runs_for_a_caller_who_has_gone(models: Path, leave: str, streamed: bool) -> None:
    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter) as (gateway, client):
            timeout = 1.5 if leave == "deadline" else 60
            if streamed:
                call = client.synthesis.StreamSynthesis(
                    ask("StreamSynthesis", task={"generate": long()}), timeout=timeout
                )
            else:
                call = client.synthesis.Generate(ask("Generate", spec=long()), timeout=timeout)
            await asyncio.wait_for(counter.running.wait(), 20)
            if leave == "cancel":
                call.cancel()
            elif leave == "disconnect":
                await client.channel.close(None)
            async with asyncio.timeout(20):
                while gateway.dispatcher.requests:
                    await asyncio.sleep(0.01)
            sent = counter.sent
            await counter.idle()
            assert counter.sent == sent
            assert counter.returned == sent
            assert counter.finished in (["Cancelled"], ["DeadlineExceeded"])
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                assert await call.code() is (
                    grpc.StatusCode.DEADLINE_EXCEEDED if leave == "deadline" else grpc.StatusCode.CANCELLED
                )

    asyncio.run(main())


def test_a_call_without_a_deadline_gets_the_servers(models: Path) -> None:
    async def main() -> None:
        async with connected(models, Options(deadline=0.5)) as (gateway, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.synthesis.Generate(ask("Generate", spec=long()))
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "passed after 0.5 s with 0 of 1 pictures done" in str(caught.value.details())
            assert details(caught.value)["ErrorInfo"].reason == "DEADLINE_EXCEEDED"
            assert not gateway.dispatcher.requests

    asyncio.run(main())


def test_a_call_that_grpc_ends_at_its_deadline_is_not_counted_as_cancelled(models: Path) -> None:
    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter) as (_, client):
            # With a request_id the request outlives this caller's deadline, as others may join it: gRPC ends the call.
            with pytest.raises(grpc.aio.AioRpcError):
                await client.synthesis.Generate(ask("Generate", spec=long(), request_id="a"), timeout=0.5)
            async with asyncio.timeout(20):  # the caller hears it first
                while not counter.calls:
                    await asyncio.sleep(0.01)
        assert counter.calls == [("Generate", "DEADLINE_EXCEEDED")]

    asyncio.run(main())


def test_a_call_that_is_cancelled_long_before_its_deadline_is_counted_as_cancelled(models: Path) -> None:
    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter) as (_, client):
            call = client.synthesis.Generate(ask("Generate", spec=long()), timeout=60)
            await asyncio.wait_for(counter.running.wait(), 20)
            call.cancel()
            async with asyncio.timeout(20):
                while not counter.calls:
                    await asyncio.sleep(0.01)
        assert counter.calls == [("Generate", "CANCELLED")]

    asyncio.run(main())


def test_those_who_wait_hear_how_many_are_ahead() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(size=512, step_seconds={1: 0.02})], seconds=lambda _: 0.02)
        async with connected(FakeBackend([worker])) as (_, client):

            async def positions(name: str) -> list[int]:
                task = {"generate": {"target": "cat", "descent": {"steps": 40}}}
                call = client.synthesis.StreamSynthesis(ask("StreamSynthesis", task=task))
                events = [event async for event in call]
                assert events[-1].WhichOneof("event") == "result"
                return [event.queued.position for event in events if event.HasField("queued")]

            tasks = []
            for i in range(6):  # two bundles of two are under way at 512 pixels
                tasks.append(asyncio.create_task(positions(str(i))))
                await asyncio.sleep(0.05)
            found = await asyncio.gather(*tasks)
            assert found[0] == [0]
            assert found[5][0] >= 1
            assert all(places == sorted(set(places), reverse=True) for places in found)
            assert found[5][-1] < found[5][0]

    asyncio.run(main())


def test_a_reader_who_does_not_read_holds_nothing_up() -> None:
    async def main() -> None:
        worker = FakeWorker(models=[fake_model(step_seconds={1: 0.001})], seconds=lambda _: 0.0)
        async with connected(FakeBackend([worker])) as (gateway, client):
            task = {"generate": {"target": "cat", "count": 8, "descent": {"steps": 10_000}}}
            call = client.synthesis.StreamSynthesis(ask("StreamSynthesis", task=task, previews=True))
            assert (await call.read()).WhichOneof("event") == "queued"
            async with asyncio.timeout(30):
                while gateway.dispatcher.requests:  # it ends, although nobody reads
                    await asyncio.sleep(0.05)
            last = await call.read()
            while last.WhichOneof("event") != "result":
                last = await call.read()
            assert len(last.result.pictures) == 8
            assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]

    asyncio.run(main())


# The end.


def test_what_was_accepted_is_finished_and_what_is_new_is_refused(models: Path) -> None:
    async def main() -> None:
        counter = Counter()
        gateway = Gateway(embedded(models), Options(listen="127.0.0.1:0"), observer=counter)
        await gateway.start()
        client = Client(gateway)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        watch = client.health.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        accepted = client.synthesis.Generate(ask("Generate", spec=long(1500)))
        await asyncio.wait_for(counter.running.wait(), 20)
        stopping = asyncio.create_task(gateway.stop(30))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.make("Generate", {"target": "circle"})
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value)["ErrorInfo"].reason == "SHUTTING_DOWN"
        assert len((await accepted).result.pictures[0].losses) == 1501
        await asyncio.wait_for(stopping, 20)
        await client.channel.close(None)

    asyncio.run(main())


def test_what_does_not_end_within_the_grace_is_unavailable(models: Path) -> None:
    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter) as (gateway, client):
            accepted = client.synthesis.Generate(ask("Generate", spec=long()))
            await asyncio.wait_for(counter.running.wait(), 20)
            await asyncio.wait_for(gateway.stop(0.2), 10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await accepted
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


class Stuck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Has a call that does not end by itself, as where somebody reads nothing."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        async def wait(*_: object) -> AsyncIterator[bytes]:
            yield b""
            await asyncio.Event().wait()

        if details.method.endswith("ListModels"):
            return grpc.unary_stream_rpc_method_handler(wait)
        return await continuation(details)


def test_the_grace_is_all_the_time_that_the_end_takes_whatever_is_left(models: Path) -> None:
    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter, interceptors=[Stuck()]) as (gateway, client):
            stuck = client.channel.unary_stream("/robust_synthesis.v1.ModelService/ListModels", bytes, bytes)(b"")
            await stuck.read()
            accepted = client.synthesis.Generate(ask("Generate", spec=long()))
            await asyncio.wait_for(counter.running.wait(), 20)
            started = time.monotonic()
            await gateway.stop(1.5)
            assert 1.3 < time.monotonic() - started < 3
            for call in (accepted, stuck):
                assert await call.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


# What others plug in.


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """As the one that reads keys."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        name = dict(details.invocation_metadata).get("name", "")
        if not name:
            raise Unauthenticated("authorization: say your name.")
        calls.current().caller = name
        return await continuation(details)


class Turnstile(Admission):
    """Lets one in at a time."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int, bool]] = []
        self.followed: list[str] = []
        self.inside = 0

    @contextlib.asynccontextmanager
    async def admit(
        self, caller: str, request: Request, card: Card | None, *, model: str, interactive: bool, deadline: float
    ) -> AsyncIterator[Follow]:
        assert card is not None
        assert model == "tiny"
        assert deadline > 0
        self.seen.append((caller, request.spec.task, card.size, interactive))
        if self.inside:
            raise Overloaded("queue: is full; come back later.", retry_after_seconds=1.5)
        self.inside += 1
        try:
            yield lambda ticket: self.followed.append(ticket.caller)
        finally:
            self.inside -= 1


def test_what_an_interceptor_below_raises_is_a_status_for_every_kind_of_call(models: Path) -> None:
    async def main() -> None:
        async with connected(models, interceptors=(Doorkeeper(),)) as (_, client):
            calls_ = [
                client.synthesis.Generate(ask("Generate")),
                client.synthesis.StreamSynthesis(ask("StreamSynthesis")),
                client.synthesis.Edit(),
                client.models.ListModels(model_pb2.ListModelsRequest()),
            ]
            for call in calls_:
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
                assert await call.details() == "authorization: say your name."
                assert len(dict(await call.trailing_metadata())["request-id"]) == 32

    asyncio.run(main())


def test_the_admission_hears_who_calls_and_says_when_to_come_back(models: Path) -> None:
    async def main() -> None:
        turnstile, counter = Turnstile(), Counter()
        parts: dict[str, Any] = {"interceptors": (Doorkeeper(),), "admission": turnstile, "observer": counter}
        async with connected(models, **parts) as (gateway, client):
            metadata = (("name", "alice"),)
            first = client.synthesis.Generate(ask("Generate", spec=long()), metadata=metadata)
            await asyncio.wait_for(counter.running.wait(), 20)
            assert [ticket.caller for ticket in gateway.dispatcher.requests] == turnstile.followed == ["alice"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.models.Classify(model_pb2.ClassifyRequest(image=PHOTO), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details(caught.value)["RetryInfo"].retry_delay.ToMilliseconds() == 1500
            trailers: Any = caught.value.trailing_metadata()
            assert dict(trailers)["grpc-retry-pushback-ms"] == "1500"
            assert counter.rejected == ["Overloaded"]
            first.cancel()
            async with asyncio.timeout(20):
                while turnstile.inside:
                    await asyncio.sleep(0.01)
            await client.models.Classify(model_pb2.ClassifyRequest(image=PHOTO), metadata=metadata)
            assert turnstile.seen == [
                ("alice", "generate", SIZE, False),
                ("alice", "classify", SIZE, False),
                ("alice", "classify", SIZE, False),
            ]

    asyncio.run(main())


# What gRPC tools want.


def test_every_service_has_its_health(models: Path) -> None:
    async def main() -> None:
        async with connected(models) as (_, client):
            for service in ("", *SERVICES):
                answer = await client.health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(main())


@pytest.mark.parametrize("name", ["grpc.reflection.v1alpha.ServerReflection", REFLECTION_V1])
def test_reflection_has_all_that_a_client_needs(models: Path, name: str) -> None:
    from google.protobuf import descriptor_pb2, descriptor_pool

    async def main() -> None:
        async with connected(models) as (_, client):
            ask_all = client.channel.stream_stream(
                f"/{name}/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            questions = [reflection_pb2.ServerReflectionRequest(list_services="")]
            questions += [reflection_pb2.ServerReflectionRequest(file_containing_symbol=each) for each in SERVICES]
            listed, *files = [each async for each in ask_all(iter(questions))]
            assert {each.name for each in listed.list_services_response.service} >= set(SERVICES)
            pool = descriptor_pool.DescriptorPool()
            for answer in files:
                known: dict[str, descriptor_pb2.FileDescriptorProto] = {}
                for blob in answer.file_descriptor_response.file_descriptor_proto:
                    file = descriptor_pb2.FileDescriptorProto.FromString(blob)
                    known[file.name] = file

                def add(name: str, known: Any = known) -> None:
                    for needed in known[name].dependency:
                        add(needed)
                    pool.Add(known[name])

                for each in known:
                    add(each)
            methods = [method.name for each in SERVICES for method in pool.FindServiceByName(each).methods]
            assert set(methods) == {
                *SPECS,
                "StreamSynthesis",
                "Edit",
                "ListModels",
                "GetModel",
                "Classify",
                "ListUnits",
            }

    asyncio.run(main())


def test_calls_are_logged_with_id_caller_method_code_and_time(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        counter = Counter()
        async with connected(models, observer=counter) as (_, client):
            result = await client.make("Generate", {"target": "circle"})
            with pytest.raises(grpc.aio.AioRpcError):
                await client.make("Generate", {"target": "x"})
        assert counter.calls == [("Generate", "OK"), ("Generate", "NOT_FOUND")]
        first, second = [each.__dict__ for each in caplog.records if hasattr(each, "seconds")]
        assert first["request_id"] == result.request_id
        assert (first["method"], first["caller"], first["code"]) == (f"/{SERVICE}/Generate", "", "OK")
        assert first["seconds"] > 0
        assert second["request_id"] != first["request_id"]

    asyncio.run(main())
