"""Handlers of gRPC's four kinds of methods, for interceptors that do something around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]

INFRASTRUCTURE = "/grpc."
"""How methods of gRPC itself begin, health and reflection: what fails in them gets no status of ours."""


def method_of(handler: Handler) -> Any:
    """What it calls with a request, or an iterator of them, and a context."""
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return next(kind for kind in kinds if kind is not None)


def handler_of(request_streaming: bool, response_streaming: bool) -> Callable[..., Handler]:
    """What makes a handler of such a method."""
    if request_streaming:
        return grpc.stream_stream_rpc_method_handler if response_streaming else grpc.stream_unary_rpc_method_handler
    return grpc.unary_stream_rpc_method_handler if response_streaming else grpc.unary_unary_rpc_method_handler


def within(handler: Handler, enter: Callable[[Any], AbstractContextManager[None]]) -> Handler:
    """The same, within what is entered with the call's context."""
    method = method_of(handler)

    async def answer(request: Any, context: Any) -> Any:
        with enter(context):
            return await method(request, context)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        with enter(context):
            async with contextlib.aclosing(method(request, context)) as responses:
                async for response in responses:
                    yield response

    return handler_of(handler.request_streaming, handler.response_streaming)(
        stream if handler.response_streaming else answer,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
