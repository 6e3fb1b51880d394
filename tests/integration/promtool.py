"""promtool, and Prometheus itself, from the path or from Debian's package `prometheus`, of which only these programs are kept."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from . import fetched
from .fetched import Missing

__all__ = ("Missing", "find", "run_tests")


def find(program: str = "promtool") -> Path:
    """Or `prometheus`. Raises Missing with the reason."""
    return fetched.find(program, lambda folder: _fetch(folder) / program)


def run_tests(tool: Path, tests: list[dict[str, Any]], rules: Path | None = None) -> None:
    """Run unit tests of promtool, which may use expressions that are in no rule."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "test.yml"
        files = [str(rules.resolve())] if rules else []
        file.write_text(yaml.safe_dump({"rule_files": files, "evaluation_interval": "15s", "tests": tests}))
        done = subprocess.run([tool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _fetch(folder: Path) -> Path:
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise Missing(f"no such program on the path, and no {program} to fetch it with")
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    # Lists and cache of its own, so that it needs no rights and changes nothing of the system's.
    own = ("-qq", "-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}")
    fetched.run(folder, "apt-get", *own, "update")
    fetched.run(folder, "apt-get", *own, "download", "prometheus")
    fetched.run(folder, "dpkg", "-x", str(next(folder.glob("prometheus_*.deb"))), "unpacked")
    return folder / "unpacked/usr/bin"
