"""Entry point: `robust-synthesis VERB`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import SynthesisError
from . import classify, compare, demo, evaluate, import_checkpoint, models, synthesize, train

VERBS = (synthesize, classify, compare, demo, models, train, evaluate, import_checkpoint)


def parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    top = argparse.ArgumentParser(
        prog="robust-synthesis",
        description="Image synthesis with a single adversarially trained classifier.",
        epilog="Every verb has its own --help.",
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in VERBS:
        module.add_parser(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. Exit code 2 for anything the caller can mend, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.run(options)
    except SynthesisError as error:
        print(f"robust-synthesis {options.verb}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "robust_synthesis"):
            raise
        extra = options.extra
        print(
            f"robust-synthesis {options.verb}: needs {error.name}; pip install 'robust-synthesis[{extra}]'.",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print(f"robust-synthesis {options.verb}: {error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
