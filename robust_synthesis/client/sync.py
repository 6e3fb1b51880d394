"""The client for programs without asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar, Unpack

import grpc

from ..bundle import Output
from ..methods import TaskMethods
from ..requests import ImageSource
from ..specs import Spec
from . import orders
from .edits import Book
from .errors import ServerFailed, error_of
from .front import Front
from .orders import Call, Event, OnProgress, Options, Way
from .results import Model, ModelSummary, Result, Unit
from .sync_edits import EditSession

T = TypeVar("T")


class Client(Front[Result]):
    """All tasks of a server, as `robust_synthesis.load` has them in this process. Threads may share it.

        with Client("gateway.example:50051", key=KEY, tls=True) as client:
            client.generate("dog", seed=1).save("dog.png")

    Every task takes, beside what its spec in `robust_synthesis.specs` names, `size`, `fit`, `box`, `paste_back`, `frames` and
    `on_progress` like the library, and

        timeout          seconds until DeadlineExceeded, all attempts included
        model            name of the classifier
        format, quality  of the pictures' files, as `result.pictures[0].file` has them: png, jpeg or webp; 1 to 100
        request_id       a repeat with the same one gets the same result; default: a new one for every call

    `frames` are without the start. Calls that fail because the server is away, or has no room, are tried again a few times,
    when it says so. Raises InvalidInput and NotFound, which name the field, and what `client.errors` has.
    """

    def _open(self) -> grpc.Channel:
        target, options, secrets = self._connection.target, self._connection.options, self._secrets
        if secrets is None:
            return grpc.insecure_channel(target, options)
        return grpc.secure_channel(target, secrets, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is under way."""
        if self._opened is not None:
            self._opened.close()

    @property
    def stream(self) -> Stream:
        """The same tasks with their progress: `for event in client.stream.generate("dog"): ...`."""
        return Stream(self)

    def make(
        self,
        spec: Spec,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        *,
        frames: int = 0,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Run any spec."""
        order = self._order(spec, image, mask, options)
        if not frames and on_progress is None:
            return self._call(order.unary, timeout)
        way = Way(order, frames, on_progress)
        with self._events(order.streaming(previews=bool(frames), frames=frames), timeout) as events:
            for event in events:
                way.take(event)
        return way.result

    def classify(
        self,
        image: ImageSource,
        *,
        fit: str = "crop",
        top: int | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, float]:
        """Class probabilities of an image, largest first."""
        return self._call(orders.classification(model or self._model, image, fit, top), timeout)

    def models(self, *, timeout: float | None = None) -> list[ModelSummary]:
        """The classifiers that the server has."""
        return self._call(orders.models(), timeout)

    def model(self, name: str | None = None, *, timeout: float | None = None) -> Model:
        """One of them, with its classes, limits and card."""
        return self._call(orders.model(name or self._model), timeout)

    def side(self) -> int:
        """Of results where no size is asked for, pixels; asks the server."""
        return self.model().size

    def units(
        self,
        model: str | None = None,
        *,
        named_only: bool = False,
        examples: bool = True,
        timeout: float | None = None,
    ) -> list[Unit]:
        """A classifier's latent units, by number, each with the training images that activate it most."""
        found, page = self._call(orders.units(model or self._model, named_only, examples), timeout)
        while page:
            more, page = self._call(orders.units(model or self._model, named_only, examples, page), timeout)
            found += more
        return found

    def edit(
        self,
        image: ImageSource | None = None,
        *,
        model: str | None = None,
        size: int | None = None,
        fit: str = "crop",
        format: str = "png",
        quality: int = 90,
    ) -> EditSession:
        """A session of edits of a picture, flat grey where none is given; enter it with `with`."""
        book = Book(self.server, model=model or self._model, size=size, fit=fit, output=Output(format, quality))
        return EditSession(self._begin_edits, book, image)

    def _call(self, call: Call[T], timeout: float | None) -> T:
        try:
            return call.read(self._begin(call, timeout))
        except grpc.RpcError as error:
            raise error_of(error, self.server) from None

    def _events(self, call: Call[Event], timeout: float | None) -> Events:
        return Events(self._begin(call, timeout), call.read, self.server)


class Stream(TaskMethods["Events"]):
    """The tasks as methods that return at once, with what happens as an iterator."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def make(
        self,
        spec: Spec,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        *,
        previews: bool = False,
        frames: int = 0,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Events:
        """Run any spec. `previews` asks for the unfinished picture with every progress, `frames` for at least so many of them."""
        order = self._client._order(spec, image, mask, options)
        return self._client._events(order.streaming(previews=previews, frames=frames), timeout)


class Events(Iterator[Event]):
    """Queued and Progress as they come, at last a Result; progress that is not fetched in time is replaced by newer, or
    thinned out where `frames` were asked for and more than 64 reports, or 4 MiB of their pictures, wait.

    To drop it, to leave its `with`, or to `cancel` it stops the computation.
    """

    def __init__(self, call: Any, read: Callable[[Any], Event], server: str) -> None:
        self._call = call
        self._read = read
        self._server = server

    def __next__(self) -> Event:
        try:
            return self._read(next(self._call))
        except grpc.RpcError as error:
            raise error_of(error, self._server) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        self._call.cancel()

    def result(self) -> Result:
        """Wait for it."""
        for event in self:
            if isinstance(event, Result):
                return event
        raise ServerFailed(f"server: {self._server} ended the call without a result.")
