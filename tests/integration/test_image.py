"""The images, built from an empty store, and one request through both roles as they start from them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from robust_synthesis import __version__
from robust_synthesis.client import Client

ROOT = Path(__file__).parents[2]
IMAGES = {"gateway": f"robust-synthesis-gateway:{__version__}", "worker": f"robust-synthesis-worker:{__version__}-cpu"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("debootstrap")),
        reason="needs the programs buildah and debootstrap",
    ),
]


class Store:
    """What buildah has in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._command = (
            "buildah",
            "--root",
            f"{folder}/storage",
            "--runroot",
            f"{folder}/run",
            "--storage-driver",
            "vfs",
        )

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def running(self, container: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """As the image's own user. There are no namespaces, so that it listens on this machine."""
        run = [*self._command, "run", "--isolation", "chroot", container, "--", *command]
        process = subprocess.Popen(run, start_new_session=True)
        try:
            yield process
            stop(process)
            assert process.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to what would be process 1 of the container, as an orchestrator sends it."""
    children = psutil.Process(process.pid).children(recursive=True)
    (first,) = [child for child in children if child.name() == "tini"]
    first.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With both images, built from nothing."""
    folder = tmp_path_factory.mktemp("images")
    without_docker = {**os.environ, "STORE": str(folder), "DOCKER_HOST": "unix:///nowhere"}
    try:
        done = subprocess.run([ROOT / "deploy/image.sh"], env=without_docker, check=False, timeout=3000)
        assert done.returncode == 0
        yield Store(folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def containers(store: Store) -> dict[str, str]:
    return {role: store("from", "--pull-never", f"localhost/{image}") for role, image in IMAGES.items()}


def wait(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def probe(port: int, service: str = "") -> bool:
    command = [sys.executable, "-m", "robust_synthesis.probes", str(port), *([service] if service else [])]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_images_say_how_they_are_run_and_the_gateway_has_no_torch(store: Store, containers: dict[str, str]) -> None:
    for role, container in containers.items():
        config = json.dumps(json.loads(store("inspect", container))["Docker"]["config"])
        assert "10001:10001" in config
        assert "robust_synthesis.probes" in config
        assert "tini" in config
        root = Path(store("mount", container))
        packages = {path.name for path in (root / "opt/venv/lib/python3.11/site-packages").iterdir()}
        assert ("torch" in packages) == ("ts" in packages) == (role == "worker")
        assert "pip" not in packages
    shipped = {path.parent.name for path in (ROOT / "model_store").glob("*/model.json")}
    judges = {name for name in shipped if name.endswith("-judge")}
    assert {path.stem for path in (root / "models").iterdir()} == shipped - judges
    print("\n" + store("images", "--format", "{{.Name}}:{{.Tag}} {{.Size}}"))


def test_both_roles_start_from_their_image_serve_a_request_and_write_only_to_tmp(
    store: Store, containers: dict[str, str], unused_tcp_port_factory: Callable[[], int]
) -> None:
    begun = time.time()
    worker, worker_health, gateway, gateway_health = (unused_tcp_port_factory() for _ in range(4))
    start = ("tini", "--", "robust-synthesis")
    work = ("worker", "--models=/models", f"--listen=127.0.0.1:{worker}", f"--health-port={worker_health}")
    serve = (
        "serve",
        f"--workers=127.0.0.1:{worker}",
        f"--listen=127.0.0.1:{gateway}",
        f"--health-port={gateway_health}",
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.running(containers["worker"], *start, *work, "--metrics-port=0"))
        stack.enter_context(store.running(containers["gateway"], *start, *serve, "--metrics-port=0"))
        wait(lambda: probe(worker_health, "live"), 60)
        wait(lambda: probe(worker_health, "robust_synthesis.v1.WorkerService"), 120)
        wait(lambda: probe(gateway_health), 60)
        with Client(f"127.0.0.1:{gateway}") as client:
            result = client.generate("dog", seed=1, model="cifar10", timeout=120)
        assert np.asarray(result.image).shape == (32, 32, 3)
        assert result.pictures[0].predicted == "dog"
        assert result.pictures[0].probability_after > 0.5
    for container in containers.values():
        root = store("mount", container)
        # Links that buildah makes of the host's files aside, nothing but below /tmp.
        places = [f"{root}/{name}" for name in ("bin", "etc", "home", "models", "opt", "root", "srv", "usr", "var")]
        found = subprocess.run(
            ["find", *(place for place in places if Path(place).exists()), "-type", "f", "-newermt", f"@{begun}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert [line for line in found.stdout.splitlines() if not line.startswith(f"{root}/etc/")] == []
