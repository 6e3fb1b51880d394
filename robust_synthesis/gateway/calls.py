"""The call that is being served: who calls, what, and what the log calls it.

Set by the interceptors for the task that serves the call, and for all that it starts.
"""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Call:
    method: str
    """Full name, such as /robust_synthesis.v1.SynthesisService/Generate."""
    caller: str = ""
    """Name of the key that was shown, or of the certificate; empty where the server asks for neither."""
    share: float | None = None
    """Of the queue, at most, where the key says."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the log, and the trailing metadata `request-id`, call it."""
    size: int = 0
    """Bytes of its request, the newest of a stream."""
    let_in: Callable[[], None] = lambda: None
    """To be called once its request counts for the queue: from then on it does not count among those that arrive."""


_current: contextvars.ContextVar[Call] = contextvars.ContextVar("call")


def begin(call: Call) -> None:
    """What follows in this task belongs to the call."""
    _current.set(call)


def current() -> Call:
    """The call of this task; an anonymous one outside of calls."""
    return _current.get(None) or Call("")


def caller() -> str:
    """Who calls: whose share of the workers, and whose quota, a request counts for."""
    return current().caller
