"""How large activations and gradients become while a network paints: what the bytes of `int8` have to span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .chunk import advance
from .networks import ResNet
from .problem import Problem, State
from .turn import evaluate

if TYPE_CHECKING:
    from .classifier import Classifier

PICTURES = 24
TOGETHER = 6
"""In one graph."""
STEPS = (0, 5, 15)
"""Between the points at which the values are looked at."""
SHARES = {"activations": 0.9999, "gradients": 0.999}
"""Of the values that lie within their range. The others would make the steps between bytes coarse for all."""
_SAMPLES = 2**20


@dataclass(frozen=True)
class Ranges:
    """Of a folded ResNet; keys are names of its modules."""

    activations: Mapping[str, float] = field(default_factory=dict)
    """Largest value behind the module (but for `SHARES`), after the ReLU that follows it; of a shortcut, which none follows, the
    magnitude."""
    gradients: Mapping[str, float] = field(default_factory=dict)
    """Largest gradient (but for `SHARES`) towards the module's result, in multiples of the largest of all that enters its stage
    from above; of the modules within the blocks and between them, and of the stem, which counts as part of the first stage."""

    @classmethod
    def of_card(cls, found: Mapping[str, Any]) -> Ranges | None:
        """What a card says; None where it says nothing."""
        return cls(found["activations"], found["gradients"]) if found else None


def measure(classifier: Classifier, *, seed: int = 0) -> Ranges:
    """The ranges of a classifier whose network is a `ResNet`, over pictures that it makes in fp32 of noise and of its seeds.

    Half of them are drawn to a class, half to a latent unit. It needs no data; equal seeds give equal ranges.
    """
    network = cast(ResNet, classifier.network)
    exact = _Exact(classifier)
    found: dict[str, dict[str, float]] = {"activations": {}, "gradients": {}}
    problems, states = _jobs(classifier, seed)
    for i in range(0, PICTURES, TOGETHER):
        problem, state = problems.rows(slice(i, i + TOGETHER)), states.rows(slice(i, i + TOGETHER))
        for steps in STEPS:
            if steps:
                state, _ = advance(exact, problem, state, steps)
            with _recording(network, found):
                evaluate(exact, problem, state.x)
    return Ranges(**{kind: {k: float(f"{v:.5g}") for k, v in values.items()} for kind, values in found.items()})


class _Exact:
    """A classifier that computes with the very modules of its network."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def logits_and_latent(self, x: Tensor, fake_relu: Tensor) -> tuple[Tensor, Tensor]:
        network = self._classifier.network
        latent = network.latent(self._classifier.normalise(x).contiguous(memory_format=torch.channels_last), fake_relu)
        return network.fc(latent), latent


def _jobs(classifier: Classifier, seed: int) -> tuple[Problem, State]:
    """Jobs from noise, coarse noise and class Gaussians in equal parts, towards classes and units far apart in turn."""
    random = torch.Generator().manual_seed(seed)
    size, classes, units = classifier.card.size, len(classifier.card.classes), classifier.network.fc.in_features
    epsilon = 0.2 * size  # 12.8 at 64 pixels: as far as generation goes
    problems, starts = [], []
    for i in range(PICTURES):
        target = i * classes // PICTURES
        side = (size, 4, 0)[i % 3]
        if side == 0 and classifier.seeds is not None:
            start = classifier.seeds.sample(target, size, seed, i)
        else:
            noise = torch.rand(1, 3, side or 8, side or 8, generator=random)
            start = F.interpolate(noise, size=(size, size), mode="bilinear")[0]
        unit = {"ce_weight": 0.0, "latent_weight": -1.0, "unit": i * units // PICTURES, "fake_relu": True}
        drawn: dict[str, Any] = unit if i % 2 else {}
        starts.append(State.start(start, sum(STEPS) + 1))
        center = starts[-1].x[0]
        problems.append(Problem.single(center, target=target, epsilon=epsilon, step_size=epsilon / 4, **drawn))
    return Problem.stack(problems).to(classifier.device), State.stack(starts).to(classifier.device)


@contextmanager
def _recording(network: ResNet, found: dict[str, dict[str, float]]) -> Iterator[None]:
    """While it lasts, one evaluation and its gradient widen the ranges."""
    gradients: dict[str, Tensor] = {}

    def widen(kind: str, name: str, value: Tensor) -> None:
        found[kind][name] = max(found[kind].get(name, 0.0), float(value))

    def activation(name: str, value: Tensor) -> None:
        value = value.detach().abs() if name.endswith("downsample") else value.detach().clamp_min(0)
        widen("activations", name, _largest("activations", value.flatten()))

    def gradient(name: str, value: Tensor) -> None:
        gradients[name] = value.abs().flatten(1)

    def watch(name: str, module: nn.Module) -> Any:
        def look(_module: nn.Module, _inputs: Any, result: Tensor) -> None:
            activation(name, result)
            result.register_hook(lambda value: gradient(name, value))  # type: ignore[no-untyped-call]

        return module.register_forward_hook(look)

    names = ["conv1"]
    for stage in network.stages:
        for i, block in enumerate(cast(nn.Sequential, network.get_submodule(stage))):
            names += [f"{stage}.{i}.conv1", f"{stage}.{i}"]
            if block.downsample is not None:
                names.append(f"{stage}.{i}.downsample")
    handles = [watch(name, network.get_submodule(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for stage in network.stages:
        *within, last = [name for name in names if name.startswith(f"{stage}.") and not name.endswith("downsample")]
        stem = ["conv1"] if stage == network.stages[0] else []
        for name in stem + within:
            above = gradients[last].amax(1).clamp_min(1e-30)
            widen("gradients", name, (_largest("gradients", gradients[name]) / above).max())


def _largest(kind: str, values: Tensor) -> Tensor:
    """[..., N] -> [...]."""
    stride = max(1, values.shape[-1] // _SAMPLES) | 1  # an even one would see some columns only
    return torch.quantile(values[..., ::stride].float(), SHARES[kind], dim=-1)
