"""What both clients have in common: where they call, and how calls are begun."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

from ..channel import DEADLINE
from ..methods import Answer, TaskMethods
from ..requests import ImageSource
from ..specs import Spec
from ..v1 import model_pb2_grpc, synthesis_pb2_grpc
from .connection import ATTEMPTS, Connection
from .orders import MODELS, SYNTHESIS, Call, Options, Order


class Front(TaskMethods[Answer]):
    """A server, by default what $ROBUST_SYNTHESIS_SERVER says, and a classifier, by default the server's."""

    def __init__(
        self,
        server: str | None = None,
        *,
        model: str = "",
        timeout: float | None = DEADLINE,
        key: str | None = None,
        tls: bool = False,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        """`server` is HOST:PORT. `timeout` is the deadline of calls that have none of their own, seconds; None leaves it to the
        server. `tls` encrypts, trusting the system's authorities, or those of the PEM file `tls_ca`; `tls_cert` and `tls_key` are
        files of a certificate to show (mTLS). `key` is a bearer key, which should not travel in plaintext. Calls are tried up to
        `attempts` times.

        Raises InvalidInput for what cannot be, and OSError for files that cannot be read; connects at the first call.
        """
        self._connection = Connection.to(
            server, key=key, tls=tls, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, attempts=attempts
        )
        self._secrets = self._connection.credentials.channel()
        self._model = model
        self._timeout = timeout
        self._opening = threading.Lock()
        self._opened: Any = None

    @property
    def server(self) -> str:
        """HOST:PORT."""
        return self._connection.server

    def _open(self) -> Any:
        """The channel."""
        raise NotImplementedError

    @property
    def _channel(self) -> Any:
        with self._opening:  # of threads whose first calls come together, one opens it
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    @functools.cached_property
    def _stubs(self) -> dict[str, Any]:
        return {
            SYNTHESIS: synthesis_pb2_grpc.SynthesisServiceStub(self._channel),
            MODELS: model_pb2_grpc.ModelServiceStub(self._channel),
        }

    def _begin(self, call: Call[Any], timeout: float | None) -> Any:
        """gRPC's own object for a call that is under way."""
        method = getattr(self._stubs[call.service], call.method)
        seconds = self._timeout if timeout is None else timeout
        return method(call.request, timeout=seconds, metadata=self._connection.metadata)

    def _begin_edits(self, *requests: Any) -> Any:
        return self._stubs[SYNTHESIS].Edit(*requests, metadata=self._connection.metadata)

    def _order(self, spec: Spec, image: ImageSource | None, mask: ImageSource | None, options: Options) -> Order:
        return Order.of(self.server, self._model, spec, image, mask, options)
