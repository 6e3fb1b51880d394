"""Options and outputs that several verbs share."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..channel import DEADLINE
from ..errors import InvalidInput
from ..files import atomic_write
from ..precisions import PRECISIONS
from ..results import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Client
    from ..library import Synthesizer

MODEL = "cifar10"
SERVER_ONLY = ("key_file", "tls", "tls_ca", "tls_cert", "tls_key", "timeout")


class Verb(argparse.ArgumentParser):
    """A verb's parser. `late` adds what takes a while to import, once the verb is used."""

    late: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        late, self.late = self.late, None
        if late is not None:
            try:
                late(self)
            except ModuleNotFoundError as error:
                self.error(f"needs {error.name}; pip install 'robust-synthesis[{self.get_default('extra')}]'.")
        return super().parse_known_args(args, namespace)


def add_model(parser: argparse.ArgumentParser, default: str = MODEL) -> None:
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME",
        help="a model folder, or its name in the models directory (%(default)s)",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU where there is one)")


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, help="of the computation (default: auto, the fastest here)")


def add_model_or_server(parser: argparse.ArgumentParser) -> None:
    """For `synthesizer`: a classifier in this process, or a server's."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f"a model folder, or its name in the models directory ({MODEL}), or on the server (the server's default)",
    )
    add_device(parser)
    add_precision(parser)
    add_server(parser)


def add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("ROBUST_SYNTHESIS_SERVER"),
        help="have a gateway do it (default: $ROBUST_SYNTHESIS_SERVER, or else this process does it)",
    )
    group.add_argument("--key-file", type=Path, metavar="FILE", help="the key to show, in a file")
    group.add_argument("--tls", action="store_true", help="encrypt, trusting the system's authorities")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="encrypt, trusting this authority, PEM")
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate to show, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help=f"for each request ({DEADLINE:g})")


@contextmanager
def synthesizer(options: argparse.Namespace) -> Iterator[Synthesizer | Client]:
    """Who does it, for the options of `add_model_or_server`."""
    if not options.server:
        for name in SERVER_ONLY:
            if getattr(options, name):
                raise InvalidInput(name, "is for a server; give --server, too.")
        from .. import load as load_model

        yield load_model(options.model or MODEL, device=options.device, precision=options.precision or "auto")
        return
    for name in ("device", "precision"):
        if getattr(options, name):
            raise InvalidInput(name, "is the server's to choose; leave it out.")
    with client(options) as connected:
        yield connected


def client(options: argparse.Namespace) -> Client:
    """For the options of `add_server`, of which `server` is given."""
    from ..client import Client

    return Client(**client_options(options))


def client_options(options: argparse.Namespace) -> dict[str, Any]:
    """What a client of either kind takes. Raises InvalidInput and OSError."""
    from ..credentials import Credentials

    timeout = DEADLINE if options.timeout is None else options.timeout
    if not 0 < timeout < math.inf:
        raise InvalidInput("timeout", f"is {timeout:g}; give a number of seconds above 0.")
    return {
        "server": options.server,
        "model": getattr(options, "model", None) or "",
        "timeout": timeout,
        "key": Credentials(key_file=options.key_file).bearer(),
        **{name: getattr(options, name) for name in ("tls", "tls_ca", "tls_cert", "tls_key")},
    }


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """A live bar on the terminal's error stream, silent where that is not a terminal."""
    with tqdm(desc=title, unit="step", disable=None, leave=False) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.steps
            bar.set_postfix_str(f"loss {progress.loss:.3f}, probability {progress.probability:.2f}", refresh=False)
            bar.update(progress.step - bar.n)

        yield show


@contextmanager
def progress_bar_for_counts() -> Iterator[Callable[[str, int, int], None]]:
    """A live bar for work in several parts: (part, done, total)."""
    with tqdm(disable=None, leave=False) as bar:
        shown = ""

        def show(part: str, done: int, total: int) -> None:
            nonlocal shown
            if part != shown:
                shown = part
                bar.reset(total)
                bar.set_description(part, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        yield show


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
