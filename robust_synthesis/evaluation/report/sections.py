"""The numbers of each part as sections of a page: what was asked, tables, pictures, and what goes into the overview."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .wording import Numbers, moved, number, percent, settings, sure


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part, told."""

    title: str
    lead: str
    """What was done, and how to read it."""
    overview: Sequence[tuple[str, str, str]]
    """(what, result, beside it), for the table at the top of the page."""
    tables: Sequence[Table] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    """Start of a picture's name -> caption."""


def section(part: str, numbers: Numbers) -> Section:
    """The section of a part."""
    return SECTIONS[part](numbers)


def _accuracy(numbers: Numbers) -> Section:
    robust = [
        (
            f"Robust accuracy, {entry['norm'].upper()} {entry['epsilon']:g}",
            sure(entry["robust"]),
            " + ".join(entry["attacks"]),
        )
        for entry in numbers["robust"]
    ]
    rows = [
        (f"{entry['norm'].upper()} {entry['epsilon']:g}", sure(entry["robust"]), sure(entry["clean"]), entry["images"])
        for entry in numbers["robust"]
    ]
    return Section(
        "Accuracy",
        "Share of test images that the classifier gets right; robust where AutoAttack's attacks find no change within the ball "
        "that flips them.",
        [("Clean accuracy", sure(numbers["clean"]), ""), *robust],
        [Table(("ball", "robust", "clean, same images", "images"), rows)] if rows else [],
    )


def _judge(numbers: Numbers) -> Section:
    return Section(
        "The judge",
        f"{numbers['network']}: an independent classifier that had no part in making any picture. What it is worth on real ones:",
        [("Judge on real test images", sure(numbers["accuracy"]), "")],
        [Table(("real test images", "right"), [("all", sure(numbers["accuracy"]))])],
    )


def _generation(numbers: Numbers) -> Section:
    overview = [
        (
            f"Generation from {STARTS[entry['start']]}",
            sure(entry["robust"]),
            f"bare seeds {percent(entry['seeds']['value'])}",
        )
        for entry in numbers["contests"]
    ]
    contests = [
        (STARTS[entry["start"]], sure(entry["robust"]), percent(entry["seeds"]["value"]))
        + ((percent(entry["standard"]["value"]),) if entry["standard"] else ("not measured",))
        for entry in numbers["contests"]
    ]
    rows = [
        (
            f"{STARTS[entry['start']]}: {settings(entry['parameters'])}",
            sure(entry["judged"]),
            f"{entry['fid']:.3g}",
            f"{entry['pixel_diversity']:.2f}, {entry['feature_diversity']:.2f}",
        )
        for entry in numbers["settings"]
    ]
    rows += [(f"bare seeds, {STARTS[start]}", "", f"{fid:.3g}", "") for start, fid in numbers["seeds_fid"].items()]
    if numbers["real_fid"] is not None:
        rows.append(("as many real training images", "", f"{numbers['real_fid']:.3g}", ""))
    return Section(
        "Generation",
        f"{numbers['per_class']} pictures of every class and setting. The judge looks for the class; FID is the Fréchet distance "
        f"to the test set in the features of {numbers['network']}, lower is closer; diversity is the mean distance between two "
        "pictures of a class as a share of that between real ones.",
        overview,
        [
            Table(("start, default settings", "judged as its class", "bare seeds", "standard classifier"), contests),
            Table(("start and settings", "judged as its class", "FID", "diversity: pixels, features"), rows),
        ],
        {
            "generation-gaussian": "From class Gaussians: the seed, and what gradient descent on it makes",
            "generation-noise": "From plain noise",
            "generation-settings": "Other settings, from the same seeds",
        },
    )


def _class_maximization(numbers: Numbers) -> Section:
    return Section(
        "Class maximisation from photographs",
        f"{numbers['images']} test photographs, each driven to a class that it does not show: {settings(numbers['parameters'])}.",
        [("Class maximisation", sure(numbers["judged"]), moved(numbers["change"]))],
        [
            Table(
                ("", "judge right"),
                [
                    ("true class, before", sure(numbers["originals"])),
                    (f"class driven to, after; {moved(numbers['change'])}", sure(numbers["judged"])),
                ],
            )
        ],
        {"class_maximization": "Above the photograph, below the class that it was driven to"},
    )


def _translation(numbers: Numbers) -> Section:
    ways = numbers["ways"]
    rows = [
        (
            f"{way['source']} → {way['target']}",
            sure(way["judged"]),
            sure(way["originals_right"]),
            f"{way['change']['mean']:.3g}, {way['change']['largest']:.3g}",
            settings(way["parameters"]),
        )
        for way in ways
    ]
    return Section(
        "Translation",
        "Photographs of the test set, which the classifier has never seen, driven to the other domain.",
        [(f"Translation {way['source']} → {way['target']}", sure(way["judged"]), moved(way["change"])) for way in ways],
        [Table(("", "judged as the other domain", "judge right before", "L2 change: mean, largest", "settings"), rows)],
        {"translation-": "Above the photograph, below its translation with what the judge sees and the L2 change"},
    )


def _restored(numbers: Numbers, baselines: Mapping[str, str]) -> Table:
    rows = [("originals", sure(numbers["originals"]), "")]
    ways = [(label, numbers[name]) for name, label in baselines.items()]
    for setting in numbers["settings"]:
        words = settings(setting["parameters"])
        ways.append((f"ours, told the class; {words}", setting["true_class"]))
        ways.append((f"ours, told nothing; {words}", setting["predicted_class"]))
    rows += [(label, sure(way["judged"]), f"{way['psnr']:.2f}") for label, way in ways]
    return Table(("", "judged as its class", "PSNR, dB"), rows)


def _inpainting(numbers: Numbers) -> Section:
    side, ours = numbers["hole"], numbers["settings"][0]
    beside = f"mean filling {percent(numbers['mean']['judged']['value'])}"
    ways = {"mean": "mean filling", "telea": "OpenCV, Telea", "navier_stokes": "OpenCV, Navier-Stokes"}
    return Section(
        "In-painting",
        f"A hole of {side} x {side} pixels at a random place of {numbers['images']} test pictures. PSNR inside the hole.",
        [("In-painting, told the class", sure(ours["true_class"]["judged"]), beside)],
        [_restored(numbers, ways)],
        {"inpainting": "The original, the ways to fill it, and ours"},
    )


def _super_resolution(numbers: Numbers) -> Section:
    factor, ours = numbers["factor"], numbers["settings"][0]
    beside = f"bicubic {percent(numbers['bicubic']['judged']['value'])}"
    return Section(
        f"Super-resolution x{factor}",
        f"{numbers['images']} test pictures reduced by {factor} and enlarged again.",
        [
            (f"Super-resolution x{factor}, told the class", sure(ours["true_class"]["judged"]), beside),
            (f"Super-resolution x{factor}, told nothing", sure(ours["predicted_class"]["judged"]), beside),
        ],
        [_restored(numbers, {"nearest": "nearest neighbour", "bicubic": "bicubic"})],
        {"super_resolution": "The original, interpolation, and ours"},
    )


def _sketches(numbers: Numbers) -> Section:
    return Section(
        "Sketch to image",
        f"Crude drawings of {', '.join(numbers['classes'])}: {settings(numbers['parameters'])}.",
        [("Sketch to image", sure(numbers["judged"]), f"bare drawings {percent(numbers['drawings_judged']['value'])}")],
        figures={"sketches": "Above the drawing, below the picture"},
    )


def _feature_painting(numbers: Numbers) -> Section:
    rows = [
        (edit["unit"], f"{edit['before']:.2f}", f"{edit['after']:.2f}", f"{edit['top']:.2f}", f"{edit['change']:.3g}")
        for edit in numbers["edits"]
    ]
    return Section(
        "Feature painting",
        f"Three edits of {numbers['images']} test photographs, each on the result of the last, with a latent unit inside a mask: "
        f"{settings(numbers['parameters'])}. Means over the photographs; nothing outside the masks changed by more than "
        f"{numbers['outside']:.2g}.",
        [
            (f"Painting with {unit}, activation", f"{before} → {after}", f"top training images {top}")
            for unit, before, after, top, _ in rows
        ],
        [Table(("unit", "activation before", "after", "of its top training images", "L2 change"), rows)],
        {"feature_painting": "The photograph, then each edit; the box is where the next edit may paint"},
    )


def _robustness_gap(numbers: Numbers) -> Section:
    robust, standard = (number(numbers[f"{name}_median"]) for name in ("robust", "standard"))
    return Section(
        "Robustness gap",
        f"The smallest L2 change found that flips a classifier's own prediction, on {numbers['images']} test images.",
        [("Smallest flip, median L2", robust, f"standard classifier {standard}")],
        [Table(("classifier", "median L2"), [("robust", robust), ("standard", standard)])],
        {"robustness_gap": "What flips each classifier; differences amplified"},
    )


STARTS = {"gaussian": "class Gaussians", "noise": "plain noise"}
SECTIONS: Mapping[str, Callable[[Numbers], Section]] = {
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
"""In the order in which the page shows them."""
