"""How processes that compute get memory from the system."""

from __future__ import annotations

import ctypes

_MIB = 2**20
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD, _ARENA_MAX = -3, -1, -2, -8
_OPTIONS = {
    _MMAP_THRESHOLD: 32 * _MIB,  # the largest that glibc takes
    _TRIM_THRESHOLD: 512 * _MIB,
    _TOP_PAD: 64 * _MIB,
    _ARENA_MAX: 1,
}
"""Of mallopt(3)."""


def keep_memory() -> None:
    """Let glibc's malloc keep up to half a GiB that was freed, for the next step to use; elsewhere nothing happens.

    By default it gives the activations of a large batch back after every step and gets them again as pages of zeros, thousands of
    page faults a step: one of 16 pictures of 64 pixels then takes a sixth longer, of 128 pixels a fifth.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    for option, value in _OPTIONS.items():
        mallopt(option, value)
