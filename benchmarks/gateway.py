"""What a call costs in the gateway, and what it costs that gateways share workers.

An empty method of grpc.aio is compared with the gateway's ListModels, one caller after the other. With --full, two gateways share
three workers, whose steps sleep 2.5 ms whatever the batch: each forms bundles of its own callers' jobs only, so that they are
smaller, and where a step takes as long whatever the batch, throughput is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from clients.loadgen.drive import Drive
from clients.loadgen.mix import Work
from clients.loadgen.scrape import Snapshot
from robust_synthesis.gateway.backends.engine import EngineBackend
from robust_synthesis.gateway.metrics import Metrics
from robust_synthesis.gateway.running import serving
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.testing import tiny_card, tiny_model_folder
from robust_synthesis.v1 import model_pb2, model_pb2_grpc
from robust_synthesis.worker.engine import InProcess
from robust_synthesis.worker.shelf import Places

from . import processes, simulated
from .figures import Figure, Measured
from .measure import Spread, percentile, ratio, take_turns, under_way

TITLE = "What a gateway costs"
SIDE = 64
WORKERS = 3
STEPS = 60
WORK = Work({"generate": 1.0}, "tiny", STEPS)
DIVISIONS = ((48,), (24, 24), (40, 8), (120,), (60, 60), (100, 20))
"""Callers of each gateway."""


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """The overhead of a call; in full also what sharing costs. The classifier is a tiny one."""
    del folder
    with tempfile.TemporaryDirectory() as scratch:
        tiny = tiny_model_folder(Path(scratch) / "tiny", tiny_card(size=SIDE)).path
        figures = [_overhead(tiny, calls=1500 if quick else 5000)]
        if not quick:
            figures += asyncio.run(_sharing(tiny, seconds=20.0))
    return Measured(tuple(figures))


def _overhead(folder: Path, calls: int) -> Figure:
    own_channel = [("grpc.use_local_subchannel_pool", 1)]
    with contextlib.ExitStack() as stack:
        logs = logging.FileHandler(os.devnull)  # a line for each call, as `serve` writes
        root = logging.getLogger()
        root.addHandler(logs)
        stack.callback(root.removeHandler, logs)
        backend = EngineBackend(InProcess(Places(paths=[folder])))
        target = stack.enter_context(serving(lambda: backend, observer=Metrics(backend)))
        channel = stack.enter_context(grpc.insecure_channel(target, own_channel))
        empty = stack.enter_context(grpc.insecure_channel(stack.enter_context(_empty_server()), own_channel))
        nothing: Any = empty.unary_unary("/empty.Service/Nothing", None, None)
        models: Any = model_pb2_grpc.ModelServiceStub(channel)
        request = model_pb2.ListModelsRequest()
        seconds = take_turns(
            {
                "empty": lambda: nothing(b"", timeout=10),
                "models": lambda: models.ListModels(request, timeout=10),
            },
            calls,
            warm_up=200,
        )
    detail = f"{1000 * Spread.of(seconds['models']).median:.2f} ms"
    cost = ratio(seconds["models"], seconds["empty"])
    return Figure.of("ListModels", cost, "an empty method of grpc.aio", higher_is_better=False, detail=detail)


@contextlib.contextmanager
def _empty_server() -> Iterator[str]:
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


async def _sharing(folder: Path, seconds: float) -> list[Figure]:
    """Jobs a second through two gateways, against one with as many callers; and what each gateway's callers see."""
    figures, alone = [], 1.0
    async with contextlib.AsyncExitStack() as stack:
        addresses = stack.enter_context(processes.agents(folder, WORKERS, simulated.SLEEP[SIDE]))
        fronts = [stack.enter_context(processes.gateway(addresses)) for _ in range(2)]
        senders = [await stack.enter_async_context(processes.sending_to(front.server, WORK)) for front in fronts]
        for callers in DIVISIONS:
            before = [await asyncio.to_thread(front.metrics) for front in fronts]
            drives = [Drive(send) for send, _ in zip(senders, callers, strict=False)]
            await asyncio.gather(*(drive.closed(n, seconds) for drive, n in zip(drives, callers, strict=True)))
            after = [await asyncio.to_thread(front.metrics) for front in fronts]
            done = [[(sample.sent, sample.ended) for sample in drive.samples] for drive in drives]
            rates = [under_way(each, seconds / 4, seconds) / (0.75 * seconds) for each in done]
            if len(callers) == 1:
                alone = rates[0]
            figures.append(
                Figure.of(
                    f"{' + '.join(map(str, callers))} callers, jobs/s",
                    Spread.of([sum(rates) / alone]),
                    f"one gateway with {sum(callers)}",
                    detail="; ".join(map(_described, drives, rates, before, after)),
                )
            )
    return figures


def _described(drive: Drive, rate: float, before: Snapshot, after: Snapshot) -> str:
    """What the callers of one gateway had."""
    bundles, pictures = (
        after[name] - before.get(name, 0.0) for name in ("synthesis_batch_size_count", "synthesis_batch_size_sum")
    )
    p50 = percentile([sample.latency for sample in drive.samples], 50)
    return f"{rate:.0f} jobs/s in bundles of {pictures / bundles:.1f}, p50 {p50:.2f} s"
