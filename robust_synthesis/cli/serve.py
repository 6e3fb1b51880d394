"""`serve`: the gateway, with workers in its own process, below it or elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import logging
from typing import Any

from .settings import add_settings, read_settings

log = logging.getLogger(__name__)


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "serve",
        help="serve all tasks over gRPC",
        description="Serve all tasks over gRPC until SIGTERM, which lets accepted requests finish. Every setting is a flag, an "
        "environment variable (ROBUST_SYNTHESIS_MAX_STEPS for --max-steps) and a line of the file, and counts in this order.",
    )
    parser.set_defaults(run=run, extra="serve")
    add_settings(parser)


def run(options: argparse.Namespace) -> None:
    import asyncio

    from ..gateway import tracing
    from ..gateway.assembly import backend_of, gateway_of
    from ..gateway.logs import configure
    from ..gateway.metrics import Metrics
    from ..gpus import Gpus

    config = read_settings(options)
    settings = config.settings
    configure(settings.log_level, settings.log_format)
    for warning in config.warnings:
        log.warning(warning)

    async def serve() -> None:
        backend = backend_of(settings)
        metrics = Metrics(backend, gpus=None if settings.computes == "remote" else Gpus())
        gateway = gateway_of(settings, backend, observer=metrics, interceptors=tracing.interceptors())
        with contextlib.ExitStack() as stack:
            if settings.metrics_port:
                stack.callback(metrics.serve(settings.metrics_host, settings.metrics_port))
            await gateway.run()

    asyncio.run(serve())
