"""The front desk: an order is checked, let in, submitted, and taken back where its caller goes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from ..channel import DEADLINE
from ..errors import SynthesisError
from ..requests import Request
from .calls import caller, current
from .dispatcher import Dispatcher
from .idempotency import Done, Repeats
from .limits import Limits
from .models import Models, check_suits
from .orders import Order
from .seams import Admission, Observer
from .tickets import Ticket


class Desk:
    """Where every request passes, whichever method it comes by."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        models: Models,
        *,
        limits: Limits | None = None,
        admission: Admission | None = None,
        observer: Observer | None = None,
        deadline_seconds: float = DEADLINE,
    ) -> None:
        self.models = models
        self._dispatcher = dispatcher
        self._limits = limits or Limits()
        self._admission = admission or Admission()
        self._observer = observer or Observer()
        self._deadline = deadline_seconds
        self._admission.bind(dispatcher)
        self._repeats = Repeats(dispatcher.clock)

    @contextlib.asynccontextmanager
    async def ticket(self, order: Order, seconds: float | None = None) -> AsyncIterator[Ticket | Done]:
        """The ticket of an order that should be done in so many seconds; None is the server's default.

        With a request_id it may be that of an earlier order. On leaving, what is not done is cancelled, unless others have the
        ticket too. Raises InvalidInput, NotFound, Unsuitable, ShuttingDown, DeadlineExceeded, and what the admission raises.
        """
        allowed = self._deadline if seconds is None else seconds
        if not order.request_id:
            async with self._submitted(order, allowed, allowed) as ticket:
                yield ticket
            return
        name = caller(), current().method, order.request_id
        fingerprint = await asyncio.to_thread(order.fingerprint)
        longest = max(
            allowed, self._deadline
        )  # others may join who have more time; gRPC ends this call at its own deadline
        async with self._repeats.join(name, fingerprint, lambda: self._submitted(order, allowed, longest)) as shared:
            yield shared

    @contextlib.asynccontextmanager
    async def _submitted(self, order: Order, expected: float, longest: float) -> AsyncIterator[Ticket]:
        """A new ticket: let in if it is likely to be done in `expected` seconds, given up after `longest`."""
        now = self._dispatcher.clock()
        request = self._seeded(order)
        model = order.model
        async with contextlib.AsyncExitStack() as stack:
            try:
                model = self.models.named(model)
                await self._check(request, model)
                info = self.models.find(model)
                card = None if info is None else info.card
                admitted = self._admission.admit(
                    caller(), request, card, model=model, interactive=order.interactive, deadline=now + expected
                )
                follow = await stack.enter_async_context(admitted)
                ticket = self._dispatcher.submit(
                    request,
                    model=model,
                    caller=caller(),
                    interactive=order.interactive,
                    deadline=now + longest,
                    output=order.output,
                    previews=order.previews,
                    frames=order.frames,
                )
            except SynthesisError as error:
                self._observer.request_rejected(request, model, error)
                raise
            current().let_in()
            follow(ticket)
            stack.callback(ticket.cancel)
            yield ticket

    async def _check(self, request: Request, model: str) -> None:
        self._limits.check_parameters(request)
        info = self.models.find(model)
        if info is not None:
            check_suits(request, info)
        if request.image is not None:
            await asyncio.to_thread(self._limits.check_pictures, request)

    def _seeded(self, order: Order) -> Request:
        spec = order.request.spec
        if spec.seed is not None or order.derived_seed is None:
            return order.request
        return dataclasses.replace(order.request, spec=dataclasses.replace(spec, seed=order.derived_seed))
