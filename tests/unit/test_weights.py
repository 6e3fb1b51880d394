"""Weights on disk: how much each format rounds, and what is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robust_synthesis.engine import weights
from robust_synthesis.engine.networks import build
from robust_synthesis.errors import ModelError
from robust_synthesis.testing import ARCHITECTURE, tiny_network

STATE: Mapping[str, Tensor] = {
    name: value for name, value in tiny_network().state_dict().items() if not name.endswith("num_batches_tracked")
}


def stored(path: Path, format: str) -> dict[str, Tensor]:
    weights.write(path, tiny_network().state_dict(), format)
    return weights.read(path)


def test_fp32_comes_back_bit_for_bit(tmp_path: Path) -> None:
    found = stored(tmp_path / "w", "fp32")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())


def test_fp16_rounds_matrices_to_eleven_bits_and_keeps_the_rest(tmp_path: Path) -> None:
    found = stored(tmp_path / "w", "fp16")
    for name, value in STATE.items():
        assert found[name].dtype == torch.float32
        if value.ndim < 2:
            assert torch.equal(found[name], value), name
        else:
            assert 0 < float(((found[name] - value).abs() / value.abs()).max()) <= 2**-11, name


def test_int8_rounds_matrices_to_a_127th_of_each_output_channels_largest_weight(tmp_path: Path) -> None:
    found = stored(tmp_path / "w", "int8")
    assert found.keys() == STATE.keys()
    for name, value in STATE.items():
        if value.ndim < 2:
            assert torch.equal(found[name], value), name
        else:
            step = value.flatten(1).abs().amax(1) / 127
            error = (found[name] - value).flatten(1).abs().amax(1)
            assert 0.1 < float((error / step).max()) < 0.501, name


def test_smaller_formats_make_smaller_files(tmp_path: Path) -> None:
    architecture = {**ARCHITECTURE, "width": 32}
    sizes = []
    for format in weights.FORMATS:
        weights.write(tmp_path / format, build(architecture, 4).state_dict(), format)
        sizes.append((tmp_path / format).stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]


def test_a_filled_network_answers_as_the_one_that_was_stored(tmp_path: Path) -> None:
    network = build(ARCHITECTURE, 4).eval()
    weights.fill(network, stored(tmp_path / "w", "fp32"), "w")
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), tiny_network()(x))


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_recognised_and_never_opened(tmp_path: Path) -> None:
    bomb, hit = Bomb(tmp_path / "hit"), tmp_path / "hit"
    (tmp_path / "plain").write_bytes(pickle.dumps(bomb))
    torch.save({"state_dict": bomb}, tmp_path / "zip")
    for name in ("plain", "zip"):
        with pytest.raises(ModelError, match="is a pickle, which could run code"):
            weights.read(tmp_path / name)
    assert not hit.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 3000])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    weights.write(tmp_path / "w", STATE, "fp32")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:kept])
    with pytest.raises(ModelError, match="is not a safetensors file"):
        weights.read(tmp_path / "w")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in STATE.items()}
    state["layer1.0.bn2.bias"][1] = value
    weights.write(tmp_path / "w", state, "fp32")
    with pytest.raises(ModelError, match=r"NaN or infinity in layer1\.0\.bn2\.bias"):
        weights.read(tmp_path / "w")


@pytest.mark.parametrize("scale", [None, torch.ones(3), torch.full((4,), torch.nan)])
def test_8_bit_weights_need_a_scale_that_fits(tmp_path: Path, scale: Tensor | None) -> None:
    weights.write(tmp_path / "w", STATE, "int8")
    tensors = load_file(tmp_path / "w")
    del tensors["conv1.weight.scale"]
    save_file(tensors | ({} if scale is None else {"conv1.weight.scale": scale}), tmp_path / "w")
    with pytest.raises(ModelError, match=r"conv1\.weight"):
        weights.read(tmp_path / "w")


def test_tensors_that_do_not_fit_the_architecture_are_named() -> None:
    network = build(ARCHITECTURE, 4)
    missing = {name: value for name, value in STATE.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(ModelError, match=r"w lacks layer2\.0\.conv1\.weight \(1 missing\)"):
        weights.fill(network, missing, "w")
    with pytest.raises(ModelError, match=r"w has layer3\.0\.conv1\.weight \(1 too many\)"):
        weights.fill(network, {**STATE, "layer3.0.conv1.weight": torch.zeros(1)}, "w")
    with pytest.raises(ModelError, match=r"fc\.bias of shape \(5,\), the card says \(4,\)"):
        weights.fill(network, {**STATE, "fc.bias": torch.zeros(5)}, "w")


def test_counters_of_training_are_neither_stored_nor_needed(tmp_path: Path) -> None:
    assert any(name.endswith("num_batches_tracked") for name in tiny_network().state_dict())
    assert not any(name.endswith("num_batches_tracked") for name in stored(tmp_path / "w", "fp32"))
