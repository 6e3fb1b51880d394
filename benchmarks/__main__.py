"""Every figure that the README states: `python -m benchmarks [SECTION ...] [--full] [--model FOLDER] [--replace]`.

Each section is a module of this package with a TITLE and `run(folder, quick=...)`. What was measured goes to
`benchmarks/results/figures`; a figure that became worse than the stored one replaces it only with --replace.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from robust_synthesis import torch_environment
from robust_synthesis.engine.precision import choose_device
from robust_synthesis.evaluation import provenance
from robust_synthesis.memory import keep_memory
from robust_synthesis.model_folder import ModelFolder

from .figures import Measured, Results, Section

ROOT = Path(__file__).parent
SECTIONS = (
    "engine",
    "roofline",
    "precision",
    "startup",
    "service",
    "batching",
    "scaling",
    "gateway",
)
FURTHER = ("bundles", "edits", "anatomy", "compiled")
"""Only with --full, or by name: none of their figures has a target."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"default: {', '.join(SECTIONS)}")
    parser.add_argument("--full", action="store_true", help="the whole grid instead of the headline figures")
    parser.add_argument("--model", type=Path, default=ROOT.parent / "model_store/cifar10", help="a model folder")
    parser.add_argument("--results", type=Path, default=ROOT / "results/figures", help="where results are kept")
    parser.add_argument("--replace", action="store_true", help="keep the new figures even where they are worse")
    options = parser.parse_args()
    if unknown := set(options.sections) - {*SECTIONS, *FURTHER}:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join((*SECTIONS, *FURTHER))}")
    folder, results = ModelFolder.open(options.model), Results(options.results)
    names = options.sections or (*SECTIONS, *(FURTHER if options.full else ()))
    if len(names) > 1:  # each in a process of its own, so that none has the threads and the memory of another
        command = [sys.executable, "-m", "benchmarks", "--model", str(options.model), "--results", str(options.results)]
        command += [f"--{flag}" for flag in ("full", "replace") if getattr(options, flag)]
        codes = [subprocess.run([*command, name], check=False).returncode for name in names]
        return int(any(codes))
    (name,) = names
    module = importlib.import_module(f".{name}", __package__)
    if getattr(module, "KEEPS_MEMORY", True):
        keep_memory()  # as services and commands do
    print(f"{name}: {module.TITLE}", file=sys.stderr, flush=True)
    begun, device = time.perf_counter(), choose_device()
    measured: Measured = module.run(folder, quick=not options.full)
    section = Section(
        measured.figures,
        measured.charts,
        name=name,
        title=module.TITLE,
        quick=not options.full,
        hardware=provenance.hardware(device),
        versions=provenance.versions(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begun,
        notes=(*_paragraphs(module.__doc__ or ""), f"Classifier: {folder.card.name}."),
    )
    path = results.write(section, replace=options.replace)
    print(section.markdown(), flush=True)
    if path.name.endswith(".worse.json"):
        print(f"Some figures are worse than those that are kept; they are in {path} (--replace keeps them).")
        return 1
    return 0


def _paragraphs(text: str) -> Iterator[str]:
    """A line each."""
    return (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


if __name__ == "__main__":
    environment = {"KINETO_LOG_LEVEL": "99", **os.environ}  # the profiler keeps its log to itself
    torch_environment.prepare(environment)
    if environment != dict(os.environ):  # read when torch is loaded, which it is by now
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], environment)
    sys.exit(main())
