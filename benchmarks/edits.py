"""From a stroke to the first frame that shows it: a session of edits over gRPC, with the engine in the gateway's process.

Each stroke paints a class in the middle of the picture, in 60 steps, and waits for its result before the next. What it takes is
compared with the gradient steps of its first bundle, which are chosen to take 50 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from robust_synthesis.bundle import Reply
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.running import embedded, running
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.model_folder import ModelFolder
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

from .figures import Figure, Measured
from .measure import Spread, ratio

TITLE = "From a stroke to its first frame"
STEPS = 60


class Watch(Observer):
    """When the first bundle of a stroke went out and came back, and what it computed."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.returned: list[tuple[float, Reply]] = []

    def bundle_sent(self, plan: Plan) -> None:
        del plan
        self.sent.append(time.perf_counter())

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        del plan
        self.returned.append((time.perf_counter(), reply))

    def clear(self) -> None:
        self.sent.clear()
        self.returned.clear()


def run(folder: ModelFolder, *, quick: bool) -> Measured:
    """The whole way, as the caller sees it, and its parts."""
    found = asyncio.run(_measure(folder, strokes=25 if quick else 100))
    ms = {name: 1000 * Spread.of(values).median for name, values in found.items()}
    parts = ", ".join(f"{name} {ms[name]:.1f} ms" for name in ("until it is sent", "its bundle", "until it is read"))
    figure = Figure.of(
        "stroke to first frame",
        ratio(found["in all"], found["gradient steps"]),
        "gradient steps of its bundle",
        higher_is_better=False,
        detail=f"{ms['in all']:.0f} ms: {parts}, of which gradient steps {ms['gradient steps']:.1f} ms",
    )
    return Measured((figure,))


async def _measure(folder: ModelFolder, strokes: int) -> dict[str, list[float]]:
    """Seconds of each stroke."""
    watch = Watch()
    found: dict[str, list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (models / folder.path.name).symlink_to(folder.path.resolve())
        gateway = await stack.enter_async_context(running(embedded(models), observer=watch))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.target))
        stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        call = stub.Edit()
        await call.write(synthesis_pb2.EditRequest(open=synthesis_pb2.OpenPicture(model=folder.card.name)))
        side = (await call.read()).current.size
        for number in range(strokes + 2):
            target = folder.card.classes[number % len(folder.card.classes)]
            watch.clear()
            asked = time.perf_counter()
            await call.write(synthesis_pb2.EditRequest(apply=_stroke(number, side, target)))
            first = 0.0
            while (event := await call.read()).WhichOneof("event") != "result":
                assert event.WhichOneof("event") == "frame", event
                first = first or time.perf_counter()
            first = first or time.perf_counter()
            returned, reply = watch.returned[0]
            if number < 2:  # what is done for the first time is slow
                continue
            parts = {
                "in all": first - asked,
                "until it is sent": watch.sent[0] - asked,
                "its bundle": returned - watch.sent[0],
                "gradient steps": sum(seconds for _, _, seconds in reply.batches),
                "until it is read": first - returned,
            }
            for name, seconds in parts.items():
                found.setdefault(name, []).append(seconds)
        call.cancel()
    return found


def _stroke(number: int, side: int, target: str) -> synthesis_pb2.ApplyEdit:
    box = task_pb2.Box(x=side // 4, y=side // 4, width=side // 2, height=side // 2)
    spec = task_pb2.PaintFeaturesSpec(
        region=task_pb2.Region(box=box), target=target, descent=task_pb2.Descent(steps=STEPS, seed=number)
    )
    return synthesis_pb2.ApplyEdit(edit_id=number, task=task_pb2.TaskSpec(paint_features=spec))
