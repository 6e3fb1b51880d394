"""TorchServe's lines as records of our own logging.

Our log4j pattern makes a line `@LEVEL|logger|thread|message`; lines without it are continuations, or printed. What a Python
worker prints comes from the thread `W-PORT-MODEL_VERSION-stdout`, always at INFO.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("robust_synthesis.torchserve")
_LEVELS: Mapping[str, int] = {
    "FATAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
}
_LONGEST = 500
_WORKER = re.compile(r"W-\d+-(.+)-std(?:out|err)")
_ROUTINE = re.compile(
    r"s_name_part0|Listening on |Successfully loaded |\[PID\]|Torch worker started|Python runtime|Connection accepted|"
    r"model_name: |Backend received inference|Frontend disconnected|Backend worker process died|handle_connection|"
    r"Traceback |  |\[METRICS\]|result=\[METRICS\]|RuntimeError: \d+ - |\s*$|During handling of|The above exception"
)
_REASON = re.compile(r"(?:Failed to load model \S+|Load model \S+ \w+ OOM), exception (.+)|(?:\w+\.)*[A-Z]\w*: (.+)")
_UNCAUGHT = re.compile(r"(?:Exception in thread \S+ )?[\w.$]+\.\w+(?:Exception|Error): |Error[: ]")
"""Of Java: not logged, printed."""
_NOISE = ("WorkerThread", "WorkerLifeCycle", "ModelArchive", "ModelManager", "BatchAggregator")
"""These warn of what we see ourselves, or of nothing."""


@dataclass(frozen=True)
class Line:
    level: int
    source: str
    """The model and version of a Python worker, or the short name of a Java logger."""
    message: str
    worker: bool = False

    @property
    def reason(self) -> str | None:
        """Where a Python worker says why it fails: what it says."""
        match = _REASON.match(self.message) if self.worker else None
        return None if match is None or _ROUTINE.match(self.message) else (match[1] or match[2])


def parse(text: str) -> Line:
    """A line of TorchServe's standard output."""
    text = text.rstrip()
    parts = text.split("|", 3)
    if not text.startswith("@") or len(parts) != 4:
        level = logging.ERROR if _UNCAUGHT.match(text) else logging.DEBUG
        return Line(level, "torchserve", text[:_LONGEST])
    level, source, thread, message = _LEVELS.get(parts[0][1:], logging.DEBUG), parts[1], parts[2], parts[3][:_LONGEST]
    worker = _WORKER.fullmatch(thread)
    if worker is not None and source == "MODEL_LOG":
        return Line(logging.DEBUG if _ROUTINE.match(message) else level, worker[1], message.rstrip(), worker=True)
    if source in _NOISE:
        level = min(level, logging.DEBUG)
    return Line(level, source, message.rstrip())


def show(line: Line) -> None:
    if line.message:
        log.log(line.level, "%s: %s", line.source, line.message)
