"""Where a network computes, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from robust_synthesis.engine import precision
from robust_synthesis.engine.precision import choose_device, choose_precision, compute_exactly
from robust_synthesis.errors import InvalidInput
from robust_synthesis.testing import tiny_classifier

GPU = torch.device("cuda")
CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "hpu", "gpu", "", "cpu:x", "cuda:-1", "cuda:99", 3.5, -1])
def test_a_device_that_cannot_compute_is_refused_by_name(device: object) -> None:
    with pytest.raises(InvalidInput, match=r"^device: is .*; give cpu.*\.$") as refused:
        choose_device(device)  # type: ignore[arg-type]
    assert refused.value.field == "device"


def test_auto_is_bf16_where_it_is_fast_and_fp32_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, chosen in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "multiplies_bf16", lambda _device, fast=fast: fast)
        assert choose_precision(CPU, "auto") == tiny_classifier(precision="auto").precision == chosen
        assert [choose_precision(CPU, name) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(InvalidInput, match=r"^precision: is 'fp16'; give auto, fp32, bf16 or int8"):
        tiny_classifier(precision="fp16")


@pytest.fixture
def fast_and_loose() -> Iterator[None]:
    """cuDNN as torch sets it up."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=False, allow_tf32=True):
        yield


def cudnn() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("fast_and_loose")
def test_on_a_gpu_fp32_keeps_its_bits_and_equal_runs_have_equal_ones() -> None:
    compute_exactly(CPU)
    assert cudnn() == (False, True)
    compute_exactly(GPU)
    assert cudnn() == (True, False)


@pytest.mark.usefixtures("fast_and_loose")
def test_making_a_classifier_sees_to_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_synthesis.engine.classifier.compute_exactly", lambda _cpu: compute_exactly(GPU))
    tiny_classifier()
    assert cudnn() == (True, False)
