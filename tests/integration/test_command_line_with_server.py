"""Every verb that can be given --server does the same there as here: pictures, reports, sentences, exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2
from PIL import Image

from robust_synthesis.cli.main import main
from robust_synthesis.client.testing import FakeGateway, status
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.gateway.server import Options
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.testing import SIZE
from robust_synthesis.units import Units

Run = Callable[..., str]
Ended = tuple[int, str, str]

BOX = ("--box", "22,8,16,20")
SAME = ("--exact", "--seed", "1", "--steps", "12")
TASKS: dict[str, tuple[str, ...]] = {
    "generate": ("--class", "circle", "--count", "2"),
    "inpaint": ("photo.png", *BOX),
    "translate": ("photo.png", "--class", "square", "--fit", "pad"),
    "super-resolve": ("photo.png", "--factor", "2", "--upsampling", "bicubic"),
    "sketch-to-image": ("photo.png", "--class", "waves", "--size", "24"),
    "paint-features": ("photo.png", "--mask", "mask.png", "--unit", "5", "--no-hard-mask", "--penalty", "2"),
    "maximize-class": ("photo.png", "--class", "stripes", "--norm", "linf", "--last", "--random-start"),
}
REFUSED: tuple[tuple[str, ...], ...] = (
    ("generate", "--class", "circel"),
    ("generate", "--class", "circle", "--steps", "0"),
    ("generate", "--class", "circle", "--size", "33"),
    ("generate", "--class", "circle", "--epsilon", "nan"),
    ("generate", "--class", "circle", "--enlarge", "0"),
    ("generate", "--class", "circle", "--size", "32", "--enlarge", "999"),
    ("generate", "--class", "circle", "--model", "cifar1O"),
    ("translate", "photo.png"),
    ("translate", "missing.png", "--class", "circle"),
    ("maximize-class", "text.png", "--class", "circle"),
    ("maximize-class", "broken.png", "--class", "circle"),
    ("super-resolve", "photo.png", "--factor", "3"),
    ("inpaint", "photo.png", "--box", "100,100,5,5"),
    ("inpaint", "photo.png", "--box", "1,2,3"),
    ("inpaint", "photo.png", "--mask", "black.png"),
    ("inpaint", "photo.png", "--mask", "small.png"),
    ("paint-features", "photo.png", *BOX),
    ("paint-features", "photo.png", *BOX, "--unit", "99"),
    ("paint-features", "photo.png", *BOX, "--unit", "sky"),
)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[str]:
    with serving(lambda: embedded(models), Options(default_model="cifar10")) as target:
        yield target


@pytest.fixture
def both(work: Path, photo: Path, server: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[Ended]]:
    """How a command ends here, and with --server: exit code, output, errors. Its files are in the folders here/ and there/."""
    Image.new("L", (60, 40), 255).save("mask.png")
    Image.new("L", (60, 40)).save("black.png")
    Image.new("L", (5, 5), 255).save("small.png")
    Path("text.png").write_text("hello")
    Path("broken.png").write_bytes(photo.read_bytes()[:200])

    def call(*arguments: object, out: bool = True) -> list[Ended]:
        ended = []
        for name, more in (("here", ()), ("there", ("--server", server))):
            output = ("-o", f"{name}/out.png", "--report", f"{name}/report.json") if out else ()
            code = main([str(argument) for argument in (*arguments, *output, *more)])
            printed = capsys.readouterr()
            ended.append((code, printed.out.replace(f"{name}/", ""), printed.err))
        return ended

    return call


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_and_exact_make_the_same_picture_there_as_here(
    task: str, both: Callable[..., list[Ended]]
) -> None:
    here, there = both(task, *TASKS[task], *SAME)
    assert here == there
    assert here[0] == 0
    names = sorted(path.name for path in Path("here").glob("*.png"))
    assert names == sorted(path.name for path in Path("there").glob("*.png"))
    assert len(names) == (2 if task == "generate" else 1)
    for name in names:
        assert (pixels(Path("here") / name) == pixels(Path("there") / name)).all()
    reports = [json.loads(Path(place, "report.json").read_text()) for place in ("here", "there")]
    for report in reports:
        for name in ("seconds", "server", "timings", "request_id"):
            report.pop(name, None)
        for picture in report["pictures"]:
            picture.pop("format", None)
    assert reports[0] == reports[1]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_bad_input_is_refused_there_as_here(arguments: tuple[str, ...], both: Callable[..., list[Ended]]) -> None:
    here, there = both(*arguments)
    assert here == there
    assert here[0] == 2
    assert not Path("there").exists()


def test_paste_back_writes_the_whole_photo(both: Callable[..., list[Ended]], photo: Path) -> None:
    here, there = both("inpaint", photo, *BOX, "--paste-back", *SAME)
    assert here == there
    assert pixels(Path("there/out.png")).shape == (40, 60, 3)
    assert (pixels(Path("here/out.png")) == pixels(Path("there/out.png"))).all()


def test_classify_and_models_print_the_same(both: Callable[..., list[Ended]], photo: Path) -> None:
    for arguments in (
        ("classify", photo, "mask.png", "--top", 2, "--json", "--fit", "stretch"),
        ("classify", photo),
        ("classify", photo, "text.png"),
        ("classify", photo, "--top", 0),
        ("models",),
        ("models", "cifar10-standard"),
        ("models", "cifar"),
    ):
        here, there = both(*arguments, out=False)
        assert here == there


@pytest.mark.parametrize(("steps", "frames"), [(8, 8), (120, 30)])
def test_gif_shows_the_way_there(steps: int, frames: int, run: Run, server: str) -> None:
    options = ("--class", "circle", "--steps", steps, "-o", "out.png", "--gif", "way.gif")
    run("generate", *options, "--server", server)
    with Image.open("way.gif") as way:
        assert way.n_frames == frames  # type: ignore[attr-defined]
        way.seek(frames - 1)
        last = np.asarray(way.convert("RGB"))[8::16, 8::16].astype(int)
    assert np.abs(last - pixels(Path("out.png"))).mean() < 8


def test_the_environment_names_the_server(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_SYNTHESIS_SERVER", server)
    run("generate", "--class", "circle", "--seed", 1, "-o", "out.png", "--report", "report.json")
    assert json.loads(Path("report.json").read_text())["server"] == server
    run("generate", "--class", "circle", "--seed", 1, "-o", "out.png", "--report", "report.json", "--server", "")
    assert "server" not in json.loads(Path("report.json").read_text())


def test_without_torch_the_verbs_work_with_a_server(work: Path, photo: Path, server: str) -> None:
    blocked = "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None"
    code = f"{blocked}; from robust_synthesis.cli.main import main; sys.exit(main())"
    for arguments in (
        ["inpaint", "photo.png", *BOX, "--steps", "3", "-o", "out.png"],
        ["classify", "photo.png"],
        ["models"],
    ):
        command = [sys.executable, "-c", code, *arguments, "--server", server]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
        assert (done.returncode, done.stderr) == (0, "")
    assert pixels(work / "out.png").shape == (SIZE, SIZE, 3)


def test_units_are_painted_by_name(run: Run, server: str, photo: Path, models: Path) -> None:
    unit = Units.load(ModelFolder.open(models / "cifar10")).units[0]
    for name in (unit.index, unit.name):
        run("paint-features", photo, "--unit", name, *BOX, *SAME, "-o", f"{name}.png", "--server", server)
    assert (pixels(Path(f"{unit.index}.png")) == pixels(Path(f"{unit.name}.png"))).all()


# Trouble


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["generate", "--class", "dog", "-o", "out.png", *arguments])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert not Path("out.png").exists()
    return code, printed.err.removeprefix("robust-synthesis generate: ")


def test_a_server_that_is_not_there_is_code_3(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = ended(capsys, "--server", "127.0.0.1:1")
    assert code == 3
    assert message.startswith("server: 127.0.0.1:1 cannot be reached")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "reason", "expected", "said"),
    [
        ("UNAUTHENTICATED", "UNAUTHENTICATED", 3, "one sentence. Its file is for --key-file.\n"),
        ("INTERNAL", "INTERNAL", 3, "one sentence.\n"),
        ("FAILED_PRECONDITION", "UNSUITABLE_MODEL", 2, "one sentence.\n"),
    ],
)
def test_what_the_server_says_decides_the_code(
    code: str, reason: str, expected: int, said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeGateway() as gateway:
        gateway.errors.append(status(code_pb2.Code.Value(code), reason, "one sentence."))
        assert ended(capsys, "--server", gateway.target) == (expected, said)


def test_a_timeout_is_code_3(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        gateway.seconds = 0.05
        code, message = ended(capsys, "--server", gateway.target, "--timeout", "0.3", "--steps", "1000")
    assert (code, message) == (3, f"timeout: {gateway.target} had no result in time; allow more.\n")


def test_a_server_without_tls_is_one_sentence_and_no_log_of_grpc(work: Path) -> None:
    with FakeGateway() as gateway:
        command = [
            "generate",
            "--class",
            "dog",
            "-o",
            "out.png",
            "--server",
            gateway.target,
            "--tls",
            "--timeout",
            "30",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "robust_synthesis", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 3
    assert done.stderr.startswith(f"robust-synthesis generate: server: {gateway.target} cannot be reached")
    assert done.stderr.count("\n") == 1


def test_options_of_a_server_are_checked(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("key").write_text("secret\n")
    with FakeGateway() as gateway:
        server = ("--server", gateway.target)
        assert main(["generate", "--class", "dog", "-o", "out.png", "--key-file", "key", *server]) == 0
        assert set(gateway.keys) == {"Bearer secret"}
        Path("out.png").unlink()
        capsys.readouterr()
        for arguments, message in (
            ((*server, "--device", "cpu"), "device: is the server's to choose; leave it out."),
            ((*server, "--precision", "fp32"), "precision: is the server's to choose; leave it out."),
            ((*server, "--timeout", "0"), "timeout: is 0; give a number of seconds above 0."),
            (("--timeout", "9"), "timeout: is for a server; give --server, too."),
            (("--server", "nowhere:port"), "server: 'nowhere:port' is no address; give HOST:PORT."),
            ((*server, "--key-file", "none"), "cannot use 'none' (No such file or directory); "),
            ((*server, "--tls-ca", "key"), "tls-ca: the certificates or the key cannot be used"),
        ):
            code, said = ended(capsys, *arguments)
            assert code == 2
            assert said.startswith(message)


def test_a_terminal_shows_the_progress_of_the_server(work: Path) -> None:
    with FakeGateway() as gateway:
        gateway.seconds = 0.05
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, 120))
        command = ["generate", "--class", "dog", "--steps", "8", "-o", "out.png", "--server", gateway.target]
        done = subprocess.run(
            [sys.executable, "-m", "robust_synthesis", *command], stderr=follower, check=False, cwd=work, timeout=60
        )
        os.write(follower, b"ended")  # so that there is something to read in any case
        shown = os.read(leader, 100_000).decode()
        os.close(follower)
        os.close(leader)
    assert done.returncode == 0
    assert "4/8" in shown
    assert "loss 0.200" in shown
