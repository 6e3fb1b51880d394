"""What is sent: tasks in proportion, in several ways, to a gateway over as many connections as are wanted."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from PIL import Image

from robust_synthesis import specs
from robust_synthesis.client.connection import Connection
from robust_synthesis.client.orders import Order
from robust_synthesis.errors import InvalidInput
from robust_synthesis.v1 import model_pb2, model_pb2_grpc, synthesis_pb2_grpc

from .drive import Send
from .ways import WAYS, Via

TASKS: Mapping[str, type[specs.Spec]] = {
    spec.task: spec
    for spec in (
        specs.Generate,
        specs.Inpaint,
        specs.Translate,
        specs.SuperResolve,
        specs.SketchToImage,
        specs.PaintFeatures,
        specs.MaximizeClass,
    )
}
WITHOUT_IMAGE = ("generate",)
WITH_MASK = ("inpaint", "paint_features")


def parse(text: str, known: Collection[str] = TASKS, kind: str = "task") -> dict[str, float]:
    """Of "generate=3,inpaint=1". Raises InvalidInput."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().replace("-", "_").partition("=")
        if name not in known:
            raise InvalidInput("mix", f"there is no {kind} {name!r}; choose of {', '.join(known)}.")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise InvalidInput("mix", f"{weight!r} is no weight; give a number, such as {name}=2.") from None
    return weights


@dataclass(frozen=True)
class Work:
    """Of all requests."""

    weights: Mapping[str, float]
    model: str = ""
    steps: int = 60
    photo: int = 256
    """Side of the pictures that are sent, pixels."""
    exact: bool = False
    seed: int = 0
    size: int | None = None
    """Side of the results, pixels; None is the classifier's."""
    ways: Mapping[str, float] = field(default_factory=lambda: {"unary": 1.0})
    """How requests are made, by weight; `ways.py` has them."""


@contextlib.asynccontextmanager
async def sending(
    connection: Connection, work: Work, *, connections: int = 1, timeout: float = 60
) -> AsyncIterator[Send]:
    """What makes requests. Nothing is tried again: a refusal is a result, too. Raises grpc.aio.AioRpcError."""
    secrets = connection.credentials.channel()
    async with contextlib.AsyncExitStack() as stack:
        stubs = []
        for _ in range(connections):
            options = [*connection.options, ("grpc.use_local_subchannel_pool", 1)]
            channel = (
                grpc.aio.insecure_channel(connection.target, options)
                if secrets is None
                else grpc.aio.secure_channel(connection.target, secrets, options)
            )
            stubs.append(synthesis_pb2_grpc.SynthesisServiceStub(await stack.enter_async_context(channel)))
        described: Any = await model_pb2_grpc.ModelServiceStub(channel).GetModel(
            model_pb2.GetModelRequest(model=work.model), metadata=connection.metadata, timeout=timeout
        )
        orders = _orders(connection.server, work, [str(name) for name in described.classes])
        turns = itertools.cycle(stubs)

        async def send(number: int) -> tuple[str, str]:
            way, order = orders(number)
            code = await WAYS[way](order, Via(next(turns), connection.metadata, timeout))
            task = order.request.spec.task
            return (task if way == "unary" else f"{task} ({way})"), code

        yield send


def _orders(server: str, work: Work, classes: list[str]) -> Any:
    """A function of a request's number: the same numbers have the same ways, tasks, pictures and seeds in every run."""
    photo, mask = _picture(work.photo, "RGB"), _picture(work.photo, "L")

    def order(number: int) -> tuple[str, Order]:
        drawn = random.Random(f"{work.seed} {number}")
        task = drawn.choices(list(work.weights), list(work.weights.values()))[0]
        own: dict[str, Any] = {
            "steps": work.steps,
            "seed": number,
            "exact": work.exact,
            "target": drawn.choice(classes),
        }
        image = None if task in WITHOUT_IMAGE else photo
        way = drawn.choices(list(work.ways), list(work.ways.values()))[0]
        masked = mask if task in WITH_MASK else None
        return way, Order.of(server, work.model, TASKS[task](**own), image, masked, {"size": work.size})

    return order


def _picture(side: int, mode: str) -> bytes:
    """A smooth photo; or its mask, a white box in the middle."""
    if mode == "L":
        picture = Image.new("L", (side, side))
        picture.paste(255, (side // 4, side // 4, side * 3 // 4, side * 3 // 4))
    else:
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        picture = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
