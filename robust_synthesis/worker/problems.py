"""The fixed problems of jobs in flight, so that each travels to a worker only once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..bundle import FixedProblem
from ..engine.classifier import Classifier
from ..engine.problem import Problem
from . import transport


class Problems:
    """The most recently used problems on the classifier's device, by address; many threads may use it.

    It keeps them up to a number of bytes, and each for a number of bundles after its last use: its job has gone elsewhere
    by then, or was cancelled.
    """

    def __init__(self, max_bytes: int = 64 * 2**20, max_age: int = 128) -> None:
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._kept: OrderedDict[str, tuple[Problem, int]] = OrderedDict()
        """With the bundle that used it last; the least recently used is first."""
        self._bytes = 0
        self._bundle = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def next_bundle(self) -> None:
        """Another bundle begins."""
        with self._lock:
            self._bundle += 1
            while self._kept and self._bundle - next(iter(self._kept.values()))[1] > self.max_age:
                self._forget(next(iter(self._kept)))

    def get(self, address: str) -> Problem | None:
        with self._lock:
            if address not in self._kept:
                return None
            problem, _ = self._kept[address]
            self._kept[address] = problem, self._bundle
            self._kept.move_to_end(address)
            return problem

    def add(self, sent: FixedProblem, classifier: Classifier) -> Problem:
        """The problem as tensors. Raises InvalidInput for one that this classifier cannot have."""
        address = sent.address
        known = self.get(address)
        if known is not None:
            return known
        problem = transport.problem(sent, classifier)
        with self._lock:
            self._forget(address)  # where another job of the bundle has the same
            self._kept[address] = problem, self._bundle
            self._bytes += _size(problem)
            while self._bytes > self.max_bytes and len(self._kept) > 1:
                self._forget(next(iter(self._kept)))
        return problem

    def drop(self, address: str) -> None:
        """Forget the problem of a job that is done."""
        with self._lock:
            self._forget(address)

    def _forget(self, address: str) -> None:
        if address in self._kept:
            self._bytes -= _size(self._kept.pop(address)[0])


def _size(problem: Problem) -> int:
    return problem.center.nbytes + problem.mask.nbytes
