"""CUDA graphs: work that is launched at once, where launching its kernels one by one takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

REHEARSALS = 3
"""What libraries do at the first calls cannot be captured."""

T = TypeVar("T")


def rehearse(work: Callable[[], object], device: torch.device) -> None:
    """Have the work done a few times, beside what a GPU has to do."""
    if device.type != "cuda":
        for _ in range(REHEARSALS):
            work()
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(REHEARSALS):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)


def capture(work: Callable[[], T], device: torch.device, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of rehearsed work, and what the work returned, whose tensors every replay fills anew.

    The graph knows addresses only: whoever replays it keeps what is there. `pool` is that of graphs that never run at the
    same time. Raises RuntimeError for work that cannot be captured, such as waiting for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # Other threads may go on using the GPU: only what this one and its backward pass do is captured.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = work()
    return graph, result
