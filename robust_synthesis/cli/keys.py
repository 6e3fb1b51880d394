"""`keys`: make a key for a caller of the gateway, or for a gateway that calls workers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "keys",
        help="make a key for a caller",
        description="`keys new NAME` prints a new key, once, and adds its hash to a file of keys, which a running server "
        "reads again.",
    )
    parser.set_defaults(run=run, extra="serve")
    parser.add_argument("action", choices=("new",))
    parser.add_argument("name", metavar="NAME", help="whose key it is; several keys may have one name")
    parser.add_argument("--file", type=Path, default=Path("keys"), metavar="FILE", help="(%(default)s)")
    parser.add_argument("--rate", metavar="N", help="requests a minute")
    parser.add_argument("--concurrent", metavar="N", help="requests that may be open at a time")
    parser.add_argument("--share", metavar="PART", help="of the queue at most, above 0 and up to 1")
    parser.add_argument("--expires", metavar="DATE", help="last day on which it is accepted, such as 2030-12-31 (UTC)")


def run(options: argparse.Namespace) -> None:
    from ..keys import SETTINGS, append, new_key, parse_key

    settings = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    key = new_key()
    append(options.file, key, parse_key(options.name, settings))
    print(f"added to {options.file}; the key, which nobody can show again:", file=sys.stderr)
    print(key)
