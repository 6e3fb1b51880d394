"""Log records as lines of text or JSON, with the request id of the call that they belong to."""

from __future__ import annotations

import json
import logging

from .calls import current

TEXT = "%(asctime)s %(levelname)s %(message)s"
FIELDS = ("request_id", "caller", "method", "code", "seconds")
"""What records have beside their text."""


class TextFormatter(logging.Formatter):
    """A line, with the request id at its end, and below it a trace where something was raised."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        call = current()
        return super().formatMessage(record) + (f" [{call.id}]" if call.method else "")


class JsonFormatter(logging.Formatter):
    """{"time": ..., "level": ..., "logger": ..., "message": ..., "request_id": ...}, and `trace` where something was raised."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        call = current()
        if call.method:
            line["request_id"] = call.id
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str, style: str) -> None:
    """Log to stderr: `style` is text, or json for a line of JSON each."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
