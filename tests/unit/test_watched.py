"""Files that change while they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from robust_synthesis.watched import Watched


def test_what_changes_while_it_is_read_does_not_count_before_it_is_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    cert, key = tmp_path / "cert", tmp_path / "key"
    replacing = [False]

    def write(version: str) -> None:
        cert.write_text(version)
        key.write_text(version)

    def read() -> tuple[str, str]:
        first = cert.read_text()
        if replacing[0]:
            replacing[0] = False
            write("third")
        return first, key.read_text()

    write("1st")
    watched = Watched([cert, key], read)
    assert watched.value == ("1st", "1st")
    write("second")
    replacing[0] = True
    assert watched.value == ("1st", "1st")
    assert watched.value == ("third", "third")
