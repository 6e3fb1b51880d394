"""A classifier as a TorchServe model archive: NAME.mar runs on a stock TorchServe that has torch, safetensors and Pillow.

    model.json ...            the model folder: card, weights, seeds, units
    synthesis.py              the handler
    robust_synthesis/         the modules that the handler needs, and no others
    model-config.yaml         one worker, no batching by TorchServe
    LICENSE
    SHA256SUMS                of everything but the manifest; `sha256sum -c` reads it too
    MAR-INF/MANIFEST.json     TorchServe's: name and version, which are the card's name and the hash of the model folder

It is a zip without compression, made so that the same model and the same code give the same bytes. Checksums find damage
and mix-ups, not malice: an archive is a program, so load none that you would not run. This module needs no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import cast

from .errors import ModelError, SynthesisError
from .files import atomic_write, check_writable
from .imports import closure
from .model_folder import CARD, MAX_CARD_BYTES, WEIGHTS, Card, ModelFolder, find, sha256
from .shipped import HANDLER, LICENSE, MODEL_CONFIG, PACKAGE, shipped

SUFFIX = ".mar"
MANIFEST = "MAR-INF/MANIFEST.json"
CHECKSUMS = "SHA256SUMS"
_OURS = (MANIFEST, CHECKSUMS, CARD, WEIGHTS, Path(HANDLER).name)
_MAX_TEXT_BYTES = 2**20
_BLOCK = 2**20
_REBUILD = "build it again with `robust-synthesis archive`"


def build(model: str | Path, out: Path | None = None) -> Path:
    """Write the archive of a model folder, given by path or name, into the folder `out` (default: beside it).

    Raises ModelError for a model folder that is damaged or cannot be an archive, InvalidInput where `out` cannot be written.
    """
    folder = ModelFolder.open(find(model))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", folder.card.name):
        raise ModelError(
            f"model: TorchServe cannot call a model {folder.card.name!r}; name it with letters, digits, '_', '-' and '.'."
        )
    place = folder.path.resolve()
    target = (out or place.parent) / f"{place.name}{SUFFIX}"
    check_writable(target)
    with tempfile.TemporaryDirectory(prefix="robust-synthesis-archive-") as scratch:
        content = _package(folder, Path(scratch))
        with atomic_write(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in content.rglob("*") if path.is_file()):
                _add(archive, path, path.relative_to(content).as_posix())
    return target


def read_card(path: Path) -> tuple[Card, str]:
    """Card and version of an archive, of which no more is read and nothing is run or unpacked.

    Raises ModelError for what is no archive of this project, or where card, version and manifest do not fit together.
    """
    with _opened(path) as archive:
        return _card(path, archive)


def read_files(path: Path, names: Sequence[str]) -> tuple[str, dict[str, bytes]]:
    """The version of an archive, and those of the files that it has. Raises ModelError like `read_card`."""
    with _opened(path) as archive:
        has = set(archive.namelist())
        return _card(path, archive)[1], {name: archive.read(name) for name in names if name in has}


def verify(path: Path) -> tuple[Card, str]:
    """Like `read_card`, but reads everything: every file must have the checksum that the archive, and the card, say."""
    with _opened(path) as archive:
        card, version = _card(path, archive)
        expected = dict(_checksum_line(path, line) for line in _text(path, archive, CHECKSUMS).splitlines())
        for name in sorted(expected.keys() ^ (set(archive.namelist()) - {CHECKSUMS, MANIFEST})):
            raise ModelError(
                f"archive: {path} {'lacks' if name in expected else 'should not have'} {name}; {_REBUILD}."
            )
        if missing := {CARD, WEIGHTS, *card.files} - expected.keys():
            raise ModelError(f"archive: {path} lacks {', '.join(sorted(missing))}; {_REBUILD}.")
        for name, checksum in expected.items():
            with archive.open(name) as entry:
                found = hashlib.file_digest(cast(io.BufferedIOBase, entry), "sha256").hexdigest()
            if found != checksum or card.files.get(name, found) != found:
                raise ModelError(f"archive: {name} in {path} does not have its checksum; {_REBUILD}.")
        return card, version


def _package(folder: ModelFolder, scratch: Path) -> Path:
    """The content of the archive: what torch-model-archiver makes of its parts, and checksums."""
    if importlib.util.find_spec("model_archiver") is None:
        raise ModuleNotFoundError("No module named 'model_archiver'", name="torch-model-archiver")
    parts = scratch / "parts"
    parts.mkdir()
    for name in (CARD, *sorted(folder.card.files)):
        (parts / name).symlink_to((folder.path / name).resolve())
    for module in closure(shipped(HANDLER), PACKAGE):
        copy = parts / PACKAGE.name / module.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    shutil.copyfile(shipped(LICENSE), parts / LICENSE)
    (scratch / "tmp").mkdir()
    (scratch / "out").mkdir()
    options = {
        "--model-name": folder.card.name,
        "--version": folder.version,
        "--handler": shipped(HANDLER),
        "--serialized-file": parts / WEIGHTS,
        "--config-file": shipped(MODEL_CONFIG),
        "--extra-files": parts.name,  # a path in which a comma would separate two, so it is relative
        "--export-path": scratch / "out",
        "--archive-format": "no-archive",
    }
    command = [sys.executable, "-P", "-m", "model_archiver.model_packaging"]
    done = subprocess.run(
        [*command, *(str(part) for option in options.items() for part in option)],
        cwd=scratch,
        env=os.environ | {"TMPDIR": str(scratch / "tmp")},  # it deletes a folder of the model's name there
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SynthesisError(f"archive: torch-model-archiver failed ({reason}); check the space on the disk.")
    content = scratch / "out" / folder.card.name
    manifest = json.loads((content / MANIFEST).read_text(encoding="utf-8"))
    manifest.pop("createdOn", None)
    (content / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _write_checksums(content)
    return content


def _write_checksums(content: Path) -> None:
    lines = []
    for path in sorted(path for path in content.rglob("*") if path.is_file()):
        name = path.relative_to(content).as_posix()
        if name != MANIFEST:
            lines.append(f"{sha256(path)}  {name}\n")
    (content / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """With nothing in it of when, where or by whom the file was made."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as file:
        shutil.copyfileobj(source, file, _BLOCK)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise ModelError(f"archive: there is no file {path}; give one that `robust-synthesis archive` has built.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive)
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
        raise ModelError(f"archive: {path} is truncated or damaged ({error}); {_REBUILD}, or copy it again.") from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"archive: {path} cannot be read ({reason}); check its permissions and the disk.") from error


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    """Nothing is read before this: names that stay inside, each once, and as many bytes as the file has."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if not names.issuperset(_OURS):
        raise ModelError(f"archive: {path} is not an archive of this project; {_REBUILD} from a model folder.")
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or entry.external_attr >> 28 == 0xA:
            raise ModelError(f"archive: {path} has {entry.filename!r}, which is outside of it; do not use it.")
    stored = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in entries)
    unpacked = sum(entry.file_size for entry in entries)
    if not stored or unpacked > path.stat().st_size or len(names) != len(entries):
        raise ModelError(f"archive: {path} unpacks to more than it holds, so it is not ours; do not use it.")


def _card(path: Path, archive: zipfile.ZipFile) -> tuple[Card, str]:
    text = _text(path, archive, CARD, MAX_CARD_BYTES)
    try:
        card = Card.from_json(text)
    except ModelError as error:
        raise ModelError(f"archive: the card in {path} cannot be used: {error}") from error
    version = hashlib.sha256(text.encode()).hexdigest()[:16]  # as ModelFolder has it
    manifest = json.loads(_text(path, archive, MANIFEST))
    said = manifest.get("model") if isinstance(manifest, Mapping) else None
    named = (said.get("modelName"), said.get("modelVersion")) if isinstance(said, Mapping) else (None, None)
    if named != (card.name, version):
        raise ModelError(
            f"archive: {path} says it is {named[0]} {named[1]} but holds {card.name} {version}; {_REBUILD}."
        )
    return card, version


def _text(path: Path, archive: zipfile.ZipFile, name: str, limit: int = _MAX_TEXT_BYTES) -> str:
    if archive.getinfo(name).file_size > limit:
        raise ModelError(f"archive: {name} in {path} is larger than {limit >> 20} MiB; {_REBUILD}.")
    with archive.open(name) as entry, io.TextIOWrapper(entry, encoding="utf-8") as file:
        return file.read()


def _checksum_line(path: Path, line: str) -> tuple[str, str]:
    match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
    if match is None:
        raise ModelError(f"archive: {CHECKSUMS} in {path} cannot be read; {_REBUILD}.")
    return match[2], match[1]
