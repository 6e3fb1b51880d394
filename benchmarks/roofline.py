"""How close a step comes to what the hardware does: FLOP/s against a matrix product, time against convolutions alone.

FLOPs are counted by torch's FlopCounterMode. The matrix product has the step's dtype; a step in int8, whose strided
convolutions pull gradients in floats, is set beside a product of bytes. `convolutions alone` is the time of the
network's own convolutions, forward and towards the input, one by one on inputs of their real shapes: a step that took no
longer would have everything else for nothing. On a GPU these are recorded as one CUDA graph, and have no bias to add; what a step
computes is counted on the CPU, where no kernels are fused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from robust_synthesis.engine.capture import capture, rehearse
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.precision import choose_precision
from robust_synthesis.model_folder import ModelFolder

from . import engine
from .figures import Figure, Measured
from .measure import ratio, take_turns

TITLE = "A step against the hardware's limit"
MATRIX = {"cpu": 2048, "cuda": 8192}
GPU_TARGET = 0.6
"""Of the time of a step, for its convolutions, at batch 64 and 128 pixels."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PACKED = (
    torch.ops.mkldnn._convolution_pointwise,
    torch.ops.onednn.qconv2d_pointwise,
)


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Fractions of both limits, at batch 1 and 32, on a GPU also at batch 64 and 128 pixels."""
    fastest = Classifier.load(folder.path, precision="auto")
    in_floats = choose_precision(fastest.device, "auto")
    figures = []
    for classifier in {each.precision: each for each in (fastest.in_precision(in_floats), fastest)}.values():
        cases = [(batch, 64) for batch in ((1, 32) if quick else (1, 8, 32))]
        if classifier.device.type == "cuda":
            cases += [(64, 64), (64, 128)]
        for batch, side in cases:
            figures += _figures(folder, classifier, batch, side, rounds=5 if quick else 15)
    return Measured(tuple(figures))


def _figures(folder: ModelFolder, classifier: Classifier, batch: int, side: int, rounds: int) -> list[Figure]:
    x, targets = engine.pictures(classifier, batch, side)
    steps = engine.turns(classifier, batch, side)
    flops = _flops(folder, classifier, x, targets, steps)
    product = 2 * MATRIX[classifier.device.type] ** 3
    products = max(1, round(flops / product))
    subjects: dict[str, Callable[[], object]] = {
        "step": engine.ours(classifier, x, targets, steps),
        "product": partial(_repeat, _product(classifier), products),
    }
    if classifier.precision != "int8":
        subjects["convolutions"] = _convolutions(classifier, x, DTYPES[classifier.precision], steps)
    seconds = take_turns(subjects, rounds)
    rate = [flops / s for s in seconds["step"]]
    peak = [products * product / s for s in seconds["product"]]
    at = f"batch {batch}, {side} px, {classifier.precision}"
    detail = f"{max(rate) / 1e9:.0f} GFLOP/s at best, the product {max(peak) / 1e9:.0f}"
    figures = [Figure.of(f"{at}, FLOP/s", ratio(rate, peak), "matrix product", detail=detail)]
    if "convolutions" in seconds:
        alone = ratio(seconds["convolutions"], seconds["step"])
        target = GPU_TARGET if (batch, side, classifier.precision) == (64, 128, "bf16") else None
        figures.append(Figure.of(f"{at}, time of its convolutions alone", alone, "whole step", target=target))
    return figures


def _flops(folder: ModelFolder, classifier: Classifier, x: Tensor, targets: Tensor, steps: int) -> int:
    """Of `engine.ours`."""
    batch = len(x)
    if classifier.device.type == "cuda":
        classifier, x, targets = Classifier.load(folder.path, device="cpu"), x[:1].cpu(), targets[:1]
    run = engine.ours(classifier, x, targets, steps)
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(PACKED, _packed_flops)) as counter:
        run()
    return int(counter.get_total_flops()) * batch // len(x)


def _product(classifier: Classifier) -> Callable[[], Tensor]:
    """A matrix product in the classifier's precision: bytes are multiplied as in its convolutions."""
    side = MATRIX[classifier.device.type]
    if classifier.precision != "int8":
        a, b = torch.rand(2, side, side, device=classifier.device).to(DTYPES[classifier.precision])
        return partial(torch.mm, a, b)
    random = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (side, side), dtype=torch.uint8, generator=random)
    b = torch.randint(-127, 128, (side, side), dtype=torch.int8, generator=random)
    scales, zeros = torch.full((side,), 0.01), torch.zeros(side, dtype=torch.int32)
    packed = torch.ops.onednn.qlinear_prepack(b, [side, side])
    after: tuple[Any, ...] = None, 1.0, 0, torch.uint8, "none", [], ""
    return partial(torch.ops.onednn.qlinear_pointwise, a, 0.01, 0, packed, scales, zeros, *after)


def _packed_flops(x: list[int], *others: Any, out_shape: list[int], **_: Any) -> int:
    """Of a convolution whose weights, the first of the other shapes of four sides, are packed."""
    weight = next(each for each in others if isinstance(each, (list, tuple, torch.Size)) and len(each) == 4)
    return conv_flop_count(x, list(weight), out_shape)


def _repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _convolutions(classifier: Classifier, x: Tensor, dtype: torch.dtype, steps: int) -> Callable[[], None]:
    """Runs every convolution that so many steps from x [B, 3, H, W] run, each on tensors of its own.

    That is once forward and backward in each step, and once forward at the end.
    """
    network = classifier.network
    inputs: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args: inputs.append((module, torch.rand_like(args[0]))))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(x.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    calls = []
    for module, seen in inputs:
        x = seen.to(dtype, memory_format=torch.channels_last)
        assert module.bias is not None
        weight = module.weight.detach().to(dtype)
        bias = None if x.is_cuda else module.bias.detach().to(dtype)
        y = torch.conv2d(x, weight, bias, module.stride, module.padding)
        calls.append((x, weight, bias, module.stride, module.padding, torch.rand_like(y)))

    def forward() -> None:
        for x, weight, bias, stride, padding, _ in calls:
            torch.conv2d(x, weight, bias, stride, padding)

    def both() -> None:
        for x, weight, bias, stride, padding, gradient in calls:
            torch.conv2d(x, weight, bias, stride, padding)
            torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )

    each, last = (_recorded(work) if x.is_cuda else work for work in (both, forward))

    def run() -> None:
        _repeat(each, steps)
        _repeat(last, 1)

    return run


def _recorded(work: Callable[[], None]) -> Callable[[], None]:
    device = torch.device("cuda", torch.cuda.current_device())
    rehearse(work, device)
    graph, _ = capture(work, device)

    def replay(_kept: object = work) -> None:  # with the tensors whose addresses the graph knows
        graph.replay()

    return replay
