"""The networks that can be trained, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"kind": "resnet", "block": "basic", "depths": [2, 2, 2, 2], "width": 64},
    "resnet34": {"kind": "resnet", "block": "basic", "depths": [3, 4, 6, 3], "width": 64},
    "resnet50": {"kind": "resnet", "block": "bottleneck", "depths": [3, 4, 6, 3], "width": 64},
    "plain": {"kind": "plain"},
}


def architecture(
    network: str,
    *,
    width: int | None = None,
    depths: str | None = None,
    stem: str | None = None,
    activation: str | None = None,
) -> dict[str, Any]:
    """What the card of a network says, but for a stem that is not given. Raises InvalidInput for what it cannot have."""
    options = {"width": width, "depths": depths, "stem": stem, "activation": activation}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if given and NETWORKS[network]["kind"] != "resnet":
        raise InvalidInput(next(iter(given)), f"does not apply to the network {network}; leave it out.")
    if width is not None and width < 1:
        raise InvalidInput("width", f"is {width}; give a number of channels from 1.")
    if depths is not None:
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", depths):
            raise InvalidInput("depths", f"is {depths!r}; give whole numbers from 1, such as 2,2,2,2.")
        given["depths"] = [int(depth) for depth in depths.split(",")]
    return {**NETWORKS[network], **given}


def with_stem(architecture: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The architecture for images of `size` pixels."""
    stem = {"stem": "small" if size <= 64 else "large"} if architecture["kind"] == "resnet" else {}
    return {**architecture, **stem, **architecture}
