"""Model archives: what is in one, that it is always the same, and what is refused before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from robust_synthesis import archive
from robust_synthesis.archive import CHECKSUMS, MANIFEST, build, read_card, verify
from robust_synthesis.cli.main import main
from robust_synthesis.errors import InvalidInput, ModelError, SynthesisError
from robust_synthesis.imports import closure, imported
from robust_synthesis.model_folder import (
    CARD,
    MODELS_VARIABLE,
    SEEDS,
    UNITS,
    UNITS_SHEET,
    WEIGHTS,
    ModelFolder,
    write_card,
)
from robust_synthesis.shipped import HANDLER, LICENSE, PACKAGE, shipped
from robust_synthesis.testing import tiny_card, tiny_model_folder

Entries = dict[str, bytes]
NEEDED = {
    "bundle",
    "engine",
    "errors",
    "imaging",
    "library",
    "model_folder",
    "requests",
    "specs",
    "tasks",
    "units",
    "worker",
}
NEVER = {"archive", "cli", "client", "demo", "evaluation", "gateway", "importing", "testing", "training", "v1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def built(folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(folder.path, tmp_path_factory.mktemp("archives"))


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def summed(entries: Entries) -> Entries:
    """The same with checksums that are right."""
    rest = {name: content for name, content in entries.items() if name not in (CHECKSUMS, MANIFEST)}
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(rest.items())]
    return entries | {CHECKSUMS: "".join(lines).encode()}


def refused(path: Path, *parts: str, by: Callable[[Path], object] = verify) -> None:
    """One sentence, which names the file."""
    with pytest.raises(ModelError) as caught:
        by(path)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message
    assert "\n" not in message
    assert message.endswith(".")


def test_an_archive_holds_the_model_the_handler_and_only_the_modules_that_it_needs(
    built: Path, folder: ModelFolder
) -> None:
    entries = entries_of(built)
    for name in (CARD, WEIGHTS, SEEDS, UNITS, UNITS_SHEET):
        assert entries[name] == (folder.path / name).read_bytes()
    assert entries["synthesis.py"] == shipped(HANDLER).read_bytes()
    assert entries["LICENSE"] == shipped(LICENSE).read_bytes()
    code = {name for name in entries if name.startswith("robust_synthesis/")}
    tops = {name.removeprefix("robust_synthesis/").partition("/")[0].removesuffix(".py") for name in code}
    assert tops >= NEEDED
    assert not tops & NEVER
    assert all(entries[name] == (PACKAGE.parent / name).read_bytes() and name.endswith(".py") for name in code)
    others = {
        CARD,
        WEIGHTS,
        SEEDS,
        UNITS,
        UNITS_SHEET,
        "synthesis.py",
        LICENSE,
        "model-config.yaml",
        CHECKSUMS,
        MANIFEST,
    }
    assert entries.keys() - code == others
    assert json.loads(entries[MANIFEST])["model"] == {
        "modelName": "tiny",
        "modelVersion": folder.version,
        "handler": "synthesis.py",
        "serializedFile": WEIGHTS,
        "configFile": "model-config.yaml",
    }


def test_the_code_of_an_archive_imports_no_more_than_a_stock_machine_has() -> None:
    files = [shipped(HANDLER), *closure(shipped(HANDLER), PACKAGE)]
    tops = set()
    for path in files:
        inside = path.relative_to(PACKAGE.parent).parent.parts if path.is_relative_to(PACKAGE) else ()
        tops |= {name.partition(".")[0] for name in imported(path, inside)}
    third_party = tops - set(sys.stdlib_module_names)
    assert third_party == {"robust_synthesis", "torch", "ts", "numpy", "PIL", "safetensors"}


def test_the_same_model_gives_the_same_bytes_whenever_and_wherever_it_is_built(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tiny_model_folder(tmp_path / "elsewhere" / "tiny")
    for path in again.path.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    (again.path / "notes.txt").write_text("not on the card")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert build(again.path).read_bytes() == built.read_bytes()
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["tiny", "tiny.mar"]
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert build(tiny_model_folder(tmp_path / "other", seed=1).path).read_bytes() != built.read_bytes()


def test_a_folder_in_the_temporary_directory_that_has_the_models_name_is_left_alone(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    build(folder.path, tmp_path / "out")
    assert (tmp_path / "tiny").is_dir()


def test_the_card_is_read_without_the_weights(built: Path, folder: ModelFolder, tmp_path: Path) -> None:
    assert read_card(built) == verify(built) == (folder.card, folder.version)
    data = bytearray(built.read_bytes())
    data[data.index((folder.path / WEIGHTS).read_bytes()) + 5000] ^= 1
    (tmp_path / "damaged.mar").write_bytes(data)
    assert read_card(tmp_path / "damaged.mar") == (folder.card, folder.version)
    refused(tmp_path / "damaged.mar", "damaged", WEIGHTS, "build it again")


def test_reading_a_card_needs_no_torch(built: Path) -> None:
    code = f"import sys; from pathlib import Path; from robust_synthesis.archive import verify; verify(Path({str(built)!r}))"
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_archive_is_refused(built: Path, tmp_path: Path, keep: float) -> None:
    data = built.read_bytes()
    (tmp_path / "short.mar").write_bytes(data[: int(len(data) * keep)])
    for by in (verify, read_card):
        refused(tmp_path / "short.mar", "is truncated or damaged", "build it again", by=by)


def test_what_is_no_archive_of_this_project_is_refused(tmp_path: Path, built: Path) -> None:
    other = write(tmp_path / "other.mar", {MANIFEST: b"{}", "model.py": b"", "weights.pt": b""}, zipfile.ZIP_DEFLATED)
    for by in (verify, read_card):
        refused(other, "is not an archive of this project", by=by)
        refused(tmp_path / "missing.mar", "there is no file", by=by)
        refused(tmp_path, "there is no file", by=by)
    for name in (CHECKSUMS, MANIFEST, CARD, WEIGHTS, "synthesis.py"):
        entries = entries_of(built)
        del entries[name]
        refused(write(tmp_path / "part.mar", entries), "is not an archive of this project")


@pytest.mark.parametrize(
    "name", [WEIGHTS, SEEDS, UNITS, "synthesis.py", "robust_synthesis/specs.py", "model-config.yaml"]
)
def test_a_file_with_another_checksum_is_named(built: Path, tmp_path: Path, name: str) -> None:
    entries = entries_of(built)
    entries[name] = entries[name][:-1] + bytes([entries[name][-1] ^ 1])
    refused(write(tmp_path / "changed.mar", entries), name, "checksum")


@pytest.mark.parametrize("name", [WEIGHTS, SEEDS, UNITS])
def test_checksums_that_were_changed_along_do_not_hide_that_the_card_says_others(
    built: Path, tmp_path: Path, name: str
) -> None:
    entries = entries_of(built)
    entries[name] += b"?"
    refused(write(tmp_path / "changed.mar", summed(entries)), name, "checksum")


def test_an_archive_that_lacks_a_file_or_has_another_is_refused(built: Path, tmp_path: Path) -> None:
    entries = entries_of(built)
    refused(write(tmp_path / "more.mar", entries | {"more.py": b""}), "should not have more.py")
    less = {name: content for name, content in entries.items() if name != "robust_synthesis/specs.py"}
    refused(write(tmp_path / "less.mar", less), "lacks robust_synthesis/specs.py")
    less = {name: content for name, content in entries.items() if name != SEEDS}
    refused(write(tmp_path / "less.mar", summed(less)), f"lacks {SEEDS}")
    refused(write(tmp_path / "odd.mar", entries | {CHECKSUMS: b"what?\n"}), CHECKSUMS)


def test_a_card_that_is_not_the_manifests_is_refused(built: Path, folder: ModelFolder, tmp_path: Path) -> None:
    entries = entries_of(built)
    entries[CARD] = entries[CARD].replace(b'"tiny"', b'"other"')
    refused(
        write(tmp_path / "a.mar", summed(entries)), f"says it is tiny {folder.version} but holds other", by=read_card
    )
    manifest = json.loads(entries_of(built)[MANIFEST])
    manifest["model"]["modelVersion"] = "1.0"
    changed = entries_of(built) | {MANIFEST: json.dumps(manifest).encode()}
    refused(write(tmp_path / "b.mar", changed), "says it is tiny 1.0 but holds", by=read_card)
    for content in (b"[]", b"{}", b'{"model": 3}'):
        refused(write(tmp_path / "c.mar", entries_of(built) | {MANIFEST: content}), "says it is", by=read_card)
    refused(write(tmp_path / "d.mar", entries_of(built) | {MANIFEST: b"{"}), "damaged", by=read_card)
    refused(write(tmp_path / "e.mar", entries_of(built) | {CARD: b"{}"}), "the card", "missing", by=read_card)
    refused(write(tmp_path / "f.mar", entries_of(built) | {CARD: b" " * 2**23}), "larger than", by=read_card)


def test_zip_bombs_and_names_that_lead_outside_are_refused_before_anything_is_read(built: Path, tmp_path: Path) -> None:
    entries = entries_of(built)
    bomb = write(tmp_path / "bomb.mar", entries | {"bomb": b"\0" * 10**7}, zipfile.ZIP_DEFLATED)
    refused(bomb, "unpacks to more than it holds", by=read_card)
    for name in ("../escape.py", "/etc/escape.py", "robust_synthesis/../../escape.py", "..\\escape.py"):
        refused(write(tmp_path / "escape.mar", entries | {name: b""}), "outside of it", by=read_card)
    with zipfile.ZipFile(write(tmp_path / "link.mar", entries), "a") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    refused(tmp_path / "link.mar", "'link'", "outside of it", by=read_card)
    with (
        zipfile.ZipFile(write(tmp_path / "twice.mar", entries), "a") as file,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        file.writestr(CARD, b"{}")
    refused(tmp_path / "twice.mar", "do not use it", by=read_card)


def test_a_damaged_model_folder_or_an_impossible_name_gives_no_archive(tmp_path: Path) -> None:
    damaged = tiny_model_folder(tmp_path / "damaged").path
    (damaged / WEIGHTS).write_bytes(b"?")
    with pytest.raises(ModelError, match="does not have the card's checksum"):
        build(damaged)
    odd = tiny_model_folder(tmp_path / "odd").path
    write_card(odd, tiny_card("my model"))
    with pytest.raises(ModelError, match="cannot call a model 'my model'; name it with letters"):
        build(odd)
    with pytest.raises(InvalidInput, match="out: cannot write"):
        build(tiny_model_folder(tmp_path / "tiny").path, odd / CARD)
    assert not list(tmp_path.rglob("*.mar"))


def test_a_failure_or_an_interruption_leaves_nothing(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny.mar").write_text("the older one")
    for error in (KeyboardInterrupt(), OSError(28, "No space left on device")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(archive, "_add", fail)
        with pytest.raises(type(error)):
            build(folder.path, tmp_path / "out")
        assert [path.name for path in tmp_path.rglob("*")] in (["tmp", "out", "tiny.mar"], ["out", "tmp", "tiny.mar"])
        assert (tmp_path / "out" / "tiny.mar").read_text() == "the older one"


def test_a_failing_archiver_is_reported_in_one_sentence(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        SynthesisError, match=r"archive: torch-model-archiver failed \(it said nothing\); check the space"
    ):
        build(folder.path, tmp_path)


def test_the_command_archives_what_it_is_given_or_all_but_the_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    for name, role in (("a", "robust"), ("b", "standard"), ("c", "judge")):
        tiny_model_folder(models / name)
        card = tiny_card(name)
        object.__setattr__(card, "role", role)
        write_card(models / name, card)
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    assert main(["archive"]) == 0
    assert sorted(path.name for path in models.glob("*.mar")) == ["a.mar", "b.mar"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{models / 'a.mar'}: a {ModelFolder.open(models / 'a').version}, 0.")
    assert main(["archive", str(models / "c"), "--out", str(tmp_path / "out")]) == 0
    assert read_card(tmp_path / "out" / "c.mar")[0].role == "judge"
    assert main(["archive", "nothing"]) == 2
    assert "there is no model 'nothing'" in capsys.readouterr().err


def test_imports_are_found_wherever_they_are_but_not_those_for_type_checkers(tmp_path: Path) -> None:
    package = tmp_path / "some"
    for name, content in {
        "__init__": "def later():\n    from .b import thing\n",
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import unused\nelse:\n    from .sub import c\n",
        "b": "thing = 1\n",
        "unused": "",
        "sub/__init__": "from ..d import *\n",
        "sub/c": "import some.sub.e as e\n",
        "sub/e": "from . import c\n",
        "sub/never": "",
        "d": "",
    }.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "program.py").write_text("import os.path\nfrom some import a\n")
    found = [path.relative_to(package).as_posix() for path in closure(tmp_path / "program.py", package)]
    assert found == ["__init__.py", "a.py", "b.py", "d.py", "sub/__init__.py", "sub/c.py", "sub/e.py"]


def test_an_interrupt_while_the_archiver_runs_leaves_nothing(folder: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    code = "import signal, subprocess, sys\nfrom robust_synthesis.cli.main import main\nreal = subprocess.run\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it\n"
    code += "def run(*a, **k):\n    signal.raise_signal(signal.SIGINT)\n    return real(*a, **k)\n"
    code += (
        f"subprocess.run = run\nsys.exit(main(['archive', {str(folder.path)!r}, '--out', {str(tmp_path / 'out')!r}]))"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")
    assert time.monotonic() - started < 60
    assert not list(tmp_path.rglob("*.mar*"))
    assert not list((tmp_path / "tmp").iterdir())
