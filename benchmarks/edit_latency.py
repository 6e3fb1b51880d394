"""From a stroke to the first frame that shows it: a session of edits over gRPC, with the engine in the gateway's process.

    python benchmarks/edit_latency.py [--model cifar10] [--strokes 30] [--size N]

Prints the least and the median of the whole way as the caller sees it, and of its parts. Each stroke paints a class in the
middle of the picture, in 60 steps, and waits for its result before the next.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from robust_synthesis.bundle import Reply
from robust_synthesis.gateway import convert_edits, previews
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.running import embedded, running
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.model_folder import models_directory
from robust_synthesis.v1 import synthesis_pb2, synthesis_pb2_grpc, task_pb2

STEPS = 60


class Watch(Observer):
    """When the bundles of the stroke that runs went out and came back."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.returned: list[float] = []
        self.computed: list[float] = []
        self.steps: list[int] = []
        self.batches: list[float] = []

    def bundle_sent(self, plan: Plan) -> None:
        self.sent.append(time.perf_counter())
        self.steps.append(max(plan.steps))

    def bundle_returned(self, plan: Plan, reply: Reply) -> None:
        del plan
        self.returned.append(time.perf_counter())
        self.computed.append(reply.seconds)
        self.batches.append(sum(seconds for _, _, seconds in reply.batches))


async def measure(models: Path, model: str, size: int, strokes: int) -> dict[str, list[float]]:
    watch = Watch()
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(1000 * seconds)

    made = previews.preview

    async def timed_preview(x: Any) -> bytes:
        begun = time.perf_counter()
        file = await made(x)
        note("  encoding a frame", time.perf_counter() - begun)
        return file

    setattr(convert_edits, "preview", timed_preview)  # noqa: B010
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(embedded(models), observer=watch))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.target))
        stub: Any = synthesis_pb2_grpc.SynthesisServiceStub(channel)
        call = stub.Edit()
        placement = task_pb2.Placement(size=size) if size else None
        opening = synthesis_pb2.OpenPicture(model=model, placement=placement)
        await call.write(synthesis_pb2.EditRequest(open=opening))
        side = (await call.read()).current.size
        classes = gateway.models.get(model).card.classes
        for number in range(strokes + 1):
            box = task_pb2.Box(x=side // 4, y=side // 4, width=side // 2, height=side // 2)
            spec = task_pb2.PaintFeaturesSpec(
                region=task_pb2.Region(box=box),
                target=classes[number % len(classes)],
                descent=task_pb2.Descent(steps=STEPS, seed=number),
            )
            edit = synthesis_pb2.ApplyEdit(edit_id=number, task=task_pb2.TaskSpec(paint_features=spec))
            for events in (watch.sent, watch.returned, watch.computed, watch.steps, watch.batches):
                events.clear()
            asked = time.perf_counter()
            await call.write(synthesis_pb2.EditRequest(apply=edit))
            first = 0.0
            while (event := await call.read()).WhichOneof("event") != "result":
                assert event.WhichOneof("event") == "frame", event
                first = first or time.perf_counter()
            ended = time.perf_counter()
            if number == 0:
                found.clear()  # what is done for the first time is slow
                continue
            note("stroke to first frame", (first or ended) - asked)
            note("  until the bundle is sent", watch.sent[0] - asked)
            note("  until its reply is there", watch.returned[0] - watch.sent[0])
            note("    of which its worker", watch.computed[0])
            note("      of which gradient steps", watch.batches[0])
            note("  until the frame is read", (first or ended) - watch.returned[0])
            note("stroke to result", ended - asked)
            found.setdefault("(steps of the first bundle)", []).append(float(watch.steps[0]))
        call.cancel()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=models_directory())
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--size", type=int, default=0, help="side of the picture (default: the classifier's)")
    parser.add_argument("--strokes", type=int, default=30)
    options = parser.parse_args(arguments)
    found = asyncio.run(measure(options.models, options.model, options.size, options.strokes))
    for name, values in found.items():
        print(f"{name:32} least {min(values):7.1f}   median {statistics.median(values):7.1f}")


if __name__ == "__main__":
    main()
