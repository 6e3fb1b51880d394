"""Workers whose steps sleep as long whatever the batch, as a GPU computes, which leaves the CPU to everything else."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from robust_synthesis.worker import compute

INJECTION = Path(__file__).parent.parent / "tests/integration/injection"
SLEEP: Mapping[int, float] = {64: 0.0025, 224: 0.015}
"""Seconds of a step: a full-width ResNet-18 at 16 images of 64 pixels, and at 8 of 224, on a data-centre GPU."""


def environment(seconds: float) -> dict[str, str]:
    """What to give a process that workers are in."""
    before = os.environ.get("PYTHONPATH")
    return {"INJECT_SLEEP": str(seconds), "PYTHONPATH": f"{INJECTION}:{before}" if before else str(INJECTION)}


@contextlib.contextmanager
def sleeping(seconds: float) -> Iterator[None]:
    """This process's workers."""
    real = {name: getattr(compute.Compute, name) for name in ("_evaluate", "warm_up")}
    with mock.patch.dict(os.environ, INJECT_SLEEP=str(seconds)), mock.patch.multiple(compute.Compute, **real):
        _injection().patch(compute)
        yield


def _injection() -> Any:
    spec = importlib.util.spec_from_file_location("injection", INJECTION / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
