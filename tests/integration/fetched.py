"""Programs that tests run and that are neither Python nor ours: from the path, or fetched once and kept beside this Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


class Missing(Exception):
    """There is none, and none can be fetched."""


def find(name: str, fetch: Callable[[Path], Path]) -> Path:
    """`fetch` is given an empty folder, and returns the program in it. Raises Missing with the reason."""
    kept = Path(sys.prefix) / "bin" / name
    found = shutil.which(name) or (kept if kept.exists() else None)
    if found:
        return Path(found)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            program = fetch(Path(scratch))
        except (subprocess.SubprocessError, OSError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            raise Missing(f"{name} cannot be fetched: {reason.strip().splitlines()[-1]}") from error
        mine = kept.with_name(f"{name}.{os.getpid()}")  # two runs of the tests may fetch it at a time
        shutil.move(program, mine)
        mine.chmod(0o755)
        mine.rename(kept)
    return kept


def run(folder: Path, *command: str) -> None:
    """Raises subprocess.SubprocessError, and OSError where there is no such command."""
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
