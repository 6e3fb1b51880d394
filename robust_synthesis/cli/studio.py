"""`studio`: the web page, over a gateway elsewhere or one of its own."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from .options import add_device, add_precision, add_server, client_options

if TYPE_CHECKING:
    from ..client import AsyncClient

LISTEN = "127.0.0.1:8300"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "studio",
        help="paint with a classifier in the browser",
        description="Serve the studio, a web page to paint, sketch and generate with the classifiers of a gateway: that of "
        "--server, or else one that this command starts itself.",
    )
    parser.set_defaults(run=run, extra="studio")
    parser.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help="where to serve the page (%(default)s)")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="what visitors type, behind a proxy or on the network, such as https://studio.example; may be repeated",
    )
    parser.add_argument(
        "--orders", type=int, default=16, metavar="N", help="of one visitor, at a time, at most (%(default)s)"
    )
    own = parser.add_argument_group("its own gateway, where there is no --server")
    own.add_argument("--models", type=Path, metavar="DIR", help="folder of the classifiers (default: model_store)")
    own.add_argument(
        "--backend",
        choices=("embedded", "torchserve"),
        default="embedded",
        help="who computes: the gateway's process, or a TorchServe below it (%(default)s)",
    )
    add_device(own)
    add_precision(own)
    add_server(parser)


def run(options: argparse.Namespace) -> None:
    from ..studio.protection import Visits, allowed_origins
    from ..studio.running import Server

    if options.orders < 1:
        raise InvalidInput("orders", f"is {options.orders}; give a whole number from 1.")
    allowed_origins(options.listen, 0, options.origin)  # raises, before a gateway is started
    with _connect(options) as connect:
        server = Server(connect, listen=options.listen, origins=options.origin, visits=Visits(orders=options.orders))
        print(f"the studio is on {server.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has closed what there was, and passes the signal on
            server.run()


@contextlib.contextmanager
def _connect(options: argparse.Namespace) -> Iterator[Callable[[int], AsyncClient]]:
    """Makes clients of the gateway."""
    from ..client import AsyncClient

    if options.server:
        for name in ("models", "device", "precision"):
            if getattr(options, name):
                raise InvalidInput(name, "is for a gateway of its own; leave it out, or --server.")
        given = client_options(options)
        yield lambda attempts: AsyncClient(**given, attempts=attempts)
        return
    options.extra = "serve"
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("the gateway needs torch", name="torch")
    from ..model_folder import available, models_directory
    from .own_gateway import own_gateway

    directory = options.models or models_directory()
    names = available(directory)
    if not names:
        raise InvalidInput("models", f"{directory} has no classifiers; give the folder that holds them.")
    print(f"starting a gateway ({options.backend})", flush=True)
    chosen = {"backend": options.backend, "device": options.device, "precision": options.precision}
    with own_gateway([directory / name for name in names], **chosen) as gateway:
        yield lambda attempts: AsyncClient(gateway.server, attempts=attempts)
