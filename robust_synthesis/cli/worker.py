"""`worker`: an agent that runs bundles for gateways, with TorchServe or in its own process."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..model_folder import find, models_directory
from ..precisions import PRECISIONS, VARIABLE

if TYPE_CHECKING:
    from ..worker.engine import Engine

METRICS_PORT = 9464
HOST = "127.0.0.1"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "worker",
        help="run bundles for gateways",
        description="Serve classifiers to gateways until SIGTERM, which finishes the bundles under way. Classifiers that are "
        "added to the models directory, replaced or removed there take effect at once.",
    )
    parser.set_defaults(run=run, extra="serve")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--models", type=Path, metavar="DIR", help="serve every model folder and archive of it (model_store)"
    )
    which.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="serve this one: a model folder, an archive, or a name in the models directory; may be repeated",
    )
    parser.add_argument(
        "--engine",
        choices=("torchserve", "inprocess"),
        default="torchserve",
        help="TorchServe replaces what crashes or hangs; inprocess needs no Java (%(default)s)",
    )
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=os.environ.get(VARIABLE, "auto"),
        help=f"of the computation; auto is the fastest here (default: ${VARIABLE}, or auto)",
    )
    parser.add_argument("--listen", default="127.0.0.1:50061", metavar="HOST:PORT", help="for gateways (%(default)s)")
    parser.add_argument(
        "--metrics-port", type=int, default=METRICS_PORT, metavar="PORT", help="for Prometheus; 0 is none (%(default)s)"
    )
    parser.add_argument(
        "--metrics-host",
        default=HOST,
        metavar="HOST",
        help="where that port is; it is plaintext and asks for no key (%(default)s)",
    )
    parser.add_argument(
        "--health-port",
        type=int,
        default=0,
        metavar="PORT",
        help="for probes without TLS and keys; 0 is none (%(default)s)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="gateways must show a certificate of this authority"
    )
    parser.add_argument("--keys", type=Path, metavar="FILE", help="SHA-256 of the keys of gateways, a line each")
    parser.add_argument("--insecure", action="store_true", help="listen on the network without TLS or keys")
    parser.add_argument(
        "--grace",
        type=float,
        default=60,
        metavar="SECONDS",
        help="keep a replaced classifier until unused so long (60)",
    )
    parser.add_argument(
        "--drain", type=float, default=30, metavar="SECONDS", help="for the bundles under way at SIGTERM (%(default)s)"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    import asyncio

    from ..worker.agent import Agent, Options
    from ..worker.metrics import Metrics

    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    for name in ("metrics_port", "health_port"):
        port = getattr(options, name)
        if not 0 <= port <= 65535:
            raise InvalidInput(name, f"is {port}; give 1 to 65535, or 0 for none.")
    if options.precision not in PRECISIONS:  # argparse looks at flags only, and it may be the variable's
        raise InvalidInput("precision", f"is {options.precision!r}; give {', '.join(PRECISIONS)}, or unset {VARIABLE}.")
    reached = Options(
        listen=options.listen,
        metrics_port=options.metrics_port or None,
        metrics_host=options.metrics_host,
        health_port=options.health_port or None,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        tls_ca=options.tls_ca,
        keys=options.keys,
        insecure=options.insecure,
        drain_seconds=options.drain,
    )

    async def serve() -> None:
        engine = _engine(options, reached.max_bundle_bytes)
        await Agent(engine, reached, Metrics(engine)).run()

    asyncio.run(serve())


def _engine(options: argparse.Namespace, max_bundle_bytes: int) -> Engine:
    from ..worker.shelf import Places

    paths = [Path(name) if name.endswith(".mar") else find(name) for name in options.model]
    directory = None if paths else options.models or models_directory()
    if directory is not None and not directory.is_dir():
        raise InvalidInput("models", f"{directory} is not a folder; give the one that holds the classifiers.")
    places = Places(directory, paths)
    if options.engine == "inprocess":
        from ..worker.engine import InProcess

        return InProcess(places, device=options.device, precision=options.precision, grace=options.grace)
    from ..worker.torchserve import Settings, TorchServe

    settings = Settings(device=options.device, precision=options.precision, max_bundle_bytes=max_bundle_bytes)
    return TorchServe(places, settings=settings, grace=options.grace)
