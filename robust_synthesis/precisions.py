"""The precisions of a computation: floats of 32 or 16 bits, bytes, or the fastest of them; without torch."""

from typing import Literal, get_args

Precision = Literal["auto", "fp32", "bf16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
VARIABLE = "ROBUST_SYNTHESIS_PRECISION"
"""A worker and the handler of an archive have theirs from it; `serve` has it as a setting."""
