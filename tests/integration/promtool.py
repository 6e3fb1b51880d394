"""promtool, from the path or from Debian's package `prometheus`, of which only that one program is kept, beside this Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = Path(sys.prefix) / "bin/promtool"


class Missing(Exception):
    """There is none, and none can be fetched."""


def find() -> Path:
    """Raises Missing with the reason."""
    found = shutil.which("promtool") or (KEPT if KEPT.exists() else None)
    return Path(found) if found else _fetch()


def _fetch() -> Path:
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise Missing(f"no promtool on the path, and no {program} to fetch it with")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True)
        # Lists and cache of its own, so that it needs no rights and changes nothing of the system's.
        own = ("-qq", "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}")
        _run(folder, "apt-get", *own, "update")
        _run(folder, "apt-get", *own, "download", "prometheus")
        _run(folder, "dpkg", "-x", str(next(folder.glob("prometheus_*.deb"))), "unpacked")
        mine = KEPT.with_name(f"promtool.{os.getpid()}")  # two runs of the tests may fetch it at a time
        shutil.move(folder / "unpacked/usr/bin/promtool", mine)
        mine.rename(KEPT)
    return KEPT


def _run(folder: Path, *command: str) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise Missing(f"promtool cannot be fetched: {reason.strip().splitlines()[-1]}") from error
