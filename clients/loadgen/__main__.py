"""Load a gateway, and measure what callers would see.

    python -m clients.loadgen localhost:50051 open --rate 20 --arrivals poisson --seconds 60 --mix generate=3,inpaint=1
    python -m clients.loadgen localhost:50051 open --rate 20 --arrivals burst --burst 40 --metrics http://localhost:9465/metrics
    python -m clients.loadgen localhost:50051 closed --callers 16 --pace 2 --ways unary=6,stream=2,edit,cancel,late

An open loop sends when it is time, whatever has been answered; a closed one has so many callers that wait for their answers.
Times count from when a request should have been sent. Writes load.json and load.png into the folder --out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from robust_synthesis.client.connection import Connection
from robust_synthesis.errors import SynthesisError

from . import report
from .arrivals import KINDS, arrivals
from .drive import Drive
from .mix import Work, parse, sending
from .scrape import grown, snapshot
from .ways import WAYS


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m clients.loadgen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("server", metavar="HOST:PORT")
    loops = top.add_subparsers(dest="loop", required=True)
    opened, closed = loops.add_parser("open"), loops.add_parser("closed")
    opened.add_argument("--rate", type=float, default=5, help="requests a second (%(default)s)")
    opened.add_argument("--arrivals", choices=KINDS, default="poisson", help="(%(default)s)")
    opened.add_argument("--burst", type=int, default=10, help="requests that come at once (%(default)s)")
    closed.add_argument("--callers", type=int, default=8, help="at a time (%(default)s)")
    closed.add_argument("--pace", type=float, help="seconds from one request of a caller to its next, if it can")
    for loop in (opened, closed):
        loop.add_argument("--seconds", type=float, default=30, help="in which requests are sent (%(default)s)")
        loop.add_argument("--warm-up", type=float, default=0, help="of these, that do not count (%(default)s)")
        loop.add_argument("--mix", default="generate", help="tasks with weights: generate=3,inpaint=1 (%(default)s)")
        loop.add_argument(
            "--ways", default="unary", help=f"of making a request, with weights: {', '.join(WAYS)} (%(default)s)"
        )
        loop.add_argument("--model", default="", help="(the server's default)")
        loop.add_argument("--steps", type=int, default=60, help="of every request (%(default)s)")
        loop.add_argument("--photo", type=int, default=256, help="side of the pictures that are sent (%(default)s)")
        loop.add_argument("--size", type=int, help="side of the results, pixels (the classifier's)")
        loop.add_argument("--exact", action="store_true", help="each alone in its batch")
        loop.add_argument("--seed", type=int, default=0, help="of arrivals and mix (%(default)s)")
        loop.add_argument("--timeout", type=float, default=60, help="of a request, seconds (%(default)s)")
        loop.add_argument("--connections", type=int, default=1, help="(%(default)s)")
        loop.add_argument("--key-file", type=Path, help="with the key to show")
        loop.add_argument("--tls-ca", type=Path, help="encrypt; the server's authority, PEM")
        loop.add_argument(
            "--metrics", nargs="*", default=[], metavar="URL", help="of gateways and workers, to be scraped"
        )
        loop.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="(here)")
    return top


async def load(options: argparse.Namespace) -> tuple[Drive, dict[str, Any]]:
    """Run it; what was measured, and the report."""
    key = options.key_file.read_text().strip() if options.key_file else None
    connection = Connection.to(
        options.server,
        key=key,
        tls=options.tls_ca is not None,
        tls_ca=options.tls_ca,
        tls_cert=None,
        tls_key=None,
        attempts=1,
    )
    work = Work(
        parse(options.mix),
        options.model,
        options.steps,
        options.photo,
        options.exact,
        options.seed,
        options.size,
        parse(options.ways, WAYS, "way"),
    )
    async with sending(connection, work, connections=options.connections, timeout=options.timeout) as send:
        before = await asyncio.to_thread(snapshot, options.metrics)
        drive = Drive(send)
        if options.loop == "open":
            times = arrivals(options.arrivals, options.rate, options.seconds, burst=options.burst, seed=options.seed)
            await drive.open(times)
        else:
            await drive.closed(options.callers, options.seconds, options.pace)
        after = await asyncio.to_thread(snapshot, options.metrics)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    found = report.summary(drive.samples, options.warm_up)
    return drive, {"asked": asked, "measured": found, "metrics": grown(before, after)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where no request succeeded, 2 for what cannot be, 3 where a server cannot be reached or a file be used."""
    options = parser().parse_args(arguments)
    try:
        drive, written = asyncio.run(load(options))
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "load.json").write_text(json.dumps(written, indent=2) + "\n")
        report.plot(drive.samples, options.out / "load.png", f"{options.loop} loop, {options.mix}")
    except SynthesisError as error:
        print(error, file=sys.stderr)
        return 2
    except (grpc.aio.AioRpcError, OSError) as error:
        print(error.details() if isinstance(error, grpc.aio.AioRpcError) else error, file=sys.stderr)
        return 3
    print("\n".join(report.lines(written["measured"])))
    return 0 if written["measured"]["codes"].get("OK") else 1


if __name__ == "__main__":
    sys.exit(main())
