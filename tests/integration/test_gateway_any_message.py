"""Whatever a caller sends, it gets a picture or is told what is wrong with its request.

Never INTERNAL, never UNKNOWN, never a hang.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from robust_synthesis import imaging
from robust_synthesis.gateway.limits import Limits
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.gateway.server import Options
from robust_synthesis.messages import TASKS
from robust_synthesis.testing import CLASSES, mask, picture, tiny_model_folder
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc

ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
PHOTO, MASK = imaging.encode(picture(20)), imaging.encode(mask(20))
UNARY = ("Generate", "Inpaint", "Translate", "SuperResolve", "SketchToImage", "PaintFeatures", "MaximizeClass")
ANY = settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ANYTHING: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_UINT32: st.sampled_from((0, 1, 2, 3, 8, 16, 17, 32, 33, 2**31, 2**32 - 1))
    | st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from((0.0, 0.5, 4.0, -1.0, 1e-300, 1e300, math.inf, -math.inf, math.nan))
    | st.floats(),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.sampled_from((0, 1, 2, 3)) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_STRING: st.sampled_from((*CLASSES, "tiny", "0", "")) | st.text(max_size=20),
    FieldDescriptor.TYPE_BYTES: st.sampled_from((PHOTO, MASK, PHOTO[:60], b"")) | st.binary(max_size=40),
}
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(("", "tiny")),
    "request_id": st.sampled_from(("", "one")),
    "target": st.sampled_from(CLASSES),
    "image": st.just(PHOTO),
    "mask": st.just(MASK),
    "steps": st.integers(1, 12),
    "step_size": st.floats(0.01, 2),
    "epsilon": st.floats(0, 4),
    "seed": st.integers(0, 9),
    "size": st.sampled_from((8, 16, 32)),
    "count": st.integers(1, 3),
    "factor": st.sampled_from((2, 4, 8)),
    "unit": st.integers(0, 7),
    "strength": st.floats(0.01, 2),
    "penalty": st.floats(0, 10),
    "quality": st.integers(1, 100),
    "page_token": st.just("3"),
    "page_size": st.integers(0, 9),
    **{name: st.integers(1, 4) for name in ("x", "y", "width", "height", "top")},
    **{name: st.integers(0, 2) for name in ("start", "upsampling", "format")},
    **{name: st.integers(0, 3) for name in ("norm", "fit")},
}
"""Sent mostly, else nearly nothing would get past the first field."""


NEEDED = ("spec", "task", "target", "image", "region", "mask", "box", "width", "height", "apply", *TASKS.values())


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Any:
    """Any message of this kind, in which any fields are set to anything."""
    fields = {}
    chosen = {
        oneof.name: draw(st.sampled_from(list(oneof.fields))).name
        for oneof in descriptor.oneofs
        if len(oneof.fields) > 1
    }
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in chosen and chosen[oneof.name] != field.name:
            continue
        if draw(st.integers(0, 9)) < (9 if field.name in NEEDED else 4):
            of_kind = messages(field.message_type) if field.message_type else ANYTHING[field.type]
            usual = draw(st.integers(0, 29)) > 0
            fields[field.name] = draw(USUAL.get(field.name, of_kind) if usual else of_kind)
    return GetMessageClass(descriptor)(**fields)


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    directory: Path = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "tiny")
    options = Options(limits=Limits(steps=40, pictures=3))
    with serving(lambda: embedded(directory), options) as target, grpc.insecure_channel(target) as channel:
        yield channel


def code(call: Any) -> str:
    try:
        answer = call()
        if not isinstance(answer, Message):
            assert [*answer][-1].HasField("result")
    except grpc.RpcError as error:
        check_details(error)
        found = str(error.code().name)
    else:
        found = "OK"
    event(found)
    return found


def check_details(error: Any) -> None:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    names = [packed.TypeName() for packed in status.details]
    assert "google.rpc.ErrorInfo" in names
    for packed in status.details:
        bad = error_details_pb2.BadRequest()
        if packed.Unpack(bad):
            (violation,) = bad.field_violations
            assert violation.field
            assert violation.description


@ANY
@given(method=st.sampled_from(UNARY), data=st.data())
def test_any_unary_request_is_answered(channel: grpc.Channel, method: str, data: st.DataObject) -> None:
    request = data.draw(messages(synthesis_pb2.DESCRIPTOR.message_types_by_name[f"{method}Request"]))
    call = getattr(synthesis_pb2_grpc.SynthesisServiceStub(channel), method)
    assert code(lambda: call(request, timeout=30)) in ANSWERS


@ANY
@given(request=messages(synthesis_pb2.StreamSynthesisRequest.DESCRIPTOR))
def test_any_stream_request_is_answered(channel: grpc.Channel, request: Any) -> None:
    stub = synthesis_pb2_grpc.SynthesisServiceStub(channel)
    assert code(lambda: stub.StreamSynthesis(request, timeout=30)) in ANSWERS


@st.composite
def actions(draw: st.DrawFn) -> list[synthesis_pb2.EditRequest]:
    """Of a session, mostly with what edits take from the session left out."""
    drawn = messages(synthesis_pb2.EditRequest.DESCRIPTOR)
    found: list[synthesis_pb2.EditRequest] = [draw(drawn) for _ in range(draw(st.integers(1, 8)))]
    for request in found:
        name = request.apply.task.WhichOneof("task") if request.HasField("apply") else None
        if name is not None and draw(st.integers(0, 9)) > 0:
            for field in ("image", "placement", "size"):
                task: Any = getattr(request.apply.task, name)
                if field in task.DESCRIPTOR.fields_by_name:
                    task.ClearField(field)
    opening = synthesis_pb2.EditRequest(open=synthesis_pb2.OpenPicture(image=PHOTO))
    return [opening, *found] if draw(st.integers(0, 9)) > 0 else found


@ANY
@given(requests=actions())
def test_any_session_of_edits_is_answered(channel: grpc.Channel, requests: list[synthesis_pb2.EditRequest]) -> None:
    stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
    answers = list(stub.Edit(iter(requests), timeout=30))
    ends = [getattr(answer, answer.WhichOneof("event")) for answer in answers if not answer.HasField("frame")]
    edits = sorted(end.edit_id for end in ends if getattr(end, "edit_id", 0))
    assert edits == sorted(request.apply.edit_id for request in requests if request.apply.edit_id)
    for answer in answers:
        found = grpc_code(answer.failure.code) if answer.HasField("failure") else str(answer.WhichOneof("event"))
        event(found)
        assert found in {*ANSWERS, "CANCELLED", "current", "frame", "result"}


def grpc_code(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


@ANY
@given(method=st.sampled_from(("GetModel", "Classify", "ListUnits")), data=st.data())
def test_any_request_about_models_is_answered(channel: grpc.Channel, method: str, data: st.DataObject) -> None:
    request = data.draw(messages(model_pb2.DESCRIPTOR.message_types_by_name[f"{method}Request"]))
    call = getattr(model_pb2_grpc.ModelServiceStub(channel), method)
    assert code(lambda: call(request, timeout=30)) in ANSWERS


@ANY
@given(method=st.sampled_from((*UNARY, "StreamSynthesis")), body=st.binary(max_size=200))
def test_any_bytes_are_answered(channel: grpc.Channel, method: str, body: bytes) -> None:
    path = f"/robust_synthesis.v1.SynthesisService/{method}"
    call: Any = channel.unary_stream(path, None, None)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(body, timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
