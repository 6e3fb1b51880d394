"""The contract: lint, and stubs that are what `make protos` writes."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"
SCRIPTS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}


def test_committed_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROTOS / "generate.py", tmp_path], env=ENVIRONMENT, check=True, capture_output=True)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) >= 8
    _, different, missing = filecmp.cmpfiles(tmp_path, PROTOS.parent, [str(path) for path in made], shallow=False)
    assert (different, missing) == ([], [])


def test_protos_pass_buf() -> None:
    done = subprocess.run([SCRIPTS / "buf", "lint", PROTOS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
