"""What this machine's CPU can do."""

from __future__ import annotations

import torch

_BEFORE = {  # torch 2.8
    "amx_tile": "_is_amx_tile_supported",
    "avx2": "_is_avx2_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "avx512_vnni": "_is_vnni_supported",
}


def cpu_has(name: str) -> bool:
    """Whether it has such instructions, by torch's name for them: amx_tile, avx2, avx512_bf16, avx512_vnni."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(name, False))
    return bool(getattr(torch.cpu, _BEFORE[name], bool)())
