"""Convolutional classifiers whose pooled latent and final ReLU are within reach of synthesis.

Every network maps images [B, 3, H, W] (already normalised) to a pooled latent [B, D] and that to logits [B, C].
Parameter names of `ResNet` are torchvision's, so that weights travel both ways.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _FlaggedPool(torch.autograd.Function):
    """Pixels' mean of a ReLU whose backward pass is the identity for flagged samples ("fake ReLU", Santurkar et al. 2019)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, flag: Tensor) -> Tensor:
        active = F.relu(y)
        passes = torch.maximum(active.sign(), flag.to(y.dtype).view(-1, 1, 1, 1))
        ctx.save_for_backward(passes)
        return active.mean(dim=(2, 3))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        pixels = passes.shape[2] * passes.shape[3]
        return (grads[0] / pixels)[:, :, None, None] * passes, None


Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: Mapping[str, Activation] = {
    "relu": functools.partial(F.relu, inplace=True),
    "silu": F.silu,
    "gelu": F.gelu,
}
"""Between the convolutions of a ResNet; the last one, behind `features`, is a ReLU in every network."""


class Network(nn.Module):
    """A classifier split where synthesis needs it: `features` -> ReLU -> pooling -> `fc`."""

    fc: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Activations before the final ReLU, [B, D, h, w]."""
        raise NotImplementedError

    def latent(self, x: Tensor, fake_relu: Tensor | None = None) -> Tensor:
        """Pooled latent [B, D]; where `fake_relu` [B] is true, dead units receive gradient too."""
        y = self.features(x)
        if fake_relu is None:
            return F.relu(y).mean(dim=(2, 3))
        return cast(Tensor, _FlaggedPool.apply(y, fake_relu))  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C]."""
        return cast(Tensor, self.fc(self.latent(x)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016); returns the sum *before* its activation."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast(Tensor, y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al. 2016); returns the sum *before* its activation."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        outputs = width * self.expansion
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return cast(Tensor, y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its batch norm and ReLU, and a shortcut (He et al. 2016, "Identity mappings").

    A projecting shortcut starts behind the first ReLU, as in the networks of Rice et al. 2020.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv(width, width, 3)
        self.downsample = None if inputs == width and stride == 1 else _conv(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.downsample is None else self.downsample(y)
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        return cast(Tensor, self.conv2(y) + shortcut)


Block = type[BasicBlock] | type[Bottleneck] | type[PreActBlock]


def _stage(block: Block, inputs: int, width: int, depth: int, stride: int, **options: Any) -> nn.Sequential:
    outputs = width * block.expansion
    blocks = (block(outputs if i else inputs, width, 1 if i else stride, **options) for i in range(depth))
    return nn.Sequential(*blocks)


class ResNet(Network):
    """Residual network (He et al. 2016) with a "small" stem (3x3, stride 1: CIFAR) or a "large" one (7x7, max-pool).

    `activation` is one of `ACTIVATIONS`.
    """

    def __init__(
        self,
        *,
        classes: int,
        block: str = "basic",
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        stem: str = "small",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.has_relu = activation == "relu"
        kinds: Mapping[str, Block] = {"basic": BasicBlock, "bottleneck": Bottleneck}
        kind = kinds[block]
        self.conv1 = _conv(3, width, 7, 2) if stem == "large" else _conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "large" else nn.Identity()
        self.stages = [f"layer{i + 1}" for i in range(len(depths))]
        channels = width
        for i, (name, depth) in enumerate(zip(self.stages, depths, strict=True)):
            stage = _stage(kind, channels, width << i, depth, stride=2 if i else 1, activation=self.activation)
            self.add_module(name, stage)
            channels = (width << i) * kind.expansion
        self.fc = nn.Linear(channels, classes)

    def blocks(self) -> Iterator[BasicBlock | Bottleneck]:
        for name in self.stages:
            yield from cast(Iterable[BasicBlock | Bottleneck], self.get_submodule(name))

    def features(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn1(self.conv1(x))
        first = True
        for block in self.blocks():
            y = self.activation(y)
            y = block(self.maxpool(y) if first else y)
            first = False
        return y


class PreActResNet(Network):
    """Pre-activation residual network with a 3x3 stem and a batch norm before the final ReLU (Rice et al. 2020)."""

    def __init__(self, *, classes: int, depths: Sequence[int] = (2, 2, 2, 2), width: int = 64) -> None:
        super().__init__()
        self.conv1 = _conv(3, width, 3)
        self.stages = [f"layer{i + 1}" for i in range(len(depths))]
        channels = width
        for i, (name, depth) in enumerate(zip(self.stages, depths, strict=True)):
            self.add_module(name, _stage(PreActBlock, channels, width << i, depth, stride=2 if i else 1))
            channels = width << i
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(x)
        for name in self.stages:
            y = self.get_submodule(name)(y)
        return cast(Tensor, self.bn(y))


class PlainNet(Network):
    """VGG-style network without shortcuts (Simonyan and Zisserman 2015): 3x3 convolutions, max-pools between stages."""

    def __init__(self, *, classes: int, stages: Sequence[Sequence[int]] = ((32,), (64, 96), (192,), (256,))) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for i, stage in enumerate(stages):
            if i > 0:
                layers.append(nn.MaxPool2d(2))
            for outputs in stage:
                if channels != 3:
                    layers.append(nn.ReLU(inplace=True))
                layers += [_conv(channels, outputs, 3), nn.BatchNorm2d(outputs)]
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


KINDS: Mapping[str, type[Network]] = {"resnet": ResNet, "preact": PreActResNet, "plain": PlainNet}


def build(architecture: Mapping[str, Any], classes: int) -> Network:
    """The untrained network that a card's `architecture` describes, e.g. `{"kind": "resnet", "width": 32}`.

    Raises KeyError for an unknown kind and TypeError for an unknown option.
    """
    options = dict(architecture)
    return KINDS[options.pop("kind")](classes=classes, **options)


def _normalised_convolutions(network: nn.Module) -> list[tuple[str, str]]:
    """Names of every (convolution, batch norm that directly follows it)."""
    pairs = []
    for prefix, module in network.named_modules():
        children = list(module.named_children())
        for (a, conv), (b, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                dot = f"{prefix}." if prefix else ""
                pairs.append((dot + a, dot + b))
    return pairs


def fold(network: Network) -> Network:
    """A frozen copy in evaluation mode whose batch norms are folded into the convolutions before them.

    A batch norm that no convolution precedes (pre-activation) stays.
    """
    folded = copy.deepcopy(network)
    for conv_name, norm_name in _normalised_convolutions(network):
        old = cast(nn.Conv2d, network.get_submodule(conv_name))
        new = nn.Conv2d(
            old.in_channels, old.out_channels, cast(Any, old.kernel_size), cast(Any, old.stride), cast(Any, old.padding)
        ).to(old.weight)
        folded.set_submodule(conv_name, new)
        folded.set_submodule(norm_name, nn.Identity())
    folded.eval().requires_grad_(False)
    refold(network, folded)
    return folded


@torch.no_grad()
def refold(network: Network, folded: Network) -> None:
    """Write the weights of `network`, which may have trained on, into its folded copy."""
    ours, theirs = (dict(itertools.chain(each.named_parameters(), each.named_buffers())) for each in (folded, network))
    for conv, norm in _normalised_convolutions(network):
        scale = theirs.pop(f"{norm}.running_var") + cast(nn.BatchNorm2d, network.get_submodule(norm)).eps
        scale.rsqrt_().mul_(theirs.pop(f"{norm}.weight"))
        torch.mul(theirs.pop(f"{conv}.weight"), scale.view(-1, 1, 1, 1), out=ours.pop(f"{conv}.weight"))
        bias = theirs.pop(f"{norm}.bias") - theirs.pop(f"{norm}.running_mean") * scale
        if f"{conv}.bias" in theirs:
            bias += theirs.pop(f"{conv}.bias") * scale
        ours.pop(f"{conv}.bias").copy_(bias)
    for name, value in ours.items():
        value.copy_(theirs[name])
