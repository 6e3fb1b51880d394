from __future__ import annotations

import datetime
import hashlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_synthesis.errors import InvalidInput, Unauthenticated
from robust_synthesis.keys import Key, KeyFile, Keys, append, new_key

NOW = datetime.datetime(2026, 6, 15, 12, tzinfo=datetime.UTC).timestamp()


def _file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_key_is_known_by_its_hash(tmp_path: Path) -> None:
    keys = Keys.read(_file(tmp_path / "keys", f"# ours\n\n{_hash('one')} gateway 1\n{_hash('two').upper()}\n"))
    assert keys.find("Bearer one", NOW) == Key("gateway 1")
    assert keys.find("bearer two", NOW).name == "line 4"


@pytest.mark.parametrize("shown", ["", "one", "Bearer", "Bearer ", "Bearer One", "Basic one", f"Bearer {_hash('one')}"])
def test_nothing_else_is_a_key(tmp_path: Path, shown: str) -> None:
    with pytest.raises(Unauthenticated, match="as 'Bearer KEY'"):
        Keys.read(_file(tmp_path / "keys", _hash("one"))).find(shown, NOW)


def test_settings_follow_the_name(tmp_path: Path) -> None:
    line = f"{_hash('one')} the studio rate=90.5 concurrent=4 share=0.25 expires=2026-06-15"
    expected = Key("the studio", 90.5, 4, 0.25, datetime.date(2026, 6, 15))
    assert Keys.read(_file(tmp_path / "keys", line)).find("Bearer one", NOW) == expected


def test_a_key_is_accepted_on_its_last_day_and_not_after_it(tmp_path: Path) -> None:
    keys = Keys.read(_file(tmp_path / "keys", f"{_hash('one')} old expires=2026-06-15"))
    assert keys.find("Bearer one", NOW + 11.9 * 3600).name == "old"
    with pytest.raises(Unauthenticated, match="expired after 2026-06-15"):
        keys.find("Bearer one", NOW + 12 * 3600)
    with pytest.raises(Unauthenticated, match="not known"):  # nobody learns that a guess was near
        keys.find("Bearer other", NOW + 12 * 3600)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret-key gateway\n", "line 1 of"),
        ("# none\n", "has no key"),
        (f"\n{'a' * 63}", "line 2 of"),
        (f"{'a' * 64} name expiers=2026-01-01", "no setting 'expiers'; did you mean expires?"),
        (f"{'a' * 64} name expires=tomorrow", "line 1 of .*: expires: give a date"),
        (f"{'a' * 64} name rate=0", "rate: give a number above 0"),
        (f"{'a' * 64} name rate=nan", "rate: give a number above 0"),
        (f"{'a' * 64} name concurrent=1.5", "concurrent: give a whole number"),
        (f"{'a' * 64} name share=1.1", "share: give a number above 0, to 1"),
        (f"{'a' * 64} name rate=1 rate=2", "rate: is there twice"),
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Keys.read(_file(tmp_path / "keys", text))
    assert "secret" not in str(caught.value)
    assert "aaa" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-keys"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^keys: "):  # 64 digits do not come about by chance
        Keys.read(path)


_NAMES = st.lists(st.text(st.characters(categories=("L", "N", "P"), exclude_characters="="), min_size=1), min_size=1)
_OWNERS = st.builds(
    Key,
    _NAMES.map(" ".join).filter(lambda name: not name.startswith("#")),
    st.none() | st.integers(1, 10**5).map(lambda tenths: tenths / 10),
    st.none() | st.integers(1, 999),
    st.none() | st.sampled_from([0.01, 0.5, 1.0]),
    st.none() | st.dates(datetime.date(1970, 1, 1)),
)


@given(st.lists(_OWNERS, min_size=1, max_size=4))
def test_what_is_appended_is_read_again(tmp_path_factory: pytest.TempPathFactory, owners: list[Key]) -> None:
    path = tmp_path_factory.getbasetemp() / "appended-keys"
    path.unlink(missing_ok=True)
    shown = [new_key() for _ in owners]
    for key, owner in zip(shown, owners, strict=True):
        append(path, key, owner)
    keys = Keys.read(path)
    assert [keys.find(f"Bearer {key}", 0) for key in shown] == owners
    assert not any(key in path.read_text() for key in shown)


def test_a_new_file_of_keys_is_its_owners_and_an_unfinished_line_is_ended_first(tmp_path: Path) -> None:
    append(tmp_path / "keys", "one", Key("a"))
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    _file(tmp_path / "keys", f"{_hash('one')} a")
    append(tmp_path / "keys", "two", Key("b"))
    keys = Keys.read(tmp_path / "keys")
    assert [keys.find(f"Bearer {key}", NOW).name for key in ("one", "two")] == ["a", "b"]
    with pytest.raises(InvalidInput, match=r"^name: "):
        append(tmp_path / "keys", "three", Key("c rate=5"))


def test_a_key_that_is_added_counts_and_one_that_is_removed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("robust_synthesis.watched.INTERVAL", 0)
    path = _file(tmp_path / "keys", f"{_hash('one')} a\n")
    keys = KeyFile(path, lambda: NOW)
    one, two = [("authorization", "Bearer one")], [("authorization", "Bearer two")]
    assert keys.find(one).name == "a"
    _file(path, f"{_hash('two')} b\n")
    assert keys.find(two).name == "b"
    with pytest.raises(Unauthenticated):
        keys.find(one)
    _file(path, "broken")
    assert keys.find(two).name == "b"
    assert "cannot be used, so nothing changes" in caplog.text
    path.unlink()
    assert keys.find(two).name == "b"
    path.symlink_to(_file(tmp_path / "other", f"{_hash('three')} c\n"))
    assert keys.find([("x", "y"), ("authorization", "Bearer three")]).name == "c"
