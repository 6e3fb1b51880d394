"""Files outside this package that it needs: a wheel carries them inside, a checkout has them where people look for them."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent

HANDLER = "handlers/synthesis.py"
MODEL_CONFIG = "deploy/torchserve/model-config.yaml"
METRICS = "deploy/torchserve/metrics.yaml"
LICENSE = "LICENSE"
PAGE = "clients/studio/page"


def shipped(name: str) -> Path:
    """Path of a file or folder that is `name` in the checkout, and `robust_synthesis/_name` in the wheel."""
    packed = PACKAGE / f"_{name}"
    return packed if packed.exists() else PACKAGE.parent / name
