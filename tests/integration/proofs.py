"""What slow proofs showed when they last passed: kept in deploy/proofs, as JSON and as plots, for deploy/README.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy/proofs"


def keep(name: str, found: Mapping[str, Any], figure: Any, folder: Path = FOLDER) -> None:
    """As NAME.json and NAME.webp; `figure` is matplotlib's."""
    folder.mkdir(exist_ok=True)
    found = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), **found}
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    figure.savefig(folder / f"{name}.webp", dpi=80, pil_kwargs={"quality": 80})


def series(values: Mapping[float, float], begin: float, digits: int = 1) -> dict[str, list[float]]:
    """By Unix time -> by seconds from the beginning, as columns."""
    times = sorted(values)
    return {
        "seconds": [round(time - begin, 1) for time in times],
        "values": [round(values[time], digits) for time in times],
    }
