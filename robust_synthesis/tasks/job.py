"""One picture to be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import specs
from ..defaults import resolve
from ..engine.ball import NORMS
from ..engine.classifier import Classifier
from ..engine.problem import Problem, State
from ..engine.seeds import random_direction
from ..errors import InvalidInput
from .generate import generate
from .inpaint import inpaint
from .maximize_class import maximize_class
from .paint_features import paint_features
from .sketch_to_image import sketch_to_image
from .start import Inputs, Start
from .super_resolve import super_resolve
from .translate import translate

STARTS: Mapping[type[specs.Spec], Callable[[Any, Inputs, Classifier, Mapping[str, Any]], Start]] = {
    specs.Generate: generate,
    specs.Inpaint: inpaint,
    specs.MaximizeClass: maximize_class,
    specs.PaintFeatures: paint_features,
    specs.SketchToImage: sketch_to_image,
    specs.SuperResolve: super_resolve,
    specs.Translate: translate,
}


@dataclass(frozen=True)
class Job:
    """A problem of one sample, the state it starts from, and what its report needs."""

    problem: Problem
    state: State
    target: int
    parameters: Mapping[str, Any]
    """What the job really runs with, every default filled in."""
    index: int


def make_jobs(spec: specs.Spec, inputs: Inputs, classifier: Classifier) -> list[Job]:
    """A job for every picture that the spec asks for.

    Raises InvalidInput and NotFound, naming the field, when the classifier cannot do what the spec says.
    """
    return [make_job(spec, inputs.number(i), classifier) for i in range(spec.pictures)]


def make_job(spec: specs.Spec, inputs: Inputs, classifier: Classifier) -> Job:
    """The job of one picture: number `inputs.index` of those that the spec asks for."""
    if spec.needs_image and inputs.image is None:
        raise InvalidInput("image", f"{spec.task} needs an image.")
    if spec.needs_mask and inputs.mask is None:
        raise InvalidInput("mask", f"{spec.task} needs a mask of the part to edit.")
    if not 0 <= inputs.index < spec.pictures:
        raise InvalidInput("index", f"is {inputs.index}; the request asks for {spec.pictures} pictures.")
    parameters = resolve(spec, classifier.card, inputs.size)
    start = STARTS[type(spec)](spec, inputs, classifier, parameters)
    state = State.start(start.x, parameters["steps"])
    center = state.x[0]
    if spec.random_start:
        noise = random_direction(center, parameters["norm"], spec.seed or 0, inputs.index)
        mask = start.terms.get("mask", 1.0)
        state = State.start(center + parameters["epsilon"] * noise * mask, parameters["steps"])
    problem = Problem.single(
        center,
        target=start.target,
        epsilon=float(parameters["epsilon"]),
        step_size=float(parameters["step_size"]),
        norm=NORMS[parameters["norm"]],
        use_best=spec.use_best,
        **start.terms,
    )
    return Job(problem, state, start.target, parameters, inputs.index)
