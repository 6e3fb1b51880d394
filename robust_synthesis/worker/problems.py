"""The fixed problems of jobs in flight, so that each travels to a worker only once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..bundle import FixedProblem
from ..engine.classifier import Classifier
from ..engine.problem import Problem
from . import transport


class Problems:
    """The most recently used problems on the classifier's device, by address, up to a number of bytes; for many threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, Problem] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, address: str) -> Problem | None:
        with self._lock:
            if address in self._kept:
                self._kept.move_to_end(address)
            return self._kept.get(address)

    def add(self, sent: FixedProblem, classifier: Classifier) -> Problem:
        """The problem as tensors. Raises InvalidInput for one that this classifier cannot have."""
        address = sent.address
        known = self.get(address)
        if known is not None:
            return known
        problem = transport.problem(sent, classifier)
        with self._lock:
            self._forget(address)  # where another job of the bundle has the same
            self._kept[address] = problem
            self._bytes += _size(problem)
            while self._bytes > self.max_bytes and len(self._kept) > 1:
                self._forget(next(iter(self._kept)))
        return problem

    def drop(self, address: str) -> None:
        """Forget the problem of a job that is done."""
        with self._lock:
            self._forget(address)

    def _forget(self, address: str) -> None:
        if (problem := self._kept.pop(address, None)) is not None:
            self._bytes -= _size(problem)


def _size(problem: Problem) -> int:
    return problem.center.nbytes + problem.mask.nbytes
