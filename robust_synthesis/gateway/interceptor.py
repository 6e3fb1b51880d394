"""What all calls have in common: an id, a status for whatever they raise, a line in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from ..channel import REQUEST_ID
from .calls import Call, begin
from .errors import ShuttingDown
from .handlers import INFRASTRUCTURE, handler_of, method_of
from .seams import Observer
from .statuses import is_expected, status_of, to_grpc, trailers_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

log = logging.getLogger(__name__)


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The outermost interceptor; what those below it raise becomes a status, too."""

    def __init__(self, observer: Observer | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer or Observer()
        self._clock = clock
        self.draining = False
        """Refuse what is new."""
        self._open = 0
        self._changed = asyncio.Event()

    async def idle(self, seconds: float, *, quiet: float = 0.0) -> None:
        """Until no call is open, and none has come for a while, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open or await self._comes_within(quiet):
                    self._changed.clear()
                    if self._open:
                        await self._changed.wait()

    async def _comes_within(self, seconds: float) -> bool:
        """Whether a call has come, and perhaps ended, within so many seconds from now."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._changed.wait()
        except TimeoutError:
            return self._open > 0

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        call = Call(details.method)
        begin(call)
        try:
            handler = await continuation(details)
        except Exception as error:
            return self._refusal(error, call)
        if handler is None:
            self._observer.call_finished(call.method, grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            return handler
        if call.method.startswith(INFRASTRUCTURE):
            return handler
        if self.draining:
            return self._refusal(ShuttingDown("the gateway is stopping; send the request again."), call)
        return self._served(handler, call)

    def _served(self, handler: Handler, call: Call) -> Handler:
        method = method_of(handler)

        async def behaviour(request: Any, context: Context) -> Any:
            async with self._call(call, context):
                if not handler.response_streaming:
                    return await method(request, context)
                async with contextlib.aclosing(method(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)
            return None

        return handler_of(handler.request_streaming, handler.response_streaming)(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _refusal(self, error: Exception, call: Call) -> Handler:
        async def refuse(_: object, context: Context) -> None:
            async with self._call(call, context):
                raise error

        return grpc.stream_stream_rpc_method_handler(refuse)  # fits every method: it waits for no request

    @contextlib.asynccontextmanager
    async def _call(self, call: Call, context: Context) -> AsyncIterator[None]:
        started, code = self._clock(), grpc.StatusCode.OK
        timeout = context.time_remaining()
        self._open += 1
        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        try:
            yield
        except asyncio.CancelledError:
            overdue = timeout is not None and self._clock() - started > timeout - _sooner(timeout)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if overdue else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.InternalError as error:  # a write failed, which it does where the caller is gone
            code = grpc.StatusCode.CANCELLED
            raise asyncio.CancelledError from error
        except grpc.aio.AbortError:
            code = grpc.StatusCode.UNKNOWN
            raise
        except Exception as error:
            status = status_of(error)
            code = _CODES[status.code]
            if not is_expected(error):
                log.error("%s failed", call.method, exc_info=error, extra={"request_id": call.id})
            message, trailers = to_grpc(status)
            await context.abort(code, message, (*trailers, *trailers_of(error), (REQUEST_ID, call.id)))
        finally:
            self._open -= 1
            self._changed.set()
            seconds = self._clock() - started
            self._observer.call_finished(call.method, code.name, seconds)
            fields = {"request_id": call.id, "caller": call.caller, "method": call.method, "code": code.name}
            log.info("%s %s in %.3f s", call.method, code.name, seconds, extra=fields | {"seconds": round(seconds, 6)})


def _sooner(timeout: float) -> float:
    """Seconds by which a caller may give up at the deadline before it passes here.

    The caller's clock starts first: by the time that the call takes to arrive, a fifth of a second on a busy machine; and gRPC
    sends timeouts rounded up, by one per cent at most. Of a shorter timeout, half of it is the caller's own cancellation.
    """
    return min(0.2 + 0.01 * timeout, timeout / 2)


_CODES = {code.value[0]: code for code in grpc.StatusCode}
