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
from .handlers import INFRASTRUCTURE, within
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
    Reflection is not among the calls that a caller may have open.
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
        if handler is None or details.method.startswith(INFRASTRUCTURE):
            return handler
        return within(handler, lambda context: self._opened(key, context))

    def _enter(self, key: Key) -> None:
        self._quotas.spend(key.name, self._rate if key.rate is None else key.rate)
        call = calls.current()
        call.caller, call.share = key.name, key.share

    def _opened(self, key: Key | None, context: Context) -> contextlib.AbstractContextManager[None]:
        """While the call runs, it counts as one of the caller's."""
        if key is None:
            key = Key(certificate_name(context.auth_context()))
            self._enter(key)
        most = self._concurrent if key.concurrent is None else key.concurrent
        return self._quotas.opened(key.name, most)


def certificate_name(properties: Mapping[str, Iterable[bytes]]) -> str:
    """What the caller's certificate calls it: common name, else another name, else its hash; empty where it shows none."""
    for name in _NAMES:
        for value in properties.get(name, ()):
            if value:
                return value.decode(errors="replace")[:_LONGEST_NAME]
    for pem in properties.get("x509_pem_cert", ()):
        return hashlib.sha256(pem).hexdigest()[:16]
    return ""
