"""Image synthesis with a single adversarially trained classifier (Santurkar et al., NeurIPS 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DataError, InvalidInput, ModelError, NotFound, SynthesisError
from .model_folder import available as models

if TYPE_CHECKING:
    from .library import Synthesizer

__version__ = "0.1.0"
__all__ = ["DataError", "InvalidInput", "ModelError", "NotFound", "SynthesisError", "load", "models"]


def load(model: str | Path, *, device: str | None = None, precision: str = "auto") -> Synthesizer:
    """A synthesizer for a classifier, by name or by the path of its folder: `load("cifar10").generate("dog", seed=1)`.

    `precision` is auto (the fastest here), fp32, bf16 or int8. Raises NotFound with the names that exist, ModelError for a
    folder that is damaged, and InvalidInput for a device or precision that is not to be had.
    """
    try:
        from .library import load as load_library
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise SynthesisError(f"{error.name} is missing; pip install 'robust-synthesis[serve]'.") from error
    return load_library(model, device=device, precision=precision)
