"""Which classifiers a worker has, and which version of each is current; changed while it runs.

`Places` finds model folders and archives on disk; `Shelf` keeps what an engine has loaded in step with them. A new version
becomes current when it can run bundles. The old one stays until nobody has used it for a while, so that a running job ends
with the version it began with. What cannot be read or loaded changes nothing: the old version stays current.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from .. import archive
from ..errors import ModelError, SynthesisError
from ..model_folder import CARD, UNITS, UNITS_SHEET, ModelFolder
from ..units import CatalogueFiles
from .engine import EngineError, Loaded, UnknownVersion

log = logging.getLogger(__name__)
Handle = TypeVar("Handle")
_RETRY_SECONDS = (10, 300)
"""After what is on disk could not be loaded: first, and at most."""


@dataclass(frozen=True)
class Found:
    """A classifier on disk: a model folder, or an archive of one."""

    path: Path
    name: str
    version: str


_Stamp = tuple[tuple[str, int, int, int], ...]


class Places:
    """Model folders and archives: those of a directory, those given, or both."""

    def __init__(self, directory: Path | None = None, paths: Sequence[Path] = ()) -> None:
        self.directory = directory
        self.paths = tuple(paths)
        self._seen: dict[Path, tuple[_Stamp, Found | str]] = {}
        self._good: dict[Path, Found] = {}
        self._last: dict[Path, _Stamp] = {}

    def scan(self, *, settled: bool = False) -> dict[str, Found]:
        """What there is, by name. Reads only what has changed; with `settled`, only once it has ceased to change.

        What cannot be read counts as what it was before, and is logged once.
        """
        stamps = {path: stamp for path in self._paths() if (stamp := _stamp(path))}
        for path in stamps.keys() | self._seen.keys():
            stamp = stamps.get(path)
            if settled and stamp != self._last.get(path):
                continue
            if stamp is None:
                del self._seen[path]
                self._good.pop(path, None)
            elif path not in self._seen or self._seen[path][0] != stamp:
                self._seen[path] = stamp, self._read(path)
        self._last = stamps
        return self._by_name()

    def problems(self) -> list[str]:
        """What is wrong with those that cannot be read now."""
        return [found for _, found in self._seen.values() if isinstance(found, str)]

    def _paths(self) -> Iterator[Path]:
        yield from self.paths
        if self.directory is not None:
            yield from (card.parent for card in sorted(self.directory.glob(f"*/{CARD}")))
            yield from sorted(self.directory.glob("*.mar"))

    def _read(self, path: Path) -> Found | str:
        try:
            if path.is_dir():
                folder = ModelFolder.open(path)
                card, version = folder.card, folder.version
            else:
                card, version = archive.verify(path)
        except (SynthesisError, OSError) as error:
            log.error("%s", error)
            return str(error)
        if card.role == "judge" and path not in self.paths:
            self._good.pop(path, None)
            return f"model: {path} is a judge, which is never used in synthesis."
        self._good[path] = Found(path, card.name, version)
        return self._good[path]

    def _by_name(self) -> dict[str, Found]:
        """Of a folder and an archive of one name the folder counts, because archives are built from folders."""
        found: dict[str, Found] = {}
        for path in sorted(self._good, key=lambda path: (not path.is_dir(), path)):
            candidate = self._good[path]
            chosen = found.setdefault(candidate.name, candidate)
            if chosen.version == candidate.version and not candidate.path.is_dir():
                found[candidate.name] = candidate  # already built
        return found


def _catalogue(found: Found) -> CatalogueFiles:
    if found.path.is_dir():
        folder = ModelFolder.open(found.path, verify=False)
        paths = {name: folder.file(name) for name in (UNITS, UNITS_SHEET)}
        version, files = folder.version, {name: path.read_bytes() for name, path in paths.items() if path}
    else:
        version, files = archive.read_files(found.path, (UNITS, UNITS_SHEET))
    if version != found.version:
        raise UnknownVersion(f"model: {found.name} {found.version} has been replaced on disk.")
    return CatalogueFiles(files.get(UNITS, b"").decode(), files.get(UNITS_SHEET, b""))


def _stamp(path: Path) -> _Stamp | None:
    """Changes whenever a file does."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files if not file.name.startswith(".")]
    except OSError:
        return None
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


@dataclass
class _Entry(Generic[Handle]):
    handle: Handle
    info: Loaded
    found: Found
    used: float
    """When it was last used, seconds of the clock."""
    outstanding: int = 0


@dataclass
class _Failed:
    version: str
    again: float
    wait: float = field(default=_RETRY_SECONDS[0])


class Shelf(Generic[Handle]):
    """What an engine has loaded; `load` and `unload` are the engine's."""

    def __init__(
        self,
        places: Places,
        load: Callable[[Found], Awaitable[tuple[Handle, Loaded]]],
        unload: Callable[[Handle], Awaitable[None]],
        *,
        changed: asyncio.Event,
        grace: float = 60,
        poll: float = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._load = load
        self._unload = unload
        self._changed = changed
        self._grace = grace
        self._poll = poll
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry[Handle]] = {}
        self._failed: dict[str, _Failed] = {}
        self._busy = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what there is and go on looking.

        Raises ModelError where nothing can be loaded, or not all that was named; EngineError where the engine fails.
        """
        found = await asyncio.to_thread(self._places.scan)
        errors = self._places.problems()
        for each in found.values():
            try:
                await self._add(each)
            except EngineError:
                raise
            except SynthesisError as error:
                self._remember(each, error)
                errors.append(str(error))
        if errors and (self._places.paths or not self._entries):
            raise ModelError(errors[0])
        if not self._entries:
            raise ModelError(f"model: there is no classifier in {self._places.directory}; put a model folder there.")
        self._polling = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def reload(self) -> None:
        """Bring what is loaded in step with what is on disk, now."""
        async with self._busy:
            await self._follow(await asyncio.to_thread(self._places.scan))

    def models(self) -> Sequence[Loaded]:
        return [entry.info for entry in list(self._entries.values())]  # also asked from the thread of the metrics

    def handles(self) -> Sequence[Handle]:
        return [entry.handle for entry in list(self._entries.values())]

    def forget(self, handle: Handle) -> None:
        """What an engine has lost; it is loaded again while it is on disk."""
        for key, entry in list(self._entries.items()):
            if entry.handle is handle:
                del self._entries[key]
                self._changed.set()

    @contextlib.contextmanager
    def use(self, name: str, version: str | None) -> Iterator[Handle]:
        """The handle of a version, which stays loaded meanwhile; None is the current one. Raises UnknownVersion."""
        entry = self._find(name, version)
        entry.outstanding += 1
        try:
            yield entry.handle
        finally:
            entry.outstanding -= 1
            entry.used = self._clock()

    async def catalogue(self, name: str, version: str) -> CatalogueFiles:
        """Raises UnknownVersion, also where its files have been replaced, and ModelError where they cannot be read."""
        found = self._find(name, version).found
        return await asyncio.to_thread(_catalogue, found)

    def _find(self, name: str, version: str | None) -> _Entry[Handle]:
        for entry in self._entries.values():
            if entry.info.name == name and (entry.info.version == version if version else entry.info.current):
                return entry
        have = ", ".join(f"{info.name} {info.version}" for info in self.models()) or "nothing"
        raise UnknownVersion(f"model: this worker has {have}, not {name} {version or ''}".rstrip() + ".")

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._poll)
            try:
                found = await asyncio.to_thread(self._places.scan, settled=True)
                async with self._busy:
                    await self._follow(found)
            except Exception:
                log.exception("cannot look at the classifiers")

    async def _follow(self, found: Mapping[str, Found]) -> None:
        for each in found.values():
            if not self._is_current(each) and self._may_try(each):
                try:
                    await self._add(each)
                except (SynthesisError, OSError) as error:
                    self._remember(each, error)
        for entry in list(self._entries.values()):
            if entry.info.current and entry.info.name not in found:
                log.info("%s was removed", entry.info.name)
                self._set_current(entry, current=False)
        for key, entry in list(self._entries.items()):
            idle = not entry.outstanding and self._clock() - entry.used >= self._grace
            if idle and not entry.info.current:
                del self._entries[key]
                self._changed.set()
                await self._unload(entry.handle)
                log.info("%s %s is unloaded", *key)

    def _is_current(self, found: Found) -> bool:
        entry = self._entries.get((found.name, found.version))
        return entry is not None and entry.info.current

    def _may_try(self, found: Found) -> bool:
        failed = self._failed.get(found.name)
        return failed is None or failed.version != found.version or self._clock() >= failed.again

    def _remember(self, found: Found, error: Exception) -> None:
        failed = self._failed.get(found.name)
        wait: float = _RETRY_SECONDS[0]
        if failed is not None and failed.version == found.version:
            wait = min(failed.wait * 2, _RETRY_SECONDS[1])
        self._failed[found.name] = _Failed(found.version, self._clock() + wait, wait)
        log.error("%s %s cannot be loaded: %s", found.name, found.version, error)

    async def _add(self, found: Found) -> None:
        """Make it current, and what was current no longer. Raises what `load` does."""
        key = found.name, found.version
        if key not in self._entries:  # else it was replaced, and has come back
            started = self._clock()
            handle, info = await self._load(found)
            if (info.name, info.version) != key:
                await self._unload(handle)
                raise ModelError(f"model: {found.path} holds {info.name} {info.version}; build the archive again.")
            self._entries[key] = _Entry(handle, info, found, self._clock())
            log.info("%s %s is ready after %.1f s", *key, self._clock() - started)
        for other in self._entries.values():
            if other.info.name == found.name:
                self._set_current(other, current=other.info.version == found.version)
        self._failed.pop(found.name, None)

    def _set_current(self, entry: _Entry[Handle], *, current: bool) -> None:
        if entry.info.current and not current:
            entry.used = self._clock()
        entry.info = dataclasses.replace(entry.info, current=current)
        self._changed.set()
