"""A gateway that is real but for its pictures, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from robust_synthesis.client import (
    AsyncClient,
    Client,
)
from robust_synthesis.client.testing import FakeGateway


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Client]:
    with Client(gateway.target, model="fake") as one:
        yield one


class AsSync:
    """An AsyncClient whose methods are called like those of a Client, so that one test is of both."""

    def __init__(self, target: str, **options: Any) -> None:
        self._target = target
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            async with AsyncClient(self._target, **self._options) as client:
                return await getattr(client, name)(*arguments, **options)

        return lambda *arguments, **options: asyncio.run(call(*arguments, **options))


@pytest.fixture(params=["sync", "asyncio"])
def either(request: pytest.FixtureRequest, gateway: FakeGateway) -> Iterator[Any]:
    if request.param == "asyncio":
        yield AsSync(gateway.target, model="fake")
    else:
        with Client(gateway.target, model="fake") as one:
            yield one
