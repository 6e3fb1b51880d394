"""All parts of an evaluation, one after the other."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..engine.classifier import Classifier
from ..errors import DataError, InvalidInput
from ..training.datasets import ImageSet
from . import fingerprint, provenance
from .given import EXACT, Given
from .options import IMAGES, EvaluationOptions
from .record import Evaluation, Part, plain


def evaluate(
    classifier: Classifier,
    test: ImageSet,
    *,
    judge: Classifier | None = None,
    contrast: Classifier | None = None,
    train: ImageSet | None = None,
    options: EvaluationOptions | None = None,
    work: Path | None = None,
    known: Evaluation | None = None,
    command: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
    on_part: Callable[[Evaluation], None] = lambda _: None,
) -> Evaluation:
    """Measure a classifier and what it synthesises on a test set.

    `judge` is an independent classifier; `contrast` a standard one of the same classes; `train` serves only as the floor
    of FID; `work` keeps what a long attack has done so far; parts that `known` has of the same weights and data
    are not run again; `on_part` is called with all there is after every part.
    Parts whose classifier is not given are skipped, unless `options.only` names them: then InvalidInput is raised, as it
    is for classifiers or data of other classes or another size.
    """
    options = options or EvaluationOptions()
    _check(classifier, test, judge, contrast, train)
    given = Given(classifier, test, options, judge, contrast, train, work)
    skipped = {name: why for name in IMAGES if (why := given.lacks(name)) is not None}
    if refused := next((name for name in options.only if name in skipped), None):
        raise InvalidInput("only", f"{refused} {skipped[refused]}.")
    so_far = Evaluation(
        model=classifier.card.name,
        version=classifier.version,
        network=fingerprint.of_network(classifier),
        data={"images": len(test), "size": test.size, "hash": fingerprint.of_images(test)},
        skipped={} if options.only else skipped,
    )
    done = known.parts if known is not None and known.concerns(so_far) else {}
    wanted = options.only or IMAGES.keys()
    for name in [name for name in IMAGES if name in wanted and name not in skipped and name not in done]:
        started = time.perf_counter()
        measured = given.run(name, partial(on_progress, name))
        part = Part(
            numbers=plain(measured),
            options=plain(options.to_dict() | {"images": options.count(name, test.size)}),
            seconds=round(time.perf_counter() - started, 1),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command if command is not None else provenance.command(),
            hardware=provenance.hardware(classifier.device),
            versions=provenance.versions(),
            device=str(classifier.device),
            precision="fp32" if name in EXACT else classifier.precision,
        )
        pictures = {**so_far.pictures, **getattr(measured, "pictures", {})}
        so_far = dataclasses.replace(so_far, parts={**so_far.parts, name: part}, pictures=pictures)
        on_part(so_far)
    return so_far


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
