"""A gateway on a free port of the loopback interface, to test clients and gateways with.

tiny_model_folder(tmp_path / "tiny")
with serving(lambda: embedded(tmp_path)) as target:        # from a program without asyncio
    channel = grpc.insecure_channel(target)

async with running(embedded(tmp_path)) as gateway:         # on this event loop
    channel = grpc.aio.insecure_channel(gateway.target)
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .backends.base import Backend
from .backends.engine import EngineBackend
from .server import Gateway, Options

T = TypeVar("T")
LOOPBACK = "127.0.0.1"


def embedded(models: Path) -> Backend:
    """Compute in this process, with all classifiers of a folder. Needs torch."""
    from ..worker.engine import InProcess
    from ..worker.shelf import Places

    return EngineBackend(InProcess(Places(models), device="cpu"))


@contextlib.asynccontextmanager
async def running(
    backend: Backend, options: Options | None = None, *, grace: float = 0, port: int = 0, **parts: Any
) -> AsyncIterator[Gateway]:
    """A gateway that has started; `parts` are further parameters of `Gateway`. On leaving, requests have `grace` seconds."""
    listen = f"{LOOPBACK}:{port}"
    gateway = Gateway(backend, dataclasses.replace(options or Options(), listen=listen), **parts)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop(grace)


@contextlib.contextmanager
def serving(backend: Callable[[], Backend], options: Options | None = None, **parts: Any) -> Iterator[str]:
    """The address of a gateway that runs in a thread of its own, where its backend is made, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway")
    thread.start()

    async def begin() -> tuple[contextlib.AsyncExitStack, str]:
        stack = contextlib.AsyncExitStack()
        gateway = await stack.enter_async_context(running(backend(), options, **parts))
        return stack, gateway.target

    async def end(stack: contextlib.AsyncExitStack) -> None:
        await stack.aclose()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:  # bundles that nobody waits for any more
            await asyncio.wait(rest, timeout=10)

    def wait(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        stack, target = wait(begin())
        try:
            yield target
        finally:
            wait(end(stack))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
