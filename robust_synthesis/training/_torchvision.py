"""torchvision beside a CPU-only torch.

The wheel of torchvision on PyPI is the CUDA build: beside a CPU-only torch its compiled operators cannot load, and the
import fails because two schemas are missing. Declaring them lets data sets, models and transforms work.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

_declared: list[Any] = []


def torchvision() -> ModuleType:
    """The torchvision module, imported on first use."""
    try:
        import torchvision as module
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared:
            raise
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision as module
    return module  # type: ignore[no-any-return]
