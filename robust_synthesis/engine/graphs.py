"""Turns of a batch as CUDA graphs, one for each kind of batch: launching hundreds of kernels takes longer than running them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .capture import capture, rehearse
from .problem import Problem, State
from .turn import Differentiable, turn

MOST = 64
"""Kinds of batches (sizes, sides) whose graphs a classifier keeps; that used longest ago goes first."""

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_boards: WeakKeyDictionary[Differentiable, OrderedDict[tuple[Any, ...], Board]] = WeakKeyDictionary()
_ended: dict[torch.device, torch.cuda.Event] = {}


def advance(
    classifier: Differentiable, problem: Problem, state: State, k: int, *, penalised: bool, levels: int | None
) -> tuple[State, Tensor, Tensor, Tensor]:
    """`chunk.advance` on a GPU: the state, and loss, probability and predicted class of each turn [k, B].

    For the options see `turn`. Threads may share a classifier. Raises OutOfMemoryError where there is too little memory even
    without any graph.
    """
    with _lock:
        _wait_for_the_last(state.x.device)
        try:
            found = _advance(classifier, problem, state, k, penalised, levels)
        except torch.OutOfMemoryError:
            found = None  # its traceback, which holds tensors, goes before the next attempt
        if found is None:
            _forget()
            found = _advance(classifier, problem, state, k, penalised, levels)
        if state.x.is_cuda:
            _ended[state.x.device] = torch.cuda.current_stream(state.x.device).record_event()
        return found


def forget() -> None:
    """Free all graphs and their memory. They are recorded again when they are needed."""
    with _lock:
        _forget()


def recorded(classifier: Differentiable) -> int:
    """How many graphs are kept for a classifier."""
    return sum(len(board.graphs()) for board in _boards.get(classifier, OrderedDict()).values())


def _forget() -> None:
    _boards.clear()
    torch.cuda.empty_cache()  # which does nothing where no GPU is in use


def _wait_for_the_last(device: torch.device) -> None:
    """All graphs work in the same memory, so those that another stream has begun come first."""
    if device in _ended:
        torch.cuda.current_stream(device).wait_event(_ended[device])


def _advance(
    classifier: Differentiable, problem: Problem, state: State, k: int, penalised: bool, levels: int | None
) -> tuple[State, Tensor, Tensor, Tensor]:
    boards = _boards.setdefault(classifier, OrderedDict())
    key = (*state.x.shape, state.x.device, penalised, levels)
    board = boards.pop(key, None)  # and kept again unless it fails
    if board is None:
        board = Board(problem, state, penalised=penalised, levels=levels)
    found = board.advance(classifier, problem, state, k)
    boards[key] = board
    if len(boards) > MOST:
        boards.popitem(last=False)
    return found


class Board:
    """The tensors of one kind of batch, which stay where they are for its graphs to read and to write.

    It does not know its classifier, which may go: graphs only know addresses.
    """

    def __init__(self, problem: Problem, state: State, *, penalised: bool, levels: int | None) -> None:
        self.device = state.x.device
        self._turn_of = partial(turn, penalised=penalised, levels=levels)
        self._problem = Problem(**{name: _like(value) for name, value in vars(problem).items()})
        self._state = State(**{name: _like(value, self.device) for name, value in vars(state).items()})
        self._found = torch.empty(2, len(state), device=self.device)
        self._predicted = torch.empty(len(state), dtype=torch.int64, device=self.device)
        self._graphs: dict[bool, torch.cuda.CUDAGraph | None] = {}

    def graphs(self) -> list[torch.cuda.CUDAGraph]:
        """Those that could be recorded."""
        return [graph for graph in self._graphs.values() if graph is not None]

    def advance(
        self, classifier: Differentiable, problem: Problem, state: State, k: int
    ) -> tuple[State, Tensor, Tensor, Tensor]:
        """k turns from a state, which stays as it is."""
        most = int(state.remaining.max())
        kinds = [most - i > 1 for i in range(k)]  # the last evaluation of a job needs no gradient
        for moving in sorted(set(kinds) - self._graphs.keys()):
            self._fill(problem, state)
            self._graphs[moving] = self._record(classifier, moving)
        self._fill(problem, state)
        found = torch.empty(k, *self._found.shape, device=self.device)
        predicted = torch.empty(k, *self._predicted.shape, dtype=self._predicted.dtype, device=self.device)
        for i, moving in enumerate(kinds):
            graph = self._graphs[moving]
            if graph is None:
                self._turn(classifier, moving)
            else:
                graph.replay()
            found[i].copy_(self._found)
            predicted[i].copy_(self._predicted)
        kept = {name: value.clone() for name, value in vars(self._state).items() if name != "remaining"}
        return State(**kept, remaining=(state.remaining - k).clamp_min(0)), found[:, 0], found[:, 1], predicted

    def _fill(self, problem: Problem, state: State) -> None:
        for ours, theirs in ((self._problem, problem), (self._state, state)):
            for name, value in vars(ours).items():
                value.copy_(getattr(theirs, name), non_blocking=True)

    def _turn(self, classifier: Differentiable, moving: bool) -> None:
        now, left = self._state, self._state.remaining
        after, found = self._turn_of(classifier, self._problem, now, left > 0, left > 1 if moving else None)
        for name, value in vars(now).items():
            value.copy_(getattr(after, name))
        left.sub_(1)
        self._found[0].copy_(found.loss)
        self._found[1].copy_(found.probability)
        self._predicted.copy_(found.predicted)

    def _record(self, classifier: Differentiable, moving: bool) -> torch.cuda.CUDAGraph | None:
        """None where it cannot be: its turns are launched kernel by kernel then. Raises OutOfMemoryError."""
        work = partial(self._turn, classifier, moving)
        rehearse(work, self.device)
        try:
            graph, _ = capture(work, self.device, self._pool())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("a CUDA graph could not be recorded, steps will be slower: %s", error)
            return None
        return graph

    def _pool(self) -> Any:
        """The memory that all graphs of a device work in, since they run one at a time; None before the first."""
        boards = [self, *(board for kinds in _boards.values() for board in kinds.values())]
        return next((graph.pool() for board in boards if board.device == self.device for graph in board.graphs()), None)


def _like(value: Tensor, device: torch.device | None = None) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device=device or value.device)
