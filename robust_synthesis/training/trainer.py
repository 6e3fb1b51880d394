"""The outer minimisation of robust training: min_theta E max_delta loss(f(x + delta), y) (Madry et al. 2018, eq. 2.1).

One process, or several under torchrun, which share every batch. A run writes a checkpoint after every epoch, and a run
that is killed and started again with the same configuration ends with the same weights: everything random is keyed by
(seed, epoch, rank).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..engine import networks
from ..engine.precision import autocast, choose_device, compute_exactly
from ..errors import InvalidInput
from . import checkpoint, held_out, objective
from .augment import augment
from .config import TrainConfig
from .datasets import ImageSet
from .normaliser import Normaliser
from .rank import Rank
from .recorded import Recorded

PARTS = ("network", "average", "best_network", "optimizer")
"""What a checkpoint has the states of."""


@dataclass(frozen=True)
class EpochReport:
    """What an epoch ended with; accuracies in [0, 1] on the held-out part of train, of the averaged weights."""

    epoch: int
    loss: float
    clean_accuracy: float
    robust_accuracy: float
    seconds: float
    best: bool


class Trainer:
    """A training run: its networks, optimiser and place in the schedule.

    `run` yields a report after every epoch; `best_network` is then the averaged network with the highest held-out robust
    accuracy (clean accuracy for standard training). Several processes split each batch: gradients are averaged, batch
    statistics are each process's own, and their running means are averaged after every step, so that all networks stay equal.

    `init` is a network to go on from, and `normaliser` the statistics that it was trained with.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ImageSet,
        folder: Path,
        *,
        init: networks.Network | None = None,
        normaliser: Normaliser | None = None,
    ) -> None:
        if len(data) <= config.hold_out:
            raise InvalidInput("hold_out", f"is {config.hold_out} of {len(data)} images; give a smaller number.")
        if config.batch_size > len(data) - config.hold_out:
            left = len(data) - config.hold_out
            raise InvalidInput("batch_size", f"is {config.batch_size} with {left} images to train on; give fewer.")
        if config.crop_padding >= data.size:
            raise InvalidInput(
                "crop_padding", f"is {config.crop_padding}; give less than the {data.size} pixels of the images."
            )
        self.config = config
        self.folder = folder
        self.device = choose_device()
        compute_exactly(self.device)
        self.rank = Rank.from_environment(self.device)
        if config.batch_size % self.rank.count:
            count = self.rank.count
            raise InvalidInput("batch_size", f"is {config.batch_size}; give a multiple of the {count} processes.")
        train, held_out = data.hold_out(config.hold_out, config.seed)
        self.train, self.held_out = train.to(self.device), held_out.to(self.device)
        self.normalise = (normaliser or Normaliser.fit(train)).to(self.device)
        torch.manual_seed(config.seed)
        network = networks.build(config.architecture, len(data.class_names)) if init is None else init
        self.layout = _layout(network)
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.best_network = copy.deepcopy(self.average)
        self.folded = networks.fold(self.network)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.epoch = 0
        self.best_accuracy = -1.0
        self.history: list[dict[str, float]] = []
        forward: Callable[[Tensor], Tensor] = self.network
        self._attacked: Callable[[Tensor], Tensor] = self.folded
        if self.rank.count > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            forward = nn.parallel.DistributedDataParallel(self.network, ids, broadcast_buffers=False)
        if config.compile:
            forward = torch.compile(forward)
            self._attacked = torch.compile(self.folded)
        self._forward = forward
        self._means, self._mean_counts = _floats_and_others(self.average)
        self._values, self._counts = _floats_and_others(self.network)
        self._recorded: Recorded | None = None
        # A graph repeats random numbers, and what torch.compile does at a later call may be nothing that can be captured.
        repeats = not (config.random_start or config.objective == "trades" or config.compile)
        if self.device.type == "cuda" and self.rank.count == 1 and repeats:
            self._recorded = Recorded(self._descent, self.network)

    def close(self) -> None:
        """Leave the process group."""
        self.rank.leave()

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train) // self.config.batch_size

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Go on from the last checkpoint, if there is one.

        Raises InvalidInput if it belongs to another configuration or other data, or is damaged.
        """
        if not self.checkpoint.exists():
            return False
        saved = checkpoint.read(self.checkpoint, self.config, self.device)
        try:
            for name in PARTS:
                getattr(self, name).load_state_dict(saved[name])
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(
                "run_dir", f"{self.folder} holds a run on data with other classes; choose another folder or delete it."
            ) from error
        self.epoch, self.best_accuracy, self.history = saved["epoch"], saved["best_accuracy"], saved["history"]
        return True

    def save(self) -> None:
        if self.rank.index > 0:
            return
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in PARTS}
        state |= {"epoch": self.epoch, "best_accuracy": self.best_accuracy, "history": self.history}
        checkpoint.write(self.checkpoint, self.config, state)

    def learning_rate(self, step: int) -> float:
        """One cycle: linear warm-up over a fifth of the run, then linear to zero; or a half cosine."""
        progress = step / (self.config.epochs * self.steps_per_epoch)
        if self.config.schedule == "cosine":
            return self.config.lr * 0.5 * (1 + math.cos(math.pi * progress))
        return self.config.lr * min(progress / 0.2 + 1e-3, (1 - progress) / 0.8)

    def run(self, on_step: Callable[[int, Tensor], None]) -> Iterator[EpochReport]:
        """Train to the end, from wherever the run stands; calls `on_step(step of this epoch, loss)`."""
        while self.epoch < self.config.epochs:
            started = time.monotonic()
            loss = self._train_epoch(on_step)
            if not math.isfinite(loss):
                raise InvalidInput(
                    "lr", f"is too high: in epoch {self.epoch + 1} the loss is not a number; give a smaller one."
                )
            clean, robust = self.held_out_accuracy()
            score = clean if self.config.objective == "standard" else robust
            best = score > self.best_accuracy
            if best:
                self.best_accuracy = score
                self.best_network.load_state_dict(self.average.state_dict())
            self.epoch += 1
            report = EpochReport(self.epoch, loss, clean, robust, time.monotonic() - started, best)
            self.history.append({k: float(v) for k, v in vars(report).items()})
            self.save()
            yield report

    def _train_epoch(self, on_step: Callable[[int, Tensor], None]) -> float:
        config, rank = self.config, self.rank
        order = torch.randperm(len(self.train), generator=self._generator(0)).to(self.device)
        private = self._generator(1 + rank.index)
        total = torch.zeros((), device=self.device)
        for step in range(self.steps_per_epoch):
            batch = order[step * config.batch_size : (step + 1) * config.batch_size][rank.index :: rank.count]
            images = augment(
                self.train.floats(batch),
                private,
                padding=config.crop_padding,
                flip=config.flip,
                jitter=config.jitter,
                noise=config.noise,
            ).contiguous(memory_format=self.layout)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.epoch * self.steps_per_epoch + step)
            loss = self._step(images, self.train.labels[batch], private)
            self._update_average(self.epoch * self.steps_per_epoch + step + 1)
            total += loss
            on_step(step, loss)
        rank.share([total])
        return float(total) / self.steps_per_epoch

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed * 1000 + self.epoch) * 1000 + stream)

    def _step(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        loss = self._recorded(images, labels) if self._recorded else self._descent(images, labels, generator)
        self.optimizer.step()
        self.rank.share([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])
        return loss

    def _descent(self, images: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss, and where it falls: the gradients of the parameters, clipped."""
        config = self.config
        with autocast(self.device, config.precision):
            attacked = self._adversarial(images, labels, generator)
            self.network.train()
            loss = objective.loss(lambda x: self._forward(self.normalise(x)), images, attacked, labels, config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        return loss.detach()

    def _adversarial(self, images: Tensor, labels: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.config.objective == "standard":
            return images
        networks.refold(self.network, self.folded)
        return objective.attack(lambda x: self._attacked(self.normalise(x)), images, labels, self.config, generator)

    @torch.no_grad()
    def _update_average(self, updates: int) -> None:
        decay = min(self.config.ema_decay, updates / (10 + updates))
        torch._foreach_lerp_(self._means, self._values, 1 - decay)
        torch._foreach_copy_(self._mean_counts, self._counts)

    def held_out_accuracy(self) -> tuple[float, float]:
        """Clean and robust accuracy of the averaged network."""
        return held_out.accuracy(self.average, self.held_out, self.config, self.normalise, self.device, self.layout)


def _floats_and_others(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """A network's state, which stays where it is for as long as it trains."""
    state = list(network.state_dict().values())
    return [value for value in state if value.dtype.is_floating_point], [
        value for value in state if not value.dtype.is_floating_point
    ]


def _layout(network: networks.Network) -> torch.memory_format:
    """Channels-last, except for networks whose weight gradients oneDNN then writes out of bounds (its issue 6035)."""
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.stride > (1, 1)
            and module.in_channels < 16
        ):
            return torch.contiguous_format
    return torch.channels_last
