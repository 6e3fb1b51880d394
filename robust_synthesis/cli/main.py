"""Entry point: `robust-synthesis VERB`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from .. import __version__, torch_environment
from ..errors import InvalidInput, ServerError, SynthesisError
from ..memory import keep_memory
from . import (
    archive,
    calibrate,
    classify,
    compare,
    config,
    demo,
    evaluate,
    import_checkpoint,
    keys,
    models,
    report,
    serve,
    studio,
    synthesize,
    train,
    worker,
)
from .options import Verb

VERBS = (
    synthesize,
    classify,
    compare,
    demo,
    models,
    archive,
    worker,
    serve,
    studio,
    config,
    keys,
    train,
    calibrate,
    evaluate,
    report,
    import_checkpoint,
)
SERVER_TROUBLE = 3
"""Exit code: the same command may work at another time."""
OPTIONS = {"target": "class"}
"""What a field is called on the command line, where that differs."""


def parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    top = argparse.ArgumentParser(
        prog="robust-synthesis",
        description="Image synthesis with a single adversarially trained classifier.",
        epilog="Every verb has its own --help.",
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Verb)
    for module in VERBS:
        module.add_parser(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Exit code 2 for anything the caller can mend, 3 for a server that cannot be reached, has no room or fails, 130 for Ctrl-C,
    141 when the reader of a pipe has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes that the terminal cannot show
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        parser().print_help(sys.stderr)
        return 2
    options = parser().parse_args(arguments)
    torch_environment.prepare(os.environ)
    if options.verb not in ("serve", "worker"):  # where others compute, or `worker.engine` sees to it
        keep_memory()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC has a line of its own for each failed handshake
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.run(options)
        print(end="", flush=True)  # so that a reader who has gone is noticed here
    except InvalidInput as error:
        return _refuse(options, f"{OPTIONS.get(error.field, error.field).replace('_', '-')}: {error.message}")
    except ServerError as error:
        remedy = " Its file is for --key-file." if error.code == "UNAUTHENTICATED" else ""
        return _refuse(options, f"{error}{remedy}", code=SERVER_TROUBLE)
    except SynthesisError as error:
        return _refuse(options, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "robust_synthesis"):
            raise
        return _refuse(options, f"needs {error.name}; pip install 'robust-synthesis[{options.extra}]'.")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered can go nowhere
        return 141
    except OSError as error:
        if error.strerror is None:  # not the system's: somebody's own, so its traceback is worth having
            raise
        place = f"cannot use {os.fsdecode(error.filename)!r}" if error.filename else "the system refused"
        return _refuse(
            options, f"{place} ({error.strerror}); check the path, its permissions and the space on the disk."
        )
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def _refuse(options: argparse.Namespace, message: str, code: int = 2) -> int:
    print(f"robust-synthesis {options.verb}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
