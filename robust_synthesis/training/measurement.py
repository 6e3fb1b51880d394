"""What a training run ends with: the accuracy of its model folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..engine.classifier import Classifier
from ..errors import SynthesisError
from ..evaluation import EvaluationOptions, evaluate
from . import datasets
from .config import TrainConfig


def measure(path: Path, config: TrainConfig, images: int, on_progress: Callable[[str, int, int], None]) -> str:
    """Accuracy on the test split, robust at the radius trained for, onto the card; returns a line that says what or why not."""
    if "test" not in datasets.splits(config.data):
        return "not measured: the data has no test split"
    if find_spec("pyautoattack") is None:
        return "not measured: robust accuracy needs pyautoattack; pip install 'robust-synthesis[evaluate]'"
    classifier = Classifier.load(path)
    radii = {"l2": None, "linf": None} | {config.norm: config.epsilon}
    chosen = EvaluationOptions(only=("accuracy",), images=images, l2=radii["l2"], linf=radii["linf"])
    try:
        test = datasets.load(config.data, "test", size=classifier.card.size)
        found = evaluate(classifier, test, options=chosen, on_progress=on_progress)
    except SynthesisError as error:
        return f"not measured: {error}"
    found.keep(path)
    measured = found.headline()
    clean, (robust,) = measured["clean_accuracy"], measured["robust_accuracy"]
    return (
        f"test: clean {clean['value']:.1%} of {clean['count']}, robust {robust['value']:.1%} of {robust['count']} "
        f"(AutoAttack, {robust['norm']} {robust['epsilon']:g})"
    )
