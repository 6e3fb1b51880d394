"""Training on small made-up data: it learns, what it learns is robust, and a run that was stopped ends as if it never was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robust_synthesis.engine import networks
from robust_synthesis.errors import InvalidInput
from robust_synthesis.testing import CLASSES, pictures
from robust_synthesis.training.config import TrainConfig
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.training.normaliser import Normaliser
from robust_synthesis.training.trainer import EpochReport, Trainer

TINY: dict[str, Any] = {"kind": "resnet", "depths": [1], "width": 8}
QUICK = TrainConfig(
    data="pictures", architecture=TINY, epochs=3, batch_size=24, hold_out=24, crop_padding=1, precision="fp32"
)
State = dict[str, Tensor]


def change(config: TrainConfig = QUICK, /, **options: Any) -> TrainConfig:
    return dataclasses.replace(config, **options)


def silent(_step: int, _loss: Tensor) -> None:
    pass


def train(config: TrainConfig, data: ImageSet, folder: Path) -> tuple[Trainer, list[EpochReport]]:
    trainer = Trainer(config, data, folder)
    return trainer, list(trainer.run(silent))


def copied(network: networks.Network) -> State:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def data() -> ImageSet:
    """96 pictures of four classes, each with its colours."""
    images, labels = pictures()
    return ImageSet((images * 255).round().byte(), labels, list(CLASSES))


@pytest.fixture(scope="module")
def fragile() -> ImageSet:
    """Faint stripes (L2 norm 0.8), lying or standing, always tell the class; a tint (L2 norm 1.8) nine times in ten."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(480) % 2
    first = labels.view(-1, 1, 1, 1) == 0
    misleading = torch.rand(480, 1, 1, 1, generator=random) < 0.1
    stripes = (torch.arange(16) % 2 * 2.0 - 1).view(1, 1, 16, 1)
    tint = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    images = 0.5 + 0.03 * torch.where(first, stripes, stripes.mT) + 0.08 * torch.where(first ^ misleading, tint, -tint)
    images = images + 0.03 * torch.randn(480, 3, 16, 16, generator=random)
    return ImageSet((images.clamp(0, 1) * 255).round().byte(), labels, ["lying", "standing"])


FRAGILE = change(epochs=3, batch_size=32, hold_out=96, epsilon=1.0, crop_padding=0, flip=False, beta=3.0)


@pytest.fixture(scope="module")
def standard(fragile: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> EpochReport:
    return train(change(FRAGILE, objective="standard"), fragile, tmp_path_factory.mktemp("run"))[1][-1]


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_robust_training_gives_up_what_predicts_but_is_not_robust(
    objective: str, fragile: ImageSet, standard: EpochReport, tmp_path: Path
) -> None:
    robust = train(change(FRAGILE, objective=objective), fragile, tmp_path)[1][-1]
    assert standard.clean_accuracy > 0.97
    assert standard.robust_accuracy < 0.2
    assert robust.robust_accuracy > 0.8
    assert robust.clean_accuracy < 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "adversarial"},
        {"objective": "adversarial", "norm": "linf", "epsilon": 0.02, "random_start": True},
        {"objective": "trades", "beta": 2.0},
        {"objective": "standard", "schedule": "cosine", "jitter": 0.1},
    ],
    ids=["l2", "linf", "trades", "standard"],
)
def test_every_objective_learns_simple_classes(options: dict[str, Any], data: ImageSet, tmp_path: Path) -> None:
    _, reports = train(change(epochs=8, **options), data, tmp_path)
    assert reports[-1].loss < 0.75 * reports[0].loss
    assert reports[-1].clean_accuracy >= 0.75
    assert [report.epoch for report in reports] == list(range(1, 9))


def test_bf16_learns_and_computes_something_else_than_fp32(data: ImageSet, tmp_path: Path) -> None:
    half, reports = train(change(precision="bf16"), data, tmp_path / "bf16")
    _, exact = train(QUICK, data, tmp_path / "fp32")
    assert reports[-1].loss < 0.9 * reports[0].loss
    assert reports[-1].loss == pytest.approx(exact[-1].loss, rel=0.1)
    assert reports[-1].loss != exact[-1].loss
    assert all(value.dtype == torch.float32 for value in half.network.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("default:::torch")  # torch.compile imports what torch itself calls deprecated
def test_compiled_training_ends_with_nearly_the_same_weights(data: ImageSet, tmp_path: Path) -> None:
    compiled, _ = train(change(epochs=1, compile=True), data, tmp_path / "compiled")
    plain, _ = train(change(epochs=1), data, tmp_path / "plain")
    for a, b in zip(compiled.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


OBJECTIVES = pytest.mark.parametrize("objective", ["adversarial", "trades", "standard"])


def same_run(a: Trainer, b: Trainer) -> bool:
    kept = ("epoch", "loss", "clean_accuracy", "robust_accuracy", "best")
    histories = [[{name: epoch[name] for name in kept} for epoch in trainer.history] for trainer in (a, b)]
    networks_equal = all(
        same(copied(getattr(a, name)), copied(getattr(b, name))) for name in ("network", "average", "best_network")
    )
    return networks_equal and histories[0] == histories[1] and a.best_accuracy == b.best_accuracy


@OBJECTIVES
def test_a_run_stopped_after_an_epoch_ends_with_the_bits_of_one_that_was_not(
    objective: str, data: ImageSet, tmp_path: Path
) -> None:
    config = change(objective=objective, random_start=True, jitter=0.1)
    whole, _ = train(config, data, tmp_path / "whole")
    next(Trainer(config, data, tmp_path / "stopped").run(silent))
    torch.manual_seed(99)  # nothing may depend on the process's own random numbers
    resumed = Trainer(config, data, tmp_path / "stopped")
    assert resumed.resume()
    assert resumed.epoch == 1
    assert [report.epoch for report in resumed.run(silent)] == [2, 3]
    assert same_run(resumed, whole)


def test_a_run_stopped_within_an_epoch_ends_with_the_bits_of_one_that_was_not(data: ImageSet, tmp_path: Path) -> None:
    whole, _ = train(QUICK, data, tmp_path / "whole")
    stopped = Trainer(QUICK, data, tmp_path / "stopped")

    def stop(step: int, _loss: Tensor) -> None:
        if stopped.epoch == 1 and step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(stopped.run(stop))
    resumed = Trainer(QUICK, data, tmp_path / "stopped")
    assert resumed.resume()
    list(resumed.run(silent))
    assert same_run(resumed, whole)


def test_a_finished_run_that_is_started_again_has_nothing_left_to_do(data: ImageSet, tmp_path: Path) -> None:
    whole, _ = train(QUICK, data, tmp_path)
    again = Trainer(QUICK, data, tmp_path)
    assert again.resume()
    assert list(again.run(silent)) == []
    assert same_run(again, whole)


def test_a_new_run_has_nothing_to_resume(data: ImageSet, tmp_path: Path) -> None:
    assert not Trainer(QUICK, data, tmp_path).resume()


def test_another_seed_gives_another_network(data: ImageSet, tmp_path: Path) -> None:
    first, _ = train(change(epochs=1), data, tmp_path / "0")
    other, _ = train(change(epochs=1, seed=1), data, tmp_path / "1")
    assert not same(copied(first.network), copied(other.network))


def test_another_configuration_in_the_folder_of_a_run_is_refused_by_what_changed(
    data: ImageSet, tmp_path: Path
) -> None:
    train(change(epochs=1), data, tmp_path)
    other = Trainer(change(epochs=1, lr=0.2, epsilon=0.25), data, tmp_path)
    with pytest.raises(InvalidInput, match=r"^run_dir: .* another epsilon, lr; choose another folder or delete it"):
        other.resume()


def test_a_run_on_data_with_other_classes_is_refused(data: ImageSet, tmp_path: Path) -> None:
    train(change(epochs=1), data, tmp_path)
    other = Trainer(change(epochs=1), dataclasses.replace(data, class_names=[*CLASSES, "dots"]), tmp_path)
    with pytest.raises(
        InvalidInput, match=r"^run_dir: .* holds a run on data with other classes; choose another folder"
    ):
        other.resume()


@pytest.mark.parametrize("content", [b"", b"nothing that torch wrote", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(content: bytes, data: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^run_dir: .*checkpoint.pt cannot be read; delete it to start again"):
        Trainer(QUICK, data, tmp_path).resume()


def test_a_checkpoint_cannot_run_code(data: ImageSet, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"config": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(InvalidInput, match="cannot be read"):
        Trainer(QUICK, data, tmp_path).resume()
    assert not (tmp_path / "ran").exists()


def test_the_checkpoint_is_the_only_file_and_none_is_left_half_written(
    data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(QUICK, data, tmp_path)
    run = trainer.run(silent)
    next(run)
    before = trainer.checkpoint.read_bytes()

    def interrupted(_state: object, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert trainer.checkpoint.read_bytes() == before


def scored(trainer: Trainer, scores: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Run with made-up held-out scores; the averaged weights after every epoch."""
    given: Iterator[tuple[float, float]] = iter(scores)
    monkeypatch.setattr(trainer, "held_out_accuracy", lambda: next(given))
    return [copied(trainer.average) for _ in trainer.run(silent)]


@pytest.mark.parametrize(("objective", "chosen"), [("adversarial", 1), ("trades", 1), ("standard", 0)])
def test_the_checkpoint_is_chosen_by_the_score_that_the_objective_is_about(
    objective: str, chosen: int, data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(change(objective=objective), data, tmp_path)
    averages = scored(trainer, [(0.9, 0.2), (0.8, 0.6), (0.85, 0.5)], monkeypatch)
    assert same(copied(trainer.best_network), averages[chosen])
    assert trainer.best_accuracy == (0.9, 0.6)[chosen]
    assert not same(averages[0], averages[1])


def test_of_equal_scores_the_first_is_kept(data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(QUICK, data, tmp_path)
    averages = scored(trainer, [(0.5, 0.5)] * 3, monkeypatch)
    assert same(copied(trainer.best_network), averages[0])
    assert [epoch["best"] for epoch in trainer.history] == [1, 0, 0]


def test_the_held_out_images_are_no_part_of_what_is_trained_on(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(QUICK, data, tmp_path)
    rest, held_out = data.hold_out(24, QUICK.seed)
    assert torch.equal(trainer.train.images, rest.images)
    assert torch.equal(trainer.held_out.images, held_out.images)


def test_held_out_accuracy_is_that_of_the_averaged_network(data: ImageSet, tmp_path: Path) -> None:
    trainer, reports = train(QUICK, data, tmp_path)
    average = trainer.average.eval()
    with torch.no_grad():
        logits = average(trainer.normalise(trainer.held_out.floats(slice(None))))
    clean = float((logits.argmax(1) == trainer.held_out.labels).float().mean())
    assert reports[-1].clean_accuracy == pytest.approx(clean)
    assert reports[-1].robust_accuracy <= reports[-1].clean_accuracy


def test_images_are_normalised_by_the_statistics_of_train(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(QUICK, data, tmp_path)
    normal = trainer.normalise(trainer.train.floats(slice(None)))
    std, mean = torch.std_mean(normal, dim=(0, 2, 3))
    assert torch.allclose(mean, torch.zeros(3), atol=1e-4)
    assert torch.allclose(std, torch.ones(3), atol=1e-3)


def test_a_network_to_go_on_from_keeps_its_weights_and_statistics(data: ImageSet, tmp_path: Path) -> None:
    init = networks.build(TINY, len(CLASSES))
    before = copied(init)
    statistics = Normaliser(torch.full((1, 3, 1, 1), 0.4), torch.full((1, 3, 1, 1), 0.2))
    trainer = Trainer(QUICK, data, tmp_path, init=init, normaliser=statistics)
    assert same(copied(trainer.network), before)
    assert torch.allclose(trainer.normalise(torch.full((1, 3, 1, 1), 0.8)), torch.full((1, 3, 1, 1), 2.0))


def test_one_cycle_rises_over_a_fifth_of_the_run_and_falls_to_nothing(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(change(epochs=10, lr=0.4), data, tmp_path)
    steps = 10 * trainer.steps_per_epoch
    assert steps == 30
    rates = [trainer.learning_rate(step) for step in range(steps)]
    assert rates[0] == pytest.approx(0.0004)
    assert rates[3] == pytest.approx(0.4 * (0.5 + 1e-3))
    assert max(rates) == rates[6] == pytest.approx(0.4)
    assert rates[18] == pytest.approx(0.2)
    assert 0 < rates[-1] == pytest.approx(0.4 * (1 / 30) / 0.8)


def test_cosine_falls_from_the_full_rate_to_nothing(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(change(epochs=10, lr=0.4, schedule="cosine"), data, tmp_path)
    rates = [trainer.learning_rate(step) for step in (0, 10, 15, 20, 29)]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.2 * (1 + math.cos(math.pi * 29 / 30))])


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_every_step_uses_the_rate_of_its_place_in_the_run(schedule: str, data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(change(schedule=schedule), data, tmp_path)
    used: list[float] = []
    list(trainer.run(lambda _step, _loss: used.append(trainer.optimizer.param_groups[0]["lr"])))
    assert used == [trainer.learning_rate(step) for step in range(9)]


def one_step(data: ImageSet, folder: Path, **options: Any) -> tuple[Trainer, float, float]:
    """After one step on all images: the trainer, the loss, and how far the weights moved."""
    plain = {"objective": "standard", "epochs": 1, "batch_size": 72, "crop_padding": 0, "flip": False}
    descent = {"schedule": "cosine", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    trainer = Trainer(change(**plain | descent | options), data, folder)
    before = [value.detach().clone() for value in trainer.network.parameters()]
    (report,) = trainer.run(silent)
    moved = [(a - b).square().sum() for a, b in zip(trainer.network.parameters(), before, strict=True)]
    return trainer, report.loss, float(torch.stack(moved).sum().detach().sqrt())


def test_clipping_bounds_the_length_of_a_step(data: ImageSet, tmp_path: Path) -> None:
    _, _, clipped = one_step(data, tmp_path / "clipped", clip=0.01)
    _, _, free = one_step(data, tmp_path / "free", clip=0.0)
    _, _, loose = one_step(data, tmp_path / "loose", clip=1000.0)
    assert clipped == pytest.approx(0.01, rel=1e-3)
    assert free > 0.1
    assert loose == pytest.approx(free, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(smoothing: float, data: ImageSet, tmp_path: Path) -> None:
    fresh = Trainer(change(objective="standard"), data, tmp_path)
    with torch.no_grad():
        logits = fresh.network.train()(fresh.normalise(fresh.train.floats(slice(None))))
        log_p = logits.log_softmax(1)
        true = -log_p[torch.arange(72), fresh.train.labels].mean()
        expected = (1 - smoothing) * true - smoothing * log_p.mean()
    _, loss, _ = one_step(data, tmp_path / "run", label_smoothing=smoothing)
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_trades_adds_the_weighted_divergence_to_the_clean_loss(data: ImageSet, tmp_path: Path) -> None:
    losses = [one_step(data, tmp_path / str(beta), objective="trades", beta=beta)[1] for beta in (0.0, 1.0, 6.0)]
    assert losses[1] - losses[0] > 0.001
    assert losses[2] - losses[0] == pytest.approx(6 * (losses[1] - losses[0]), rel=1e-3)


def test_weight_decay_shrinks_the_weights(data: ImageSet, tmp_path: Path) -> None:
    plain, _, _ = one_step(data, tmp_path / "plain", lr=0.1)
    decayed, _, _ = one_step(data, tmp_path / "decayed", lr=0.1, weight_decay=0.5)
    sizes = [sum(float(v.detach().square().sum()) for v in t.network.parameters()) for t in (plain, decayed)]
    assert sizes[1] < sizes[0]


def test_the_average_follows_the_weights_with_a_decay_that_warms_up(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(change(ema_decay=0.2), data, tmp_path)
    name = "layer1.0.conv1.weight"
    expected = trainer.network.state_dict()[name].clone()
    updates = 0

    def follow(_step: int, _loss: Tensor) -> None:
        nonlocal expected, updates
        updates += 1
        decay = min(0.2, updates / (10 + updates))
        expected = decay * expected + (1 - decay) * trainer.network.state_dict()[name]

    list(trainer.run(follow))
    assert updates == 9
    assert torch.allclose(trainer.average.state_dict()[name], expected, atol=1e-6)
    assert not torch.equal(trainer.average.state_dict()[name], trainer.network.state_dict()[name])


def test_without_decay_the_average_is_the_network(data: ImageSet, tmp_path: Path) -> None:
    trainer, _ = train(change(ema_decay=0.0, epochs=1), data, tmp_path)
    assert same(copied(trainer.average), copied(trainer.network))


def test_the_attack_is_aimed_at_the_network_in_evaluation_mode(
    data: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(change(epochs=1), data, tmp_path)
    worst = 0.0
    refold = networks.refold

    def compare(network: networks.Network, folded: networks.Network) -> None:
        nonlocal worst
        refold(network, folded)
        x = trainer.train.floats(slice(0, 8))
        with torch.no_grad():
            worst = max(worst, float((folded(x) - network.eval()(x)).abs().max()))

    monkeypatch.setattr(networks, "refold", compare)
    list(trainer.run(silent))
    assert 0 < worst < 1e-4


def test_a_loss_that_is_no_number_stops_the_run_before_it_spoils_the_checkpoint(data: ImageSet, tmp_path: Path) -> None:
    trainer = Trainer(change(lr=1e30, clip=0.0, objective="standard"), data, tmp_path)
    with pytest.raises(
        InvalidInput, match=r"^lr: is too high: in epoch 1 the loss is not a number; give a smaller one"
    ):
        list(trainer.run(silent))
    assert not trainer.checkpoint.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_out": 96}, r"^hold_out: is 96 of 96 images; give a smaller number"),
        ({"batch_size": 73}, r"^batch_size: is 73 with 72 images to train on; give fewer"),
        ({"crop_padding": 16}, r"^crop_padding: is 16; give less than the 16 pixels of the images"),
    ],
)
def test_what_the_data_do_not_allow_is_refused(
    options: dict[str, Any], message: str, data: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Trainer(change(**options), data, tmp_path)


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, [0.0, -1.0, *NOT_FINITE]) for name in ("epsilon", "attack_step_size", "lr")),
        *((name, [-0.1, *NOT_FINITE]) for name in ("beta", "weight_decay", "clip")),
        *((name, [-0.1, 1.0, *NOT_FINITE]) for name in ("momentum", "label_smoothing", "ema_decay")),
        ("jitter", [-0.1, 1.1, *NOT_FINITE]),
        *((name, [0, -1]) for name in ("attack_steps", "epochs", "batch_size", "hold_out")),
        ("crop_padding", [-1]),
        ("seed", [-1, 2**32]),
        ("objective", ["madry"]),
        ("norm", ["l1"]),
        ("schedule", ["linear"]),
        ("precision", ["fp16"]),
    ],
)
def test_a_configuration_out_of_range_is_refused_by_the_name_of_its_field(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidInput, match=rf"^{name}: (is .*; give|must be)"):
            change(**{name: value})


def test_the_step_of_the_attack_follows_its_radius_unless_given() -> None:
    assert change(epsilon=0.5, attack_steps=1).step_size == 0.5
    assert change(epsilon=0.5, attack_steps=5).step_size == pytest.approx(0.25)
    assert change(epsilon=0.5, attack_steps=5, attack_step_size=0.1).step_size == 0.1


def test_momentum_may_be_zero(data: ImageSet, tmp_path: Path) -> None:
    assert len(train(change(epochs=1, momentum=0.0), data, tmp_path)[1]) == 1


def test_adversarial_training_lowers_the_loss_on_images_that_were_moved_to_raise_it(
    data: ImageSet, tmp_path: Path
) -> None:
    _, adversarial, _ = one_step(data, tmp_path / "adversarial", objective="adversarial", epsilon=1.0)
    _, standard, _ = one_step(data, tmp_path / "standard")
    assert adversarial > standard + 0.05


@pytest.mark.parametrize(("width", "layout"), [(8, torch.contiguous_format), (16, torch.channels_last)])
def test_channels_last_spares_the_convolutions_that_onednn_cannot_differentiate_so(
    width: int, layout: torch.memory_format, data: ImageSet, tmp_path: Path
) -> None:
    """A strided 1x1 convolution of few channels: its backward pass would write out of bounds (oneDNN issue 6035)."""
    trainer = Trainer(change(architecture={"kind": "resnet", "depths": [1, 1], "width": width}), data, tmp_path)
    assert trainer.layout == layout
    assert trainer.network.get_submodule("layer1.0.conv1").get_parameter("weight").is_contiguous(memory_format=layout)
