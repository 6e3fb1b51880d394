"""Keys that callers show: only their SHA-256 is stored, and they are compared in constant time.

A key file has one line per key, `HASH NAME [SETTING=VALUE ...]`; empty lines and lines that begin with # are skipped.
Several keys may have one name: they are the same caller's. `robust-synthesis keys new NAME` makes a key and its line; so does

    openssl rand -hex 32 > gateway.key
    echo "$(tr -d '\\n' < gateway.key | openssl dgst -sha256 -r | cut -d ' ' -f 1) gateway expires=2030-12-31" >> keys
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidInput, NotFound, Unauthenticated
from .watched import Watched

_LINE = re.compile(r"([0-9a-fA-F]{64})(?:\s+(\S.*))?")
_SETTING = re.compile(r"([^\s=]+)=(\S*)")


@dataclass(frozen=True)
class Key:
    """Whose key it is, and what the caller may do; None leaves it to the server."""

    name: str
    rate: float | None = None
    """Requests a minute."""
    concurrent: int | None = None
    """Requests at a time."""
    share: float | None = None
    """Of the server's queue, at most: above 0, to 1."""
    expires: datetime.date | None = None
    """The last day, UTC, on which it is accepted."""

    def expired(self, now: float) -> bool:
        """`now` is in seconds since 1970."""
        today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
        return self.expires is not None and today > self.expires

    def line(self, key: str) -> str:
        """What a key file says of it."""
        values = {name: getattr(self, name) for name in SETTINGS}
        settings = [f"{name}={_text(value)}" for name, value in values.items() if value is not None]
        return " ".join([_hash(key), self.name, *settings])


class Keys:
    """The keys that are accepted, by hash."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = dict(keys)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Raises InvalidInput naming the line that is wrong; the line itself may be a key, so it is not shown."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InvalidInput("keys", f"{path} is not UTF-8 text.") from error
        keys = {}
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise InvalidInput("keys", f"line {number} of {path} is not 'HASH NAME'; hash the key with SHA-256.")
            try:
                keys[match[1].lower()] = _key(match[2] or "", f"line {number}")
            except InvalidInput as error:
                raise InvalidInput("keys", f"line {number} of {path}: {error}") from error
        if not keys:
            raise InvalidInput("keys", f"{path} has no key in it, so that nobody could call.")
        return cls(keys)

    def find(self, authorization: str, now: float) -> Key:
        """The key that `Bearer KEY` shows, at `now` in seconds since 1970. Takes as long for any wrong key.

        Raises Unauthenticated where nothing, the key of nobody or an expired one is shown.
        """
        scheme, _, key = authorization.partition(" ")
        shown = _hash(key.strip())
        found = None
        for known, owner in self._keys.items():
            if hmac.compare_digest(known, shown):
                found = owner
        if not authorization:
            raise Unauthenticated("authorization: show the key that you were given, as 'Bearer KEY'.")
        if found is None or scheme.lower() != "bearer":
            raise Unauthenticated("authorization: this key is not known here; show yours as 'Bearer KEY'.")
        if found.expired(now):
            raise Unauthenticated(f"authorization: this key expired after {found.expires}; ask for a new one.")
        return found


class KeyFile:
    """The keys of a file, read again when it changes. What cannot be read then changes nothing, and is said in the log."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises InvalidInput and OSError."""
        self._file = Watched([path], lambda: Keys.read(path))
        self._clock = clock

    def find(self, metadata: Iterable[tuple[str, str | bytes]]) -> Key:
        """The key that a call's metadata show. Raises Unauthenticated."""
        shown = next((value for name, value in metadata if name == "authorization"), "")
        return self._file.value.find(shown if isinstance(shown, str) else "", self._clock())


def new_key() -> str:
    """256 random bits, as text."""
    return secrets.token_urlsafe(32)


def append(path: Path, key: str, owner: Key) -> None:
    """Add a key's line to a file, which is made where there is none; only its owner may read it.

    Raises InvalidInput for a name that the file cannot hold.
    """
    if not re.fullmatch(r"\S+( \S+)*", owner.name) or owner.name.startswith("#") or _SETTING.search(owner.name):
        raise InvalidInput("name", f"is {owner.name!r}; give words without '='.")
    old = path.read_bytes() if path.exists() else b""
    if not path.exists():
        path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * (old[-1:] not in (b"", b"\n")) + owner.line(key) + "\n")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def parse_key(name: str, settings: Mapping[str, str]) -> Key:
    """A key from its settings as text. Raises InvalidInput naming the setting."""
    return Key(name, **{setting: SETTINGS[setting](setting, text) for setting, text in settings.items()})


def _key(text: str, unnamed: str) -> Key:
    """A line without its hash: the name, then settings."""
    words = text.split()
    settings: dict[str, str] = {}
    while words and (match := _SETTING.fullmatch(words[-1])):
        name, value = match[1], match[2]
        if name not in SETTINGS:
            raise NotFound("setting", name, SETTINGS)
        if name in settings:
            raise InvalidInput(name, "is there twice.")
        settings[name] = value
        words.pop()
    return parse_key(" ".join(words) or unnamed, settings)


def _above_zero(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidInput(name, "give a number above 0.")
    return value


def _whole(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise InvalidInput(name, "give a whole number, 1 or more.")
    return int(text)


def _part(name: str, text: str) -> float:
    value = _above_zero(name, text)
    if value > 1:
        raise InvalidInput(name, "give a number above 0, to 1.")
    return value


def _date(name: str, text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(name, "give a date, such as 2030-12-31.") from error


SETTINGS: Mapping[str, Callable[[str, str], Any]] = {
    "rate": _above_zero,
    "concurrent": _whole,
    "share": _part,
    "expires": _date,
}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
