"""The attacker of the paper's authors, package `robustness` (Engstrom et al. 2019), on our networks and weights.

pip install --no-deps -r benchmarks/requirements.txt
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from robust_synthesis.engine.networks import Network
from robust_synthesis.model_folder import Card

UNUSED = {"pandas": (), "cox": ("store",), "cox.store": ()}
"""What `robustness.attacker` imports through its helpers and never calls; stood in for where it is not installed."""


@contextlib.contextmanager
def attacker() -> Iterator[ModuleType]:
    """Module `robustness.attacker`; on a machine without CUDA, moving to it does nothing. Raises ImportError without it."""
    with contextlib.ExitStack() as stack:
        stand_ins: dict[str, ModuleType] = {}
        for name, submodules in UNUSED.items():
            if name.partition(".")[0] in stand_ins or importlib.util.find_spec(name) is None:
                stand_ins[name] = ModuleType(name)
                for submodule in submodules:
                    setattr(stand_ins[name], submodule, None)
        stack.enter_context(mock.patch.dict(sys.modules, stand_ins))
        if not torch.cuda.is_available():
            stack.enter_context(mock.patch.object(Tensor, "cuda", lambda tensor, *_, **__: tensor))
            stack.enter_context(mock.patch.object(nn.Module, "cuda", lambda module, *_, **__: module))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its docstrings have invalid escapes
            module = importlib.import_module("robustness.attacker")
        yield module


class Theirs(nn.Module):
    """Our network, unfolded, with the arguments that their code passes and their own fake ReLU."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, with_latent: bool = False, fake_relu: bool = False, **_: bool) -> Any:
        y = self.network.features(x)
        fake = importlib.import_module("robustness.tools.custom_modules").FakeReLU
        latent = (fake.apply(y) if fake_relu else y.relu()).mean(dim=(2, 3))
        logits = self.network.fc(latent)
        return (logits, latent) if with_latent else logits


def attacker_model(module: ModuleType, network: Network, card: Card) -> Any:
    """Their `AttackerModel` around `network`, in eval mode."""
    data = SimpleNamespace(mean=torch.tensor(card.mean), std=torch.tensor(card.std))
    return module.AttackerModel(Theirs(network), data).eval()
