"""Keys that callers show: only their SHA-256 is stored, and they are compared in constant time.

A key file has one line per key, `HASH NAME`; empty lines and lines that begin with # are skipped. A key and its line:

    openssl rand -hex 32 > gateway.key
    echo "$(tr -d '\\n' < gateway.key | openssl dgst -sha256 -r | cut -d ' ' -f 1) gateway" >> keys
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from .errors import InvalidInput

_LINE = re.compile(r"([0-9a-fA-F]{64})(?:\s+(\S.*))?")


class Keys:
    """The keys that are accepted, by hash."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Raises InvalidInput naming the line that is wrong; the line itself may be a key, so it is not shown."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InvalidInput("keys", f"{path} is not UTF-8 text.") from error
        names = {}
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise InvalidInput("keys", f"line {number} of {path} is not 'HASH NAME'; hash the key with SHA-256.")
            names[match[1].lower()] = match[2] or f"line {number}"
        if not names:
            raise InvalidInput("keys", f"{path} has no key in it, so that nobody could call.")
        return cls(names)

    def name(self, authorization: str) -> str | None:
        """Whose key `Bearer KEY` is, or None where it is nobody's. Takes as long for any wrong key."""
        scheme, _, key = authorization.partition(" ")
        shown = hashlib.sha256(key.strip().encode()).hexdigest()
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, shown):
                found = name
        return found if scheme.lower() == "bearer" else None
