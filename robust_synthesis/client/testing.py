"""A gateway to test programs with: real gRPC on the loopback interface, and pictures that cost nothing.

    with FakeGateway() as gateway, Client(gateway.target) as client:
        gateway.errors.append(status(code_pb2.UNAVAILABLE, "SHUTTING_DOWN", "it stops."))
        assert client.generate("dog", seed=3).image.getpixel((0, 0)) == colour(3)

Needs no torch. What makes sense is not checked: `robust_synthesis.gateway.running` has the real thing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from PIL import Image

from .. import imaging
from ..channel import DOMAIN, PUSHBACK, REQUEST_ID
from ..messages import chosen, image_format, read_output, read_spec, write_task
from ..model_folder import Card
from ..specs import with_seed
from ..v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2

SIZE = 16
CLASSES = ("cat", "dog")
STEPS = 4
VERSION = "0123456789abcdef"
CALL_ID = "fake-call"


def colour(seed: int) -> tuple[int, int, int]:
    """Of every pixel of a picture with this seed."""
    return seed % 251, seed % 241, seed % 239


def status(code: int, reason: str, message: str, *details: Message) -> status_pb2.Status:
    """An error as a gateway would send it."""
    found = status_pb2.Status(code=code, message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), *details):
        packed = AnyMessage()
        packed.Pack(detail)
        found.details.append(packed)
    return found


def bad_field(field: str, text: str) -> error_details_pb2.BadRequest:
    """The detail of a status that names a field."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
    return error_details_pb2.BadRequest(field_violations=[violation])


def _unary(method: str) -> Any:
    """A method that answers with a result."""

    def answer(self: FakeGateway, request: Any, context: Any) -> Any:
        self._arrive(method, request, context)
        task = task_pb2.TaskSpec()
        field = next(field for field in task.DESCRIPTOR.fields if field.message_type is request.spec.DESCRIPTOR)
        getattr(task, field.name).CopyFrom(request.spec)
        for _ in self._steps(task, context):
            pass
        return getattr(synthesis_pb2, f"{method}Response")(result=self._result(task, request.output))

    return answer


class FakeGateway(synthesis_pb2_grpc.SynthesisServiceServicer, model_pb2_grpc.ModelServiceServicer):
    """Answers every call; set its attributes to make it slow or fail."""

    def __init__(self, *, credentials: grpc.ServerCredentials | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        """Method and request (of Edit: each one) of all that has come, those that failed, too."""
        self.keys: list[str] = []
        """The authorization that each call showed; empty where none."""
        self.errors: list[status_pb2.Status] = []
        """Each ends a call, the first first."""
        self.refusals: list[status_pb2.Status] = []
        """Each ends an edit of a session, which goes on."""
        self.pushback: int | None = None
        """Milliseconds that go with an error."""
        self.seconds = 0.0
        """That a step takes."""
        self.computing = threading.Event()
        """A call has begun to compute."""
        self.stopped = threading.Event()
        """A call was cancelled while it computed."""
        self.units = 3
        self.target = ""
        """Where it listens, HOST:PORT."""
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        synthesis_pb2_grpc.add_SynthesisServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self._credentials = credentials

    def __enter__(self) -> Self:
        place = "localhost:0"
        if self._credentials is None:
            port = self._server.add_insecure_port(place)
        else:
            port = self._server.add_secure_port(place, self._credentials)
        self._server.start()
        self.target = f"localhost:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    Generate = _unary("Generate")
    Inpaint = _unary("Inpaint")
    Translate = _unary("Translate")
    SuperResolve = _unary("SuperResolve")
    SketchToImage = _unary("SketchToImage")
    PaintFeatures = _unary("PaintFeatures")
    MaximizeClass = _unary("MaximizeClass")

    def StreamSynthesis(  # noqa: N802
        self, request: synthesis_pb2.StreamSynthesisRequest, context: Any
    ) -> Iterator[synthesis_pb2.StreamSynthesisResponse]:
        response = synthesis_pb2.StreamSynthesisResponse
        self._arrive("StreamSynthesis", request, context)
        yield response(queued=synthesis_pb2.Queued(position=2, estimated_wait_seconds=1.5))
        for progress in self._steps(request.task, context, previews=request.previews):
            yield response(progress=progress)
        yield response(result=self._result(request.task, request.output))

    def Edit(  # noqa: N802
        self, requests: Iterator[synthesis_pb2.EditRequest], context: Any
    ) -> Iterator[synthesis_pb2.EditResponse]:
        """Every edit is done before the next action is looked at. The picture is grey at first."""
        response = synthesis_pb2.EditResponse
        pictures = [_file((128, 128, 128))]
        for request in requests:
            self._arrive("Edit", request, context)
            if request.WhichOneof("action") == "apply":
                edit = request.apply
                if self.refusals:
                    refusal = self.refusals.pop(0)
                    failure = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
                    yield response(failure=synthesis_pb2.EditFailure(edit_id=edit.edit_id, **failure))
                    continue
                for progress in self._steps(edit.task, context, previews=True):
                    yield response(frame=synthesis_pb2.EditFrame(edit_id=edit.edit_id, progress=progress))
                result = self._result(edit.task, task_pb2.Output())
                pictures.append(result.pictures[0].image)
                done = {"edit_id": edit.edit_id, "undoable": len(pictures) - 1}
                yield response(result=synthesis_pb2.EditResult(result=result, **done))
            elif request.WhichOneof("action") in ("open", "undo"):
                pictures = pictures[:-1] or pictures
                current = synthesis_pb2.CurrentPicture(image=pictures[-1], size=SIZE, undoable=len(pictures) - 1)
                yield response(current=current)

    def ListModels(self, request: model_pb2.ListModelsRequest, context: Any) -> model_pb2.ListModelsResponse:  # noqa: N802
        self._arrive("ListModels", request, context)
        return model_pb2.ListModelsResponse(models=[_SUMMARY], default_model=_SUMMARY.name)

    def GetModel(self, request: model_pb2.GetModelRequest, context: Any) -> model_pb2.GetModelResponse:  # noqa: N802
        self._arrive("GetModel", request, context)
        limits = {"min_size": _CARD.min_size, "max_size": _CARD.max_size}
        return model_pb2.GetModelResponse(summary=_SUMMARY, classes=CLASSES, card_json=_CARD.to_json(), **limits)

    def Classify(self, request: model_pb2.ClassifyRequest, context: Any) -> model_pb2.ClassifyResponse:  # noqa: N802
        self._arrive("Classify", request, context)
        found = [model_pb2.ClassProbability(name=name, probability=1 / len(CLASSES)) for name in CLASSES]
        top = found[: request.top] if request.HasField("top") else found
        return model_pb2.ClassifyResponse(classes=top, model=_SUMMARY.name, model_version=VERSION)

    def ListUnits(self, request: model_pb2.ListUnitsRequest, context: Any) -> model_pb2.ListUnitsResponse:  # noqa: N802
        """Two units a page, whatever is asked for."""
        self._arrive("ListUnits", request, context)
        first = int(request.page_token or 0)
        examples = b"" if request.without_examples else _file((0, 0, 0))
        listed = [
            model_pb2.Unit(unit=i, name=f"unit {i}", class_name="cat", examples=examples) for i in range(self.units)
        ]
        following = str(first + 2) if first + 2 < self.units else ""
        return model_pb2.ListUnitsResponse(units=listed[first : first + 2], next_page_token=following)

    def _arrive(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        self.keys.append(dict(context.invocation_metadata()).get("authorization", ""))
        trailing: list[tuple[str, str | bytes]] = [(REQUEST_ID, CALL_ID)]
        if self.errors:
            error = rpc_status.to_status(self.errors.pop(0))
            trailing += error.trailing_metadata
            if self.pushback is not None:
                trailing.append((PUSHBACK, str(self.pushback)))
            context.set_trailing_metadata(tuple(trailing))
            context.abort(error.code, error.details)
        context.set_trailing_metadata(tuple(trailing))

    def _steps(
        self, task: task_pb2.TaskSpec, context: Any, *, previews: bool = False
    ) -> Iterator[synthesis_pb2.Progress]:
        """Half of the steps at once, then the others; of every picture."""
        spec = read_spec(chosen(task))
        steps = spec.steps or STEPS
        self.computing.set()
        for done in (steps // 2, steps):
            for _ in range(steps // 2):
                time.sleep(self.seconds)
                if not context.is_active():
                    self.stopped.set()
                    return
            for index in range(spec.pictures):
                preview = _file(colour(done), "jpeg") if previews and done < steps else b""
                yield synthesis_pb2.Progress(
                    index=index,
                    step=done,
                    steps=steps,
                    loss=1 / (1 + done),
                    probability=done / steps,
                    preview=preview,
                )

    def _result(self, task: task_pb2.TaskSpec, output: task_pb2.Output) -> synthesis_pb2.SynthesisResult:
        spec = with_seed(read_spec(chosen(task)))
        spec = dataclasses.replace(spec, steps=spec.steps or STEPS)
        encoded = read_output(output)
        file = _file(colour(spec.seed or 0), encoded.format)
        pictures = [
            synthesis_pb2.Picture(
                index=index,
                image=file,
                format=image_format(encoded),
                target=getattr(spec, "target", None) or CLASSES[0],
                predicted=CLASSES[0],
                probability_before=0.25,
                probability_after=0.75,
                l2=2.0,
                linf=0.5,
                losses=[1.0] * (spec.steps or 0),
                probabilities=[0.75] * (spec.steps or 0),
            )
            for index in range(spec.pictures)
        ]
        return synthesis_pb2.SynthesisResult(
            pictures=pictures,
            model=_SUMMARY.name,
            model_version=VERSION,
            task=write_task(spec, size=SIZE),
            seed=spec.seed or 0,
            timings=synthesis_pb2.Timings(queue_wait_seconds=0.5, total_seconds=2.0, compute_seconds=1.0, bundles=2),
            request_id=CALL_ID,
            computations=[task_pb2.Computation(device=device, precision="fp32") for device in ("cuda:0", "cpu")],
        )


_CARD = Card(
    name="fake", architecture={}, classes=CLASSES, size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), role="robust"
)
_SUMMARY = model_pb2.ModelSummary(
    name="fake", version=VERSION, role="robust", data="nothing", size=SIZE, class_count=len(CLASSES), unit_count=3
)


def _file(pixel: tuple[int, int, int], format: str = "png") -> bytes:
    return imaging.encode(Image.new("RGB", (SIZE, SIZE), pixel), format)
