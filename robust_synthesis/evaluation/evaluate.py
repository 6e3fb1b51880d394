"""All parts of an evaluation, one after the other."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..engine.classifier import Classifier
from ..errors import DataError, InvalidInput
from ..training.datasets import ImageSet
from . import accuracy, fingerprint, generation, inpainting, provenance, robustness_gap, super_resolution
from . import judge as judging
from .judge import Judge
from .options import IMAGES, EvaluationOptions
from .report import Evaluation, Part, plain
from .tally import OnProgress

_NO_JUDGE = "needs an independent classifier; give one with --judge"
MISSING = {
    **dict.fromkeys(("judge", "generation", "inpainting", "super_resolution"), _NO_JUDGE),
    "robustness_gap": "needs a standard classifier; give one with --standard-model",
}
"""Why a part is skipped."""
SYNTHESES = ("generation", "inpainting", "super_resolution")
"""Parts that make pictures, in the classifier's own precision; the others compute in fp32."""


def evaluate(
    classifier: Classifier,
    test: ImageSet,
    *,
    judge: Classifier | None = None,
    contrast: Classifier | None = None,
    train: ImageSet | None = None,
    options: EvaluationOptions | None = None,
    work: Path | None = None,
    command: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
    on_part: Callable[[Evaluation], None] = lambda _: None,
) -> Evaluation:
    """Measure a classifier and what it synthesises on a test set.

    `judge` is an independent classifier; `contrast` a standard one of the same classes; `train` serves only as the floor
    of FID; `work` keeps what a long attack has done so far; `on_part` is called with all there is after every part.
    Parts whose classifier is not given are skipped, unless `options.only` names them: then InvalidInput is raised, as it
    is for classifiers or data of other classes or another size.
    """
    options = options or EvaluationOptions()
    _check(classifier, test, judge, contrast, train)
    parts = _parts(classifier, test, judge, contrast, train, options, work)
    skipped = {name: MISSING[name] for name in IMAGES if name not in parts}
    if refused := next((name for name in options.only if name in skipped), None):
        raise InvalidInput("only", f"{refused} {skipped[refused]}.")
    so_far = Evaluation(
        model=classifier.card.name,
        version=classifier.version,
        network=fingerprint.of_network(classifier),
        data={"images": len(test), "size": test.size, "hash": fingerprint.of_images(test)},
        skipped={} if options.only else skipped,
    )
    for name in [name for name in parts if name in (options.only or IMAGES)]:
        started = time.perf_counter()
        measured = parts[name](partial(on_progress, name))
        part = Part(
            numbers=plain(measured),
            options=plain(options.to_dict() | {"images": options.count(name)}),
            seconds=round(time.perf_counter() - started, 1),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command if command is not None else provenance.command(),
            hardware=provenance.hardware(classifier.device),
            versions=provenance.versions(),
            device=str(classifier.device),
            precision=classifier.precision if name in SYNTHESES else "fp32",
        )
        pictures = {**so_far.pictures, **getattr(measured, "pictures", {})}
        so_far = dataclasses.replace(so_far, parts={**so_far.parts, name: part}, pictures=pictures)
        on_part(so_far)
    return so_far


def _parts(
    classifier: Classifier,
    test: ImageSet,
    judge: Classifier | None,
    contrast: Classifier | None,
    train: ImageSet | None,
    options: EvaluationOptions,
    work: Path | None,
) -> dict[str, Callable[[OnProgress], Any]]:
    """The parts that the given classifiers allow, in order."""
    count, seed, sweep = options.count, options.seed, options.sweep
    parts: dict[str, Callable[[OnProgress], Any]] = {
        "accuracy": lambda tell: accuracy.measure(
            classifier,
            test,
            images=count("accuracy"),
            radii=options.radii,
            standard=options.standard,
            seed=seed,
            work=work,
            on_progress=tell,
        )
    }
    if judge is not None:
        looking = Judge(judge)
        parts |= {
            "judge": lambda tell: judging.measure(looking, test, tell),
            "generation": lambda tell: generation.measure(
                classifier,
                test,
                looking,
                contrast=contrast,
                train=train,
                images=count("generation"),
                grid=options.grid,
                seed=seed,
                on_progress=tell,
            ),
            "inpainting": lambda tell: inpainting.measure(
                classifier, test, looking, images=count("inpainting"), sweep=sweep, seed=seed, on_progress=tell
            ),
            "super_resolution": lambda tell: super_resolution.measure(
                classifier, test, looking, images=count("super_resolution"), sweep=sweep, seed=seed, on_progress=tell
            ),
        }
    if contrast is not None:
        standard = contrast
        parts["robustness_gap"] = lambda tell: robustness_gap.measure(
            classifier, standard, test, images=count("robustness_gap"), seed=seed, on_progress=tell
        )
    return parts


def _check(
    classifier: Classifier,
    test: ImageSet,
    judge: Classifier | None,
    contrast: Classifier | None,
    train: ImageSet | None,
) -> None:
    card = classifier.card
    for field, other in (("judge", judge), ("standard-model", contrast)):
        if other is not None and other.card.classes != card.classes:
            raise InvalidInput(field, f"has other classes than {card.name}; give one trained on the same data.")
    for images in (test, train):
        if images is None:
            continue
        if not len(images):
            raise DataError("data: holds no images; give a test set.")
        if tuple(images.class_names) != card.classes:
            raise InvalidInput("data", f"has other classes than {card.name}; give the test set of its data.")
        if images.size != card.size:
            raise InvalidInput("data", f"is {images.size} pixels wide, {card.name} {card.size}; load it at that size.")
