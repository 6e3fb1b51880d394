"""Every verb on files, with a tiny classifier: what it writes, and that it can be made again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import robust_synthesis
from robust_synthesis import __version__, imaging
from robust_synthesis.cli import demo
from robust_synthesis.cli.main import main
from robust_synthesis.model_folder import CARD, ModelFolder
from robust_synthesis.results import Picture
from robust_synthesis.testing import CLASSES, SIZE, pictures, tiny_model_folder, tiny_network
from robust_synthesis.units import Units

Run = Callable[..., str]

BOX = ("--box", "22,8,16,20")
TASKS: dict[str, tuple[str, ...]] = {
    "inpaint": BOX,
    "translate": ("--class", "square"),
    "super-resolve": ("--factor", "2"),
    "sketch-to-image": ("--class", "waves"),
    "paint-features": ("--class", "circle", "--hard-mask", *BOX),
    "maximize-class": ("--class", "stripes"),
}
VERBS = ("generate", *TASKS, "classify", "compare", "demo", "models", "train", "evaluate", "report", "import")


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def square_of(photo: Path) -> NDArray[np.uint8]:
    """The photo as the classifier sees it."""
    return np.asarray(imaging.to_image(imaging.to_square(imaging.decode(photo), SIZE)))


@pytest.mark.parametrize("verb", TASKS)
def test_a_task_on_a_photo_writes_a_picture_of_the_classifiers_size(verb: str, run: Run, photo: Path) -> None:
    printed = run(verb, photo, *TASKS[verb], "--steps", 6, "--seed", 1, "-o", "new/out.png")
    found = pixels(Path("new/out.png"))
    assert found.shape == (SIZE, SIZE, 3)
    assert (found != square_of(photo)).any()
    line = rf"new/out\.png: ({'|'.join(CLASSES)}) 0\.\d+ -> [01]\.\d+, seen as \w+, L2 \d+\.\d+, 6 steps, seed 1\n"
    assert re.fullmatch(line, printed)


@pytest.mark.parametrize("start", ["gaussian", "noise"])
def test_generate_numbers_its_pictures_and_its_animations(start: str, run: Run, work: Path) -> None:
    options = ("--class", "circle", "--start", start, "--count", 3, "--seed", 1, "--gif", "way.gif")
    printed = run("generate", *options, "-o", "circle.png", "--report", "circle.json")
    names = [f"circle-{i}.png" for i in (1, 2, 3)]
    assert [line.partition(":")[0] for line in printed.splitlines()] == names
    gifs = [f"way-{i}.gif" for i in (1, 2, 3)]
    assert sorted(path.name for path in work.iterdir()) == sorted([*names, *gifs, "circle.json"])
    found = [pixels(work / name) for name in names]
    assert all((a != b).any() for a, b in zip(found, [*found[1:], found[0]], strict=True))
    for picture in json.loads(Path("circle.json").read_text())["pictures"]:
        assert picture["probability_after"] > picture["probability_before"]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_gif_is_an_animation_that_ends_in_the_picture(suffix: str, run: Run, photo: Path) -> None:
    run("maximize-class", photo, "--class", "waves", "--steps", 8, "--last", "-o", "out.png", "--gif", f"way.{suffix}")
    with Image.open(f"way.{suffix}") as way:
        assert way.n_frames == 9  # type: ignore[attr-defined]
        assert way.size == (256, 256)
        way.seek(0)
        first = np.asarray(way.convert("RGB"))[8::16, 8::16].astype(int)
        way.seek(8)
        last = np.asarray(way.convert("RGB"))[8::16, 8::16].astype(int)
    assert np.abs(first - square_of(photo)).mean() < 8
    assert np.abs(last - pixels(Path("out.png"))).mean() < 8


def test_enlarge_repeats_every_pixel(run: Run) -> None:
    run("generate", "--class", "circle", "--seed", 1, "-o", "small.png")
    run("generate", "--class", "circle", "--seed", 1, "--enlarge", 5, "-o", "large.png")
    assert (pixels(Path("large.png")) == pixels(Path("small.png")).repeat(5, 0).repeat(5, 1)).all()


def test_size_is_the_side_of_the_result(run: Run, photo: Path) -> None:
    run("super-resolve", photo, "--size", 24, "--factor", 3, "--steps", 2, "-o", "out.png")
    assert pixels(Path("out.png")).shape == (24, 24, 3)


def test_a_box_is_the_mask_of_its_pixels(run: Run, photo: Path) -> None:
    mask = Image.new("L", (60, 40))
    mask.paste(255, (22, 8, 38, 28))
    mask.save("mask.png")
    run("inpaint", photo, *BOX, "--steps", 6, "-o", "box.png")
    run("inpaint", photo, "--mask", "mask.png", "--steps", 6, "-o", "mask-out.png")
    assert (pixels(Path("box.png")) == pixels(Path("mask-out.png"))).all()


def test_inpainting_keeps_what_is_outside_the_mask(run: Run, photo: Path) -> None:
    run("inpaint", photo, "--box", "30,0,20,40", "--steps", 6, "-o", "out.png")
    changed = (pixels(Path("out.png")) != square_of(photo)).any(axis=2)
    assert not changed[:, :8].any()
    assert changed[:, 8:].mean() > 0.9


@pytest.mark.parametrize("verb", ["inpaint", "paint-features"])
def test_paste_back_writes_the_whole_photo_with_only_the_box_changed(verb: str, run: Run, photo: Path) -> None:
    run(verb, photo, *TASKS[verb], "--paste-back", "--steps", 6, "-o", "out.png")
    before, after = pixels(photo), pixels(Path("out.png"))
    assert after.shape == before.shape
    changed = (after != before).any(axis=2)
    assert changed[8:28, 22:38].mean() > 0.5
    changed[8:28, 22:38] = False
    assert not changed.any()


def test_features_are_painted_by_the_number_and_by_the_name_of_a_unit(run: Run, photo: Path, models: Path) -> None:
    unit = Units.load(ModelFolder.open(models / "cifar10")).units[0]
    for name in (unit.index, unit.name):
        run("paint-features", photo, "--unit", name, *BOX, "--epsilon", 9, "-o", f"{name}.png", "--report", "r.json")
        parameters = json.loads(Path("r.json").read_text())["parameters"]
        assert str(parameters["unit"]) == str(name)
    by_number, by_name = pixels(Path(f"{unit.index}.png")), pixels(Path(f"{unit.name}.png"))
    assert (by_number == by_name).all()
    assert (by_number != square_of(photo)).any()


def test_a_seed_is_chosen_and_printed_and_makes_the_picture_again(run: Run) -> None:
    printed = [run("generate", "--class", "circle", "-o", name) for name in ("a.png", "b.png")]
    seeds = [re.search(r"seed (\d+)\n", line) for line in printed]
    assert seeds[0]
    assert seeds[1]
    assert seeds[0][1] != seeds[1][1]
    run("generate", "--class", "circle", "--seed", seeds[0][1], "-o", "again.png")
    assert (pixels(Path("again.png")) == pixels(Path("a.png"))).all()
    assert (pixels(Path("again.png")) != pixels(Path("b.png"))).any()


def flags(report: dict[str, Any]) -> list[object]:
    """The command that a report's parameters stand for."""
    found: list[object] = [report["task"].replace("_", "-")]
    switches = {"random_start": "--random-start", "exact": "--exact", "paste_back": "--paste-back"}
    for name, value in report["parameters"].items():
        if name in switches:
            found += [switches[name]] * value
        elif name == "use_best":
            found += [] if value else ["--last"]
        elif name == "hard_mask":
            found.append("--hard-mask" if value else "--no-hard-mask")
        elif value is not None:
            found += ["--class" if name == "target" else f"--{name.replace('_', '-')}", value]
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "--class", "waves", "--start", "noise", "--count", 2, "--steps", 5, "--random-start"),
        ("generate", "--class", "waves", "--norm", "linf", "--epsilon", 0.1, "--exact", "--last"),
        ("inpaint", "photo.png", *BOX, "--no-hard-mask", "--penalty", 3, "--filling", "smooth", "--paste-back"),
        ("super-resolve", "photo.png", "--factor", 2, "--upsampling", "bicubic", "--fit", "pad", "--steps", 5),
        ("translate", "photo.png", "--class", "square", "--norm", "none", "--step-size", 0.1, "--steps", 5),
        ("paint-features", "photo.png", "--unit", 0, *BOX, "--strength", 0.3, "--fit", "stretch"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_a_report_has_all_that_makes_the_picture_again(command: tuple[object, ...], run: Run) -> None:
    run(*command, "-o", "first.png", "--report", "report.json")
    report = json.loads(Path("report.json").read_text())
    on_a_photo = command[1] == "photo.png"
    run(*flags(report), *(["photo.png"] if on_a_photo else []), "-o", "second.png", "--report", "second.json")
    names = [f"-{i + 1}" for i in range(len(report["pictures"]))] if len(report["pictures"]) > 1 else [""]
    for name in names:
        assert Path(f"first{name}.png").read_bytes() == Path(f"second{name}.png").read_bytes()
    again = json.loads(Path("second.json").read_text())
    assert again["parameters"] | {"unit": 0} == report["parameters"] | {"unit": 0}  # as a text, it may be a name
    assert again["pictures"] == report["pictures"]
    task = getattr(robust_synthesis.load("cifar10"), report["task"])
    images = task(*(["photo.png"] if on_a_photo else []), **report["parameters"]).images
    for name, image in zip(names, images, strict=True):
        assert (np.asarray(image) == pixels(Path(f"first{name}.png"))).all()


def test_exact_makes_the_same_bits_whatever_else_is_made(run: Run) -> None:
    run("generate", "--class", "circle", "--seed", 1, "--exact", "-o", "alone.png")
    run("generate", "--class", "circle", "--seed", 1, "--exact", "--count", 3, "-o", "of.png")
    assert Path("alone.png").read_bytes() == Path("of-1.png").read_bytes()


def test_classify_prints_the_most_probable_classes_first(run: Run, photo: Path) -> None:
    line = run("classify", photo, "--top", 2)
    found = [(name, float(value)) for name, value in re.findall(r"(\w+) (\d\.\d{3})", line)]
    assert len(found) == 2
    assert found[0][1] >= found[1][1]
    first, second = (json.loads(text) for text in run("classify", photo, photo, "--json").splitlines())
    assert first == second
    assert first["image"] == str(photo)
    assert set(first["probabilities"]) == set(CLASSES)
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_compare_prints_how_far_each_classifier_is_from_changing_its_mind(run: Run, photo: Path) -> None:
    line = run("compare", photo, "-o", "compare.png")
    assert re.fullmatch(rf"{photo}: robust \w+ -> \w+ at L2 [\d.]+; standard \w+ -> \w+ at L2 [\d.]+\n", line)
    assert pixels(Path("compare.png")).shape[0] > 4 * 96


def test_models_lists_names_and_prints_cards(run: Run, models: Path) -> None:
    lines = run("models").splitlines()
    assert [line.split()[0] for line in lines] == ["cifar10", "cifar10-standard"]
    assert lines[0].endswith(f"robust       4 classes, {SIZE} px")
    assert ModelFolder.open(models / "cifar10").version in lines[0]
    assert run("models", "cifar10") == (models / "cifar10" / CARD).read_text()


def test_models_tells_of_a_folder_that_cannot_be_used_and_goes_on(run: Run, work: Path, models: Path) -> None:
    (work / "store").symlink_to(models)
    (work / "other" / "broken").mkdir(parents=True)
    (work / "other" / "broken" / CARD).write_text("{}")
    (work / "other" / "tiny").symlink_to(models / "cifar10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUST_SYNTHESIS_MODELS", "other")
        broken, tiny = run("models").splitlines()
    assert re.match(r"broken +cannot be used: model\.json: .* missing\.", broken)
    assert tiny.startswith("tiny ")


def test_calibrate_writes_the_ranges_of_a_classifier_on_its_card(run: Run) -> None:
    before = tiny_model_folder(Path("mine"))
    printed = run("calibrate", "mine")
    after = ModelFolder.open("mine")
    assert printed == f"mine/model.json: tiny {after.version}\n"
    assert not before.card.ranges
    assert after.card.ranges["activations"]["conv1"] > 0


def test_import_writes_a_model_folder_that_every_verb_can_use(run: Run, photo: Path) -> None:
    torch.save(tiny_network().state_dict(), "tiny.pt")
    Path("classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    statistics = ("--mean", "0.48,0.45,0.41", "--std", "0.25,0.24,0.26", "--size", SIZE)
    printed = run("import", "tiny.pt", "mine", "--classes", "classes.txt", *statistics)
    assert printed.startswith("mine: ")
    assert printed.endswith(f"4 classes, {SIZE} px\n")
    # Not in int8: the one has seeds, with which it was calibrated, and the other none.
    exact = "--precision", "fp32"
    assert run("classify", photo, "--model", "mine", *exact) == run("classify", photo, *exact)
    run("maximize-class", photo, "--class", "waves", "--model", "mine", "--steps", 3, "-o", "out.png")
    run("import", "tiny.pt", "other", "--classes", ",".join(f"{'long ' * 60}{i}" for i in range(4)), *statistics)
    assert len(ModelFolder.open("other").card.classes) == 4


def test_demo_runs_every_task_on_a_photo_of_ones_own(run: Run, photo: Path) -> None:
    printed = run("demo", "--image", photo, "--class", "Circle", "--out", "demo")
    report = json.loads(Path("demo/demo.json").read_text())
    tasks = set(report["tasks"])
    assert tasks >= {"generate-gaussian", "generate-noise", "paint-features-unit", *TASKS.keys() - {"paint-features"}}
    assert {path.name for path in Path("demo").iterdir()} == {f"{task}.png" for task in tasks} | {
        "contact-sheet.png",
        "demo.json",
    }
    lines = printed.splitlines()
    assert sum(line.split(" ")[0] in tasks for line in lines) == len(tasks) == 9
    assert lines[-1].startswith("9 tasks in ")
    assert pixels(Path("demo/contact-sheet.png")).shape[1] > 1000
    assert report["tasks"]["inpaint"]["parameters"]["target"] == "circle"


def test_demo_aims_at_what_the_classifier_sees_and_uses_one_seed(run: Run, photo: Path) -> None:
    seen = run("classify", photo, "--top", 1).split()[1]
    run("demo", "--image", photo, "--seed", 7, "--out", "demo")
    tasks = json.loads(Path("demo/demo.json").read_text())["tasks"]
    assert tasks["inpaint"]["parameters"]["target"] == tasks["super-resolve"]["parameters"]["target"] == seen
    assert {task["parameters"]["seed"] for task in tasks.values()} == {7}


@pytest.mark.parametrize(
    ("steps", "kept", "shown"),
    [(60, range(3, 60, 3), [3, 12, 24, 36, 48]), (7, range(1, 7), [1, 3, 4, 6]), (2, range(1, 2), [1])],
)
def test_the_way_there_is_shown_at_even_distances(steps: int, kept: range, shown: list[int]) -> None:
    image = Image.new("RGB", (4, 4))
    way = [(step, image) for step in (*kept, steps)]
    picture = SimpleNamespace(steps=steps, frames=tuple(way))
    captions = [cell.caption for cell in demo._way(cast(Picture, picture))]
    assert captions == [f"step {step}" for step in shown]


def test_evaluate_reads_no_training_images_where_no_judge_needs_them(run: Run, work: Path) -> None:
    pytest.importorskip("pyautoattack")
    path = tiny_model_folder(work / "mine").path
    images, labels = pictures()
    for i, (image, label) in enumerate(zip(images[::24], labels[::24].tolist(), strict=True)):
        (work / "data" / "test" / CLASSES[label]).mkdir(parents=True)
        imaging.to_image(image.numpy()).save(work / "data" / "test" / CLASSES[label] / f"{i}.png")
    (work / "data" / "train").mkdir()  # which holds nothing that could be read
    printed = run("evaluate", path, "--data", "data", "--images", 1, "--l2", 0.001)
    assert printed.startswith("clean accuracy: ")
    assert ModelFolder.open(path).card.measured["clean_accuracy"]["count"] == 4
    assert Path("out/reports/mine.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: robust-synthesis {verb} ")
    options = re.split(r"\n  (?=\S)", text)[1:]
    assert len(options) >= 2
    for option in options:
        words = re.split(r" {2,}|\n +", option.strip(), maxsplit=1)
        assert len(words) == 2, f"{words[0]} has no help"


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_without_a_verb_there_is_help_and_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "VERB" in printed.err
    assert all(verb in printed.err for verb in VERBS)


def test_every_verb_prepares_what_torch_reads_from_the_environment_unless_told_otherwise(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["models"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    probe = "import os; from robust_synthesis.cli import main; main.main(['models']); "
    probe += f"print(*[os.environ[name] for name in {names}])"
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "PASSIVE 30000 8192"
