"""Input of every kind on the command line: it works as a person would expect, or one sentence says what to mend."""

from __future__ import annotations

import io
import json
import os
import pickle
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from robust_synthesis import files
from robust_synthesis.cli.main import main
from robust_synthesis.model_folder import CARD, SEEDS, UNITS, WEIGHTS, sha256
from robust_synthesis.testing import SIZE, tiny_card, tiny_model_folder

Run = Callable[..., str]
Refuse = Callable[..., str]

GENERATE = ("generate", "--class", "circle", "-o", "out.png")
MAXIMIZE = ("maximize-class", "photo.png", "--class", "circle", "--steps", "2", "-o", "out.png")
INPAINT = ("inpaint", "photo.png", "--steps", "2", "-o", "out.png")


@pytest.fixture
def refuse(work: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a verb that is refused; returns the sentence, less the name of the verb. Nothing is written."""

    def call(*arguments: object) -> str:
        before = sorted(work.rglob("*"))
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == 2
        assert printed.out == ""
        start, end = f"robust-synthesis {arguments[0]}: ", printed.err[-2:]
        assert printed.err.startswith(start)
        assert end in (".\n", "?\n")
        assert printed.err.count("\n") == 1
        assert sorted(work.rglob("*")) == before
        return printed.err.removeprefix(start).removesuffix("\n")

    return call


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """The beginning of a black-and-white PNG of that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def smooth(width: int = 48, height: int = 48) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


# Images


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image: is empty (0 bytes); use a PNG,"),
        (b"hello, world", "image: is not a PNG, JPEG, WebP, GIF, BMP or TIFF file; convert"),
        (png(smooth())[:200], "image: is damaged or incomplete and cannot be decoded; send it again"),
        (png(smooth())[:900] + bytes(500) + png(smooth())[1400:], "image: is damaged or incomplete"),
        (
            png_of(20_000, 20_000),
            "image: is 20000 x 20000 pixels (400.0 megapixels), above the limit of 50 megapixels;",
        ),
        (png_of(100, 20_000), "image: is damaged or incomplete"),
    ],
    ids=["empty", "no picture", "truncated", "corrupt", "huge", "narrow and truncated"],
)
def test_an_image_that_cannot_be_read_is_refused(content: bytes, message: str, refuse: Refuse) -> None:
    Path("photo.png").write_bytes(content)
    assert refuse(*MAXIMIZE).startswith(message)


def test_an_image_that_is_not_there_is_refused(refuse: Refuse, work: Path) -> None:
    assert refuse(*MAXIMIZE) == "image: there is no file 'photo.png'; check the path."
    (work / "photo.png").mkdir()
    assert refuse(*MAXIMIZE) == "image: cannot read 'photo.png' (Is a directory); give a readable file."


def test_which_of_several_images_is_bad_is_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smooth().save(work / "good.png")
    (work / "bad.png").write_bytes(b"GIF89a")
    assert main(["classify", "good.png", "bad.png"]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("good.png: ")
    assert "image bad.png: is damaged" in printed.err


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def rotated() -> bytes:
    """The smooth picture, stored lying on its side, with the note that it is to be turned."""
    return png(smooth().transpose(Image.Transpose.ROTATE_90), exif=orientation(6))


def animated() -> bytes:
    file = io.BytesIO()
    smooth().save(file, "WEBP", save_all=True, append_images=[Image.new("RGB", (48, 48))], lossless=True)
    with Image.open(file) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    return file.getvalue()


def transparent() -> bytes:
    """The smooth picture on a palette with one transparent colour, which is nowhere in it."""
    picture = smooth().quantize(255)
    picture.info["transparency"] = 255
    return png(picture, transparency=255)


def cmyk() -> bytes:
    file = io.BytesIO()
    smooth().convert("CMYK").save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def deep() -> bytes:
    return png(Image.fromarray(np.asarray(smooth().convert("L")).astype(np.uint16) * 257))


def probabilities(run: Run, content: bytes) -> dict[str, float]:
    Path("photo").write_bytes(content)
    found: dict[str, float] = json.loads(run("classify", "photo", "--json"))["probabilities"]
    return found


@pytest.mark.parametrize(
    ("content", "plain", "near"),
    [
        (rotated(), smooth(), 1e-6),
        (animated(), smooth(), 1e-6),
        (transparent(), smooth().quantize(255).convert("RGB"), 1e-6),
        (cmyk(), smooth(), 0.1),
        (deep(), smooth().convert("L"), 1e-6),
        (png(smooth(1, 1)), smooth(1, 1).resize((9, 9)), 1e-6),
    ],
    ids=["rotated by EXIF", "animated", "palette and transparency", "CMYK", "16-bit", "1x1"],
)
def test_an_unusual_image_is_seen_as_the_plain_one(content: bytes, plain: Image.Image, near: float, run: Run) -> None:
    assert probabilities(run, content) == pytest.approx(probabilities(run, png(plain)), abs=near)
    Path("photo.png").write_bytes(content)
    run(*MAXIMIZE)
    with Image.open("out.png") as out:
        assert (out.size, out.mode) == ((SIZE, SIZE), "RGB")


# Masks


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (20, 20), 255), "mask: is 20 x 20 pixels but the image is 48 x 48; draw the mask at the size"),
        (
            Image.new("L", (48, 48)),
            "mask: is empty (all black), so nothing may be edited; paint the part to edit white.",
        ),
        (None, "mask: there is no file 'mask.png'; check the path."),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(mask: Image.Image | None, message: str, refuse: Refuse) -> None:
    smooth().save("photo.png")
    if mask:
        mask.save("mask.png")
    assert refuse(*INPAINT, "--mask", "mask.png").startswith(message)


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "100,100,5,5", "0,0,99,9", "0,0,9,99", "0,0,0,9", "nan,0,9,9", "1e3,0,9,9"]
)
def test_a_box_that_cannot_be_used_is_refused(box: str, refuse: Refuse) -> None:
    smooth().save("photo.png")
    assert re.match(r"box: .*(; give x,y,width,height|; keep it inside)", refuse(*INPAINT, "--box", box))


def test_a_mask_outside_of_the_square_is_refused(refuse: Refuse) -> None:
    smooth(96, 48).save("photo.png")
    assert "use fit 'pad'" in refuse(*INPAINT, "--box", "0,0,20,48")


# Parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--class", "circel"), "class: there is no class 'circel'; did you mean circle?"),
        (("--class", "sqare wave"), "class: there is no class 'sqare wave'; "),
        (("--class", "ä"), "class: there is no class 'ä'; choose one of circle, square, stripes, waves."),
        (("--steps", 0), "steps: is 0; give a whole number from 1 to 10000."),
        (("--steps", 10**30), "steps: is 1"),
        (("--epsilon", -1), "epsilon: is -1.0; give a number from 0 to 10000."),
        (("--epsilon", "nan"), "epsilon: is nan; give a finite number."),
        (("--epsilon", "inf"), "epsilon: is inf; give a finite number."),
        (("--step-size", "nan"), "step-size: is nan; give a finite number."),
        (("--step-size", 0), "step-size: is 0.0; give a number above 0 and at most 1000."),
        (("--seed", -1), "seed: is -1; give a whole number from 0 to 9223372036854775807."),
        (("--seed", 2**63), "seed: is 9223372036854775808; give"),
        (("--count", 0), "count: is 0; give a whole number from 1 to 256."),
        (("--size", 0), "size: is 0; cifar10 accepts 8 to 32 pixels."),
        (("--size", 33), "size: is 33; cifar10 accepts 8 to 32 pixels."),
        (("--enlarge", 0), "enlarge: is 0; give a whole number from 1 to 64."),
        (("--model", "cifar1O"), "model: there is no model 'cifar1O'; did you mean cifar10"),
        (("--device", "tpu9"), "device: is 'tpu9'; give cpu, cuda or cuda:N."),
        (("--device", "mps"), "device: is 'mps', which is not supported; give cpu, cuda or cuda:N."),
        (("--device", "meta"), "device: is 'meta', which is not supported; give cpu, cuda or cuda:N."),
        (("--device", "cuda:99"), "device: is 'cuda:99', but there are "),
        (("-o", "out.bmp"), "out: 'out.bmp' has no suffix that can be written; use .png,"),
        (("-o", "out"), "out: 'out' has no suffix"),
        (("--gif", "out.mp4"), "gif: 'out.mp4' has no suffix that can be written; use .gif, .webp."),
        (("--report", "out.png"), "out: two outputs have the same name; give each its own."),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(options: tuple[object, ...], message: str, refuse: Refuse) -> None:
    assert refuse(*GENERATE, *options).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("translate", "photo.png"), "class: cifar10 has more than two classes; name the one to translate to."),
        (("super-resolve", "photo.png", "--factor", 9), "factor: is 9; give a whole number from 2 to 8."),
        (("super-resolve", "photo.png", "--factor", 3), "factor: 16 pixels are not a multiple of 3; choose another"),
        (("paint-features", "photo.png", "--box", "9,9,20,20"), "unit: give either a unit or a class to paint with"),
        (
            ("paint-features", "photo.png", "--box", "9,9,20,20", "--unit", 99),
            "unit: is 99; this classifier has units 0",
        ),
        (("paint-features", "photo.png", "--box", "9,9,20,20", "--unit", "sky"), "unit: there is no unit 'sky'; "),
        (("inpaint", "photo.png", "--box", "9,9,20,20", "--penalty", "nan"), "penalty: is nan; give a finite number."),
    ],
)
def test_a_task_without_what_it_needs_is_refused(arguments: tuple[object, ...], message: str, refuse: Refuse) -> None:
    smooth().save("photo.png")
    assert refuse(*arguments, "-o", "out.png").startswith(message)


@pytest.mark.parametrize("options", [("--steps", "many"), ("--epsilon", "big"), ("--norm", "l3"), ("--colour", "red")])
def test_what_the_parser_refuses_ends_with_code_2(
    options: tuple[str, ...], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*GENERATE, *options])
    assert stopped.value.code == 2
    assert options[0] in capsys.readouterr().err
    assert not list(work.iterdir())


def test_other_verbs_refuse_as_well(refuse: Refuse, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth().save("photo.png")
    assert refuse("classify", "photo.png", "--top", 0) == "top: is 0; give a whole number from 1."
    assert refuse("compare", "photo.png", "--standard-model", "none").startswith("model: there is no model 'none'; ")
    assert refuse("demo", "--class", "cat").startswith("class: there is no class 'cat'; choose one of circle,")
    assert refuse("demo", "--out", "photo.png/demo").startswith("out: cannot write")
    assert refuse("models", "cifar") == "model: there is no model 'cifar'; did you mean cifar10?"
    assert refuse("import", "no.pt", "new") == (
        "checkpoint: there is no file no.pt; give the path of a downloaded checkpoint."
    )
    torch.save({}, "empty.pt")
    Path("latin.txt").write_bytes("é".encode("latin-1"))
    assert refuse("import", "empty.pt", "new", "--classes", "latin.txt").startswith("classes: 'latin.txt' is not UTF-8")
    assert refuse("import", "empty.pt", "new", "--mean", "1,2").startswith("mean: is '1,2'; give three numbers")
    assert refuse("import", "empty.pt", "new", "--mean", "nan,0,0", "--std", "1,1,1").startswith("mean: must be three")
    monkeypatch.delenv("ROBUST_SYNTHESIS_DATA", raising=False)
    assert refuse("evaluate", models / "cifar10").startswith("data: give --data")


def test_an_empty_models_directory_says_what_to_set(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_SYNTHESIS_MODELS", "nowhere")
    for command in (GENERATE, ("models",)):
        assert re.match(r"model: there .* in nowhere; set ROBUST_SYNTHESIS_MODELS", refuse(*command))


# Model folders


@pytest.fixture
def folder(work: Path) -> Path:
    """A model folder to be damaged."""
    return tiny_model_folder(work / "mine", tiny_card("mine")).path


def edit(folder: Path, **changes: Any) -> None:
    """Change the card, whatever that does to it, and bring its checksums up to date."""
    card = json.loads((folder / CARD).read_text())
    card["files"] = {name: sha256(folder / name) for name in card["files"]}
    (folder / CARD).write_text(json.dumps(card | changes))


@pytest.mark.parametrize("name", [WEIGHTS, SEEDS, UNITS])
def test_a_model_folder_with_a_missing_or_changed_file_is_refused(name: str, folder: Path, refuse: Refuse) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b" ")
    message = f"model: mine/{name} does not have the card's checksum; copy the whole folder again."
    assert refuse(*GENERATE, "--model", "mine") == message
    (folder / name).unlink()
    message = f"model: mine/{name} is missing; copy the whole folder again."
    assert refuse(*GENERATE, "--model", "mine") == message
    (folder / CARD).unlink()
    assert refuse(*GENERATE, "--model", "mine") == "model: mine has no model.json; it is not a model folder."


class Hostile:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch hostile",)


@pytest.mark.parametrize("name", [WEIGHTS, SEEDS])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_in_a_model_folder_is_refused_and_not_run(
    name: str, zipped: bool, folder: Path, refuse: Refuse
) -> None:
    if zipped:
        torch.save({"fc.weight": Hostile()}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Hostile()))
    edit(folder)
    assert refuse(*GENERATE, "--model", "mine").startswith(f"model: mine/{name} ")
    assert not Path("hostile").exists()


def test_weights_that_do_not_fit_the_card_are_refused(folder: Path, refuse: Refuse) -> None:
    def with_weights(change: Callable[[dict[str, Any]], object]) -> str:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)
        edit(folder)
        return refuse(*GENERATE, "--model", "mine").removeprefix(f"model: mine/{WEIGHTS} ")

    good = load_file(folder / WEIGHTS)
    wrong = with_weights(lambda state: state.update({"fc.weight": np.zeros((4, 9), np.float32)}))
    assert wrong == "has fc.weight of shape (4, 9), the card says (4, 8)."
    assert with_weights(lambda state: state.pop("fc.weight")).startswith("lacks fc.weight (1 missing)")
    wrong = with_weights(lambda state: state.update(good | {"head": good["fc.bias"]}))
    assert wrong == "has head (1 too many), unknown to the card's architecture."
    wrong = with_weights(lambda state: (state.pop("head"), state.update({"fc.bias": np.full(4, np.nan, np.float32)})))
    assert wrong == "holds NaN or infinity in fc.bias."
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    edit(folder)
    assert "is not a safetensors file" in refuse(*GENERATE, "--model", "mine")


def test_a_card_that_is_not_utf8_or_far_too_long_is_refused(folder: Path, refuse: Refuse) -> None:
    (folder / CARD).write_bytes(b'{"name": "\xe9"}')
    assert refuse(*GENERATE, "--model", "mine") == "model: mine/model.json is not UTF-8 text."
    (folder / CARD).write_bytes(b" " * (4 * 2**20 + 1))
    assert "is larger than 4 MiB" in refuse(*GENERATE, "--model", "mine")
    (folder / CARD).write_bytes(b"[" * 100_000)
    assert refuse(*GENERATE, "--model", "mine").startswith("model.json: not valid JSON")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 10**9}, "model.json: size must be between 8 and 4096."),
        ({"max_size": 10**9}, "model.json: min_size and max_size must rise from 1 to at most 8192."),
        ({"mean": [float("nan"), 0, 0]}, "model.json: mean and std must be finite numbers."),
        ({"classes": [1, 2, 3, 4]}, "model.json: classes must be names"),
        ({"defaults": {"generate": {"epsilon": float("nan")}}}, "model.json: defaults of generate: epsilon: is nan"),
        ({"defaults": {"generate": {"colour": 1}}}, "model.json: defaults of generate: "),
        ({"defaults": {"generate": {"steps": None}}}, "model.json: defaults of generate: steps has no value."),
        ({"architecture": {"kind": "resnet", "width": 10**6}}, f"model: mine/{WEIGHTS} lacks layer"),
        (
            {"architecture": {"kind": "resnet", "depths": [1, 1], "width": 10**6}},
            f"model: mine/{WEIGHTS} has conv1.weight",
        ),
        ({"architecture": {"kind": "resnet", "width": 10**30}}, "model: mine has an architecture that this version"),
        ({"architecture": {"kind": "resnet", "width": -1}}, "model: mine has an architecture that this version"),
        ({"files": {WEIGHTS: 5}}, f"model: mine/{WEIGHTS} does not have the card's checksum"),
    ],
)
def test_a_card_that_asks_for_too_much_is_refused(
    changes: dict[str, Any], message: str, folder: Path, refuse: Refuse
) -> None:
    edit(folder, **changes)
    assert refuse(*GENERATE, "--model", "mine").startswith(message)


def test_seeds_that_are_not_numbers_are_refused(folder: Path, refuse: Refuse) -> None:
    stored = load_file(folder / SEEDS)
    stored["mean"][0, 0] = np.nan
    save_file(stored, folder / SEEDS)
    edit(folder)
    assert refuse(*GENERATE, "--model", "mine") == f"model: mine/{SEEDS} holds NaN or infinity in mean."


# Outputs


@pytest.mark.parametrize("option", ["--out", "--gif", "--report"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    option: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    Path("folder.gif").mkdir()
    name = option.removeprefix("--")
    suffix = {"out": "png", "gif": "gif", "report": "json"}[name]
    message = refuse(*GENERATE, option, f"file/new/a.{suffix}")
    assert message == f"{name}: cannot write 'file/new/a.{suffix}' ('file' is not a folder); choose another path."
    if name != "out":
        assert refuse(*GENERATE, option, "folder.gif").endswith("(it is a folder); choose another path.")
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    assert refuse(*GENERATE, option, f"new/a.{suffix}").endswith(
        "(nothing may be written in '.'); choose another path."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--enlarge", 60), "enlarge: makes a side of 18000 pixels; choose at most 16383 together."),
        (("--enlarge", 60, "-o", "out.webp"), "enlarge: makes a side of 18000 pixels;"),
    ],
)
def test_a_picture_too_large_to_be_written_is_refused_before_the_work(
    options: tuple[object, ...], message: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robust_synthesis.library.run", None)
    smooth(300, 60).save("photo.png")
    assert refuse(*INPAINT, "--box", "140,20,20,20", "--paste-back", *options).startswith(message)


def test_a_photo_too_large_for_its_format_is_refused_before_the_work(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robust_synthesis.library.run", None)
    Image.new("RGB", (17_000, 8)).save("photo.png")
    message = refuse(*INPAINT, "--box", "8498,2,4,4", "--paste-back", "-o", "out.webp")
    assert message == "out: is WebP, which cannot hold 17000 pixels; write a PNG."


def test_a_numbered_output_that_cannot_be_written_is_refused(refuse: Refuse, work: Path) -> None:
    (work / "out-2.png").mkdir()
    message = refuse(*GENERATE, "--count", 2)
    assert message == "out: cannot write 'out-2.png' (it is a folder); choose another path."


def test_a_full_disk_is_one_sentence_and_leaves_nothing(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full)
    assert "No space left on device" in refuse(*GENERATE)


def test_an_error_of_our_own_is_not_taken_for_the_systems(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise OSError("a bug")

    monkeypatch.setattr("robust_synthesis.load", wrong)
    with pytest.raises(OSError, match="a bug"):
        main([*GENERATE])
    assert not list(work.iterdir())


# Interruptions

START = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
START += "from robust_synthesis.cli.main import main; sys.exit(main())"


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen([sys.executable, "-c", START, *map(str, arguments)], env=environment, **options)


def read_until(terminal: int, pattern: bytes) -> bytes:
    """What a process writes to its terminal until it has written the pattern, or has ended, or two minutes are over."""
    seen = b""
    while not re.search(pattern, seen) and select.select([terminal], [], [], 120)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux tells that the other end is closed by EIO
            break
        if not part:
            break
        seen += part
    return seen


def test_on_a_terminal_there_is_a_bar_with_the_steps_and_interrupting_leaves_no_file(work: Path) -> None:
    for sent in (signal.SIGINT, signal.SIGTERM):
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 120))
        command = (*GENERATE, "--steps", 3_000, "--gif", "way.gif", "--report", "report.json")
        process = start(*command, stdout=subprocess.PIPE, stderr=slave)
        os.close(slave)
        seen = read_until(master, rb"[1-9]\d*/3000 .*probability")
        process.send_signal(sent)
        assert re.search(rb"generate: .*\b[1-9]\d*/3000 .*loss -?\d+\.\d+, probability [01]\.\d\d", seen)
        rest = read_until(master, b"(?!)")
        os.close(master)
        printed, _ = process.communicate()
        assert process.returncode == 130
        assert rest.decode().replace("\r", "").rstrip().endswith("interrupted")
        assert b"Traceback" not in rest
        assert printed == b""
        assert not list(work.iterdir())


def test_interrupting_the_import_of_torch_is_quiet(work: Path) -> None:
    (work / "hidden").mkdir()
    (work / "hidden" / "torch.py").write_text("raise KeyboardInterrupt")
    process = start(*GENERATE, stderr=subprocess.PIPE, env={"PYTHONPATH": "hidden"})
    assert process.communicate()[1] == b"\ninterrupted\n"
    assert process.returncode == 130


def test_an_interrupted_write_leaves_the_old_file(work: Path) -> None:
    path = work / "picture.png"
    path.write_bytes(b"old")

    def write() -> None:
        with files.atomic_write(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_bytes() == b"old"
    assert list(work.iterdir()) == [path]


@pytest.mark.usefixtures("work")
def test_a_reader_who_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("models", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert process.communicate()[1] == b""
    assert process.returncode == 141
