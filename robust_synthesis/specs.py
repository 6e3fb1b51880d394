"""What a caller asks for: one frozen dataclass per task, validated, without torch.

A parameter left None takes the default of the classifier's card, or else the paper's, scaled to the image size
(`defaults.py`). Distances are in units of pixel values in [0, 1]: an epsilon of 1 is the L2 distance between an image and
one in which a single channel of a single pixel went from black to white.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from .errors import InvalidInput

NORMS = ("l2", "linf", "none")
STARTS = ("gaussian", "noise")
UPSAMPLINGS = ("bicubic", "nearest")
FILLINGS = ("mean", "smooth")
MAX_STEPS = 10_000
MAX_COUNT = 256
MAX_SEED = 2**63 - 1

S = TypeVar("S", bound="Spec")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Parameters that every task has."""

    task: ClassVar[str]
    needs_image: ClassVar[bool] = True
    needs_mask: ClassVar[bool] = False
    descends: ClassVar[bool] = True
    """Whether there are steps at all, and a picture at their end."""

    steps: int | None = None
    step_size: float | None = None
    epsilon: float | None = None
    """Radius of the ball around the start."""
    norm: str | None = None
    """l2, linf, or none for no ball."""
    seed: int | None = None
    """Of everything random; chosen, and reported, where none is given."""
    random_start: bool = False
    """Start at a random point of the ball's surface."""
    use_best: bool = True
    """Return the picture of lowest loss rather than the last one."""
    exact: bool = False
    """Run at batch size one: the same bits on the same kind of machine."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput(field.name, f"is {value}; give a finite number.")
            _kind(field.name, value, str(field.type))
        _number("steps", self.steps, 1, MAX_STEPS, integer=True)
        _number("step_size", self.step_size, 0, 1000, above=True)
        _number("epsilon", self.epsilon, 0, 10_000)
        _choice("norm", self.norm, NORMS)
        _number("seed", self.seed, 0, MAX_SEED, integer=True)

    @property
    def pictures(self) -> int:
        """How many pictures it asks for."""
        return 1

    def input_size(self, size: int) -> int:
        """Side of the picture that the task wants in order to make one of `size` pixels."""
        return size


def with_seed(spec: S) -> S:
    """The spec with a seed: its own, or one drawn at random."""
    return spec if spec.seed is not None else dataclasses.replace(spec, seed=secrets.randbelow(2**31))


@dataclass(frozen=True, kw_only=True)
class MaximizeClass(Spec):
    """Add the features of a class to any image."""

    task: ClassVar[str] = "maximize_class"
    target: str


@dataclass(frozen=True, kw_only=True)
class Generate(Spec):
    """Make pictures of a class from random seeds."""

    task: ClassVar[str] = "generate"
    needs_image: ClassVar[bool] = False
    target: str
    start: str = "gaussian"
    """gaussian: a sample of the class's Gaussian; noise: noise around grey, the same for every class."""
    count: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("start", self.start, STARTS)
        _number("count", self.count, 1, MAX_COUNT, integer=True)

    @property
    def pictures(self) -> int:
        return self.count


@dataclass(frozen=True, kw_only=True)
class Inpaint(Spec):
    """Fill a hole (mask = 1) with what the class would have there."""

    task: ClassVar[str] = "inpaint"
    needs_mask: ClassVar[bool] = True
    target: str | None = None
    """Default: the class predicted for the image with its hole filled."""
    filling: str | None = None
    """What is in the hole at the start: the mean of the rest, or a smooth continuation of its edge."""
    penalty: float | None = None
    hard_mask: bool = True
    """Leave everything outside the mask exactly as it is, instead of only pulling it back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("filling", self.filling, FILLINGS)
        _number("penalty", self.penalty, 0, 1e6)


@dataclass(frozen=True, kw_only=True)
class Translate(Spec):
    """Turn an image of one domain into the other."""

    task: ClassVar[str] = "translate"
    target: str | None = None
    """Default, for a classifier of two domains: the one that is not predicted."""


@dataclass(frozen=True, kw_only=True)
class SuperResolve(Spec):
    """Enlarge a small image by 2 to 8, adding the detail that its class has."""

    task: ClassVar[str] = "super_resolve"
    factor: int = 4
    target: str | None = None
    """Default: the class predicted for the enlarged image."""
    upsampling: str | None = None
    """How the start is enlarged: bicubic or nearest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _number("factor", self.factor, 2, 8, integer=True)
        _choice("upsampling", self.upsampling, UPSAMPLINGS)

    def input_size(self, size: int) -> int:
        if size % self.factor:
            raise InvalidInput(
                "factor", f"{size} pixels are not a multiple of {self.factor}; choose another factor or size."
            )
        return size // self.factor


@dataclass(frozen=True, kw_only=True)
class SketchToImage(Spec):
    """Turn a crude drawing into a picture of a class."""

    task: ClassVar[str] = "sketch_to_image"
    target: str


@dataclass(frozen=True, kw_only=True)
class PaintFeatures(Spec):
    """Paint with a latent unit, or with a class, inside a mask. Edits are sequential: paint on the result of the last."""

    task: ClassVar[str] = "paint_features"
    needs_mask: ClassVar[bool] = True
    target: str | None = None
    unit: int | str | None = None
    """Number of a latent unit, or its name in the classifier's catalogue."""
    strength: float | None = None
    """Weight of the unit's activation, or of the class's cross-entropy."""
    penalty: float | None = None
    """Weight of changes outside the mask, where it is soft."""
    hard_mask: bool = True
    """Leave everything outside the mask exactly as it is, instead of only pulling it back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target is None) == (self.unit is None):
            raise InvalidInput("unit", "give either a unit or a class to paint with, not both and not none.")
        _number("strength", self.strength, 0, 1e6, above=True)
        _number("penalty", self.penalty, 0, 1e6)


@dataclass(frozen=True, kw_only=True)
class Classify(Spec):
    """What the classifier sees in an image: a single evaluation, and no picture."""

    task: ClassVar[str] = "classify"
    descends: ClassVar[bool] = False


SPECS: dict[str, type[Spec]] = {
    spec.task: spec
    for spec in (Generate, Inpaint, Translate, SuperResolve, SketchToImage, PaintFeatures, MaximizeClass)
}
"""The tasks of synthesis."""
JOBS: dict[str, type[Spec]] = {**SPECS, Classify.task: Classify}
"""All that a worker can be asked for."""


def to_json(spec: Spec) -> dict[str, Any]:
    """The task and every parameter that is not its default, as JSON types."""
    given = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if getattr(spec, f.name) != f.default}
    return {"task": spec.task, **given}


def from_json(values: Mapping[str, Any], kinds: Mapping[str, type[Spec]] = SPECS) -> Spec:
    """The spec that `to_json` wrote. Raises InvalidInput naming the parameter that is missing, unknown or wrong."""
    task = values.get("task")
    if not isinstance(task, str) or task not in kinds:
        raise InvalidInput("task", f"is {task!r}; choose one of {', '.join(kinds)}.")
    kind = kinds[task]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values.keys() - fields.keys() - {"task"}:
        raise InvalidInput(name, f"is not a parameter of {task}; it has {', '.join(sorted(fields))}.")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in values:
            raise InvalidInput(name, f"is missing; {task} needs it.")
    return kind(**{name: value for name, value in values.items() if name != "task"})


def from_text(values: Mapping[str, str]) -> Spec:
    """A spec from a form: every value is text. Raises InvalidInput like `from_json`."""
    kind = SPECS.get(values.get("task", ""), Spec)
    types = {field.name: str(field.type).removesuffix(" | None") for field in dataclasses.fields(kind)}
    return from_json({name: _from_text(name, text, types.get(name, "str")) for name, text in values.items()})


def _from_text(field: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise InvalidInput(field, f"must be true or false, not {text!r}.")
        return text.lower() == "true"
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError as error:
            raise InvalidInput(field, f"must be a {'whole ' * (kind == 'int')}number, not {text!r}.") from error
    if kind == "int | str" and text.isdecimal():
        return int(text)
    return text


def _number(field: str, value: Any, low: float, high: float, *, integer: bool = False, above: bool = False) -> None:
    if value is None:
        return
    kind = "a whole number" if integer else "a number"
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
        raise InvalidInput(field, f"must be {kind}, not {value!r}.")
    if not low <= value <= high or (above and value == low):
        bounds = f"above {low} and at most {high}" if above else f"from {low} to {high}"
        raise InvalidInput(field, f"is {value}; give {kind} {bounds}.")


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "bool": ((bool,), "true or false"),
    "int | str": ((int, str), "a number or a name"),
}


def _kind(field: str, value: Any, annotation: str) -> None:
    kind = annotation.removesuffix(" | None")
    if value is None:
        if kind == annotation:
            raise InvalidInput(field, "is missing; give a value.")
        return
    types, phrase = _KINDS.get(kind, ((object,), ""))
    if not isinstance(value, types) or (isinstance(value, bool) and kind == "int | str"):
        raise InvalidInput(field, f"must be {phrase}, not {value!r}.")


def _choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InvalidInput(field, f"is {value!r}; choose {', '.join(choices[:-1])} or {choices[-1]}.")
