from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from robust_synthesis.errors import InvalidInput
from robust_synthesis.keys import Keys


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_key_is_known_by_its_hash(tmp_path: Path) -> None:
    keys = Keys.read(_file(tmp_path / "keys", f"# ours\n\n{_hash('one')} gateway 1\n{_hash('two').upper()}\n"))
    assert keys.name("Bearer one") == "gateway 1"
    assert keys.name("bearer two") == "line 4"


@pytest.mark.parametrize("shown", ["", "one", "Bearer", "Bearer ", "Bearer One", "Basic one", f"Bearer {_hash('one')}"])
def test_nothing_else_is_a_key(tmp_path: Path, shown: str) -> None:
    assert Keys.read(_file(tmp_path / "keys", _hash("one"))).name(shown) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("secret-key gateway\n", "line 1 of"), ("# none\n", "has no key"), (f"\n{'a' * 63}", "line 2 of")],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Keys.read(_file(tmp_path / "keys", text))
    assert "secret" not in str(caught.value)
