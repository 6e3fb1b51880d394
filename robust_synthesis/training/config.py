"""Everything that determines a training run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput

OBJECTIVES = ("adversarial", "trades", "standard")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Hyperparameters of `robust-synthesis train`. Distances are in units of pixel values in [0, 1]."""

    data: str
    size: int | None = None
    limit: int | None = None
    architecture: dict[str, Any] = field(default_factory=lambda: {"kind": "resnet", "width": 64})
    init: str | None = None
    """Model folder to fine-tune from; its head is replaced when the classes differ."""

    objective: str = "adversarial"
    norm: str = "l2"
    epsilon: float = 0.5
    attack_steps: int = 2
    attack_step_size: float | None = None
    """Default: epsilon for one step, 2.5 * epsilon / steps for more (Madry et al. 2018)."""
    random_start: bool = False
    beta: float = 6.0
    """Weight of the robustness term in TRADES (Zhang et al. 2019)."""

    epochs: int = 14
    batch_size: int = 256
    lr: float = 0.1
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema_decay: float = 0.995
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""

    crop_padding: int = 4
    flip: bool = True
    jitter: float = 0.0
    noise: float = 0.0
    """Largest standard deviation of the Gaussian noise that is added to an image."""

    hold_out: int = 1000
    """Training images kept back to choose the checkpoint by; the test split is never looked at."""
    precision: str = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, message: str) -> None:
            if not ok:
                raise InvalidInput(name, message)

        require(self.objective in OBJECTIVES, "objective", f"must be one of {', '.join(OBJECTIVES)}.")
        require(self.norm in ("l2", "linf"), "norm", "must be l2 or linf.")
        require(self.schedule in ("onecycle", "cosine"), "schedule", "must be onecycle or cosine.")
        require(self.precision in ("auto", "fp32", "bf16"), "precision", "must be auto, fp32 or bf16.")
        for name in ("epsilon", "attack_step_size", "lr"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, f"is {value}; give a finite number above 0.")
        for name in ("beta", "weight_decay", "clip"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, f"is {value}; give a finite number from 0.")
        for name in ("momentum", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, name, f"is {value}; give a number from 0 to below 1.")
        for name in ("jitter", "noise"):
            require(0 <= getattr(self, name) <= 1, name, f"is {getattr(self, name)}; give a number from 0 to 1.")
        for name in ("attack_steps", "epochs", "batch_size", "hold_out"):
            require(getattr(self, name) >= 1, name, f"is {getattr(self, name)}; give a whole number from 1.")
        require(self.crop_padding >= 0, "crop_padding", f"is {self.crop_padding}; give a whole number from 0.")
        require(0 <= self.seed < 2**32, "seed", f"is {self.seed}; give a whole number from 0 to 2^32 - 1.")

    @property
    def step_size(self) -> float:
        if self.attack_step_size is not None:
            return self.attack_step_size
        return self.epsilon if self.attack_steps == 1 else 2.5 * self.epsilon / self.attack_steps

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
