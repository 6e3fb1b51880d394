"""A step of training as a CUDA graph: launching its thousand kernels one by one takes a GPU longer than running them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from ..engine.capture import capture, rehearse

Step = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> loss [], and gradients in the parameters' `grad`. It draws no random numbers."""

_log = logging.getLogger(__name__)


class Recorded:
    """`step`, recorded with the first batch and replayed from then on: every batch must have the shape of the first.

    The gradients stay where they are from step to step, so nobody may set them to None.
    """

    def __init__(self, step: Step, network: nn.Module) -> None:
        self._step, self._network = step, network
        self._ready = False

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if not self._ready:
            self._record(images, labels)
        if self._replay is None:
            return self._step(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()
        return self._loss.clone()

    def _record(self, images: Tensor, labels: Tensor) -> None:
        self._ready = True
        self._images, self._labels = images.clone(), labels.clone()
        self._replay: Callable[[], object] | None = None
        work = partial(self._step, self._images, self._labels)
        with _as_it_was(self._network):
            rehearse(work, images.device)
        try:
            graph, self._loss = capture(work, images.device)
            self._replay = graph.replay
        except RuntimeError as error:
            _log.warning("a CUDA graph could not be recorded, steps will be slower: %s", error)


@contextlib.contextmanager
def _as_it_was(network: nn.Module) -> Iterator[None]:
    """Leaves a network without gradients and with the buffers that it had."""
    kept = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), kept, strict=True):
                buffer.copy_(before)
        network.zero_grad(set_to_none=True)
