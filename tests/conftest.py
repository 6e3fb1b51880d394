"""What every test shares: one thread for torch (two processes on two cores otherwise wait for each other), tiny models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.testing import tiny_classifier

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """A random classifier of four classes at 16 pixels, fp32."""
    return tiny_classifier()
