"""Which device computes, where bf16 and int8 pay, and that fp32 and equal bits are what they say."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import torch

from ..errors import InvalidInput
from ..precisions import PRECISIONS
from .instructions import cpu_has
from .quantised import SIGNED_MAX, Quantisation, QuantisedConv2d


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


def choose_precision(device: torch.device, precision: str, *, int8: bool = False) -> str:
    """The precision asked for; `auto` becomes the fastest on this hardware, int8 only of a calibrated classifier (`int8`).

    Raises InvalidInput for another, and for int8 where it cannot be.
    """
    if precision not in PRECISIONS:
        raise InvalidInput("precision", f"is {precision!r}; give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.")
    if precision == "int8":
        if not multiplies_int8(device):
            raise InvalidInput(
                "precision", "int8 needs a CPU that multiplies bytes (AVX2), and torch 2.9; give auto, fp32 or bf16."
            )
        if not int8:
            raise InvalidInput(
                "precision",
                "int8 needs a ResNet of basic blocks that `robust-synthesis calibrate` has measured; give auto, fp32 or bf16.",
            )
    if precision == "auto":
        if int8 and multiplies_int8(device):
            return "int8"
        return "bf16" if multiplies_bf16(device) else "fp32"
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


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 faster than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has("avx512_bf16")


def multiplies_int8(device: torch.device) -> bool:
    """Whether a device multiplies bytes faster than floats, and this torch can have it do so."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv2d_pointwise")  # type: ignore[no-untyped-call]
    return device.type == "cpu" and known and cpu_has("avx2") and _writes_int8()


@functools.cache
def _writes_int8() -> bool:
    """Whether its convolutions of bytes write int8 where they are told to: before torch 2.9 they wrote uint8, without a word."""
    ones = torch.ones(1, 16, 1, 1, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    try:
        minus = QuantisedConv2d(-torch.ones(16, 16, 1, 1), None, 1, 0, Quantisation(1.0), largest=SIGNED_MAX)
        found = minus(ones, Quantisation.signed(16))
    except RuntimeError:
        return False
    return found.dtype == torch.int8 and bool((found < 0).all())
