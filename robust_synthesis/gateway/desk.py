"""The front desk: an order is checked, let in, submitted, and taken back where its caller goes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

from ..errors import SynthesisError
from ..requests import Request
from .calls import caller
from .dispatcher import Dispatcher
from .limits import Limits
from .models import Models, check_suits
from .orders import Order
from .seams import Admission, Observer
from .tickets import Ticket

DEADLINE = 300.0


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

    @contextlib.asynccontextmanager
    async def ticket(self, order: Order, seconds: float | None = None) -> AsyncIterator[Ticket]:
        """The ticket of an order that should be done in so many seconds; None is the server's default.

        On leaving, what is not done is cancelled. Raises InvalidInput, NotFound, Unsuitable, ShuttingDown, DeadlineExceeded,
        and what the admission raises.
        """
        deadline = self._dispatcher.clock() + (self._deadline if seconds is None else seconds)
        request = self._seeded(order)
        model = order.model
        async with contextlib.AsyncExitStack() as stack:
            try:
                model = self.models.named(model)
                await self._check(request, model)
                info = self.models.find(model)
                card = None if info is None else info.card
                admitted = self._admission.admit(
                    caller(), request, card, interactive=order.interactive, deadline=deadline
                )
                await stack.enter_async_context(admitted)
                ticket = self._dispatcher.submit(
                    request,
                    model=model,
                    caller=caller(),
                    interactive=order.interactive,
                    deadline=deadline,
                    output=order.output,
                    previews=order.previews,
                )
            except SynthesisError as error:
                self._observer.request_rejected(request, model, error)
                raise
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
