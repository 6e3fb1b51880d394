"""What every test shares: one thread for torch (two processes on two cores otherwise wait for each other), tiny models.

Programs that tests start see no GPU either, except for `make test-gpu`: what they compute is compared with a CPU's.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.testing import tiny_classifier

if os.environ.get("ROBUST_SYNTHESIS_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU, and make test-gpu")


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """A random classifier of four classes at 16 pixels, fp32."""
    return tiny_classifier()
