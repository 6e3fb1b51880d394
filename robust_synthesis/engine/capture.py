"""CUDA graphs: work that is launched at once, where launching its kernels one by one takes longer than they do."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

REHEARSALS = 3
"""What libraries do at the first calls cannot be captured."""

T = TypeVar("T")
_lock = threading.RLock()  # a process captures one graph at a time


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all graphs of a device: memory that was freed serves only the stream that had it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def rehearse(work: Callable[[], object], device: torch.device) -> None:
    """Have the work done a few times, beside what a GPU has to do."""
    if device.type != "cuda":
        for _ in range(REHEARSALS):
            work()
        return
    with _lock:
        here, there = torch.cuda.current_stream(device), _stream(device)
        there.wait_stream(here)
        try:
            with torch.cuda.stream(there):
                for _ in range(REHEARSALS):
                    work()
        finally:
            here.wait_stream(there)


def capture(work: Callable[[], T], device: torch.device, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of rehearsed work, and what the work returned, whose tensors every replay fills anew.

    The graph knows addresses only: whoever replays it keeps what is there. `pool` is that of graphs that never run at the
    same time. Raises OutOfMemoryError, and RuntimeError for work that cannot be captured, such as waiting for the GPU. Meanwhile
    other threads may use the GPU, but not draw random numbers there.
    """
    graph = torch.cuda.CUDAGraph()
    with _lock, torch.cuda.device(device):
        before = torch.cuda.current_stream()
        try:
            # Only this thread's calls, and those of its backward pass, are captured.
            with torch.cuda.graph(graph, pool=pool, stream=_stream(device), capture_error_mode="thread_local"):
                result = work()
        except BaseException:
            torch.cuda.set_stream(before)  # where a capture fails, torch stays on the other
            raise
    return graph, result
