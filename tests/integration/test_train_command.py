"""`robust-synthesis train` as a user runs it: whole, interrupted, killed, from another model, on two processes, mistaken."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

import robust_synthesis
from robust_synthesis.cli.main import main
from robust_synthesis.engine import weights
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.imaging import to_image
from robust_synthesis.model_folder import CARD, SEEDS, UNITS, UNITS_SHEET, WEIGHTS, ModelFolder
from robust_synthesis.testing import CLASSES, pictures, tiny_card, tiny_model_folder
from robust_synthesis.training import measurement

EPOCHS = 12
NETWORK = ["--width", "4", "--depths", "1,1"]
QUICK = ["--batch-size", "24", "--hold-out", "24", "--crop-padding", "1", "--precision", "fp32"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}


def write_parquet(folder: Path, *, test: bool) -> Path:
    """96 pictures of four classes to train on, and 48 to test."""
    folder.mkdir()
    for split, seed in (("train", 0), ("test", 1))[: 1 + test]:
        images, labels = pictures(seed=seed)
        cells, order = [], torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
        for i in order[: 96 if split == "train" else 48]:
            buffer = io.BytesIO()
            to_image(images[i].numpy()).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": cells, "label": [int(labels[i]) for i in order[: len(cells)]]})
        names = {"class_names": json.dumps(CLASSES)}
        parquet.write_table(table.replace_schema_metadata(names), folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("data") / "shapes", test=True)


@pytest.fixture(scope="module")
def train_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("data") / "shapes", test=False)


def command(data: Path, out: str, *more: str) -> list[str]:
    return ["train", str(data), out, *NETWORK, *QUICK, "--epochs", str(EPOCHS), *more]


# A shell's background jobs ignore SIGINT, and so would all that they start.
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from robust_synthesis.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def hidden(folder: Path) -> list[Path]:
    """What `atomic_write` and `new_folder` call their unfinished files."""
    return list(folder.rglob(".*"))


class Run:
    """An uninterrupted run in a process of its own."""

    def __init__(self, cwd: Path, data: Path) -> None:
        self.cwd = cwd
        self.code, self.out, self.err = finish(start(command(data, "out/shapes", "--measure", "8"), cwd))
        self.folder = cwd / "out" / "shapes"
        self.checkpoint = cwd / "runs" / "shapes" / "checkpoint.pt"


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("whole"), data)


def test_it_ends_well_and_says_what_every_epoch_found(whole: Run) -> None:
    assert (whole.code, whole.err) == (0, "")
    *epochs, version, measured = whole.out.splitlines()
    assert [line.split(":")[0] for line in epochs] == [f"epoch {i}/{EPOCHS}" for i in range(1, EPOCHS + 1)]
    assert all("clean" in line and "robust" in line for line in epochs)
    assert re.search(r"out/shapes: version [0-9a-f]{16}$", version)
    assert measured.startswith("test: clean ")


def test_it_writes_a_model_folder_that_generates(whole: Run) -> None:
    card = ModelFolder.open(whole.folder).card
    assert set(card.files) == {WEIGHTS, SEEDS, UNITS, UNITS_SHEET}
    assert (card.name, card.role, card.classes, card.size) == ("shapes", "robust", CLASSES, 16)
    assert card.data["name"] == "shapes"
    picture = robust_synthesis.load(whole.folder, device="cpu").generate("waves", seed=1, steps=5).image
    assert picture.size == (16, 16)


def test_its_classifier_has_learnt_the_classes(whole: Run) -> None:
    images, labels = pictures(seed=0)
    found = Classifier.load(whole.folder, device="cpu").probabilities(images).argmax(1)
    assert float((found == labels).float().mean()) > 0.4  # by chance 0.25


def test_it_measures_accuracy_on_the_test_split_and_writes_it_on_the_card(whole: Run) -> None:
    folder = ModelFolder.open(whole.folder)
    clean, (robust,) = folder.card.measured["clean_accuracy"], folder.card.measured["robust_accuracy"]
    assert clean["count"] == 48
    assert (robust["count"], robust["norm"], robust["epsilon"]) == (8, "l2", 0.5)
    assert robust["attacks"] == ["apgd-ce", "apgd-t"]
    assert robust["value"] <= 1
    report = json.loads((whole.folder / "evaluation.json").read_text())
    assert report["headline"] == folder.card.measured
    assert (
        f"test: clean {clean['value']:.1%} of 48, robust {robust['value']:.1%} of 8 (AutoAttack, l2 0.5)" in whole.out
    )


def test_it_leaves_no_half_written_file(whole: Run) -> None:
    assert hidden(whole.cwd) == []


def test_it_logs_scalars_for_tensorboard(whole: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(whole.checkpoint.parent)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "clean_accuracy", "robust_accuracy"}
    assert [point.step for point in events.Scalars("loss")] == list(range(1, EPOCHS + 1))
    history = torch.load(whole.checkpoint, weights_only=True)["history"]
    for name in ("loss", "clean_accuracy", "robust_accuracy"):
        assert [point.value for point in events.Scalars(name)] == pytest.approx([epoch[name] for epoch in history])


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{path}/{key}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_and_ends_with_the_same_weights(
    how: signal.Signals, data: Path, whole: Run, tmp_path: Path
) -> None:
    arguments = command(data, "out/shapes", "--measure", "0")
    for _ in range(10):
        stopped = start(arguments, tmp_path)
        assert stopped.stdout is not None
        assert stopped.stdout.readline().startswith(f"epoch 1/{EPOCHS}")
        stopped.send_signal(how)
        code, _, err = finish(stopped)
        if code:
            break
        # On a busy machine so short a run may end before the signal comes.
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "runs")
    assert not (tmp_path / "out" / "shapes").exists()
    if how == signal.SIGINT:
        assert (code, err) == (130, "\ninterrupted\n")
        assert hidden(tmp_path) == []
    else:
        assert code == -signal.SIGKILL

    code, out, err = finish(start(arguments, tmp_path))
    assert (code, err) == (0, "")
    assert out.startswith("going on after epoch ")
    one, other = (
        dict(tensors(torch.load(path, weights_only=True)))
        for path in (whole.checkpoint, tmp_path / "runs" / "shapes" / "checkpoint.pt")
    )
    assert one.keys() == other.keys()
    assert len(one) > 50
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in (WEIGHTS, SEEDS, UNITS):
        assert (tmp_path / "out" / "shapes" / name).read_bytes() == (whole.folder / name).read_bytes()


def torchrun(arguments: list[str], cwd: Path) -> tuple[int, str, str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *arguments]
    environment = ENVIRONMENT | {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launcher, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def test_two_processes_write_one_model_folder(data: Path, tmp_path: Path) -> None:
    arguments = command(data, "out/shapes", "--measure", "0")
    code, out, err = torchrun(["-m", "robust_synthesis", *arguments], tmp_path)
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"epoch {i}/{EPOCHS}" for i in range(1, EPOCHS + 1)]
    assert len([line for line in lines if "version" in line]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shapes"]
    assert hidden(tmp_path) == []
    assert len(list((tmp_path / "runs" / "shapes").glob("events.*"))) == 1
    images, labels = pictures(seed=0)
    found = Classifier.load(tmp_path / "out" / "shapes", device="cpu").probabilities(images).argmax(1)
    assert float((found == labels).float().mean()) > 0.4  # by chance 0.25


TWO_PROCESSES = """
import dataclasses, sys
from pathlib import Path
import torch
from robust_synthesis.testing import CLASSES, pictures
from robust_synthesis.training.config import TrainConfig
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.training.trainer import Trainer

torch.set_num_threads(1)
pixels, labels = pictures()
data = ImageSet((pixels * 255).round().byte(), labels, list(CLASSES))
# Where all images are equal, so are all batch statistics: then two halves of a batch must give what the whole gives.
flat = ImageSet(data.images[:1].expand(96, -1, -1, -1).clone(), labels, list(CLASSES))
tiny = {"kind": "resnet", "depths": [1], "width": 4}
config = TrainConfig(data="pictures", architecture=tiny, epochs=2, batch_size=24, hold_out=24, precision="fp32")
plain = dataclasses.replace(config, objective="standard", crop_padding=0, flip=False)
folder = Path(sys.argv[1])


def train(config, data, folder, stop=99):
    trainer = Trainer(config, data, folder)
    trainer.resume()
    seen = []
    step = trainer._step
    trainer._step = lambda images, labels, random: (seen.append(labels), step(images, labels, random))[1]
    for report in trainer.run(lambda *_: None):
        if report.epoch == stop:
            break
    return trainer, seen


def state(trainer):
    return {name: getattr(trainer, name).state_dict() for name in ("network", "average", "best_network")}


whole, _ = train(config, data, folder / "whole")
train(config, data, folder / "stopped", stop=1)
resumed, _ = train(config, data, folder / "stopped")
level, seen = train(plain, flat, folder / "flat")
found = {
    "whole": state(whole), "resumed": state(resumed), "flat": state(level), "seen": seen,
    "history": [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in whole.history],
}
torch.save(found, folder / f"found-{whole.rank.index}-of-{whole.rank.count}.pt")
whole.close()
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process found, and what two together did: "0 of 1", "0 of 2", "1 of 2"."""
    folder = tmp_path_factory.mktemp("together")
    script = folder / "train.py"
    script.write_text(TWO_PROCESSES)
    for name in ("one", "two"):
        (folder / name).mkdir()
    alone = [sys.executable, str(script), str(folder / "one")]
    subprocess.run(alone, env=ENVIRONMENT, check=True, timeout=600)
    code, _, err = torchrun([str(script), str(folder / "two")], folder)
    assert code == 0, err
    return {
        path.stem.removeprefix("found-").replace("-", " "): torch.load(path, weights_only=True)
        for path in folder.rglob("found-*.pt")
    }


def equal(one: Any, other: Any) -> bool:
    a, b = dict(tensors(one)), dict(tensors(other))
    return a.keys() == b.keys() and len(a) > 20 and all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_end_with_equal_weights_and_batch_norms(together: dict[str, Any]) -> None:
    assert equal(together["0 of 2"]["whole"], together["1 of 2"]["whole"])
    assert together["0 of 2"]["history"] == together["1 of 2"]["history"]


def test_two_processes_share_every_batch_and_leave_nothing_out(together: dict[str, Any]) -> None:
    batches = together["0 of 1"]["seen"]
    halves = list(zip(together["0 of 2"]["seen"], together["1 of 2"]["seen"], strict=True))
    assert [len(batch) for batch in batches] == [24] * 6
    for batch, (first, second) in zip(batches, halves, strict=True):
        assert len(first) == len(second) == 12
        assert torch.equal(torch.stack([first, second], 1).flatten(), batch)


def test_gradients_of_two_processes_average_to_those_of_one(together: dict[str, Any]) -> None:
    one, two = (dict(tensors(together[name]["flat"]["network"])) for name in ("0 of 1", "0 of 2"))
    for name in one:
        assert torch.allclose(one[name].float(), two[name].float(), atol=1e-4), name
    assert not equal(together["0 of 1"]["whole"], together["0 of 2"]["whole"])


def test_two_processes_that_are_stopped_go_on_to_the_same_weights(together: dict[str, Any]) -> None:
    for name in ("0 of 2", "1 of 2"):
        assert equal(together[name]["resumed"], together[name]["whole"])


@pytest.fixture
def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`robust-synthesis` in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(arguments: list[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


ONE_EPOCH = ["--epochs", "1", "--no-seeds", "--no-units", "--measure", "0"]


def test_fine_tuning_on_other_classes_keeps_the_body_and_gets_a_new_head(
    run_main: Any, train_only: Path, tmp_path: Path
) -> None:
    parent = tiny_model_folder(tmp_path / "parent", tiny_card(classes=["a", "b", "c", "d", "e", "f"]))
    still = ["--lr", "1e-9", "--weight-decay", "0", "--weights-format", "fp32"]
    code, _, err = run_main(["train", str(train_only), "child", "--init", "parent", *still, *QUICK, *ONE_EPOCH])
    assert (code, err) == (0, "")
    child = ModelFolder.open(tmp_path / "child")
    assert child.card.architecture == parent.card.architecture
    assert (child.card.mean, child.card.std) == (parent.card.mean, parent.card.std)
    assert child.card.training["init"] == "parent"
    old, new = (weights.read(folder.path / WEIGHTS) for folder in (parent, child))
    assert old["fc.weight"].shape == (6, 8)
    assert new["fc.weight"].shape == (4, 8)
    body = [name for name in old if "conv" in name or ("bn" in name and "running" not in name)]
    assert len(body) > 8
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in body)


def test_fine_tuning_on_the_same_classes_keeps_the_head(run_main: Any, train_only: Path, tmp_path: Path) -> None:
    parent = tiny_model_folder(tmp_path / "parent")
    still = ["--lr", "1e-9", "--weight-decay", "0", "--weights-format", "fp32"]
    assert run_main(["train", str(train_only), "child", "--init", "parent", *still, *QUICK, *ONE_EPOCH])[0] == 0
    old, new = (weights.read(folder / WEIGHTS) for folder in (parent.path, tmp_path / "child"))
    assert torch.allclose(old["fc.weight"], new["fc.weight"], atol=1e-6)


def test_an_image_folder_trains_too(run_main: Any, tmp_path: Path) -> None:
    images, labels = pictures(2)
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = tmp_path / "photos" / "train" / CLASSES[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_image(image.numpy()).save(path)
    small = ["--batch-size", "16", "--hold-out", "8", "--objective", "standard"]
    code, out, err = run_main(["train", "photos", "child", *NETWORK, *ONE_EPOCH, *small])
    assert (code, err) == (0, "")
    card = ModelFolder.open(tmp_path / "child").card
    assert (card.classes, card.role) == (CLASSES[:2], "standard")
    assert (card.data["train_images"], card.data["held_out_images"]) == (40, 8)
    assert "version" in out


def test_a_parent_that_cannot_be_built_is_refused_before_training(
    run_main: Any, train_only: Path, tmp_path: Path
) -> None:
    parent = tiny_model_folder(tmp_path / "parent").path
    card = json.loads((parent / CARD).read_text())
    for architecture in ({"kind": "transformer"}, {"kind": "resnet", "heads": 3}, {"kind": "resnet", "width": -1}):
        (parent / CARD).write_text(json.dumps(card | {"architecture": architecture}))
        code, _, err = run_main(["train", str(train_only), "child", "--init", "parent", *QUICK, *ONE_EPOCH])
        assert code == 2
        assert err.startswith(
            "robust-synthesis train: model: parent has an architecture that this version cannot build"
        )
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


MEASURED = ["--epochs", "1", "--no-seeds", "--no-units", "--measure", "4"]


def test_without_a_test_split_it_says_that_nothing_was_measured(
    run_main: Any, train_only: Path, tmp_path: Path
) -> None:
    code, out, _ = run_main(["train", str(train_only), "child", *NETWORK, *QUICK, *MEASURED])
    assert code == 0
    assert out.splitlines()[-1] == "not measured: the data has no test split"
    assert ModelFolder.open(tmp_path / "child").card.measured == {}


def test_without_pyautoattack_it_says_what_to_install(
    run_main: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "find_spec", lambda _name: None)
    code, out, _ = run_main(["train", str(data), "child", *NETWORK, *QUICK, *MEASURED])
    assert code == 0
    assert out.splitlines()[-1].endswith("needs pyautoattack; pip install 'robust-synthesis[evaluate]'")
    assert ModelFolder.open(tmp_path / "child").card.measured == {}


def test_a_test_split_that_cannot_be_read_costs_the_measurement_not_the_model(
    run_main: Any, train_only: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "shapes"
    broken.mkdir()
    (broken / "train-0.parquet").write_bytes(next(train_only.glob("train-*")).read_bytes())
    (broken / "test-0.parquet").write_bytes(b"PAR1")
    code, out, _ = run_main(["train", str(broken), "child", *NETWORK, *QUICK, *MEASURED])
    assert code == 0
    assert out.splitlines()[-1].startswith("not measured: data: ")
    assert ModelFolder.open(tmp_path / "child").card.name == "child"


def test_another_configuration_in_the_same_run_folder_is_refused(run_main: Any, train_only: Path) -> None:
    arguments = ["train", str(train_only), "child", *NETWORK, *QUICK, *ONE_EPOCH]
    assert run_main(arguments)[0] == 0
    code, _, err = run_main([*arguments, "--lr", "0.2", "--epsilon", "1"])
    assert code == 2
    assert err.startswith("robust-synthesis train: run-dir: runs/child holds a run with another epsilon, lr; ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "nan"], "lr: is nan; give a finite number above 0."),
        (["--weight-decay", "inf"], "weight-decay: is inf; give a finite number from 0."),
        (["--epsilon", "0"], "epsilon: is 0.0; give a finite number above 0."),
        (["--momentum", "1"], "momentum: is 1.0; give a number from 0 to below 1."),
        (["--epochs", "0"], "epochs: is 0; give a whole number from 1."),
        (["--seed", "-1"], "seed: is -1; give a whole number from 0 to 2^32 - 1."),
        (["--measure", "-1"], "measure: is -1; give a number of test images, or 0."),
        (["--size", "4"], "size: is 4; give a number of pixels from 8 to 4096."),
        (["--limit", "0"], "limit: is 0; give a number of images from 1."),
        (["--width", "0"], "width: is 0; give a number of channels from 1."),
        (["--depths", "1,x"], "depths: is '1,x'; give whole numbers from 1, such as 2,2,2,2."),
        (["--network", "plain"], "width: does not apply to the network plain; leave it out."),
        (["--batch-size", "90"], "batch-size: is 90 with 72 images to train on; give fewer."),
        (["--hold-out", "96"], "hold-out: is 96 of 96 images; give a smaller number."),
        (["--crop-padding", "16"], "crop-padding: is 16; give less than the 16 pixels of the images."),
        (["--limit", "30"], "batch-size: is 24 with 6 images to train on; give fewer."),
        (["--init", "nothing"], "model: there is no model 'nothing'; "),
    ],
)
def test_a_flag_out_of_range_is_one_sentence_and_exit_code_2(
    flags: list[str], message: str, run_main: Any, train_only: Path, tmp_path: Path
) -> None:
    code, out, err = run_main(["train", str(train_only), "child", *NETWORK, *QUICK, *ONE_EPOCH, *flags])
    assert (code, out) == (2, "")
    assert err.startswith(f"robust-synthesis train: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [["--lr", "fast"], ["--objective", "madry"], ["--momentun", "0.9"]])
def test_a_flag_that_does_not_exist_is_refused_by_name(flags: list[str], run_main: Any, train_only: Path) -> None:
    code, _, err = run_main(["train", str(train_only), "child", *flags])
    assert code == 2
    assert flags[0] in err.splitlines()[-1]
    assert "Traceback" not in err


def test_data_that_are_missing_are_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    code, out, err = finish(start(["train", "nowhere", "child"], tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("robust-synthesis train: data: nowhere is not a folder; give a folder of ")
    assert err.count("\n") == 1


def test_a_class_with_too_few_images_is_refused_before_training(run_main: Any, tmp_path: Path) -> None:
    images, _ = pictures(2)
    for name, count in (("circle", 20), ("square", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            to_image(images[i].numpy()).save(tmp_path / "photos" / name / f"{i}.png")
    code, _, err = run_main(["train", "photos", "child", "--batch-size", "4", "--hold-out", "2"])
    assert code == 2
    assert err.startswith("robust-synthesis train: data: class 'square' has 1 images; a Gaussian seed needs at least 2")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_model_is_refused_before_training(run_main: Any, train_only: Path, tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "thesis.tex").write_text("years of work")
    code, _, err = run_main(["train", str(train_only), "child", *NETWORK, *QUICK, *ONE_EPOCH])
    assert code == 2
    assert "is something other than a model folder; choose another folder or remove it." in err
    assert [path.name for path in tmp_path.rglob("*")] == ["child", "thesis.tex"]
    assert not (tmp_path / "child" / CARD).exists()
