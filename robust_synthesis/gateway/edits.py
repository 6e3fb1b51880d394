"""What a caller asks of a session of edits, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..bundle import Output
from ..errors import InvalidInput, SynthesisError
from ..requests import Request
from ..specs import SuperResolve
from .jobs import Progress
from .tickets import Outcome

# What a caller asks for.


@dataclass(frozen=True)
class Open:
    """Begin with a photo, or with another one."""

    model: str = ""
    """Empty is the server's default."""
    image: bytes = b""
    """Empty is flat grey."""
    size: int | None = None
    fit: str = "crop"
    output: Output = field(default_factory=Output)


@dataclass(frozen=True, eq=False)
class Apply:
    """Change the picture. Of the request, image and size are the session's; raises InvalidInput for what is no edit."""

    edit_id: int
    request: Request
    path: Callable[[str], str] = str
    """What the caller calls a field of the request."""

    def __post_init__(self) -> None:
        if isinstance(self.request.spec, SuperResolve):
            raise InvalidInput("task", "super_resolve is no edit: its result has another size; give another task.")
        if self.request.spec.pictures != 1:
            raise InvalidInput("count", f"is {self.request.spec.pictures}; an edit makes one picture.")
        for name in ("size", "fit", "paste_back"):
            if getattr(self.request, name) != getattr(Request, name):
                raise InvalidInput(name, "an edit is of the current picture, as it is; leave it out.")


@dataclass(frozen=True)
class Undo:
    """Take back the newest edit, whether it waits, runs or is done."""


@dataclass(frozen=True)
class Cancel:
    """Drop the edits that run and wait."""


@dataclass(frozen=True)
class Unreadable:
    """Something that could not be understood."""

    edit_id: int
    error: SynthesisError


Action = Open | Apply | Undo | Cancel | Unreadable


# What it is told.


@dataclass(frozen=True)
class Current:
    """The picture that the next edit starts from, PNG."""

    picture: bytes
    size: int
    undoable: int


@dataclass(frozen=True)
class Frame:
    """Where an edit stands."""

    edit: Apply
    progress: Progress


@dataclass(frozen=True)
class Done:
    """An edit is done; its picture (PNG) is the current one."""

    edit: Apply
    outcome: Outcome
    output: Output
    """How the caller wants it."""
    undoable: int


@dataclass(frozen=True)
class Failed:
    """An action had no effect."""

    action: Action
    error: Exception


Event = Current | Frame | Done | Failed
