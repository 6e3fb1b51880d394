"""Every exception as the status that a caller can read."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from robust_synthesis.errors import DataError, InvalidInput, ModelError, NotFound, Unauthenticated
from robust_synthesis.gateway.errors import (
    Cancelled,
    DeadlineExceeded,
    JobLost,
    Overloaded,
    QuotaExceeded,
    ShuttingDown,
    Unsuitable,
)
from robust_synthesis.gateway.statuses import (
    INTERNAL_MESSAGE,
    is_expected,
    status_of,
    to_grpc,
    trailers_of,
)

DETAILS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
}


def details(status: status_pb2.Status) -> dict[str, Any]:
    found = {}
    for packed in status.details:
        detail: Message = DETAILS[packed.TypeName()]()
        assert packed.Unpack(detail)
        found[type(detail).__name__] = detail
    return found


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidInput("spec.image", "is empty."), "INVALID_ARGUMENT", "INVALID_INPUT"),
        (NotFound("spec.target", "cta", ["cat"]), "NOT_FOUND", "NOT_FOUND"),
        (Unsuitable("x"), "FAILED_PRECONDITION", "UNSUITABLE_MODEL"),
        (Overloaded("x", retry_after_seconds=1), "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (QuotaExceeded("x", retry_after_seconds=1), "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (Unauthenticated("x"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (DeadlineExceeded("x"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        (ShuttingDown("x"), "UNAVAILABLE", "SHUTTING_DOWN"),
        (JobLost("x"), "ABORTED", "JOB_LOST"),
        (Cancelled("x"), "CANCELLED", "CANCELLED"),
    ],
)
def test_every_error_has_its_code_and_reason(error: Exception, code: str, reason: str) -> None:
    status = status_of(error)
    assert (status.code, status.message) == (grpc.StatusCode[code].value[0], str(error))
    info = details(status)["ErrorInfo"]
    assert (info.domain, info.reason) == ("robust-synthesis", reason)
    assert is_expected(error)


def test_a_field_that_cannot_be_used_is_a_violation() -> None:
    for error in (InvalidInput("spec.image", "is empty."), NotFound("spec.target", "cta", ["cat"])):
        (violation,) = details(status_of(error))["BadRequest"].field_violations
        assert (violation.field, violation.description) == (error.field, error.message)


def test_overload_says_when_to_come_back() -> None:
    error = Overloaded("full.", retry_after_seconds=2.0004)
    delay = details(status_of(error))["RetryInfo"].retry_delay
    assert delay.ToMilliseconds() == 2001
    assert trailers_of(error) == (("grpc-retry-pushback-ms", "2001"),)
    assert trailers_of(ShuttingDown("x")) == ()


@pytest.mark.parametrize(
    "error", [RuntimeError("secret /path"), ModelError("secret"), DataError("secret"), KeyError(1)]
)
def test_what_is_not_in_the_table_says_nothing_of_itself(error: Exception) -> None:
    status = status_of(error)
    assert (status.code, status.message) == (grpc.StatusCode.INTERNAL.value[0], INTERNAL_MESSAGE)
    assert details(status)["ErrorInfo"].reason == "INTERNAL"
    assert not is_expected(error)
    assert b"secret" not in status.SerializeToString()


@pytest.mark.parametrize("letter", ["x", "é", "\N{ARTIST PALETTE}"])
def test_a_message_of_any_length_fits_what_clients_accept_of_trailers(letter: str) -> None:
    status = status_of(InvalidInput("spec.target", letter * 10**6))
    message, trailers = to_grpc(status)
    assert message.endswith(letter + "...")
    ((_, packed),) = trailers
    assert isinstance(packed, bytes)
    assert len(quote(message)) + len(base64.b64encode(packed)) < 7 * 2**10


def test_grpc_gets_message_and_details() -> None:
    status = status_of(InvalidInput("spec.image", "is empty."))
    message, trailers = to_grpc(status)
    assert message == "spec.image: is empty."
    assert dict(trailers) == {"grpc-status-details-bin": status.SerializeToString()}
