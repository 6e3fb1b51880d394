"""Tiny classifiers under the names that the command line looks for, and pictures to give it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robust_synthesis.cli.main import main
from robust_synthesis.model_folder import MODELS_VARIABLE
from robust_synthesis.testing import tiny_card, tiny_model_folder

from . import cluster

Run = Callable[..., str]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory of two tiny classifiers of 16 pixels."""
    directory = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "cifar10", tiny_card("cifar10"))
    tiny_model_folder(directory / "cifar10-standard", tiny_card("cifar10-standard"), seed=1)
    return directory


@pytest.fixture
def work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is the current one, with the tiny classifiers in the models directory."""
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level = root.level
    yield tmp_path
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:  # a server's, to a stderr that is this test's
            root.removeHandler(handler)


@pytest.fixture
def run(work: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb that succeeds, silent on stderr (which is no terminal); returns what it printed."""

    def call(*arguments: object) -> str:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return printed.out

    return call


@pytest.fixture
def photo(work: Path) -> Path:
    """A smooth photo of 60 x 40 pixels."""
    path = work / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(noise).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def possible() -> None:
    """Skips where there can be no cluster of processes."""
    if reason := cluster.missing():
        pytest.skip(reason)
