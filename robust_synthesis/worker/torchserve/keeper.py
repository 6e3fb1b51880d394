"""The process between us and TorchServe: it ends TorchServe, whatever becomes of us.

    python keeper.py GRACE MARK FOLDER COMMAND...

It runs COMMAND with MARK in its environment. As long as its standard input stays open, it passes SIGTERM on and kills after
GRACE seconds. When the input closes (we are gone, by kill -9 too), it kills at once and removes FOLDER. Either way it
then kills every process that carries MARK, because TorchServe's Python workers may outlive the JVM that began them. Where
it is itself killed, the system kills the JVM (Linux), whose workers notice.

A program of its own that imports nothing of ours, so that it starts fast and is small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import psutil

VARIABLE = "ROBUST_SYNTHESIS_TORCHSERVE"
_PR_SET_PDEATHSIG = 1


def marked(mark: str) -> list[psutil.Process]:
    """Every process that carries the mark, but this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == mark:
                found.append(process)
    return found


def kill(mark: str, patience: float = 10) -> None:
    """Kill every process that carries the mark, and those they begin meanwhile."""
    end = time.monotonic() + patience
    while (found := marked(mark)) and time.monotonic() < end:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(grace: float, mark: str, folder: str, command: list[str]) -> int:
    """Returns the exit code of the command."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, VARIABLE: mark},
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is only one thread
    )
    print(f"@INFO|keeper|pid|{child.pid}", flush=True)
    end = None
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin, awake], [], [], 0.5)
        if sys.stdin in readable:
            kill(mark)
            shutil.rmtree(folder, ignore_errors=True)
            return 1
        if awake in readable:
            os.read(awake, 1024)
        if stopping and end is None:
            end = time.monotonic() + grace
            child.terminate()
        if end is not None and time.monotonic() > end:
            break
    kill(mark)
    if select.select([sys.stdin], [], [], 0)[0]:
        shutil.rmtree(folder, ignore_errors=True)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
