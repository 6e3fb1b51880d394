"""Robust accuracy by a published AutoAttack (Croce and Hein 2020), image by image, so that a long run can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..engine.classifier import Classifier
from ..files import atomic_write
from ..training.datasets import ImageSet
from . import fingerprint
from .judge import clean_accuracy
from .proportion import Proportion
from .sample import sample
from .tally import OnProgress, Tally, silent

CHUNK = 32
"""Images attacked at a time: what an interrupted run loses at most."""
NORMS = {"l2": "L2", "linf": "Linf"}


@dataclass(frozen=True)
class RobustAccuracy:
    """Share of images that are classified correctly wherever the attacks move them within the ball."""

    norm: str
    epsilon: float
    attacks: tuple[str, ...]
    images: str
    """Which ones."""
    clean: Proportion
    """Of the same images, not attacked."""
    robust: Proportion
    seconds: float
    """That the attacks took, in this run and in those that it resumed."""
    warnings: tuple[str, ...]
    """AutoAttack's own, about signs that its figure may be too high."""


@dataclass(frozen=True)
class Accuracy:
    """Clean accuracy on all test images, robust accuracy on a sample of them."""

    clean: Proportion
    robust: tuple[RobustAccuracy, ...]
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


def measure(
    classifier: Classifier,
    test: ImageSet,
    *,
    images: int = 1000,
    radii: Mapping[str, float],
    standard: bool = False,
    seed: int = 0,
    work: Path | None = None,
    on_progress: OnProgress = silent,
) -> Accuracy:
    """Clean accuracy, and robust accuracy at a radius for each norm ("l2", "linf") of `radii`."""
    tally = Tally(min(images, len(test)) * len(radii), on_progress)
    return Accuracy(
        clean_accuracy(classifier, test),
        tuple(
            robust_accuracy(
                classifier,
                test,
                norm=norm,
                epsilon=epsilon,
                images=images,
                standard=standard,
                seed=seed,
                work=work,
                on_progress=_more(tally),
            )
            for norm, epsilon in radii.items()
        ),
    )


def robust_accuracy(
    classifier: Classifier,
    test: ImageSet,
    *,
    norm: str = "l2",
    epsilon: float = 0.5,
    images: int = 1000,
    standard: bool = False,
    seed: int = 0,
    work: Path | None = None,
    on_progress: OnProgress = silent,
) -> RobustAccuracy:
    """Accuracy of `images` random test images under AutoAttack, in fp32.

    The attacks are the first two of the standard version (APGD-CE, then APGD-T on its 9 best other classes), or with
    `standard` all four. Below 4 classes targeted APGD is undefined and FAB-T replaces it. With a `work` folder, finished
    chunks are kept there, and a run that was interrupted goes on.
    """
    chosen = sample(test, images, seed)
    attacks = _attacks(len(classifier.card.classes), standard)
    setting = {"norm": norm, "epsilon": epsilon, "attacks": attacks, "seed": seed, "chunk": CHUNK}
    finished = _Finished.open(work, classifier, chosen, setting)
    tally = Tally(len(chosen), on_progress)
    for number, first in enumerate(range(0, len(chosen), CHUNK)):
        part = chosen.subset(torch.arange(first, min(first + CHUNK, len(chosen))))
        if number == len(finished.chunks):
            finished.add(_attack(classifier, part, norm, epsilon, attacks, seed))
        tally(len(part))
    return RobustAccuracy(
        norm=norm,
        epsilon=epsilon,
        attacks=tuple(attacks),
        images=f"{len(chosen)} of {len(test)} test images, drawn with seed {seed}",
        clean=Proportion(sum(sum(chunk["clean"]) for chunk in finished.chunks), len(chosen)),
        robust=Proportion(sum(sum(chunk["robust"]) for chunk in finished.chunks), len(chosen)),
        seconds=sum(chunk["seconds"] for chunk in finished.chunks),
        warnings=tuple(sorted({text for chunk in finished.chunks for text in chunk["warnings"]})),
    )


def _more(tally: Tally) -> OnProgress:
    """Adds the progress of one run to the progress of all."""
    before = 0

    def on_progress(done: int, _: int) -> None:
        nonlocal before
        tally(done - before)
        before = done

    return on_progress


def _attacks(classes: int, standard: bool) -> list[str]:
    targeted = ["apgd-t", "fab-t"] if classes >= 4 else ["fab-t"]
    return ["apgd-ce", *targeted, "square"] if standard else ["apgd-ce", targeted[0]]


def _attack(
    classifier: Classifier, images: ImageSet, norm: str, epsilon: float, attacks: list[str], seed: int
) -> dict[str, Any]:
    """Which images [n] are classified correctly at first, and after every attack."""
    from pyautoattack import AutoAttack

    started = time.perf_counter()
    exact = classifier.in_precision("fp32")
    x, y = images.floats(slice(None)), images.labels
    devices = [exact.device] if exact.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _warnings() as warnings:
        attack = AutoAttack(
            exact,
            norm=NORMS[norm],
            eps=epsilon,
            version="custom",
            attacks=list(attacks),
            seed=seed,
            device=exact.device,
        )
        # As in the standard version, so that the figure is what its first attacks leave.
        attack.apgd.n_restarts = attack.fab.n_restarts = 1
        targets = min(9, len(exact.card.classes) - 1)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        _, found = attack.run_standard_evaluation(x, y, batch_size=len(images))
    with torch.no_grad():
        clean = exact(x.to(exact.device)).argmax(1).cpu() == y
    robust = clean & (found.cpu() == y)
    seconds = time.perf_counter() - started
    return {"clean": clean.tolist(), "robust": robust.tolist(), "seconds": seconds, "warnings": warnings}


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What AutoAttack logs as warnings, kept rather than printed."""
    texts: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage().split(" See flags_doc")[0])

    logger, keep = logging.getLogger("auto-attack"), Keep(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(keep)
    try:
        yield texts
    finally:
        logger.removeHandler(keep)
        logger.propagate = propagate


class _Finished:
    """The chunks that are done, in a file that is keyed by all that they depend on."""

    def __init__(self, path: Path | None, chunks: list[dict[str, Any]]) -> None:
        self.path = path
        self.chunks = chunks

    @classmethod
    def open(cls, work: Path | None, classifier: Classifier, images: ImageSet, setting: dict[str, Any]) -> _Finished:
        if work is None:
            return cls(None, [])
        depends = [fingerprint.of_network(classifier), fingerprint.of_images(images), setting]
        path = work / f"robust-{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]}.json"
        try:
            return cls(path, json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError):
            return cls(path, [])

    def add(self, chunk: dict[str, Any]) -> None:
        self.chunks.append(chunk)
        if self.path is not None:
            with atomic_write(self.path) as file:
                file.write(json.dumps(self.chunks).encode())
