"""Why a call has no result: statuses of gRPC, with the details that the server gave, as exceptions.

SynthesisError
├── InvalidInput, NotFound   a field that cannot be used as given; the names are those of this client's parameters
├── Unsuitable               the classifier cannot do the task
└── ServerError              with the name of the gRPC status, the server's reason and its id of the call
    ├── Unavailable          nobody answers, or who does is stopping; tried again several times already
    ├── Overloaded           no room for more work now, tried again already; says when to come back
    │   └── QuotaExceeded    none for this caller's
    ├── DeadlineExceeded     there was no result in time, or there would be none
    ├── Unauthenticated      the key or the certificate is missing, wrong or expired
    ├── Cancelled            by this side; of an edit, also because another one took its place
    ├── JobLost              workers failed at it again and again
    └── ServerFailed         anything else
"""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from ..channel import REQUEST_ID
from ..errors import InvalidInput, NotFound, ServerError, SynthesisError

_STATUS_DETAILS = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PARAMETERS = {
    "brush": "unit",
    "unit_name": "unit",
    "region": "mask",
    "descent": "loss",
    "apply": "edit",
}
"""What this client calls a field of the contract, where that differs."""


class Unsuitable(SynthesisError):
    """The classifier cannot do this task, whatever the other parameters."""


class Unavailable(ServerError):
    """Nobody answers at the server's address, or who does is stopping."""


class Overloaded(ServerError):
    """The server has as much work as it accepts."""

    retry_after_seconds: float = 1.0
    """When the server would like to be asked again."""


class QuotaExceeded(Overloaded):
    """The caller has had, or has under way, as much as it may."""


class DeadlineExceeded(ServerError):
    """There was no result in time."""


class Unauthenticated(ServerError):
    """The server does not know who calls."""


class Cancelled(ServerError):
    """The call, or the edit, was taken back."""


class JobLost(ServerError):
    """No worker could compute it, though others may go on."""


class ServerFailed(ServerError):
    """The server has made a mistake, or speaks another version of the contract."""


_KINDS: dict[grpc.StatusCode, type[ServerError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.ABORTED: JobLost,
}


def error_of(error: grpc.RpcError, server: str) -> SynthesisError:
    """The exception for a call that failed."""
    call: Any = error
    trailing = dict(call.trailing_metadata() or ())
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    with contextlib.suppress(DecodeError):  # somebody else's, between us and the server
        status.MergeFromString(trailing.get(_STATUS_DETAILS, b""))
    return of_status(status, server, str(trailing.get(REQUEST_ID, "")))


def of_status(status: status_pb2.Status, server: str, request_id: str = "") -> SynthesisError:
    """The exception for a status with its details."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    bad = _detail(status, error_details_pb2.BadRequest)
    if bad.field_violations and code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        violation = bad.field_violations[0]
        field = violation.field.rpartition(".")[2]
        return _refusal(code, _PARAMETERS.get(field, field), violation.description)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return Unsuitable(status.message)
    reason = _detail(status, error_details_pb2.ErrorInfo).reason
    kind = QuotaExceeded if reason == "QUOTA_EXCEEDED" else _KINDS.get(code, ServerFailed)
    message = status.message if reason else _sentence(code, status.message, server)
    found = kind(message, code=code.name, reason=reason, request_id=request_id)
    retry = _detail(status, error_details_pb2.RetryInfo)
    if isinstance(found, Overloaded) and retry.HasField("retry_delay"):
        found.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return found


def _refusal(code: grpc.StatusCode, field: str, message: str) -> InvalidInput:
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidInput(field, message)
    error = NotFound(field, "", ())
    error.message = message
    return error.at(field)


def _sentence(code: grpc.StatusCode, details: str, server: str) -> str:
    """For what gRPC itself has to say."""
    match code:
        case grpc.StatusCode.UNAVAILABLE if "before receiving SETTINGS" in details:
            remedy = "it may be starting: try again in a while, or check the address and TLS."
            return f"server: {server} does not answer ({details}); {remedy}"
        case grpc.StatusCode.UNAVAILABLE:
            return f"server: {server} cannot be reached ({details}); check the address, TLS, and whether it runs."
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: {server} had no result in time; allow more."
        case grpc.StatusCode.CANCELLED:
            return "cancelled: the caller took the request back."
        case _:
            return f"server: {server} says {code.name} ({details or 'and no more'})."


def _detail(status: status_pb2.Status, kind: type[Any]) -> Any:
    """The first detail of its kind, or an empty one."""
    found: Message = kind()
    for packed in status.details:
        if packed.Is(found.DESCRIPTOR) and packed.Unpack(found):
            break
    return found
