"""`config`: the gateway's settings, and where each comes from."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .settings import add_settings, read_settings


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "config",
        help="print the settings of serve, and where they come from",
        description="Print the settings that `serve` would have with the same flags, environment and file, and where each comes "
        "from, as a TOML file. Secrets are hidden.",
    )
    parser.set_defaults(run=run, extra="serve")
    add_settings(parser)


def run(options: argparse.Namespace) -> None:
    config = read_settings(options)
    for line in config.lines():
        print(line)
    for warning in config.warnings:
        print(f"robust-synthesis config: {warning}", file=sys.stderr)
