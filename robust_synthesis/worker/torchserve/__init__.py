"""A private TorchServe, supervised."""

from .config import Settings
from .supervisor import TorchServe

__all__ = ["Settings", "TorchServe"]
