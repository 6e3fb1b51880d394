"""What network a state dict belongs to, told by its names and shapes.

    source                          names
    MadryLab robustness             module.model.*, module.normalizer.new_mean|new_std, module.attacker.* (a duplicate)
    MadryLab robustness, CIFAR      the same with shortcut.0|1 for downsample.0|1, and linear for fc
    RobustBench                     CIFAR names, bare or under module. or model., buffers mu|sigma or normalize.mean|std
    torchvision                     those of `networks.ResNet`
    RobustBench PreAct ResNet       bn1, conv1, bn2, conv2, shortcut.0; no bn1 at the stem, bn before the head

Wrappers may nest (module.model.model.*), so prefixes are stripped again and again, and only at the start of a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..engine import networks
from ..errors import ModelError

PREFIXES = ("module.", "model.", "_orig_mod.")
DUPLICATES = ("attacker.", "model_preact_hl1.")
STATISTICS = (
    ("normalizer.new_mean", "normalizer.new_std"),
    ("normalize.new_mean", "normalize.new_std"),
    ("normalize.mean", "normalize.std"),
    ("mu", "sigma"),
    ("mean", "std"),
)
STEMS = {(3, 3): "small", (7, 7): "large"}
SUPPORTED = (
    "supported are ResNets (3x3 or 7x7 stem, basic or bottleneck blocks) named as in torchvision, MadryLab robustness "
    "or RobustBench, and pre-activation ResNets of basic blocks with a batch norm before the head"
)
OTHERS = {
    r"block\d\.layer\.|layer\.\d+\.\d+\.|blocks?\.\d+\.conv_": "a WideResNet",
    r"features\.denseblock|dense\d\.": "a DenseNet",
    r"features\.\d": "a VGG or AlexNet",
    r"cls_token|blocks\.\d+\.attn|stages\.\d": "a transformer or ConvNeXt",
}

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A state dict in the names of `networks.build(architecture, classes)`, and the statistics of its inputs."""

    architecture: Mapping[str, Any]
    classes: int
    state: Mapping[str, Tensor]
    statistics: tuple[Triple, Triple] | None
    """Mean and standard deviation that images are normalised with, where the checkpoint has them."""

    @property
    def stem(self) -> str:
        return str(self.architecture.get("stem", "small"))


def recognise(found: Mapping[str, Tensor]) -> Layout:
    """Raises ModelError, which says what is supported and what was found, for any other network."""
    state = _stripped(found)
    statistics = _statistics(state)
    state = {_renamed(name): tensor for name, tensor in state.items()}
    if "bn1.weight" not in state:  # a shortcut of one convolution alone
        state = {name.replace(".downsample.0.", ".downsample."): tensor for name, tensor in state.items()}
    architecture, classes = _architecture(state)
    _check(state, architecture, classes)
    return Layout(architecture=architecture, classes=classes, state=state, statistics=statistics)


def _stripped(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without wrappers, and without what wrappers keep twice."""
    state: dict[str, Tensor] = {}
    for full_name, tensor in found.items():
        name = full_name
        while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
            name = name.removeprefix(prefix)
        if name.startswith(DUPLICATES) or name.endswith("num_batches_tracked"):
            continue
        if name in state and not torch.equal(state[name], tensor):
            raise ModelError(f"checkpoint: it holds two networks ({full_name} is there twice); save one of them alone.")
        state[name] = tensor
    return state


def _statistics(state: dict[str, Tensor]) -> tuple[Triple, Triple] | None:
    """Take the buffers with the mean and standard deviation of the inputs out of `state`."""
    pairs = [pair for pair in STATISTICS if pair[0] in state and pair[1] in state]
    if len(pairs) > 1:
        names = " and ".join(mean for mean, _ in pairs)
        raise ModelError(f"checkpoint: it normalises its input twice ({names}); save the network without its wrappers.")
    for mean, std in pairs:
        return _triple(mean, state.pop(mean)), _triple(std, state.pop(std))
    return None


def _triple(name: str, tensor: Tensor) -> Triple:
    if tensor.numel() != 3:
        raise ModelError(f"checkpoint: {name} has {tensor.numel()} values where a network for RGB images has 3.")
    r, g, b = (float(str(value)) for value in tensor.flatten().numpy())  # the shortest decimals with these fp32 values
    return r, g, b


def _renamed(name: str) -> str:
    name = re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)
    return re.sub(r"^linear\.", "fc.", name)


def _architecture(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
    stem, head = state.get("conv1.weight"), state.get("fc.weight")
    blocks = {(int(m[1]), int(m[2])) for m in (re.match(r"layer(\d+)\.(\d+)\.", name) for name in state) if m}
    stages = max((stage for stage, _ in blocks), default=0)
    depths = [sum(stage == s for stage, _ in blocks) for s in range(1, min(stages, 8) + 1)]
    if stem is None or head is None or stem.ndim != 4 or head.ndim != 2 or not depths or 0 in depths:
        raise _unsupported(state, "a network whose tensors begin " + ", ".join(list(state)[:3]))
    kernel = (stem.shape[2], stem.shape[3])
    if kernel not in STEMS or stem.shape[1] != 3:
        raise _unsupported(state, f"a stem of shape {tuple(stem.shape)}")
    classes, width = head.shape[0], stem.shape[0]
    bottleneck = "layer1.0.conv3.weight" in state
    if "bn1.weight" in state:
        block = "bottleneck" if bottleneck else "basic"
        return {"kind": "resnet", "block": block, "depths": depths, "width": width, "stem": STEMS[kernel]}, classes
    if "bn.weight" in state and STEMS[kernel] == "small" and not bottleneck:
        return {"kind": "preact", "depths": depths, "width": width}, classes
    raise _unsupported(state, "a pre-activation network without a batch norm before its head, or of another kind")


def _check(state: Mapping[str, Tensor], architecture: Mapping[str, Any], classes: int) -> None:
    """Raise ModelError unless the tensors are exactly the network's."""
    try:
        with torch.device("meta"):  # shapes alone: a hostile file could ask for a network of any size
            own = networks.build(architecture, classes).state_dict()
    except (RuntimeError, OverflowError) as error:
        raise _unsupported(state, f"a network of impossible size, {dict(architecture)}") from error
    shapes = {name: tuple(t.shape) for name, t in own.items() if not name.endswith("num_batches_tracked")}
    given = {name: tuple(t.shape) for name, t in state.items()}
    for name in sorted(shapes.keys() | given.keys()):
        if name not in shapes:
            raise _unsupported(state, f"a tensor {name}, unknown to {architecture['kind']}")
        if given.get(name) != shapes[name]:
            raise _unsupported(state, f"{name} {given.get(name, 'missing')} where {shapes[name]} belongs")


def _unsupported(state: Mapping[str, Tensor], what: str) -> ModelError:
    family = next((kind for pattern, kind in OTHERS.items() if any(re.match(pattern, name) for name in state)), None)
    return ModelError(f"checkpoint: {SUPPORTED}; found {family or what}.")
