"""A gateway with all its parts, as its settings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from ..errors import InvalidInput
from ..model_folder import models_directory
from .admission import BoundedAdmission
from .authentication import Authentication
from .backends.base import Backend
from .config import Settings
from .server import Gateway


def gateway_of(
    settings: Settings,
    backend: Backend | None = None,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    **parts: Any,
) -> Gateway:
    """`parts` are further parameters of `Gateway`. Raises InvalidInput, and OSError for files that cannot be read."""
    endpoint = settings.endpoint
    authentication = Authentication(endpoint.key_file(), rate=settings.rate, concurrent=settings.concurrent)
    return Gateway(
        backend or backend_of(settings),
        settings.options,
        admission=BoundedAdmission(settings.bounds),
        interceptors=[*interceptors, authentication],
        credentials=endpoint.credentials(),
        **parts,
    )


def backend_of(settings: Settings) -> Backend:
    """Raises InvalidInput. Only the embedded backend needs torch."""
    if settings.computes == "remote":
        from .backends.remote import Remote

        return Remote(settings.workers, settings.credentials)
    from ..worker.shelf import Places
    from .backends.engine import EngineBackend

    directory = settings.models or models_directory()
    if not directory.is_dir():
        raise InvalidInput("models", f"{directory} is not a folder; give the one that holds the classifiers.")
    precision = settings.precision or "auto"
    if settings.computes == "torchserve":
        from ..worker import torchserve

        parameters = torchserve.Settings(device=settings.device, precision=precision)
        return EngineBackend(torchserve.TorchServe(Places(directory), settings=parameters))
    from ..worker.engine import InProcess

    return EngineBackend(InProcess(Places(directory), device=settings.device, precision=precision))
