"""The few numbers of an evaluation that go on the card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Numbers = Mapping[str, Any]


def headline(parts: Mapping[str, Numbers]) -> dict[str, Any]:
    """From the numbers of the parts that there are, as JSON types."""
    found: dict[str, Any] = {}
    for name, shorten in SHORT.items():
        if name in parts:
            found |= shorten(parts[name])
    return found


def _accuracy(numbers: Numbers) -> dict[str, Any]:
    names = ("norm", "epsilon", "attacks", "images")
    robust = [{name: entry[name] for name in names} | _proportion(entry["robust"]) for entry in numbers["robust"]]
    return {"clean_accuracy": _proportion(numbers["clean"]), "robust_accuracy": robust}


def _judge(numbers: Numbers) -> dict[str, Any]:
    return {"judge": {"network": numbers["network"]} | _proportion(numbers["accuracy"])}


def _generation(numbers: Numbers) -> dict[str, Any]:
    judged = {
        contest["start"]: {name: contest[name] and contest[name]["value"] for name in ("seeds", "robust", "standard")}
        | {"standard_gain": contest["standard_gain"]}
        for contest in numbers["contests"]
    }
    default = numbers["settings"][0]
    names = ("parameters", "fid", "pixel_diversity", "feature_diversity")
    return {
        "generation_judged": judged,
        "generation": {name: default[name] for name in names}
        | {"fid_of_seeds": numbers["seeds_fid"][default["start"]], "fid_of_real": numbers["real_fid"]},
    }


def _class_maximization(numbers: Numbers) -> dict[str, Any]:
    return {"class_maximization": _judged(numbers)}


def _translation(numbers: Numbers) -> dict[str, Any]:
    return {
        "translation": {
            f"{way['source']} to {way['target']}": _judged(way)
            | {"judge_right_on_originals": way["originals_right"]["value"], "parameters": way["parameters"]}
            for way in numbers["ways"]
        }
    }


def _sketches(numbers: Numbers) -> dict[str, Any]:
    return {"sketches": _judged(numbers)}


def _inpainting(numbers: Numbers) -> dict[str, Any]:
    default = numbers["settings"][0]
    recovered = {name: default[f"{name}_recovered"] for name in ("true_class", "predicted_class")}
    return {"inpainting": _scores(numbers, ("mean", "telea", "navier_stokes")) | {"recovered": recovered}}


def _super_resolution(numbers: Numbers) -> dict[str, Any]:
    return {"super_resolution": _scores(numbers, ("nearest", "bicubic"))}


def _robustness_gap(numbers: Numbers) -> dict[str, Any]:
    return {"smallest_l2_flip": {"robust": numbers["robust_median"], "standard": numbers["standard_median"]}}


def _judged(numbers: Numbers) -> dict[str, Any]:
    return {"judged": _proportion(numbers["judged"]), "l2_change": numbers["change"]}


def _scores(numbers: Numbers, baselines: tuple[str, ...]) -> dict[str, Any]:
    default = numbers["settings"][0]
    ways = {name: numbers[name] for name in baselines}
    ways |= {name: default[name] for name in ("true_class", "predicted_class")}
    scores = {name: {"judged": way["judged"]["value"], "psnr": way["psnr"]} for name, way in ways.items()}
    return {"originals": {"judged": numbers["originals"]["value"]}, **scores, "parameters": default["parameters"]}


def _proportion(numbers: Numbers) -> dict[str, Any]:
    return {name: numbers[name] for name in ("value", "interval", "count")}


SHORT: Mapping[str, Callable[[Numbers], dict[str, Any]]] = {
    "accuracy": _accuracy,
    "judge": _judge,
    "generation": _generation,
    "class_maximization": _class_maximization,
    "translation": _translation,
    "inpainting": _inpainting,
    "super_resolution": _super_resolution,
    "sketches": _sketches,
    "robustness_gap": _robustness_gap,
}
