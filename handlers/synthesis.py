"""What TorchServe loads from an archive: bundles for a gateway, and whole jobs, picture out, for anyone with curl.

A request has one of: `bundle`, a blob of `robust_synthesis.wire`; `describe`, whatever its value; or the fields of a form,
such as `task=generate` and `target=dog`. TorchServe allows this module one class.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ts.context import Context
from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes
from ts.utils.util import PredictionException

from robust_synthesis import precisions
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.errors import InvalidInput, SynthesisError
from robust_synthesis.memory import keep_memory, settle
from robust_synthesis.worker.compute import Compute

log = logging.getLogger(__name__)


class SynthesisHandler:
    """Not a BaseHandler, which would switch gradients off."""

    def initialize(self, context: Context) -> None:
        """Load the model folder that the archive is, on the GPU that TorchServe gives this worker, and warm up."""
        keep_memory()
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        device = "cpu" if gpu is None or not torch.cuda.is_available() else f"cuda:{gpu}"
        precision = os.environ.get(precisions.VARIABLE, "auto")
        self.compute = Compute(Classifier.load(properties["model_dir"], device=device, precision=precision))
        self.compute.warm_up()
        settle()

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each request; archives say batchSize 1, so an error concerns only the request that has it."""
        return [self._answer(request, i, context) for i, request in enumerate(data)]

    def _answer(self, request: Mapping[str, Any], i: int, context: Context) -> bytes:
        try:
            if "bundle" in request:
                answer, content_type = self.compute.run(_bytes(request["bundle"])), "application/octet-stream"
                self._observe_bundle(i, context)
            elif "describe" in request:
                answer, content_type = json.dumps(self.compute.describe()).encode(), "application/json"
            else:
                answer, content_type = self.compute.whole(_fields(request))
        except SynthesisError as error:
            raise PredictionException(str(error), 400) from None
        except (MemoryError, torch.OutOfMemoryError):
            raise PredictionException("size: the worker has too little memory for it; ask for less.", 507) from None
        except Exception as error:
            log.exception("a request failed")
            raise PredictionException("The worker failed; its log says why.", 500) from error
        context.set_response_content_type(i, content_type)
        if not any(isinstance(header, str) for header in context.get_all_request_header(i).values()):
            # Over gRPC, which has no headers (fields are listed as dicts): a stream must end, or TorchServe kills the worker.
            context.set_response_header(i, "ts_stream_next", "false")
        return answer

    def _observe_bundle(self, i: int, context: Context) -> None:
        """Seconds of the bundle; size of each of its batches, and seconds of a step at that size."""
        if self.compute.last_seconds:  # not where it could not be read
            _observe("ts_bundle_seconds", self.compute.last_seconds, (), i, context)
        for size, steps, seconds in self.compute.last_batches:
            _observe("ts_batch_size", size, (), i, context)
            _observe("ts_step_seconds", seconds / steps, (str(size),), i, context)


def _fields(request: Mapping[str, Any]) -> dict[str, bytes]:
    """A form's fields, or a JSON object's; TorchServe calls everything else that is sent `body`."""
    fields = request.get("body", request)
    if not isinstance(fields, dict):
        raise InvalidInput("body", "is neither a form nor a JSON object; send one, as `curl -F task=generate` does.")
    return {name: _bytes(value) for name, value in fields.items()}


def _bytes(value: Any) -> bytes:
    """TorchServe has decoded what was sent as text or JSON."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def _observe(name: str, value: float, labels: tuple[str, ...], i: int, context: Context) -> None:
    try:
        metric = context.metrics.get_metric(name, MetricTypes.HISTOGRAM)
    except MetricsCacheKeyError:  # this TorchServe does not have our metrics.yaml
        return
    metric.add_or_update(value, [context.model_name, "Model", *labels], context.get_request_id(i))
