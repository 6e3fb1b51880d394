"""The gateway's settings as flags."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from .options import Verb

if TYPE_CHECKING:
    from ..gateway.config import Config

SECRET = "worker_key"
"""Is no flag, since everybody on a machine sees each other's flags."""


def add_settings(parser: Verb) -> None:
    """A flag for each, when the verb is used: the settings know their own defaults and descriptions."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of settings (deploy/gateway.toml has all)"
    )
    parser.late = _add_flags


def read_settings(options: argparse.Namespace) -> Config:
    """From flags, environment, file and defaults. Raises InvalidInput and OSError."""
    from ..gateway.config import Settings, load

    given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    return load(given, options.config)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from ..gateway.config import Settings

    for name, field in Settings.model_fields.items():
        if name == SECRET:
            continue
        flag = f"--{name.replace('_', '-')}"
        default = "" if field.default in (None, "", (), False) else f" ({field.default})"
        more: dict[str, Any] = {"help": f"{field.description}{default}", "default": argparse.SUPPRESS}
        if field.annotation is bool:
            more["action"] = argparse.BooleanOptionalAction
        else:
            more["metavar"] = _metavar(name, field.annotation)
        parser.add_argument(flag, **more)


def _metavar(name: str, annotation: Any) -> str:
    kinds = [annotation, *get_args(annotation)]
    choice = next((kind for kind in kinds if get_origin(kind) is Literal), None)
    if choice is not None:
        return f"{{{','.join(get_args(choice))}}}"
    named = {
        "listen": "HOST:PORT",
        "metrics_host": "HOST",
        "workers": "HOST:PORT,...",
        "device": "DEVICE",
        "models": "DIR",
        "default_model": "NAME",
    }
    return named.get(name, "FILE" if Path in kinds else "N")
