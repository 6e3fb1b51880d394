"""Which device computes, where bf16 pays, and that fp32 and equal bits are what they say."""

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
        except (RuntimeError, TypeError) as error:
            raise InvalidInput("device", f"is {device!r}; give cpu, cuda or cuda:N.") from error
        if chosen.type not in ("cpu", "cuda"):
            raise InvalidInput("device", f"is {str(chosen)!r}, which is not supported; give cpu, cuda or cuda:N.")
        if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
            raise InvalidInput(
                "device", f"is {str(chosen)!r}, but there are {torch.cuda.device_count()} GPUs; give cpu."
            )
        return chosen
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def choose_precision(device: torch.device, precision: str) -> str:
    """fp32 or bf16, which is what `auto` becomes on hardware that multiplies it fast. Raises InvalidInput for another."""
    if precision not in PRECISIONS:
        raise InvalidInput("precision", f"is {precision!r}; give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.")
    if precision == "auto":
        return "bf16" if _multiplies_bf16(device) else "fp32"
    return precision


def compute_exactly(device: torch.device) -> None:
    """Have cuDNN keep all bits of fp32, and find the same bits every time; on a CPU there is nothing to do.

    By default its convolutions round fp32 to the 10 bits of TF32, and some of its gradients add up in an order that
    changes from run to run: the same seed would give another picture, and a resumed training other weights.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which a network computes in `choose_precision(device, precision)`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=choose_precision(device, precision) == "bf16")


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.8
    return bool(capabilities.get("avx512_bf16", False))
