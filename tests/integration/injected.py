"""A TorchServe whose workers are changed as `injection/sitecustomize.py` says."""

from __future__ import annotations

from pathlib import Path

from robust_synthesis.worker.torchserve.config import Settings

_INJECTION = Path(__file__).parent / "injection"


def injected(**variables: str) -> Settings:
    return Settings(environment={"PYTHONPATH": str(_INJECTION), **variables})


def batches(file: Path) -> list[tuple[int, int]]:
    """Size and steps of each batch that has begun, where INJECT_COUNT is the file."""
    return [(int(size), int(k)) for size, k in map(str.split, file.read_text().splitlines())]
