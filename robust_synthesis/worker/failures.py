"""What a gateway hears of a job that could not go on."""

from __future__ import annotations

import logging

import torch

from ..bundle import Failure
from ..errors import InvalidInput

log = logging.getLogger(__name__)
NOT_A_NUMBER = InvalidInput("loss", "is not a number; lower the step size or the weights of the objective.")


def failure_of(error: Exception) -> Failure:
    """Also logs one that nobody expected."""
    if _out_of_memory(error):
        return Failure("memory", "the worker has too little memory for it; ask for a smaller size.", "size")
    failure = Failure.of(error)
    if failure.kind == "internal":
        log.error("a job failed", exc_info=error)
    return failure


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
