"""Files and folders that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import InvalidInput


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` when the block ends well, and not at all when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when the block ends well, and leaves nothing behind when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder, older = Path(name) / "new", Path(name) / "older"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(older)
        try:
            folder.rename(out)
        except BaseException:
            if older.exists():
                older.rename(out)
            raise


def check_writable(path: Path, field: str = "out") -> None:
    """Raise InvalidInput unless a file can be written at `path`, its folders created; before a long job, not after it."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    reason = None
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{str(folder)!r} is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"nothing may be written in {str(folder)!r}"
    if reason:
        raise InvalidInput(field, f"cannot write {str(path)!r} ({reason}); choose another path.")
