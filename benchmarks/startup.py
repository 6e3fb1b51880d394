"""What a process costs before it computes: its start, its memory, its archive."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from robust_synthesis.archive import build
from robust_synthesis.model_folder import ModelFolder

from .figures import Figure, Measured
from .measure import ratio, take_turns

TITLE = "Start-up, memory, archive"
MEMORY = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
BARE = "import torch"
JOB = "import robust_synthesis; robust_synthesis.load({folder!r}).generate({target!r}, seed=0, steps=1)"


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Time and memory of a first job of one step against a bare import of torch; the archive against its weights."""
    job = JOB.format(folder=str(folder.path), target=folder.card.classes[0])
    seconds = take_turns({"job": lambda: _python(job), "torch": lambda: _python(BARE)}, rounds=3 if quick else 9)
    memory = {name: int(_python(code + MEMORY)) / 1024 for name, code in (("job", job), ("torch", BARE))}
    grown = memory["job"] / memory["torch"]
    with tempfile.TemporaryDirectory() as out:
        archive = build(folder.path, Path(out)).stat().st_size / 2**20
    weights = sum(path.stat().st_size for path in folder.path.glob("*.safetensors")) / 2**20
    size = archive / weights
    started = min(seconds["job"])
    figures = (
        Figure.of(
            "process until its first step",
            ratio(seconds["job"], seconds["torch"]),
            "import torch",
            higher_is_better=False,
            detail=f"{started:.1f} s at best",
        ),
        Figure(
            "resident memory of a process with one classifier",
            *(grown,) * 3,
            against="import torch",
            higher_is_better=False,
            detail=f"{memory['job']:.0f} MiB",
        ),
        Figure(
            "archive",
            *(size,) * 3,
            against="its weights and seeds",
            higher_is_better=False,
            detail=f"{archive:.1f} MiB",
        ),
    )
    return Measured(figures)


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
