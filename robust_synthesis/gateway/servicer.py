"""SynthesisService: every method converts, calls, and converts back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

from ..v1 import synthesis_pb2, synthesis_pb2_grpc
from . import calls, convert
from .desk import Desk
from .idempotency import Done
from .jobs import Queued
from .orders import Order
from .previews import preview
from .reading import aside
from .sessions import Sessions
from .tickets import Outcome, Ticket

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = synthesis_pb2.DESCRIPTOR.services_by_name["SynthesisService"].full_name
Event = synthesis_pb2.StreamSynthesisResponse


class SynthesisServicer(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Raises what is wrong with a request; the interceptor makes statuses of it."""

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        self._desk = desk
        self._sessions = sessions

    async def Generate(  # noqa: N802
        self, request: synthesis_pb2.GenerateRequest, context: Context
    ) -> synthesis_pb2.GenerateResponse:
        return synthesis_pb2.GenerateResponse(result=await self._result(request, context))

    async def Inpaint(  # noqa: N802
        self, request: synthesis_pb2.InpaintRequest, context: Context
    ) -> synthesis_pb2.InpaintResponse:
        return synthesis_pb2.InpaintResponse(result=await self._result(request, context))

    async def Translate(  # noqa: N802
        self, request: synthesis_pb2.TranslateRequest, context: Context
    ) -> synthesis_pb2.TranslateResponse:
        return synthesis_pb2.TranslateResponse(result=await self._result(request, context))

    async def SuperResolve(  # noqa: N802
        self, request: synthesis_pb2.SuperResolveRequest, context: Context
    ) -> synthesis_pb2.SuperResolveResponse:
        return synthesis_pb2.SuperResolveResponse(result=await self._result(request, context))

    async def SketchToImage(  # noqa: N802
        self, request: synthesis_pb2.SketchToImageRequest, context: Context
    ) -> synthesis_pb2.SketchToImageResponse:
        return synthesis_pb2.SketchToImageResponse(result=await self._result(request, context))

    async def PaintFeatures(  # noqa: N802
        self, request: synthesis_pb2.PaintFeaturesRequest, context: Context
    ) -> synthesis_pb2.PaintFeaturesResponse:
        return synthesis_pb2.PaintFeaturesResponse(result=await self._result(request, context))

    async def MaximizeClass(  # noqa: N802
        self, request: synthesis_pb2.MaximizeClassRequest, context: Context
    ) -> synthesis_pb2.MaximizeClassResponse:
        return synthesis_pb2.MaximizeClassResponse(result=await self._result(request, context))

    async def StreamSynthesis(  # noqa: N802
        self, request: synthesis_pb2.StreamSynthesisRequest, context: Context
    ) -> AsyncIterator[synthesis_pb2.StreamSynthesisResponse]:
        with convert.naming(request):
            order = await aside(calls.current().size, convert.order, request)
            async with self._desk.ticket(order, context.time_remaining()) as ticket:
                async for event in _events(ticket):
                    yield event
                outcome = await ticket
        yield Event(result=await _message(outcome, order))

    async def Edit(  # noqa: N802
        self, requests: AsyncIterator[synthesis_pb2.EditRequest], context: Context
    ) -> AsyncIterator[synthesis_pb2.EditResponse]:
        del context  # a session ends when the call does
        async with contextlib.aclosing(self._sessions.serve(requests)) as responses:
            async for response in responses:
                yield response

    async def _result(self, request: convert.UnaryRequest, context: Context) -> synthesis_pb2.SynthesisResult:
        with convert.naming(request):
            order = await aside(calls.current().size, convert.order, request)
            async with self._desk.ticket(order, context.time_remaining()) as ticket:
                outcome = await ticket
        return await _message(outcome, order)


async def _message(outcome: Outcome, order: Order) -> synthesis_pb2.SynthesisResult:
    size = sum(len(picture.file) for picture in outcome.pictures)
    return await aside(size, convert.result, outcome, order.request, order.output, calls.current().id)


async def _events(ticket: Ticket | Done) -> AsyncIterator[synthesis_pb2.StreamSynthesisResponse]:
    async for news in ticket.news():
        if isinstance(news, Queued):
            yield Event(queued=convert.queued(news))
        else:
            made = b"" if news.x is None else await preview(news.x)
            yield Event(progress=convert.progress(news, made))
