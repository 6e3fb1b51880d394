"""Which version of a classifier is current while its folder changes."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from robust_synthesis.errors import ModelError
from robust_synthesis.model_folder import CARD, WEIGHTS, ModelFolder
from robust_synthesis.testing import tiny_card, tiny_model_folder
from robust_synthesis.worker.engine import Loaded, UnknownVersion
from robust_synthesis.worker.shelf import Found, Places, Shelf
from robust_synthesis.worker.testing import fake_model


class Loader:
    """Loads in no time what it is not told to fail at."""

    def __init__(self, places: Places, *, grace: float = 60) -> None:
        self.now = 0.0
        self.broken: set[str] = set()
        self.loads: list[str] = []
        self.unloaded: list[str] = []
        self.changed = asyncio.Event()
        self.shelf: Shelf[str] = Shelf(
            places, self._load, self._unload, changed=self.changed, grace=grace, poll=3600, clock=lambda: self.now
        )

    async def _load(self, found: Found) -> tuple[str, Loaded]:
        self.loads.append(found.version)
        if found.version in self.broken:
            raise ModelError("model: its weights are broken.")
        return found.version, fake_model(found.name, found.version)

    async def _unload(self, handle: str) -> None:
        self.unloaded.append(handle)

    @property
    def models(self) -> dict[str, bool]:
        return {info.version: info.current for info in self.shelf.models()}


Body = Callable[[Loader], Awaitable[None]]


def _with(loader_of: Callable[[], Loader], body: Body) -> None:
    async def main() -> None:
        loader = loader_of()
        await loader.shelf.start()
        try:
            await body(loader)
        finally:
            await loader.shelf.close()

    asyncio.run(main())


def _classifier(path: Path, note: str = "", name: str = "tiny") -> str:
    """Write a model folder, of another version for another note; returns the version."""
    card = dataclasses.replace(tiny_card(name), training={"note": note})
    return tiny_model_folder(path, card).version


def test_a_new_version_becomes_current_and_the_old_one_stays_until_unused(tmp_path: Path) -> None:
    old = _classifier(tmp_path / "tiny", "old")

    async def body(loader: Loader) -> None:
        assert loader.models == {old: True}
        new = _classifier(tmp_path / "tiny", "new")
        with loader.shelf.use("tiny", None) as handle:
            assert handle == old
            await loader.shelf.reload()
            assert loader.models == {old: False, new: True}
            loader.now = 1000
            await loader.shelf.reload()
            assert old in loader.models  # a job still uses it
        loader.now = 1059
        await loader.shelf.reload()
        assert loader.unloaded == []
        with loader.shelf.use("tiny", old):
            pass
        loader.now = 1118
        await loader.shelf.reload()
        assert loader.unloaded == []
        loader.now = 1119
        await loader.shelf.reload()
        assert (loader.unloaded, loader.models) == ([old], {new: True})

    _with(lambda: Loader(Places(tmp_path)), body)


def test_a_version_that_comes_back_is_not_loaded_again(tmp_path: Path) -> None:
    old = _classifier(tmp_path / "tiny", "old")

    async def body(loader: Loader) -> None:
        new = _classifier(tmp_path / "tiny", "new")
        await loader.shelf.reload()
        _classifier(tmp_path / "tiny", "old")
        await loader.shelf.reload()
        assert (loader.models, loader.loads) == ({old: True, new: False}, [old, new])

    _with(lambda: Loader(Places(tmp_path)), body)


def test_a_classifier_can_be_added_and_removed(tmp_path: Path) -> None:
    first = _classifier(tmp_path / "first", name="first")

    async def body(loader: Loader) -> None:
        second = _classifier(tmp_path / "second", name="second")
        await loader.shelf.reload()
        assert loader.models == {first: True, second: True}
        (tmp_path / "first" / CARD).unlink()
        await loader.shelf.reload()
        assert loader.models == {first: False, second: True}
        with pytest.raises(UnknownVersion, match="not first"):
            loader.shelf.use("first", None).__enter__()
        with loader.shelf.use("first", first) as handle:
            assert handle == first

    _with(lambda: Loader(Places(tmp_path)), body)


def test_a_folder_that_breaks_leaves_the_old_version_current(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = _classifier(tmp_path / "tiny")

    async def body(loader: Loader) -> None:
        (tmp_path / "tiny" / WEIGHTS).write_bytes(b"half")
        for _ in range(3):
            await loader.shelf.reload()
        assert loader.models == {old: True}

    _with(lambda: Loader(Places(tmp_path)), body)
    said = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "does not have the card's checksum" in said[0]


def test_a_version_that_does_not_load_leaves_the_old_one_current_and_is_tried_again_later(tmp_path: Path) -> None:
    old = _classifier(tmp_path / "tiny", "old")

    async def body(loader: Loader) -> None:
        new = _classifier(tmp_path / "tiny", "new")
        loader.broken.add(new)
        for now in (0, 5, 9):
            loader.now = now
            await loader.shelf.reload()
        assert (loader.models, loader.loads) == ({old: True}, [old, new])
        loader.now = 10
        await loader.shelf.reload()
        assert loader.loads == [old, new, new]
        loader.now = 29  # 20 s after the second time
        await loader.shelf.reload()
        assert len(loader.loads) == 3
        loader.broken.clear()
        loader.now = 30
        await loader.shelf.reload()
        assert loader.models == {old: False, new: True}

    _with(lambda: Loader(Places(tmp_path)), body)


def test_what_an_engine_loses_is_loaded_again(tmp_path: Path) -> None:
    version = _classifier(tmp_path / "tiny")

    async def body(loader: Loader) -> None:
        loader.shelf.forget(loader.shelf.handles()[0])
        assert loader.models == {}
        await loader.shelf.reload()
        assert loader.models == {version: True}

    _with(lambda: Loader(Places(tmp_path)), body)


def test_a_start_without_classifiers_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no classifier in"):
        _with(lambda: Loader(Places(tmp_path)), _nothing)


def test_a_start_needs_all_that_was_named_but_not_all_of_a_directory(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    _classifier(good, name="good")
    _classifier(bad, name="bad")
    (bad / WEIGHTS).write_bytes(b"half")
    _with(lambda: Loader(Places(tmp_path)), _nothing)
    with pytest.raises(ModelError, match="checksum"):
        _with(lambda: Loader(Places(None, [good, bad])), _nothing)


def test_an_empty_folder_among_models_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    version = _classifier(tmp_path / "tiny")
    assert {found.version for found in Places(tmp_path).scan().values()} == {version}


def test_a_judge_is_not_served(tmp_path: Path) -> None:
    tiny_model_folder(tmp_path / "judge", dataclasses.replace(tiny_card("judge"), role="judge"))
    assert Places(tmp_path).scan() == {}


def test_a_change_counts_when_it_has_settled(tmp_path: Path) -> None:
    places = Places(tmp_path)
    assert places.scan() == {}
    _classifier(tmp_path / "tiny")
    assert places.scan(settled=True) == {}
    assert list(places.scan(settled=True)) == ["tiny"]
    ModelFolder.open(tmp_path / "tiny")
    (tmp_path / "tiny").rename(tmp_path / ".tiny")  # as `files.new_folder` does for a moment
    assert list(places.scan(settled=True)) == ["tiny"]
    (tmp_path / ".tiny").rename(tmp_path / "tiny")
    assert list(places.scan(settled=True)) == ["tiny"]


async def _nothing(loader: Loader) -> None:
    pass
