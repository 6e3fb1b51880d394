"""The first thing a stranger does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robust_synthesis.cli.main import main
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.library import Synthesizer
from robust_synthesis.model_folder import available

ROOT = Path(__file__).parents[2]
TASKS = {"generate-gaussian", "generate-noise", "inpaint", "translate", "super-resolve", "sketch-to-image"}
TASKS |= {"paint-features-class", "paint-features-unit", "maximize-class"}

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("imagenet64" not in available(), reason="needs model_store/imagenet64"),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage")
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out)]) == 0  # TorchServe, gateway and client
    return out


def test_demo_writes_a_picture_per_task_and_one_sheet(demo: Path) -> None:
    assert {path.stem for path in demo.glob("*.png")} == TASKS | {"contact-sheet"}
    with Image.open(demo / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
        assert sheet.height > 1000


def test_demo_raises_the_probability_of_the_class_in_every_task(demo: Path) -> None:
    tasks = json.loads((demo / "demo.json").read_text())["tasks"]
    assert tasks.keys() == TASKS
    for name, task in tasks.items():
        before = np.mean([picture["probability_before"] for picture in task["pictures"]])
        after = np.mean([picture["probability_after"] for picture in task["pictures"]])
        assert after > before or name == "paint-features-unit", name
        for picture in task["pictures"]:
            assert picture["l2"] <= task["parameters"]["epsilon"] + 1e-3


def test_demo_reports_the_latency_of_every_task_as_the_gateway_measured_it(demo: Path) -> None:
    report = json.loads((demo / "demo.json").read_text())
    assert report["backend"] == "torchserve"
    requests = {task: latency["requests"] for task, latency in report["latency"].items()}
    once = dict.fromkeys(("inpaint", "translate", "super_resolve", "sketch_to_image", "maximize_class"), 1)
    assert requests == {"generate": 20, "paint_features": 2} | once
    assert all(0 < latency["mean"] <= latency["below"] * 2 for latency in report["latency"].values())


def test_demo_without_torchserve_makes_the_same_pictures(demo: Path, tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path), "--backend", "embedded"]) == 0
    there, here = (json.loads((folder / "demo.json").read_text())["tasks"] for folder in (demo, tmp_path))
    for name, task in here.items():
        assert [picture["seed"] for picture in task["pictures"]] == [0] * len(task["pictures"])
        assert task["parameters"] == there[name]["parameters"]


@pytest.mark.skipif("cifar10-judge" not in available(), reason="needs model_store/cifar10 and its judge")
def test_an_independent_judge_recognises_what_is_generated() -> None:
    judge = Synthesizer(Classifier.load("cifar10-judge"))
    synthesizer = Synthesizer(Classifier.load("cifar10"))
    right = 0
    for target in synthesizer.classifier.card.classes:
        made = synthesizer.generate(target, seed=5, count=4)
        right += sum(target in judge.classify(image, top=1) for image in made.images)
    assert right >= 34, f"{right} of 40"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_SYNTHESIS_MODELS", str(ROOT / "model_store"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save("photo.png")
    served, local = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with serving(lambda: embedded(ROOT / "model_store")) as target:
        assert "127.0.0.1:50051" in served
        exec(served.replace("127.0.0.1:50051", target), {})
    with Image.open("out.png") as picture:
        assert picture.size == (400, 300)
    names: dict[str, object] = {}
    exec(local, names)
    with Image.open("dog.png") as picture:
        assert picture.size == (32, 32)
    assert names["edited"].image.size == (400, 300)  # type: ignore[attr-defined]


def test_every_command_of_the_readme_parses() -> None:
    from robust_synthesis.cli.main import parser

    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^    robust-synthesis (.*)$", text, re.MULTILINE)
    assert len(commands) >= 14
    for command in commands:
        parser().parse_args(shlex.split(command, comments=True))
