"""The README's tutorial, word for word, on photographs that are made up: train, archive, serve, translate."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from robust_synthesis.model_folder import available, models_directory

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = 8
"""Of each class."""
COLOURS = {"summer": ((90, 160, 235), (70, 140, 50)), "winter": ((170, 180, 195), (235, 240, 250))}
"""Sky and ground."""

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("cifar10" not in available(), reason="needs model_store/cifar10"),
]


def tutorial() -> list[str]:
    """The commands in the README."""
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Bring your own data\n")
    block = re.search(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert block is not None
    return block[1].strip().splitlines()


def photograph(season: str, number: int) -> Image.Image:
    """Sky above ground, with texture."""
    random = np.random.default_rng([len(season), number, *season.encode()])
    sky, ground = COLOURS[season]
    pixels = np.empty((80, 100, 3))
    horizon = int(random.integers(25, 50))
    pixels[:horizon], pixels[horizon:] = sky, ground
    pixels += random.normal(0, 20, (10, 10, 1)).repeat(8, 0).repeat(10, 1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@contextmanager
def running(command: str, work: Path, address: str) -> Iterator[None]:
    """A gateway that answers at `address` until the block ends, and then has ended well."""
    settings = {"ROBUST_SYNTHESIS_LISTEN": address, "ROBUST_SYNTHESIS_METRICS_PORT": "0"}
    process = subprocess.Popen(
        words(command), cwd=work, env=environment() | settings, stderr=subprocess.PIPE, text=True
    )
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(120)
        yield
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
    finally:
        process.kill()
        process.communicate()


def words(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    assert program == "robust-synthesis"
    return [sys.executable, "-m", "robust_synthesis", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"ROBUST_SYNTHESIS_MODELS": str(models_directory().absolute()), "OMP_NUM_THREADS": "1"}


def test_the_tutorial_translates_between_two_classes_of_ones_own(tmp_path: Path, unused_tcp_port: int) -> None:
    for season in COLOURS:
        (tmp_path / "photos" / season).mkdir(parents=True)
        for number in range(PHOTOGRAPHS):
            photograph(season, number).save(tmp_path / "photos" / season / f"{number}.jpg")
    photograph("summer", PHOTOGRAPHS).save(tmp_path / "photo.jpg")

    train, archive, serve, translate = tutorial()
    for command in (train, archive):
        subprocess.run(words(command), cwd=tmp_path, env=environment(), check=True, timeout=600)
    address = f"127.0.0.1:{unused_tcp_port}"
    assert "127.0.0.1:50051" in translate
    with running(serve, tmp_path, address):
        command = translate.replace("127.0.0.1:50051", address)
        done = subprocess.run(
            words(command), cwd=tmp_path, env=environment(), check=True, timeout=300, capture_output=True, text=True
        )
    line = re.fullmatch(r"winter\.png: winter (\d\.\d+) -> (\d\.\d+), seen as winter, .*\n", done.stdout)
    assert line is not None, done.stdout
    assert float(line[1]) < 0.5 < float(line[2])
    with Image.open(tmp_path / "winter.png") as picture, Image.open(tmp_path / "photo.jpg") as photo:
        assert picture.size == (64, 64)
        # Winter's ground is brighter in every channel, most of all in blue.
        brighter = np.asarray(picture)[-16:].mean((0, 1)) - np.asarray(photo)[-20:].mean((0, 1))
    assert brighter[2] > 5
