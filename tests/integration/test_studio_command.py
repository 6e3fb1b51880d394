"""`robust-synthesis studio`, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from robust_synthesis.cli.main import main
from robust_synthesis.client.testing import FakeGateway
from robust_synthesis.model_folder import MODELS_VARIABLE

COMMAND = (sys.executable, "-m", "robust_synthesis", "studio", "--listen", "127.0.0.1:0")


def started(models: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """The process, once it says where it is."""
    environment = {**os.environ, MODELS_VARIABLE: str(models), "OMP_NUM_THREADS": "1"}
    environment.pop("ROBUST_SYNTHESIS_SERVER", None)
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("the studio is on "):
            return process, line.split()[-1]
    raise AssertionError(process.wait())


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as gateway:
        yield gateway


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_over_a_gateway_it_serves_the_page_and_ends_in_order(
    models: Path, gateway: FakeGateway, number: signal.Signals
) -> None:
    process, url = started(models, "--server", gateway.target)
    with process:
        with urlopen(url) as response:
            assert b"Robust Synthesis" in response.read()
        process.send_signal(number)
        assert process.wait(20) == 0


def test_without_one_it_starts_its_own_with_all_classifiers_and_ends_it(models: Path) -> None:
    process, url = started(models)
    with process:
        with urlopen(f"{url}/models") as response:
            assert b'"cifar10-standard"' in response.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_it_is_not_opened_to_the_network_by_accident(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studio", "--listen", "0.0.0.0:0", "--server", gateway.target]) == 2
    assert "origin: is missing; 0.0.0.0 is open to the network" in capsys.readouterr().err


def test_what_makes_no_sense_is_refused(work: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in (
        (["--server", gateway.target, "--models", "."], "models: is for a gateway of its own"),
        (["--server", gateway.target, "--orders", "0"], "orders: is 0"),
        (["--server", gateway.target, "--origin", "studio"], "origin: is 'studio'"),
        (["--server", "", "--models", "."], "models: . has no classifiers"),
        (["--server", "", "--listen", "nowhere"], "listen: is 'nowhere'"),
    ):
        assert main(["studio", "--listen", "127.0.0.1:0", *options]) == 2
        assert sentence in capsys.readouterr().err
