"""The fixed problems of jobs in flight, so that each travels to a worker only once."""

from __future__ import annotations

from ..bundle import FixedProblem
from ..engine.classifier import Classifier
from ..engine.problem import Problem
from . import transport
from .kept import Kept


class Problems(Kept[Problem]):
    """Problems on the classifier's device, by address."""

    def add(self, sent: FixedProblem, classifier: Classifier) -> Problem:
        """The problem as tensors. Raises InvalidInput for one that this classifier cannot have."""
        known = self.get(sent.address)
        return self.keep(sent, transport.problem(sent, classifier)) if known is None else known

    def keep(self, sent: FixedProblem, problem: Problem) -> Problem:
        """`problem`, which is `sent` as tensors on the device, or what is here already for it."""
        known = self.get(sent.address)
        if known is not None:
            return known
        self.put(sent.address, problem, problem.center.nbytes + problem.mask.nbytes)
        return problem
