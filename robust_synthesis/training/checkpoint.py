"""Where a run stands, in a file: a run that is killed goes on from it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InvalidInput
from ..files import atomic_write
from .config import TrainConfig


def write(path: Path, config: TrainConfig, state: Mapping[str, Any]) -> None:
    """Keep the state of a run of this configuration, in place of the one before."""
    with atomic_write(path) as file:
        torch.save({**state, "config": config.to_dict()}, file)


def read(path: Path, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What `write` kept. Raises InvalidInput if it is damaged or of another configuration. No code in the file is run."""
    try:
        saved: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        then, now = saved["config"], config.to_dict()
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise InvalidInput("run_dir", f"{path} cannot be read; delete it to start again.") from error
    if changed := [name for name in now | then if name not in now or name not in then or now[name] != then[name]]:
        raise InvalidInput(
            "run_dir",
            f"{path.parent} holds a run with another {', '.join(changed)}; choose another folder or delete it.",
        )
    return saved
