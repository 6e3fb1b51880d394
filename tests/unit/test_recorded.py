"""A recorded step: what is replayed trains the bits that the step itself would, and the rehearsals leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robust_synthesis.engine import networks
from robust_synthesis.engine.capture import REHEARSALS
from robust_synthesis.testing import CLASSES, pictures
from robust_synthesis.training import recorded
from robust_synthesis.training.config import TrainConfig
from robust_synthesis.training.datasets import ImageSet
from robust_synthesis.training.recorded import Recorded
from robust_synthesis.training.trainer import Trainer

CONFIG = TrainConfig(
    data="pictures",
    architecture={"kind": "resnet", "depths": [1], "width": 8},
    epochs=2,
    batch_size=24,
    hold_out=24,
    precision="fp32",
)


def trainer(folder: Path) -> Trainer:
    images, labels = pictures()
    return Trainer(CONFIG, ImageSet((images * 255).round().byte(), labels, list(CLASSES)), folder)


def trained(run: Trainer) -> list[Tensor]:
    losses = [report.loss for report in run.run(lambda _step, _loss: None)]
    return [torch.tensor(losses), *run.network.state_dict().values(), *run.average.state_dict().values()]


class Repeating:
    """Like a CUDA graph: nothing is done before it is replayed, and the loss is always at the same place."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self.step, self.loss = step, torch.full((), torch.nan)

    def replay(self) -> None:
        self.loss.copy_(self.step())


def repeat(step: Callable[[], Tensor], _device: torch.device) -> tuple[Repeating, Tensor]:
    graph = Repeating(step)
    return graph, graph.loss


def test_a_recorded_step_trains_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "capture", repeat)
    plain, replayed = trainer(tmp_path / "plain"), trainer(tmp_path / "recorded")
    plain._recorded = None  # which it has on a GPU
    replayed._recorded = Recorded(replayed._descent, replayed.network)
    assert all(torch.equal(a, b) for a, b in zip(trained(plain), trained(replayed), strict=True))


def test_a_step_that_cannot_be_recorded_is_done_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recorded, "capture", refuse)
    plain, eager = trainer(tmp_path / "plain"), trainer(tmp_path / "recorded")
    plain._recorded = None
    eager._recorded = Recorded(eager._descent, eager.network)
    assert all(torch.equal(a, b) for a, b in zip(trained(plain), trained(eager), strict=True))
    assert caplog.messages == [
        "a CUDA graph could not be recorded, steps will be slower: operation not permitted when stream is capturing"
    ]


@pytest.mark.gpu
def test_a_cuda_graph_trains_the_same_bits(tmp_path: Path) -> None:
    plain, replayed = trainer(tmp_path / "plain"), trainer(tmp_path / "recorded")
    plain._recorded = None
    wanted, found = trained(plain), trained(replayed)
    assert replayed._recorded is not None
    assert replayed._recorded._replay is not None
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_losses_are_kept_when_the_next_step_overwrites_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "capture", repeat)
    step = Recorded(lambda images, _labels: images.sum(), networks.build(CONFIG.architecture, 2))
    first, second = (step(torch.full((2,), value), torch.zeros(2)) for value in (1.0, 2.0))
    assert (float(first), float(second)) == (2.0, 4.0)


def test_rehearsals_leave_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks.build(CONFIG.architecture, 2).train()
    before = [value.clone() for value in network.state_dict().values()]

    losses: list[float] = []

    def step(images: Tensor, _labels: Tensor) -> Tensor:
        loss: Tensor = network(images).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(recorded, "capture", repeat)
    step_once = Recorded(step, network)
    step_once._record(torch.rand(4, 3, 8, 8), torch.zeros(4))
    assert len(losses) == REHEARSALS
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), before, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())
