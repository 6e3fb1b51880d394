"""Where and with what a number was measured."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .. import __version__
from ..engine.instructions import cpu_has

PACKAGES = ("torch", "numpy", "torchmetrics", "pyautoattack", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Of Python, this package and those that the numbers depend on; without those that are not installed."""
    found = {"python": platform.python_version(), "robust-synthesis": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> str:
    """Such as "AMD EPYC 7B13 (AVX512 VNNI BF16), 2 threads", or "NVIDIA H200" before it, whose kernels that CPU launches."""
    gpu = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{gpu}{name} ({_instructions()}), {torch.get_num_threads()} threads"


def _instructions() -> str:
    """That torch uses, and those for narrow numbers: CPUs of one name may have them or not."""
    narrow = {"VNNI": "avx512_vnni", "BF16": "avx512_bf16", "AMX": "amx_tile"}
    return " ".join(
        [torch.backends.cpu.get_cpu_capability(), *(word for word, name in narrow.items() if cpu_has(name))]
    )


def command() -> str:
    """This process's command line."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
