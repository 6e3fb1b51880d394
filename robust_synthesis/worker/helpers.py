"""The threads that read a worker's photographs and finish its jobs, beside the one that computes."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

_HELPERS = min(8, os.cpu_count() or 1)
"""numpy, Pillow and zlib work outside the interpreter's lock."""


def helpers() -> ThreadPoolExecutor:
    """Threads that compute with one thread each: on tensors as small as a job's, more only wait for each other."""
    usual, all_there = torch.get_num_threads(), threading.Barrier(_HELPERS)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first look takes what was set last, anywhere; from then on it has its own
        all_there.wait()

    pool = ThreadPoolExecutor(_HELPERS, "job", initializer=begin)
    for begun in [pool.submit(int) for _ in range(_HELPERS)]:
        begun.result()
    torch.set_num_threads(usual)  # for every thread that has not looked yet
    return pool
