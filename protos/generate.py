"""Write the Python stubs of every .proto into the package, or, to compare them, below another folder: `generate.py [OUT]`."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parent
PLACES = {"robust_synthesis/v1": "robust_synthesis/v1", "robust_synthesis/worker/torchserve": "torchserve"}
"""Where a folder's stubs go in the package, and which folder of `protos` that is."""


def generate(out: Path) -> None:
    """Raises RuntimeError when protoc fails."""
    for place, source in PLACES.items():
        names = sorted(f"{place}/{path.name}" for path in (PROTOS / source).glob("*.proto"))
        plugins = ["--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out"]
        includes = [f"-I{place}={PROTOS / source}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
        (out / place).mkdir(parents=True, exist_ok=True)
        if protoc.main(["protoc", *includes, *(f"{plugin}={out}" for plugin in plugins), *names]):
            raise RuntimeError(f"protoc failed on {', '.join(names)}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent)
