"""How processes that compute share the cores of a machine."""

from __future__ import annotations

from collections.abc import MutableMapping


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let the threads of a process that will load torch sleep while they wait long for each other, unless told otherwise.

    They spin by default. Where another process has one of the cores, the others then wait for it through whole time slices
    at every layer: a step of 7 ms has been seen to take 680. To sleep at once is as bad a choice: a step at batch 1 has some
    hundred waits of microseconds, and waking up takes longer. So they spin for some tenths of a millisecond;
    GOMP_SPINCOUNT is libgomp's, which torch's wheels for Linux have.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", "30000")
