"""Clients of a TorchServe on the loopback interface: bundles over gRPC, models over its management API."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import grpc

from ...bundle import BundleError, BundleTooLarge
from ...errors import SynthesisError
from ...gateway.backends.base import WorkerLost, WorkerUnavailable
from ..engine import UnknownVersion
from .config import LOOPBACK
from .inference_pb2 import PredictionsRequest
from .inference_pb2_grpc import InferenceAPIsServiceStub

if TYPE_CHECKING:
    from .inference_pb2_grpc import InferenceAPIsServiceAsyncStub  # only in the .pyi


class ManagementError(SynthesisError):
    """The management API refused, or did not answer."""


class WorkerDied(WorkerLost):
    """The Python worker died while it computed this."""


class Inference:
    """Unary predictions. TorchServe computes what it was sent even when the call is cancelled."""

    def __init__(self, port: int, token: str, max_bytes: int) -> None:
        limits = [(f"grpc.max_{way}_message_length", max_bytes + 2**16) for way in ("send", "receive")]
        self._channel = grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options=[*limits, ("grpc.enable_retries", 0)])
        self._stub: InferenceAPIsServiceAsyncStub = InferenceAPIsServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._max_bytes = max_bytes

    async def predict(self, model: str, version: str, field: str, value: bytes, timeout: float | None = None) -> bytes:
        """Raises WorkerDied, WorkerLost, WorkerUnavailable, UnknownVersion or BundleError."""
        if len(value) > self._max_bytes:
            raise BundleTooLarge(f"bundle: has {len(value) >> 20} MiB; send at most {self._max_bytes >> 20} MiB.")
        request = PredictionsRequest(model_name=model, model_version=version, input={field: value})
        try:
            reply = await self._stub.Predictions(request, metadata=self._metadata, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise translate(error.code(), error.details() or "") from None  # its own text has the peer, and no more
        return reply.prediction

    async def close(self) -> None:
        await self._channel.close(None)


def translate(code: grpc.StatusCode, details: str) -> SynthesisError:
    """TorchServe says what happened in words; its codes mean several things each."""
    reason = details.partition("\n")[0] or code.name
    if "Worker died" in details:
        return WorkerDied("the worker process died.")
    if "has no worker" in details:
        return WorkerUnavailable("the worker process is starting.")
    if "does not exist for model" in details or "Model not found" in details:
        return UnknownVersion(f"model: {reason}")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return WorkerUnavailable("TorchServe did not take its token.")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return BundleError(reason)
    if code is grpc.StatusCode.UNAVAILABLE and "onnection refused" in details:
        return WorkerUnavailable("TorchServe does not run.")
    return WorkerLost(f"TorchServe failed ({code.name}: {reason}).")


class Management:
    """Models of a TorchServe. Every method raises ManagementError."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    async def register(self, archive: str, timeout: float) -> None:
        """Load an archive of the model store, and wait for its worker."""
        query = urlencode({"url": archive, "initial_workers": 1, "synchronous": "true"})
        await self._call("POST", f"/models?{query}", timeout)

    async def unregister(self, model: str, version: str) -> None:
        await self._call("DELETE", f"/models/{quote(model)}/{quote(version)}", 60)

    async def set_default(self, model: str, version: str) -> None:
        await self._call("PUT", f"/models/{quote(model)}/{quote(version)}/set-default", 30)

    async def worker(self, model: str, version: str, timeout: float = 30) -> tuple[int, bool] | None:
        """Process id of the model's worker, and whether it is ready; None where there is no process now."""
        (described,) = await self._call("GET", f"/models/{quote(model)}/{quote(version)}", timeout)
        for worker in described.get("workers", ()):
            if int(worker.get("pid", 0)) > 0:
                return int(worker["pid"]), worker.get("status") == "READY"
        return None

    async def ping(self, timeout: float) -> None:
        await self._call("GET", "/models?limit=1", timeout)

    async def _call(self, method: str, path: str, timeout: float) -> Any:
        return await asyncio.to_thread(self._call_now, method, path, timeout)

    def _call_now(self, method: str, path: str, timeout: float) -> Any:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=timeout)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ManagementError(f"torchserve: its management API does not answer ({error!r}).") from error
        finally:
            connection.close()
        try:
            found = json.loads(body)
        except ValueError:
            found = {}
        if status >= 300:
            said = found.get("message") if isinstance(found, Mapping) else None
            raise ManagementError(f"torchserve: {said or f'{method} {path} was answered with {status}'}")
        return found
