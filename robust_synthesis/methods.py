"""The tasks as methods, the same in this process (`library.Synthesizer`) and of a server (`client.Client`)."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Generic, TypeVar

from . import specs
from .errors import InvalidInput
from .requests import ImageSource

Answer = TypeVar("Answer")


class TaskMethods(Generic[Answer]):
    """A method for every task. Beside what is named here, each takes the parameters of its spec in `robust_synthesis.specs`,
    and what `make` takes.

    Raises InvalidInput, which names the field.
    """

    def make(self, *arguments: Any, **options: Any) -> Answer:
        """Run any spec: (spec, image, mask, options)."""
        raise NotImplementedError

    def generate(self, target: str, **options: Any) -> Answer:
        """Make pictures of a class: `generate("dog", seed=1, count=4)`."""
        return self._make(specs.Generate, None, None, target=target, **options)

    def maximize_class(self, image: ImageSource, target: str, **options: Any) -> Answer:
        """Add the features of a class to an image."""
        return self._make(specs.MaximizeClass, image, None, target=target, **options)

    def inpaint(
        self, image: ImageSource, mask: ImageSource | None = None, target: str | None = None, **options: Any
    ) -> Answer:
        """Fill the part of an image that the mask marks white."""
        return self._make(specs.Inpaint, image, mask, target=target, **options)

    def translate(self, image: ImageSource, target: str | None = None, **options: Any) -> Answer:
        """Turn an image of one domain into another."""
        return self._make(specs.Translate, image, None, target=target, **options)

    def super_resolve(self, image: ImageSource, target: str | None = None, **options: Any) -> Answer:
        """Enlarge an image, which is first reduced to `size / factor` pixels where it is larger."""
        return self._make(specs.SuperResolve, image, None, target=target, **options)

    def sketch_to_image(self, image: ImageSource, target: str, **options: Any) -> Answer:
        """Turn a crude drawing into a picture of a class."""
        return self._make(specs.SketchToImage, image, None, target=target, **options)

    def paint_features(self, image: ImageSource, mask: ImageSource | None = None, **options: Any) -> Answer:
        """Paint with a latent `unit` or a class (`target`) where the mask is white."""
        return self._make(specs.PaintFeatures, image, mask, **options)

    def _make(
        self, kind: type[specs.Spec], image: ImageSource | None, mask: ImageSource | None, **options: Any
    ) -> Answer:
        names = {field.name for field in dataclasses.fields(kind)}
        try:
            spec = kind(**{name: value for name, value in options.items() if name in names})
            return self.make(spec, image, mask, **{name: value for name, value in options.items() if name not in names})
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None:
                raise
            raise InvalidInput(unknown[1], f"is not a parameter of {kind.task}.") from error
