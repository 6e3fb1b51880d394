"""A gateway that computes nothing itself needs no torch."""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    "robust_synthesis.gateway.backends.remote",
    "robust_synthesis.gateway.backends.engine",
    "robust_synthesis.worker.torchserve",
    "robust_synthesis.worker.agent",
    "robust_synthesis.cli.worker",
    "robust_synthesis.cli.main",
    "robust_synthesis.gateway.assembly",
    "robust_synthesis.cli.serve",
    "robust_synthesis.gateway.server",
    "robust_synthesis.gateway.running",
    "robust_synthesis.gateway.metrics",
    "robust_synthesis.gateway.tracing",
    "robust_synthesis.messages",
    "robust_synthesis.studio.running",
    "robust_synthesis.cli.studio",
)


def test_backends_and_agent_import_without_torch() -> None:
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(MODULES)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
