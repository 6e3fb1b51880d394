"""What processes keep: memory of the system for the next step, and what is there when they are ready."""

from __future__ import annotations

import ctypes
import gc
import os

_MIB = 2**20
_OPTIONS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 * _MIB),  # the largest that glibc takes
    "MALLOC_TRIM_THRESHOLD_": (-1, 512 * _MIB),
    "MALLOC_TOP_PAD_": (-2, 64 * _MIB),
    # Arenas but the first are made of parts of 64 MiB, which go back as soon as they are empty.
    "MALLOC_ARENA_MAX": (-8, 1),
}
"""Numbers and values of mallopt(3), by the variable of the environment that sets the same."""


def keep_memory() -> None:
    """Let glibc's malloc keep up to half a GiB that was freed, for the next step to use; elsewhere nothing happens.

    By default it gives the activations of a large batch back after every step and gets them again as pages of zeros, thousands
    of page faults a step: one of 16 pictures of 64 pixels then takes a sixth longer, of 128 pixels a fifth. What the environment
    sets stays. Call it before there are threads, which take arenas of their own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    for variable, (option, value) in _OPTIONS.items():
        if variable not in os.environ and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
            mallopt(option, value)


def settle() -> None:
    """Leave what there is by now out of every later garbage collection; call it when a process is ready.

    Modules, networks and servers are some 240,000 objects that stay, and looking at all of them stops everything for 0.1 s.
    """
    gc.collect()
    gc.freeze()
