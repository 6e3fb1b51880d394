"""The web application: the page, what it asks once, and its WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from .. import imaging
from ..client import AsyncClient, NotFound, SynthesisError, Unit
from ..shipped import PAGE, shipped
from .protection import Guard, TooMany, Visits
from .visitor import Visitor
from .watch import Watch

MAX_MESSAGE_BYTES = 24 * 2**20
"""Of an order, with its photo. The server of the app refuses more."""
MAX_PHOTO_BYTES = 20 * 2**20
"""The page says so before it sends anything."""
TRY_AGAIN = 1013
"""Code of a WebSocket's close."""
FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}


class Studio:
    """Makes the application; `connect` makes a client that tries a call so many times."""

    def __init__(self, connect: Callable[[int], AsyncClient], origins: frozenset[str], visits: Visits) -> None:
        self._connect = connect
        self._visits = visits
        self._client: AsyncClient
        self._watch: Watch
        self._page = shipped(PAGE)
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/limits", self._limits),
                Route("/models", self._models),
                Route("/models/{name}/{version}/units", self._units),
                Route("/models/{name}/{version}/units/{unit:int}", self._examples),
                WebSocketRoute("/orders", self._orders),
            ],
            middleware=[Middleware(Guard, origins=origins)],
            lifespan=self._lifespan,
        )
        self.app.mount("/page", StaticFiles(directory=self._page))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._connect(3) as self._client, self._connect(1) as asking:
            self._watch = Watch(self._client, asking)
            watching = asyncio.create_task(self._watch.run())
            try:
                yield
            finally:
                watching.cancel()

    async def _index(self, _: Request) -> Response:
        return FileResponse(self._page / "index.html", headers={"cache-control": "no-cache"})

    async def _limits(self, _: Request) -> Response:
        return JSONResponse({"photo_bytes": MAX_PHOTO_BYTES, "orders": self._visits.orders})

    async def _models(self, _: Request) -> Response:
        try:
            return JSONResponse(await self._watch.models())
        except SynthesisError as error:
            return _failed(error)

    async def _units(self, request: Request) -> Response:
        try:
            found = await self._units_of(request)
        except SynthesisError as error:
            return _failed(error)
        return JSONResponse([_described(each) for each in sorted(found.values(), key=rank)])

    async def _examples(self, request: Request) -> Response:
        try:
            unit = (await self._units_of(request)).get(request.path_params["unit"])
        except SynthesisError as error:
            return _failed(error)
        if unit is None or unit.examples is None:
            return Response(status_code=404)
        file = await asyncio.to_thread(imaging.encode, unit.examples, "webp")
        return Response(file, media_type="image/webp", headers=FOR_EVER)

    async def _units_of(self, request: Request) -> dict[int, Unit]:
        return await self._watch.units(request.path_params["name"], request.path_params["version"])

    async def _orders(self, socket: WebSocket) -> None:
        address = socket.client.host if socket.client else ""
        await socket.accept()
        try:
            with self._visits.page(address):
                await Visitor(socket, self._client, self._watch, self._visits).serve()
        except TooMany as error:
            await socket.close(TRY_AGAIN, str(error))


def rank(unit: Unit) -> tuple[bool, bool, str, int]:
    """Those that somebody has named come first, and those without pictures last."""
    numbered = not unit.name or unit.name.endswith(f" {unit.unit}")
    return unit.examples is None, numbered, unit.class_name, unit.unit


def _described(unit: Unit) -> dict[str, Any]:
    pictured = unit.examples is not None
    return {"unit": unit.unit, "name": unit.name, "class": unit.class_name, "pictured": pictured}


def _failed(error: SynthesisError) -> Response:
    return JSONResponse({"message": str(error)}, status_code=404 if isinstance(error, NotFound) else 503)
