"""How much of a worker's time the way to it costs: bundles through TorchServe, and in this process, against the ideal.

    python benchmarks/bundles.py [--seconds 6] [--compute sleep|real] [--engine torchserve|inprocess]

With `sleep` a step sleeps as long whatever the batch, as a GPU computes, which leaves the CPU to the transport; the ideal is
then a worker that never waits. With `real` the shipped classifier computes; the ideal is its engine called directly with full
batches, in the same run. Callers make one job of 60 steps after the other. Prints, for each image size and number of callers,
in which share of the time the worker had a bundle, and in which it did steps (the rest of a bundle is starting jobs and
encoding pictures), throughput as a share of the ideal, which does only steps, and the batch sizes that formed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_synthesis import specs
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import Problem, State
from robust_synthesis.engine.seeds import noise
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.dispatcher import Dispatcher
from robust_synthesis.gateway.policy import Policy
from robust_synthesis.requests import Request
from robust_synthesis.testing import tiny_card, tiny_model_folder
from robust_synthesis.worker.engine import Engine, InProcess, share_cores
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe
from robust_synthesis.worker.torchserve.config import Settings

ROOT = Path(__file__).parent.parent
INJECTION = ROOT / "tests/integration/injection"
SHIPPED = ROOT / "model_store/cifar10"
SIZES = {"sleep": (64, 224), "real": (32, 64)}
STEPS = 60
SLEEP = {64: 0.0025, 224: 0.015}
"""Seconds of a step: a full-width ResNet-18 at 16 images of 64 pixels, and at 8 of 224, on a data-centre GPU."""


class Recorded:
    """An engine whose replies are kept count of."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = 0.0
        self.steps_seconds = 0.0
        self.bundles = 0
        self.image_steps = 0
        self.sizes: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def run(self, bundle: bytes, **options: Any) -> bytes:
        reply = await self._engine.run(bundle, **options)
        (length,) = struct.unpack_from("<Q", reply)
        header = json.loads(json.loads(reply[8 : 8 + length])["__metadata__"]["bundle"])
        self.seconds += header["seconds"]
        self.bundles += 1
        for size, steps, seconds in header["batches"]:
            self.sizes[size] += steps
            self.steps_seconds += seconds
        return reply


async def measure(engine: Engine, callers: int, seconds: float, size: int) -> dict[str, Any]:
    recorded = Recorded(engine)
    dispatcher = Dispatcher(EngineBackend(recorded))
    await dispatcher.start()
    (model,) = engine.models()
    latencies: list[float] = []
    evaluations = 0

    async def caller(number: int, until: float, count: bool) -> None:
        nonlocal evaluations
        seed = number
        while time.perf_counter() < until:
            spec = specs.Generate(target=model.card.classes[1], seed=seed, steps=STEPS, start="noise")
            begun = time.perf_counter()
            await dispatcher.submit(Request(spec=spec, size=size), model=model.name, caller=str(number))
            if count:
                latencies.append(time.perf_counter() - begun)
                evaluations += STEPS + 1
            seed += callers

    async def period(length: float, count: bool) -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(caller(i, begun + length, count) for i in range(callers)))
        return time.perf_counter() - begun

    await period(min(2.0, seconds), False)
    recorded.seconds, recorded.steps_seconds, recorded.bundles = 0.0, 0.0, 0
    recorded.sizes.clear()
    wall = await period(seconds, True)
    await dispatcher.close(grace=5)
    return {
        "busy": recorded.seconds / wall,
        "steps": recorded.steps_seconds / wall,
        "throughput": evaluations / wall,
        "latency": sorted(latencies)[len(latencies) // 2],
        "sizes": dict(sorted(recorded.sizes.items())),
        "bundles": recorded.bundles,
        "evaluations_per_bundle": sum(recorded.sizes.values()) / max(1, recorded.bundles),
    }


def direct(folder: Path, size: int, batch: int) -> float:
    """Image evaluations a second of the engine alone."""
    classifier = Classifier.load(folder, precision="auto")
    x = [noise(size, seed) for seed in range(batch)]
    problem = Problem.stack([Problem.single(each, target=1, epsilon=10.0, step_size=0.1) for each in x])
    state = State.stack([State.start(each, 10_000) for each in x])
    problem, state = problem.to(classifier.device), state.to(classifier.device)
    state, _ = advance(classifier, problem, state, 5)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 3:
        state, _ = advance(classifier, problem, state, 10)
        count += 10 * batch
    return count / (time.perf_counter() - begun)


def engine_of(kind: str, folder: Path, environment: dict[str, str]) -> Engine:
    places = Places(paths=[folder])
    return TorchServe(places, settings=Settings(environment=environment)) if kind == "torchserve" else InProcess(places)


def sleep_here() -> None:
    """Let this process's workers sleep, too."""
    spec = importlib.util.spec_from_file_location("injection", INJECTION / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import robust_synthesis.worker.compute

    module.patch(robust_synthesis.worker.compute)


def row(size: int, engine: str, callers: int, ideal: float, lone: float, found: dict[str, Any]) -> str:
    added = f"{found['latency'] / lone - 1:+7.1%}" if callers == 1 else " " * 7
    sizes = ", ".join(f"{size} x {steps}" for size, steps in found["sizes"].items())
    shares = (
        f"busy {found['busy']:6.1%}, with steps {found['steps']:6.1%}, {found['throughput'] / ideal:6.1%} of the ideal"
    )
    latency = f"latency {1000 * found['latency']:6.0f} ms {added}"
    return f"{size:4} px  {engine:10} {callers:3} callers  {shares} {ideal:7.0f}/s  {latency}  batches {sizes}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6, help="to measure each setting for")
    parser.add_argument("--compute", choices=("sleep", "real"), default="sleep")
    parser.add_argument("--engine", choices=("torchserve", "inprocess"), nargs="*", default=("inprocess", "torchserve"))
    parser.add_argument("--size", type=int, nargs="*", help="(64 224; real: 32 64)")
    parser.add_argument("--callers", type=int, nargs="*", default=(1, 8, 16, 32))
    options = parser.parse_args(arguments)
    for size in options.size or SIZES[options.compute]:
        environment: dict[str, str] = {}
        if options.compute == "sleep":
            os.environ["INJECT_SLEEP"] = str(SLEEP.get(size, 0.005))
            environment = {"PYTHONPATH": str(INJECTION), "INJECT_SLEEP": os.environ["INJECT_SLEEP"]}
            sleep_here()
        with tempfile.TemporaryDirectory() as scratch:
            folder = SHIPPED
            if options.compute == "sleep":
                folder = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=size)).path
            for callers in options.callers:
                batch = min(callers, Policy().largest(size, callers))
                ideal = batch / SLEEP[size] if options.compute == "sleep" else direct(folder, size, batch)
                for kind in options.engine:
                    found = asyncio.run(measure(engine_of(kind, folder, environment), callers, options.seconds, size))
                    print(row(size, kind, callers, ideal, (STEPS + 1) * batch / ideal, found), flush=True)


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded, which it is by now
        share_cores(os.environ)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
