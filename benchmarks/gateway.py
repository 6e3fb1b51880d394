"""What the gateway costs, and how gateways share workers, as Markdown tables.

    python -m benchmarks.gateway overhead [--size 64] [--rounds 15] [--model FOLDER]
    python -m benchmarks.gateway sharing [--gateways 1 2] [--workers 3] [--callers 48] [--seconds 20]

`overhead` compares, taking turns within one run: an empty method of grpc.aio with the gateway's ListModels; and a lone job of
60 steps by the library in this process with the same job by a gateway that computes in its own (embedded), PNG and gRPC included.
`sharing` starts that many agents (`worker --engine inprocess`) and gateways (`serve --workers`) as processes of their own; a step
sleeps as long whatever the batch, as a GPU computes. Callers, divided equally or 5 to 1 between two gateways, make one job of 60
steps after the other; what is reported is from the gateways' /metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.measure import Spread, ratio, take_turns
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2, synthesis_pb2_grpc, task_pb2

INJECTION = Path(__file__).parent.parent / "tests/integration/injection"
STEPS = 60
SLEEP = {64: 0.0025, 224: 0.015}
"""Seconds of a step, as in bundles.py."""
CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def generate(target: str, seed: int, model: str = "", noise: bool = True) -> synthesis_pb2.GenerateRequest:
    descent = task_pb2.Descent(steps=STEPS, seed=seed)
    start = task_pb2.START_NOISE if noise else task_pb2.START_UNSPECIFIED
    return synthesis_pb2.GenerateRequest(
        model=model, spec=task_pb2.GenerateSpec(target=target, start=start, descent=descent)
    )


# Overhead.


@contextlib.contextmanager
def empty_server() -> Iterator[str]:
    """One method that does nothing, on grpc.aio in a thread of its own, like the gateway it is compared with."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def nothing(request: bytes, context: Any) -> bytes:
        del context
        return request

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(nothing)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("empty.Service", {"Nothing": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def compared(name: str, base: Sequence[float], ours: Sequence[float]) -> str:
    """A row of the table: medians, 10th and 90th percentiles, in milliseconds."""
    spreads = [Spread.of([1000 * seconds for seconds in times]) for times in (base, ours)]
    return f"| {name} | {len(ours)} | {spreads[0]} | {spreads[1]} | {ratio(ours, base)} |"


def overhead(options: argparse.Namespace) -> None:
    import torch

    import robust_synthesis
    from robust_synthesis.gateway.backends.engine import EngineBackend
    from robust_synthesis.gateway.metrics import Metrics
    from robust_synthesis.gateway.running import serving
    from robust_synthesis.imaging import encode
    from robust_synthesis.testing import tiny_card, tiny_model_folder
    from robust_synthesis.worker.engine import InProcess
    from robust_synthesis.worker.shelf import Places

    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        logging.basicConfig(
            level=logging.INFO, filename=os.devnull, force=True
        )  # a line for each call, as `serve` does
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = options.model or tiny_model_folder(scratch / "tiny", tiny_card(size=options.size)).path
        library = robust_synthesis.load(folder)
        backend = EngineBackend(InProcess(Places(paths=[folder])))
        target = stack.enter_context(serving(lambda: backend, observer=Metrics(backend)))
        channel = stack.enter_context(grpc.insecure_channel(target, CHANNEL))
        empty = stack.enter_context(grpc.insecure_channel(stack.enter_context(empty_server()), CHANNEL))
        nothing: Any = empty.unary_unary("/empty.Service/Nothing", None, None)
        models: Any = model_pb2_grpc.ModelServiceStub(channel)
        synthesis: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        name = library.classifier.card.classes[0]
        request = model_pb2.ListModelsRequest()

        seeds = itertools.count()

        def alone() -> None:
            made = library.generate(name, seed=next(seeds), steps=STEPS, start="noise")
            encode(made.image)

        calls = take_turns(
            {
                "empty": lambda: nothing(b"", timeout=10),
                "models": lambda: models.ListModels(request, timeout=10),
            },
            options.calls,
            warm_up=200,
        )
        jobs = take_turns(
            {
                "alone": alone,
                "gateway": lambda: synthesis.Generate(generate(name, next(seeds)), timeout=600),
            },
            options.rounds,
            warm_up=2,
        )
    print("| what | times | base, ms | gateway, ms | ratio |\n|---|---|---|---|---|")
    print(compared("ListModels, to an empty grpc.aio method", *calls.values()))
    print(
        compared(
            f"lone job of {STEPS} steps, {library.classifier.card.size} px, to the library in-process", *jobs.values()
        )
    )


# Sharing.


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def process(*arguments: object, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A command of ours, until the end of the block."""
    command = [sys.executable, "-m", "robust_synthesis", *map(str, arguments)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    running = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def ready(target: str) -> str:
    with grpc.insecure_channel(target, CHANNEL) as channel:
        grpc.channel_ready_future(channel).result(120)
    return target


@dataclass
class Front:
    """A gateway, and how many callers it has."""

    target: str
    metrics: int
    callers: int

    def samples(self) -> dict[str, float]:
        """Sums over labels, but for outcome and reason, which follow the name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=30) as response:
            text = response.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                kind = sample.labels.get("outcome") or sample.labels.get("reason")
                name = f"{sample.name} {kind}" if kind else sample.name
                found[name] = found.get(name, 0.0) + sample.value
        return found


async def drive(fronts: Sequence[Front], seconds: float) -> tuple[float, list[list[float]]]:
    """Callers call until the time is up; the seconds that it took, and the latencies at each gateway."""
    latencies: list[list[float]] = [[] for _ in fronts]
    begun = time.perf_counter()

    async def caller(found: list[float], synthesis: Any, seed: int) -> None:
        while time.perf_counter() < begun + seconds:
            sent = time.perf_counter()
            await synthesis.Generate(generate("circle", seed, "tiny"), timeout=600)
            found.append(time.perf_counter() - sent)
            seed += 1000

    async with contextlib.AsyncExitStack() as stack:
        work = []
        for front, found in zip(fronts, latencies, strict=True):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(front.target, CHANNEL))
            stub = synthesis_pb2_grpc.SynthesisServiceStub(channel)
            work += [caller(found, stub, seed) for seed in range(front.callers)]
        await asyncio.gather(*work)
    return time.perf_counter() - begun, latencies


def measure(folder: Path, workers: int, callers: Sequence[int], seconds: float, sleep: float) -> list[str]:
    """Rows of the table: a gateway each, for one way to divide the callers."""
    environment = {"PYTHONPATH": f"{INJECTION}:{os.environ.get('PYTHONPATH', '')}", "INJECT_SLEEP": str(sleep)}
    with contextlib.ExitStack() as stack:
        agents = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
        for agent in agents:
            own = ("--model", folder, "--engine", "inprocess", "--device", "cpu", "--listen", agent)
            stack.enter_context(process("worker", *own, "--metrics-port", 0, environment=environment))
        for agent in agents:
            ready(agent)
        fronts = [Front(f"127.0.0.1:{free_port()}", free_port(), share) for share in callers]
        for front in fronts:
            addresses = ("--backend", "remote", "--workers", ",".join(agents), "--listen", front.target)
            stack.enter_context(process("serve", *addresses, "--metrics-port", front.metrics))
        for front in fronts:
            ready(front.target)
        asyncio.run(drive(fronts, min(8.0, seconds)))  # connections, step times
        before = [front.samples() for front in fronts]
        wall, latencies = asyncio.run(drive(fronts, seconds))
        after = [front.samples() for front in fronts]
    rows = []
    total = sum(len(found) for found in latencies)
    for number, (front, found) in enumerate(zip(fronts, latencies, strict=True)):
        gained = {name: value - before[number].get(name, 0.0) for name, value in after[number].items()}
        size = gained["synthesis_batch_size_sum"] / gained["synthesis_batch_size_count"]
        low = statistics.quantiles(found, n=20)
        rows.append(
            f"| {len(fronts)} | {front.callers} | {len(found) / wall:.1f} | {len(found) / total:.0%} | {size:.1f} | "
            f"{gained['synthesis_batch_size_count'] / wall:.1f} | "
            f"{gained['synthesis_chunk_retries_total unavailable'] / wall:.1f} | "
            f"{gained['synthesis_chunk_retries_total lost']:.0f} | {low[9]:.2f} | {low[18]:.2f} | {total / wall:.1f} |"
        )
    return rows


def sharing(options: argparse.Namespace) -> None:
    from robust_synthesis.testing import tiny_card, tiny_model_folder

    divisions = [[options.callers]] * (1 in options.gateways)
    if 2 in options.gateways:
        half, few = options.callers // 2, options.callers // 6
        divisions += [[half, options.callers - half], [options.callers - few, few]]
    sleep = SLEEP[options.size]
    print(f"{options.workers} workers, {options.callers} callers, {options.size} px, a step sleeps {1000 * sleep} ms\n")
    columns = "gateways, callers of it, jobs/s, of all, pictures a bundle, bundles/s, refused/s, lost, p50 s, p95 s, all jobs/s"
    print(f"| {columns.replace(', ', ' | ')} |\n{'|---' * len(columns.split(','))}|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=options.size)).path
        for callers in divisions:
            for row in measure(folder, options.workers, callers, options.seconds, sleep):
                print(row, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="overhead|sharing")
    one = parts.add_parser("overhead", help="what the gateway costs a call, and a job")
    one.set_defaults(run=overhead)
    one.add_argument("--size", type=int, default=64, help="pixels of the tiny classifier's pictures")
    one.add_argument("--model", type=Path, metavar="FOLDER", help="a classifier instead of the tiny one")
    one.add_argument("--calls", type=int, default=2000, help="of each of the empty methods")
    one.add_argument("--rounds", type=int, default=15, help="jobs of each")
    two = parts.add_parser("sharing", help="gateways that share workers")
    two.set_defaults(run=sharing)
    two.add_argument("--gateways", type=int, nargs="*", choices=(1, 2), default=(1, 2))
    two.add_argument("--workers", type=int, default=3)
    two.add_argument("--callers", type=int, default=48, help="in all")
    two.add_argument("--seconds", type=float, default=20, help="to measure each setting for")
    two.add_argument("--size", type=int, choices=sorted(SLEEP), default=64)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
