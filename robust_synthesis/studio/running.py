"""The app on a port: for the command line, and in a thread of its own for tests and benchmarks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from ..client import AsyncClient
from ..errors import InvalidInput
from ..security import host_and_port
from .app import MAX_MESSAGE_BYTES, Studio
from .protection import Visits, allowed_origins

STOP_SECONDS = 5
"""For pages to close at the end."""


class Server:
    """A studio that listens: `url` is where, `run` serves until a signal. Raises InvalidInput where it cannot listen."""

    def __init__(
        self,
        connect: Callable[[int], AsyncClient],
        *,
        listen: str,
        origins: Sequence[str] = (),
        visits: Visits | None = None,
    ) -> None:
        host, port = host_and_port(listen)
        allowed_origins(listen, port, origins)  # raises before anything is opened
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            message = f"cannot listen on {listen} ({error.strerror}); is the port taken, or the host not ours?"
            raise InvalidInput("listen", message) from error
        port = self._socket.getsockname()[1]
        self.url = origins[0] if origins else f"http://{f'[{host}]' if ':' in host else host}:{port}"
        studio = Studio(connect, allowed_origins(listen, port, origins), visits or Visits())
        config = uvicorn.Config(
            studio.app,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # pictures are compressed already
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """From another thread."""
        self._server.should_exit = True

    @property
    def started(self) -> bool:
        return self._server.started


@contextlib.contextmanager
def serving(
    gateway: str, *, listen: str = "127.0.0.1:0", origins: Sequence[str] = (), visits: Visits | None = None
) -> Iterator[str]:
    """The address of a studio in a thread of its own, over a gateway at HOST:PORT."""
    server = Server(
        lambda attempts: AsyncClient(gateway, attempts=attempts), listen=listen, origins=origins, visits=visits
    )
    thread = threading.Thread(target=server.run, name="studio")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield server.url
    finally:
        server.stop()
        thread.join()
