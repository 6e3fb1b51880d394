"""Who calls: by the key that is shown, or else by the certificate; and whether one more call is allowed."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from ..keys import Key, KeyFile
from ..security import HEALTH
from . import calls
from .quotas import Quotas

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

CONCURRENT = 256
"""Requests at a time of a caller whose key does not say."""
_NAMES = ("x509_common_name", "x509_subject_alternative_name")
_LONGEST_NAME = 128


class Authentication(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Fills in the call's caller, or raises Unauthenticated or QuotaExceeded. Stands below `interceptor.Calls`.

    Every method but health needs a key, where there are keys. Who shows none is refused before the request's body is read.
    """

    def __init__(
        self,
        keys: KeyFile | None = None,
        *,
        rate: float | None = None,
        concurrent: int = CONCURRENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` (requests a minute) and `concurrent` are for those whose key does not say."""
        self._keys = keys
        self._rate = rate
        self._concurrent = concurrent
        self._quotas = Quotas(clock)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        if details.method.startswith(HEALTH):
            return await continuation(details)
        key = None if self._keys is None else self._keys.find(details.invocation_metadata or ())
        if key is not None:
            self._enter(key)
        handler = await continuation(details)
        return handler and self._counted(handler, key)

    def _enter(self, key: Key) -> None:
        self._quotas.spend(key.name, self._rate if key.rate is None else key.rate)
        call = calls.current()
        call.caller, call.share = key.name, key.share

    def _counted(self, handler: Handler, key: Key | None) -> Handler:
        """The handler, which counts while it runs as one of the caller's."""
        kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
        method: Any = next(kind for kind in kinds if kind is not None)

        def opened(context: Context) -> contextlib.AbstractContextManager[None]:
            known = key
            if known is None:
                known = Key(certificate_name(context.auth_context()))
                self._enter(known)
            most = self._concurrent if known.concurrent is None else known.concurrent
            return self._quotas.opened(known.name, most)

        async def answer(request: Any, context: Context) -> Any:
            with opened(context):
                return await method(request, context)

        async def stream(request: Any, context: Context) -> Any:
            with opened(context):
                async with contextlib.aclosing(method(request, context)) as responses:
                    async for response in responses:
                        yield response

        return _like(handler, stream if handler.response_streaming else answer)


def certificate_name(properties: Mapping[str, Iterable[bytes]]) -> str:
    """What the caller's certificate calls it: common name, else another name, else its hash; empty where it shows none."""
    for name in _NAMES:
        for value in properties.get(name, ()):
            if value:
                return value.decode(errors="replace")[:_LONGEST_NAME]
    for pem in properties.get("x509_pem_cert", ()):
        return hashlib.sha256(pem).hexdigest()[:16]
    return ""


def _like(handler: Handler, behaviour: Any) -> Handler:
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    maker: Any = makers[bool(handler.request_streaming), bool(handler.response_streaming)]
    made: Handler = maker(behaviour, handler.request_deserializer, handler.response_serializer)
    return made
