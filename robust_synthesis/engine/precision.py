"""Which device computes, and where bf16 pays."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch

from ..errors import InvalidInput

PRECISIONS = ("auto", "fp32", "bf16")


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for; by default this process's GPU, or else the CPU. Raises InvalidInput for one that is not there."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise InvalidInput("device", f"is {device!r}; give cpu, cuda or cuda:N.") from error
        if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
            raise InvalidInput(
                "device", f"is {str(chosen)!r}, but there are {torch.cuda.device_count()} GPUs; give cpu."
            )
        return chosen
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bf16 where asked for, or where `auto` finds hardware that multiplies it fast."""
    enabled = precision == "bf16" or (precision == "auto" and _multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.8
    return bool(capabilities.get("avx512_bf16", False))
