"""An evaluation in lines that a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from .wording import Numbers, moved, number, percent, sure


def summary(parts: Mapping[str, Numbers]) -> list[str]:
    """From the numbers of the parts that there are."""
    return [line for name, lines in LINES.items() if name in parts for line in lines(parts[name])]


def _accuracy(numbers: Numbers) -> Iterator[str]:
    yield f"clean accuracy: {sure(numbers['clean'])}"
    for entry in numbers["robust"]:
        attacks = " + ".join(entry["attacks"])
        yield f"robust accuracy, {entry['norm']} {entry['epsilon']:g}: {sure(entry['robust'])}; {attacks}; {entry['images']}"
        yield from (f"  AutoAttack warns: {text}" for text in entry["warnings"])


def _judge(numbers: Numbers) -> Iterator[str]:
    yield f"judge ({numbers['network']}): right on {sure(numbers['accuracy'])}"


def _generation(numbers: Numbers) -> Iterator[str]:
    for contest in numbers["contests"]:
        line = f"generation from {contest['start']}: judged as its class {sure(contest['robust'])}"
        line += f"; bare seeds {percent(contest['seeds']['value'])}"
        if contest["standard"] is not None:
            line += f", by the standard classifier {percent(contest['standard']['value'])}"
            line += f" ({percent(contest['standard_gain'])} of the gain)"
        yield line
    yield f"  FID by {numbers['network']}, {numbers['per_class']} pictures per class"
    for setting in numbers["settings"]:
        chosen = setting["parameters"]
        yield (
            f"  {setting['start']:8} eps {chosen['epsilon']:<5g} {chosen['steps']:3} steps of {chosen['step_size']:<7.3g}"
            f" judged {percent(setting['judged']['value']):>7}  FID {setting['fid']:.4g}"
            f"  diversity {setting['pixel_diversity']:.2f} in pixels, {setting['feature_diversity']:.2f} in features"
        )
    for start, fid in numbers["seeds_fid"].items():
        yield f"  bare seeds of {start}: FID {fid:.4g}"
    if numbers["real_fid"] is not None:
        yield f"  real training pictures: FID {numbers['real_fid']:.4g}"


def _class_maximization(numbers: Numbers) -> Iterator[str]:
    yield f"class maximisation of {numbers['images']} photographs: judged as the class {_judged(numbers)}"


def _translation(numbers: Numbers) -> Iterator[str]:
    for way in numbers["ways"]:
        yield f"translation {way['source']} -> {way['target']}: judged {way['target']} {_judged(way)}"
        yield f"  the judge is right on {sure(way['originals_right'])} of the photographs before"


def _sketches(numbers: Numbers) -> Iterator[str]:
    yield f"sketch to image, {', '.join(numbers['classes'])}: judged as the class {_judged(numbers)}"


def _feature_painting(numbers: Numbers) -> Iterator[str]:
    yield f"feature painting on {numbers['images']} photographs, mean activation of the unit painted with:"
    for edit in numbers["edits"]:
        yield f"  {edit['unit']:20} {edit['before']:.2f} -> {edit['after']:.2f} (its top training images {edit['top']:.2f})"


def _inpainting(numbers: Numbers) -> Iterator[str]:
    yield f"in-painting of {numbers['hole']} x {numbers['hole']} pixels in {numbers['images']} pictures (PSNR inside the hole)"
    yield from _scores(
        numbers, {"mean filling": "mean", "OpenCV Telea": "telea", "OpenCV Navier-Stokes": "navier_stokes"}
    )
    default = numbers["settings"][0]
    yield (
        f"  of what mean filling lost, the default recovers {percent(default['true_class_recovered'])} (true class),"
        f" {percent(default['predicted_class_recovered'])} (predicted class)"
    )


def _super_resolution(numbers: Numbers) -> Iterator[str]:
    yield f"super-resolution x{numbers['factor']} of {numbers['images']} pictures"
    yield from _scores(numbers, {"nearest": "nearest", "bicubic": "bicubic"})


def _robustness_gap(numbers: Numbers) -> Iterator[str]:
    robust, standard = (number(numbers[f"{name}_median"]) for name in ("robust", "standard"))
    yield f"smallest L2 change that flips the prediction, median of {numbers['images']}: robust {robust}, standard {standard}"


def _scores(numbers: Numbers, baselines: Mapping[str, str]) -> Iterator[str]:
    yield f"  {'originals':44} judged {percent(numbers['originals']['value']):>7}"
    for label, name in baselines.items():
        yield _score(label, numbers[name])
    for setting in numbers["settings"]:
        chosen = setting["parameters"]
        start = "".join(f"{chosen[name]}, " for name in ("upsampling", "filling") if name in chosen)
        label = f"ours, {start}eps {chosen['epsilon']:g}, {chosen['steps']} steps"
        yield _score(f"{label}, true class", setting["true_class"])
        yield _score(f"{label}, predicted class", setting["predicted_class"])


def _score(label: str, score: Numbers) -> str:
    return f"  {label:44} judged {percent(score['judged']['value']):>7}  PSNR {score['psnr']:.2f} dB"


def _judged(numbers: Numbers) -> str:
    return f"{sure(numbers['judged'])}; {moved(numbers['change'])}"


LINES: Mapping[str, Callable[[Numbers], Iterator[str]]] = {
    "accuracy": _accuracy,
    "judge": _judge,
    "generation": _generation,
    "class_maximization": _class_maximization,
    "translation": _translation,
    "inpainting": _inpainting,
    "super_resolution": _super_resolution,
    "sketches": _sketches,
    "feature_painting": _feature_painting,
    "robustness_gap": _robustness_gap,
}
