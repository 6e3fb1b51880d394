"""Which status a call ends with, for every exception: google.rpc.Status with details that programs can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from ..channel import DOMAIN, PUSHBACK
from ..errors import InvalidInput, NotFound, Unauthenticated
from .errors import (
    Cancelled,
    DeadlineExceeded,
    JobLost,
    NoWorker,
    Overloaded,
    QuotaExceeded,
    SessionIdle,
    ShuttingDown,
    Unsuitable,
)

INTERNAL_MESSAGE = "the gateway has failed at this request; its log has the reason under the request id."
MAX_MESSAGE = 1000
"""Bytes. It travels three times, in trailers of which most clients accept 8 KiB: percent-encoded, and twice in the details."""
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Row:
    """What an exception becomes."""

    error: type[Exception]
    code: code_pb2.Code
    reason: str
    details: Callable[..., Sequence[Message]] = lambda _: ()


def _violation(error: InvalidInput) -> Sequence[Message]:
    violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=_short(error.message))
    return (error_details_pb2.BadRequest(field_violations=[violation]),)


def _retry(error: Overloaded) -> Sequence[Message]:
    delay = Duration()
    delay.FromMilliseconds(_milliseconds(error))
    return (error_details_pb2.RetryInfo(retry_delay=delay),)


TABLE = (
    Row(NotFound, code_pb2.NOT_FOUND, "NOT_FOUND", _violation),
    Row(InvalidInput, code_pb2.INVALID_ARGUMENT, "INVALID_INPUT", _violation),
    Row(Unsuitable, code_pb2.FAILED_PRECONDITION, "UNSUITABLE_MODEL"),
    Row(QuotaExceeded, code_pb2.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", _retry),
    Row(Overloaded, code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED", _retry),
    Row(Unauthenticated, code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    Row(SessionIdle, code_pb2.DEADLINE_EXCEEDED, "SESSION_IDLE"),
    Row(DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    Row(ShuttingDown, code_pb2.UNAVAILABLE, "SHUTTING_DOWN"),
    Row(NoWorker, code_pb2.UNAVAILABLE, "NO_WORKER"),
    Row(JobLost, code_pb2.ABORTED, "JOB_LOST"),
    Row(Cancelled, code_pb2.CANCELLED, "CANCELLED"),
)
"""The first row that fits counts."""


def status_of(error: BaseException) -> status_pb2.Status:
    """What a caller is told. An exception that is not in the table says nothing of itself: it is the log's."""
    row = next((row for row in TABLE if isinstance(error, row.error)), None)
    if row is None:
        message, row = INTERNAL_MESSAGE, Row(Exception, code_pb2.INTERNAL, "INTERNAL")
    else:
        message = _short(str(error))
    info = error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN)
    details = [_packed(detail) for detail in (info, *row.details(error))]
    return status_pb2.Status(code=int(row.code), message=message, details=details)


def is_expected(error: BaseException) -> bool:
    """Whether the table has it, so that the log needs no trace."""
    return isinstance(error, tuple(row.error for row in TABLE))


def trailers_of(error: BaseException) -> Metadata:
    """Trailing metadata that goes with the status, beside the status itself."""
    return ((PUSHBACK, str(_milliseconds(error))),) if isinstance(error, Overloaded) else ()


def to_grpc(status: status_pb2.Status) -> tuple[str, Metadata]:
    """Message and trailing metadata for `context.abort`."""
    converted = rpc_status.to_status(status)
    return converted.details, tuple(converted.trailing_metadata)


def _milliseconds(error: Overloaded) -> int:
    return max(1, math.ceil(1000 * error.retry_after_seconds))


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _short(text: str) -> str:
    encoded = text.encode(errors="replace")
    return encoded.decode() if len(encoded) <= MAX_MESSAGE else encoded[:MAX_MESSAGE].decode(errors="ignore") + "..."
