"""The errors that this package raises on purpose.

SynthesisError
├── InvalidInput      a parameter, an image or a mask that cannot be used; names the field
├── NotFound          an unknown model, class or unit; lists near names
├── Unauthenticated   the caller has not shown who it is
├── ModelError        a model folder that is missing, damaged or unsafe
├── DataError         a data set that cannot be read
└── ServerError       (client/errors.py has its kinds) a server that cannot be reached, or does not do what it is asked
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

LONGEST_NAME = 200
"""Characters of a name that are compared with those that exist, and shown: of a message full, it would take seconds."""


class SynthesisError(Exception):
    """Base of all errors whose message is meant for the caller: one sentence with the remedy."""


class InvalidInput(SynthesisError):
    """A field that cannot be used as given."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message

    def at(self, field: str) -> Self:
        """The same error, where the caller calls the field otherwise."""
        other = type(self).__new__(type(self), f"{field}: {self.message}")
        other.__dict__.update(self.__dict__, field=field)
        return other


class NotFound(InvalidInput):
    """A name that does not exist, with the names that do, or `none` where there are none.

    `kind` says what it would be the name of, where that is not what the field is called.
    """

    def __init__(
        self, field: str, name: str, known: Iterable[str], *, kind: str = "", none: str = "there are none."
    ) -> None:
        names = list(known)
        if len(name) > LONGEST_NAME:
            name = name[:LONGEST_NAME] + "..."
        folded = {known_name.casefold(): known_name for known_name in names}
        near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif len(names) <= 20:
            hint = f"choose one of {', '.join(names)}." if names else none
        else:
            hint = f"choose one of {', '.join(names[:12])}, ... ({len(names)} in all)."
        super().__init__(field, f"there is no {kind or field} {name!r}; {hint}")
        self.name = name
        self.known = names


class Unauthenticated(SynthesisError):
    """The key is missing, wrong or expired."""


class ModelError(SynthesisError):
    """A model folder that cannot be loaded."""


class DataError(SynthesisError):
    """A data set that cannot be read."""


class ServerError(SynthesisError):
    """A server that cannot be reached, is too busy, or has failed. The same request may work at another time."""

    def __init__(self, message: str, *, code: str = "UNKNOWN", reason: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        """Name of the gRPC status."""
        self.reason = reason
        """Of google.rpc.ErrorInfo; empty where the server did not get to say one."""
        self.request_id = request_id
        """What the server's log calls the call; empty where it does not know of it."""
