"""What a gateway can be given beside its backend: who decides what is let in, and who watches. Both do nothing here.

    Gateway(backend, options, admission=MyAdmission(), observer=MyObserver())

Methods of an observer are called on the event loop and must return at once; what they raise is a mistake of this program.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

from ..errors import SynthesisError
from ..model_folder import Card
from ..requests import Request

if TYPE_CHECKING:
    from ..bundle import Reply
    from .dispatcher import Dispatcher
    from .group import Plan
    from .tickets import Ticket

Follow: TypeAlias = "Callable[[Ticket], None]"


class Admission:
    """Lets everything in."""

    def bind(self, dispatcher: Dispatcher) -> None:
        """The queue that it guards, once, before the first request."""

    def admit(
        self, caller: str, request: Request, card: Card | None, *, model: str, interactive: bool, deadline: float
    ) -> AbstractAsyncContextManager[Follow]:
        """Entered before a request is submitted, and left when it has ended, however; what it gives is told the ticket.

        `card` is None while no worker with the model is known; `deadline` is on the dispatcher's clock. Entering raises
        Overloaded, QuotaExceeded or DeadlineExceeded for what is not let in.
        """
        del caller, request, card, model, interactive, deadline
        return _anyone()


@contextlib.asynccontextmanager
async def _anyone() -> AsyncIterator[Follow]:
    yield lambda _: None


class Observer:
    """Watches a gateway's calls, requests and bundles.

    Of a ticket: `task`, `model`, `caller`, `len(ticket.jobs)`, `timings`. Of a plan: `worker.name`, `info`, `size`, `jobs`,
    `steps`, `expected`.
    """

    def call_finished(self, method: str, code: str, seconds: float) -> None:
        """A call has ended; `method` is its full name, `code` that of its gRPC status."""

    def request_queued(self, ticket: Ticket) -> None:
        """A request was let in, and waits."""

    def request_started(self, ticket: Ticket) -> None:
        """Its first bundle is sent."""

    def request_finished(self, ticket: Ticket, error: SynthesisError | None) -> None:
        """It has ended, with a result where there is no error; it may not have started."""

    def request_rejected(self, request: Request, model: str, error: SynthesisError) -> None:
        """It was not let in."""

    def bundle_sent(self, plan: Plan) -> None: ...

    def bundle_returned(self, plan: Plan, reply: Reply) -> None: ...

    def bundle_lost(self, plan: Plan, error: Exception) -> None:
        """It is sent again, in parts: the worker died, was unavailable, or did not understand it."""
