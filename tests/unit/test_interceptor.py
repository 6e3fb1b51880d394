"""What calls are counted as, with a clock of our own."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from robust_synthesis.gateway.interceptor import Calls
from robust_synthesis.gateway.seams import Observer


class Context:
    """Of a call with a timeout, or without."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout

    def time_remaining(self) -> float | None:
        return self.timeout

    def set_trailing_metadata(self, metadata: object) -> None: ...


@pytest.mark.parametrize(
    ("timeout", "gone_after", "code"),
    [
        (None, 100.0, "CANCELLED"),
        (10.0, 9.6, "CANCELLED"),
        (10.0, 9.8, "DEADLINE_EXCEEDED"),  # its clock began up to a fifth of a second before
        (300.0, 296.0, "CANCELLED"),
        (300.0, 297.0, "DEADLINE_EXCEEDED"),  # gRPC may have sent 297.1 as 300
        (0.1, 0.04, "CANCELLED"),
        (0.1, 0.06, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_caller_who_is_gone_at_the_deadline_has_not_cancelled(
    timeout: float | None, gone_after: float, code: str
) -> None:
    now = [5.0]
    counted: list[str] = []

    class Counter(Observer):
        def call_finished(self, method: str, code: str, seconds: float) -> None:
            del method, seconds
            counted.append(code)

    async def method(request: object, context: object) -> None:
        now[0] += gone_after
        raise asyncio.CancelledError

    async def handler(details: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(method)

    async def main() -> None:
        calls = Calls(Counter(), clock=lambda: now[0])
        details: Any = type("Details", (), {"method": "/robust_synthesis.v1.SynthesisService/Generate"})
        served: Any = await calls.intercept_service(handler, details)
        with pytest.raises(asyncio.CancelledError):
            await served.unary_unary(None, Context(timeout))

    asyncio.run(main())
    assert counted == [code]
