"""Where the time of a job goes: in a step of the engine, before and after, and on the way through the service.

Of a step: torch's profiler's own time of every operation, by kind. `Before` is the authors' attacker on the network as it was
trained (fp32, batch norms, channels first); between the operations is Python and torch's dispatcher. The profiler slows all
down, small operations most, so that shares count and not milliseconds; the section `engine` has these.

Of a job of 60 steps through the service: from the timings of its result, and of the replies of its bundles.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
from torch.autograd import profiler

from robust_synthesis import wire
from robust_synthesis.bundle import Bundle, JobPart, JobReply, JobState, Reply
from robust_synthesis.engine import weights
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.gateway.backends.base import Backend
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.running import serving
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2
from robust_synthesis.worker.engine import InProcess
from robust_synthesis.worker.shelf import Places
from robust_synthesis.worker.torchserve import TorchServe

from . import authors, engine
from .figures import Figure, Measured
from .measure import Spread, ratio, take_turns

TITLE = "Where the time goes"
SIDE = 64
STEPS = 60
JOBS = 16
"""Of a full bundle."""
KINDS = {
    "convolutions, forward": ("mkldnn_convolution", "cudnn_convolution", "conv2d", "convolution"),
    "convolutions of bytes or of packed weights, both ways": (
        "qconv2d_pointwise",
        "_convolution_pointwise",
        "_convolution_transpose_pointwise",
    ),
    "convolutions, backward": ("convolution_backward", "mkldnn_convolution_backward"),
    "batch norms": ("native_batch_norm", "native_batch_norm_backward", "batch_norm"),
    "ReLUs": ("clamp_min", "clamp_min_", "relu", "relu_", "threshold_backward"),
    "copies and conversions": ("copy_", "to", "_to_copy", "clone", "contiguous", "fill_", "zero_", "empty_strided"),
}
OTHER, BETWEEN = "other operations: sums, ball, update, loss", "between the operations"


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """Shares of a step at batch 1 and 32, and of a job with 1 and 16 callers."""
    rounds = 5 if quick else 15
    with ThreadPoolExecutor(1) as thread:  # that ends before the service computes, with the helpers that OpenMP gave it
        figures = [*thread.submit(_steps, folder, rounds).result(), thread.submit(_bundle, folder, rounds).result()]
    backends: dict[str, Callable[[], Backend]] = {
        "embedded": lambda: EngineBackend(InProcess(Places(paths=[folder.path]))),
        "torchserve": lambda: EngineBackend(TorchServe(Places(paths=[folder.path]))),
    }
    for name, backend in backends.items():
        watch = Watch()
        with serving(backend, observer=watch) as target:
            for callers in (1, 16):
                jobs = rounds * (4 if callers == 1 else 16)
                figures += asyncio.run(_jobs(name, target, watch, folder, callers, jobs))
    return Measured(tuple(figures))


def _steps(folder: ModelFolder, rounds: int) -> list[Figure]:
    classifier = Classifier.load(folder.path, precision="auto")
    figures = []
    with authors.attacker() as module:
        model = authors.attacker_model(module, weights.load_network(folder), folder.card).to(classifier.device)
        for batch in (1, 32):
            x, targets = engine.pictures(classifier, batch, SIDE)
            steps = max(2, engine.turns(classifier, batch, SIDE) // 4)
            subjects: dict[str, Callable[[], object]] = {
                "before": partial(engine.theirs, model, x, targets, steps),
                "after": engine.ours(classifier, x, targets, steps),
            }
            found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
            for turn in range(-1, rounds):
                for name, subject in subjects.items():
                    for kind, seconds in _profiled(subject).items():
                        found[name, kind] += [seconds / steps] * (turn >= 0)
            figures += _compared(batch, found)
    return figures


def _compared(batch: int, found: Mapping[tuple[str, str], Sequence[float]]) -> list[Figure]:
    """A figure for each kind."""
    kinds = (*KINDS, OTHER, BETWEEN)
    whole = {name: sum(Spread.of(found[name, kind]).median for kind in kinds) for name in ("before", "after")}
    figures = []
    for kind in kinds:
        before, after = (Spread.of(found[name, kind]) for name in whole)
        detail = (
            f"{1000 * before.median:.2f} ms before, {before.median / whole['before']:.0%} of the step; "
            f"{1000 * after.median:.2f} ms after, {after.median / whole['after']:.0%}"
        )
        share = Spread.of([seconds / whole["before"] for seconds in found["after", kind]])
        name = f"step of batch {batch}: {kind}"
        figures.append(Figure.of(name, share, "all of a step before", higher_is_better=False, detail=detail))
    return figures


def _profiled(subject: Callable[[], object]) -> dict[str, float]:
    """Seconds of each kind."""
    with profiler.profile() as profiled:
        started = time.perf_counter()
        subject()
        ended = time.perf_counter()
    found = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in profiled.key_averages():
        name = event.key.rpartition("::")[2]
        kind = next((kind for kind, names in KINDS.items() if name in names), OTHER)
        found[kind] += event.self_cpu_time_total / 1e6
    return found | {BETWEEN: max(0.0, ended - started - sum(found.values()))}


def _bundle(folder: ModelFolder, rounds: int) -> Figure:
    """Bytes of a bundle and of its reply, made and read."""
    classifier = Classifier.load(folder.path, precision="auto")
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, SIDE, SIDE), np.uint16)
    sent = JobPart(20, state=JobState(pixels, 40), address="0" * 32)
    answered = JobReply(state=JobState(pixels, 20, best_x=pixels), loss=[1.0] * 20, probability=[0.5] * 20)
    bundle = Bundle(folder.card.name, [sent] * JOBS, classifier.version)
    reply = Reply(bundle.model, classifier.version, [answered] * JOBS, 0.1)

    def there_and_back() -> None:
        wire.decode(wire.encode(bundle))
        wire.decode_reply(wire.encode_reply(reply))

    step = engine.ours(classifier, *engine.pictures(classifier, JOBS, SIDE), 4)
    seconds = take_turns({"bytes": there_and_back, "steps": step}, 2 * rounds)
    share = ratio([5 * each for each in seconds["bytes"]], seconds["steps"])
    kib = (len(wire.encode(bundle)) + len(wire.encode_reply(reply))) >> 10
    detail = f"{1000 * Spread.of(seconds['bytes']).median:.1f} ms for {kib} KiB"
    name = f"bundle of {JOBS} jobs, {SIDE} px: encoding and decoding, there and back"
    return Figure.of(name, share, "one step of it", higher_is_better=False, detail=detail)


class Watch(Observer):
    """How much of what workers computed was gradient steps."""

    def __init__(self) -> None:
        self.computed = 0.0
        self.steps = 0.0

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        del plan
        self.computed += reply.seconds
        self.steps += sum(seconds for _, _, seconds in reply.batches)


async def _jobs(name: str, target: str, watch: Watch, folder: ModelFolder, callers: int, jobs: int) -> list[Figure]:
    """Shares of the latency of one job, with so many callers at a time."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    numbers = iter(range(-callers, jobs))

    async def caller(stub: Any) -> None:
        for number in numbers:
            if number == 0:
                watch.computed = watch.steps = 0.0
            spec = task_pb2.GenerateSpec(
                target=folder.card.classes[0],
                descent=task_pb2.Descent(steps=STEPS, seed=number + callers),
                size=SIDE,
            )
            request = synthesis_pb2.GenerateRequest(model=folder.card.name, spec=spec)
            sent = time.perf_counter()
            response = await stub.Generate(request, timeout=300)
            latency, timings = time.perf_counter() - sent, response.result.timings
            if number >= 0:
                waited, computed = timings.queue_wait_seconds, timings.compute_seconds
                found["client, gRPC, request and response"].append((latency - timings.total_seconds) / latency)
                found["wait for its first bundle"].append(waited / latency)
                found["compute"].append(computed / latency)
                found["bundles: encoding, transport, decoding, turns"].append(
                    max(0.0, timings.total_seconds - waited - computed) / latency
                )
                found["latency"].append(latency)

    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        stub = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        await asyncio.gather(*(caller(stub) for _ in range(callers)))
    latency = Spread.of(found.pop("latency")).median
    computed = found.pop("compute")
    share = watch.steps / watch.computed
    found["gradient steps"] = [each * share for each in computed]
    found["worker: starts, PNG files"] = [each * (1 - share) for each in computed]
    return [
        Figure.of(
            f"{name}, job with {callers} callers: {part}",
            Spread.of(shares),
            "all of its latency",
            higher_is_better=part == "gradient steps",
            detail=f"{1000 * latency * Spread.of(shares).median:.1f} of {1000 * latency:.0f} ms",
        )
        for part, shares in found.items()
    ]
