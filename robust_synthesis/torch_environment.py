"""What the libraries below torch read from the environment when they are loaded."""

from __future__ import annotations

from collections.abc import MutableMapping


def prepare(environment: MutableMapping[str, str]) -> None:
    """For a process that will load torch: how its threads share the cores, and how many kernels it keeps, unless told otherwise.

    Threads spin by default while they wait for each other. Where another process has one of the cores, they then wait for it
    through whole time slices at every layer: a step of 7 ms has been seen to take 680. To sleep at once is as bad a choice: a
    step at batch 1 has some hundred waits of microseconds, and waking up takes longer. So they spin for some tenths of a
    millisecond; GOMP_SPINCOUNT is libgomp's, which torch's wheels for Linux have.

    oneDNN keeps 1,024 kernels by default, of which a classifier takes some 40 for each kind of batch, of sixteen sizes at every
    image size. To make these again takes 20 ms.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", "30000")
    environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
