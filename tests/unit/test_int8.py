"""A network in bytes: close to the one it was made of, in what it says and in which way it pulls."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robust_synthesis.calibration import calibrate, calibrate_where_possible
from robust_synthesis.engine import precision
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.int8 import supports
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.engine.quantised import PAIRED_MAX, SIGNED_MAX, Quantisation, QuantisedConv2d, weight_max
from robust_synthesis.engine.ranges import measure
from robust_synthesis.errors import InvalidInput, ModelError
from robust_synthesis.testing import pictures, tiny_card, tiny_classifier, tiny_model_folder

DEEP = {"kind": "resnet", "block": "basic", "depths": [2, 3, 1], "width": 16, "stem": "small"}
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"kind": "resnet", "depths": [1, 1], "width": 4},
    "one stage": {"kind": "resnet", "depths": [2], "width": 16},
    "deep": DEEP,
}
CPU = torch.device("cpu")
ALIKE = 0.8
"""Cosine of gradients of networks that, being random, make more of rounding than trained ones."""
pytestmark = pytest.mark.skipif(not precision.multiplies_int8(CPU), reason="this CPU does not multiply bytes")


def calibrated(architecture: Mapping[str, Any] = DEEP, **card: Any) -> Classifier:
    """In fp32."""
    made = tiny_classifier(card=dataclasses.replace(tiny_card(architecture=architecture), **card))
    made.card = dataclasses.replace(made.card, ranges=dataclasses.asdict(measure(made)))
    return made


@pytest.fixture(scope="module")
def deep() -> Classifier:
    return calibrated()


def answers(classifier: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the logit of class 1."""
    x = x.clone().requires_grad_(True)
    logits = classifier(x)
    return logits.detach(), torch.autograd.grad(logits[:, 1].sum(), x)[0]


def cosines(one: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(one.flatten(1), other.flatten(1))


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_logits_and_gradients_are_close_to_those_of_fp32(
    architecture: Mapping[str, Any], bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    monkeypatch.setattr(precision, "multiplies_bf16", lambda _device: bf16)
    exact = calibrated(architecture)
    x = pictures(4, 24, seed=3)[0][::9]
    (logits, gradient), (near, direction) = answers(exact, x), answers(exact.in_precision("int8"), x)
    assert float((near - logits).abs().max()) < 0.25 * float(logits.std())
    assert float(cosines(direction, gradient).min()) > ALIKE
    ratio = direction.flatten(1).norm(dim=1) / gradient.flatten(1).norm(dim=1)
    assert 0.8 < float(ratio.min()) <= float(ratio.max()) < 1.2


@pytest.mark.parametrize("mean", [0.0, -0.1, 0.45, 1.2])
def test_borders_are_those_of_a_padded_picture_whatever_a_pixel_of_0_means(mean: float) -> None:
    exact = calibrated(ARCHITECTURES["one stage"], mean=(mean,) * 3, std=(1.0, 1.0, 1.0))
    x = pictures(4, 16, seed=3)[0][::9]
    (logits, gradient), (near, direction) = answers(exact, x), answers(exact.in_precision("int8"), x)
    assert float((near - logits).abs().max()) < 0.25 * float(logits.std())
    assert float(cosines(direction, gradient).min()) > ALIKE


@pytest.mark.parametrize(("height", "width"), [(17, 31), (9, 9), (7, 13)])
def test_sides_may_be_odd_and_different(height: int, width: int, deep: Classifier) -> None:
    x = pictures(2, 32, seed=3)[0][::9, :, :height, :width]
    assert float(cosines(answers(deep.in_precision("int8"), x)[1], answers(deep, x)[1]).min()) > ALIKE


def test_latent_units_pull_in_the_direction_of_fp32(deep: Classifier) -> None:
    x = pictures(4, 16, seed=6)[0][::6]
    found = []
    for classifier in (deep, deep.in_precision("int8")):
        z = x.clone().requires_grad_(True)
        _, latent = classifier.logits_and_latent(z, torch.ones(len(x), dtype=torch.bool))
        found.append(torch.autograd.grad(latent[:, 3].sum(), z)[0])
    assert float(cosines(*found).min()) > ALIKE


@pytest.mark.parametrize("bf16", [True, False])
def test_a_picture_is_the_same_to_the_bit_whatever_else_is_in_its_batch(
    bf16: bool, deep: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    monkeypatch.setattr(precision, "multiplies_bf16", lambda _device: bf16)
    int8 = deep.in_precision("int8")
    x = pictures(4, 16, seed=5)[0]
    one, other = answers(int8, x[:6]), answers(int8, torch.cat([x[:3], x[20:23]]))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a[:3], b[:3], rtol=0, atol=0)
        assert not torch.equal(a[3:], b[3:])


def test_a_forward_pass_gives_its_gradient_as_often_as_it_is_asked_for(deep: Classifier) -> None:
    x = pictures(1, 16)[0][:2].clone().requires_grad_(True)
    logits = deep.in_precision("int8")(x)[:, 1].sum()
    first, second = (torch.autograd.grad(logits, x, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first.any()


def test_probabilities_need_no_gradients(deep: Classifier) -> None:
    x = pictures(4, 16, seed=3)[0][::9]
    found = deep.in_precision("int8").probabilities(x)
    torch.testing.assert_close(found, deep.probabilities(x), rtol=0, atol=0.2)


def test_an_image_of_tiny_gradients_beside_one_of_large_ones_keeps_its_own(deep: Classifier) -> None:
    x = pictures(4, 16, seed=5)[0][::6]
    exact = answers(deep, x)[1]
    factors = torch.logspace(-6, 6, len(x))
    z = x.clone().requires_grad_(True)
    (near,) = torch.autograd.grad((factors * deep.in_precision("int8")(z)[:, 1]).sum(), z)
    assert float(cosines(near, exact).min()) > ALIKE
    torch.testing.assert_close(near.flatten(1).norm(dim=1) / factors, exact.flatten(1).norm(dim=1), rtol=0.2, atol=0)


def test_a_gradient_of_zero_stays_one(deep: Classifier) -> None:
    x = pictures(1, 16)[0][:2].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((deep.in_precision("int8")(x) * torch.tensor([[0.0], [1.0]])).sum(), x)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_dead_units_receive_gradient_where_it_is_asked_for(deep: Classifier) -> None:
    x = torch.zeros(2, 3, 16, 16)
    x[1] = 1
    with torch.no_grad():
        latent = deep.logits_and_latent(x)[1]
    dead = int(latent.amax(0).argmin())
    assert float(latent[:, dead].max()) == 0
    z = x.clone().requires_grad_(True)
    _, found = deep.in_precision("int8").logits_and_latent(z, torch.tensor([False, True]))
    (gradient,) = torch.autograd.grad(found[:, dead].sum(), z)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_descent_lowers_the_loss_as_it_does_in_fp32(deep: Classifier) -> None:
    starts = list(pictures(4, 16, seed=8)[0][::12])
    problem = Problem.stack([Problem.single(x, target=2, epsilon=3, step_size=0.05) for x in starts])
    losses = []
    for classifier in (deep, deep.in_precision("int8")):
        state, trace = advance(classifier, problem, State.stack([State.start(x, 5) for x in starts]), 6)
        far = trace.loss[0] > 0.5
        assert int(far.sum()) >= 4
        assert float((state.best_loss / trace.loss[0])[far].max()) < 0.8
        losses.append(state.best_loss)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.3, atol=0.1)


def test_auto_is_int8_where_the_cpu_and_the_card_allow_it(deep: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda _device: False)
    for fast in (True, False):
        monkeypatch.setattr(precision, "multiplies_int8", lambda device, fast=fast: fast and device.type == "cpu")
        assert deep.in_precision("auto").precision == ("int8" if fast else "fp32")
        assert tiny_classifier(precision="auto").precision == "fp32"
    with pytest.raises(
        InvalidInput, match=r"^precision: int8 needs a CPU that multiplies bytes \(AVX2\), and torch 2\.9; give auto,"
    ):
        deep.in_precision("int8")
    monkeypatch.setattr(precision, "multiplies_int8", lambda device: device.type == "cpu")
    with pytest.raises(
        InvalidInput, match=r"^precision: int8 needs a ResNet of basic blocks that `robust-synthesis calibrate`"
    ):
        tiny_classifier(precision="int8")
    with pytest.raises(InvalidInput, match=r"^precision: int8 needs a CPU"):
        precision.choose_precision(torch.device("cuda"), "int8", int8=True)
    assert precision.choose_precision(torch.device("cuda"), "auto", int8=True) == "fp32"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact(sign: int) -> None:
    white = torch.full((1, 64, 5, 5), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    conv = QuantisedConv2d(torch.full((32, 64, 3, 3), float(sign)), None, 1, 0, Quantisation(1.0))
    assert torch.allclose(conv(white, torch.float32), torch.tensor(sign * 255.0 * 64 * 9), rtol=1e-5)


@pytest.fixture
def unprobed() -> Iterator[None]:
    """The CPU is probed within the test, and again after it."""
    probes = weight_max, precision._writes_int8
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(("share", "expected"), [(1.0, SIGNED_MAX), (0.5, PAIRED_MAX)])
def test_weights_are_coarser_where_sums_of_pairs_saturate(
    share: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = torch.full((1, 32, 3, 3), share * 64 * 9 * 255)
    monkeypatch.setattr(QuantisedConv2d, "__call__", lambda *_: found)
    assert weight_max() == expected


@pytest.mark.usefixtures("unprobed")
def test_a_torch_that_writes_uint8_for_int8_does_not_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = torch.zeros(1, 16, 1, 1, dtype=torch.uint8)
    assert precision.multiplies_int8(CPU)
    precision._writes_int8.cache_clear()
    monkeypatch.setattr(QuantisedConv2d, "__call__", lambda *_: written)
    assert not precision.multiplies_int8(CPU)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "resnet", "block": "bottleneck"},
        {"kind": "resnet", "stem": "large"},
        {"kind": "resnet", "activation": "silu"},
        {"kind": "preact"},
        {"kind": "plain"},
    ],
)
def test_other_networks_are_left_in_floats(other: Mapping[str, Any], tmp_path: Path) -> None:
    assert not supports(other)
    small = {"stages": [[8], [8]]} if other["kind"] == "plain" else {"depths": [1, 1], "width": 4}
    folder = tiny_model_folder(tmp_path / "other", tiny_card(architecture={**other, **small}))
    assert calibrate_where_possible(folder.path).card.ranges == {}
    with pytest.raises(InvalidInput, match=r"^model: .* does not compute in int8"):
        calibrate(folder.path)


def test_calibrating_changes_nothing_but_the_ranges_of_the_card_and_finds_them_again(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny", tiny_card(architecture=DEEP))
    first = calibrate(folder.path)
    assert first.card.ranges
    assert dataclasses.replace(first.card, ranges={}) == folder.card
    assert calibrate(folder.path).version == first.version != folder.version
    assert Classifier.load(folder.path, precision="int8").precision == "int8"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activations": {}}, "ranges: must have activations and gradients"),
        ({"activations": [], "gradients": {}}, "ranges: activations must be an object"),
        ({"activations": {"conv1": -1}, "gradients": {}}, "ranges: conv1 of activations must be a number, 0 or above"),
        ({"activations": {"conv1": "1"}, "gradients": {}}, "ranges: conv1 of activations must be a number"),
        (
            {"activations": {"conv1": 1.0}, "gradients": {}},
            "ranges lack 'conv1'; run `robust-synthesis calibrate tiny`",
        ),
    ],
)
def test_damaged_ranges_are_refused_by_name(change: Mapping[str, Any], reason: str, tmp_path: Path) -> None:
    folder = calibrate(tiny_model_folder(tmp_path / "tiny").path)
    card = json.loads((folder.path / "model.json").read_text())
    (folder.path / "model.json").write_text(json.dumps(card | {"ranges": change}))
    with pytest.raises(ModelError, match=reason):
        Classifier.load(folder.path, precision="int8")
