"""`serve`: the gateway, with workers in its own process, below it or elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..model_folder import models_directory

if TYPE_CHECKING:
    from ..gateway.backends.base import Backend

BACKENDS = ("embedded", "torchserve", "remote")


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="serve all tasks over gRPC",
        description="Serve all tasks over gRPC until SIGTERM, which lets accepted requests finish.",
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("--listen", default="127.0.0.1:50051", metavar="HOST:PORT", help="(%(default)s)")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="embedded computes in this process, torchserve in one below it, remote with the workers of --workers (embedded; "
        "remote where there are --workers)",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="serve every model folder and archive of it (model_store)"
    )
    parser.add_argument("--workers", metavar="HOST:PORT,...", help="worker agents; every address of a name is a worker")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument("--default-model", default="", metavar="NAME", help="of requests that name none")
    parser.add_argument(
        "--deadline", type=float, default=300, metavar="SECONDS", help="of calls that have none (%(default)s)"
    )
    parser.add_argument(
        "--grace", type=float, default=60, metavar="SECONDS", help="for accepted requests at SIGTERM (%(default)s)"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="(%(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    import asyncio

    from ..gateway.logs import configure
    from ..gateway.server import Gateway, Options

    configure(options.log_level, options.log_format)
    served = Options(
        listen=options.listen, default_model=options.default_model, deadline=options.deadline, grace=options.grace
    )

    async def serve() -> None:
        await Gateway(_backend(options), served).run()

    asyncio.run(serve())


def _backend(options: argparse.Namespace) -> Backend:
    if (options.backend or ("remote" if options.workers else "embedded")) == "remote":
        from ..gateway.backends.remote import Remote

        if options.models is not None:
            raise InvalidInput("models", "are the workers' own with --backend remote; leave it out.")
        return Remote([address for address in (options.workers or "").split(",") if address])
    if options.workers:
        raise InvalidInput("workers", "are for --backend remote; leave them out.")
    from ..gateway.backends.engine import EngineBackend
    from ..worker.shelf import Places

    directory = options.models or models_directory()
    if not directory.is_dir():
        raise InvalidInput("models", f"{directory} is not a folder; give the one that holds the classifiers.")
    if options.backend == "torchserve":
        from ..worker.torchserve import Settings, TorchServe

        return EngineBackend(TorchServe(Places(directory), settings=Settings(device=options.device)))
    from ..worker.engine import InProcess

    return EngineBackend(InProcess(Places(directory), device=options.device))
