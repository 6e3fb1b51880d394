"""Weights as safetensors: fp32, fp16, or int8 with one scale per output channel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import ModelError
from ..files import atomic_write
from ..model_folder import WEIGHTS, ModelFolder
from .networks import Network, build

SCALE = ".scale"
FORMATS = ("fp32", "fp16", "int8")


def write(path: Path, state: Mapping[str, Tensor], format: str = "fp16") -> None:
    """Store a state dict. int8 applies to convolutions and the head; everything else is kept in fp32."""
    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        tensor = value.detach().cpu().float().contiguous()
        if tensor.ndim >= 2 and format == "int8":
            scale = tensor.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
            broadcast = scale.view(-1, *[1] * (tensor.ndim - 1))
            stored[name] = (tensor / broadcast).round().clamp(-127, 127).to(torch.int8)
            stored[name + SCALE] = scale
        else:
            stored[name] = tensor.half() if tensor.ndim >= 2 and format == "fp16" else tensor
    with atomic_write(path) as file:
        file.write(save(stored))


def read(path: Path) -> dict[str, Tensor]:
    """A state dict in fp32.

    Raises ModelError for a file that is not safetensors; pickles are recognised and never opened.
    """
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file begins with the length of its JSON header, whose first byte may be anything.
    if head.startswith((b"PK", b"\x80")) and head[8:] != b"{":
        raise ModelError(f"model: {path} is a pickle, which could run code; convert it with 'robust-synthesis import'.")
    try:
        stored = load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"model: {path} is not a safetensors file ({error}).") from error
    state: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(SCALE):
            continue
        tensor = value.float()
        if value.dtype == torch.int8:
            scale = stored.get(name + SCALE)
            if scale is None or scale.shape != value.shape[:1]:
                raise ModelError(f"model: {path} has no {name + SCALE} that fits the 8-bit weights {name}.")
            tensor = tensor * scale.view(-1, *[1] * (tensor.ndim - 1))
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"model: {path} holds NaN or infinity in {name}.")
        state[name] = tensor
    return state


def check(network: Network, state: Mapping[str, Tensor], origin: str) -> None:
    """Raise ModelError that names a missing, left-over or misshapen tensor, if any is."""
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if missing := sorted(own.keys() - given.keys()):
        raise ModelError(f"model: {origin} lacks {missing[0]} ({len(missing)} missing) for the card's architecture.")
    if extra := sorted(given.keys() - own.keys()):
        raise ModelError(f"model: {origin} has {extra[0]} ({len(extra)} too many), unknown to the card's architecture.")
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            raise ModelError(
                f"model: {origin} has {name} of shape {tuple(given[name].shape)}, the card says {tuple(tensor.shape)}."
            )


def fill(network: Network, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy a state dict into a network that it fits. Raises ModelError as `check` does."""
    check(network, state, origin)
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    network.load_state_dict(kept, strict=False)


def load_network(folder: ModelFolder) -> Network:
    """The network of a model folder. Raises ModelError when the card's cannot be built, or the weights do not fit it."""
    card, path = folder.card, folder.path / WEIGHTS
    state = read(path)
    try:
        with torch.device("meta"):  # a card may name a network that does not fit into memory
            check(build(card.architecture, len(card.classes)), state, str(path))
        network = build(card.architecture, len(card.classes))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"model: {folder.path} has an architecture that this version cannot build ({reason})."
        ) from error
    fill(network, state, str(path))
    return network
