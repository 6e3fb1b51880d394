"""The classifiers that the workers serve now."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidInput, NotFound
from ..model_folder import SEEDS, UNITS
from ..requests import Request
from ..specs import Generate, PaintFeatures
from .backends.base import Backend, ModelInfo
from .errors import Unsuitable


class Models:
    """Looked up anew each time, since they change while the gateway runs."""

    def __init__(self, backend: Backend, default: str = "") -> None:
        self._backend = backend
        self._default = default

    def current(self) -> Mapping[str, ModelInfo]:
        """The version that new requests get of every classifier, by name."""
        found = {info.name: info for worker in self._backend.workers() for info in worker.models() if info.current}
        return dict(sorted(found.items()))

    def default(self) -> str:
        """What requests without a model get; empty where that is not clear.

        It is what was configured, else the only one, else the robust one of most classes.
        """
        if self._default:
            return self._default
        models = self.current()
        if len(models) == 1:
            return next(iter(models))
        classes = {name: len(info.card.classes) for name, info in models.items() if info.card.role == "robust"}
        most = [name for name, count in classes.items() if count == max(classes.values())]
        return most[0] if len(most) == 1 else ""

    def named(self, name: str) -> str:
        """The name, or that of the default. Raises InvalidInput where there is neither."""
        found = name or self.default()
        if not found:
            known = ", ".join(self.current()) or "none yet"
            raise InvalidInput("model", f"is missing, and this server has no default; it has {known}.")
        return found

    def get(self, name: str) -> ModelInfo:
        """Raises NotFound, and InvalidInput like `named`."""
        models, wanted = self.current(), self.named(name)
        if wanted not in models:
            raise NotFound("model", wanted, models)
        return models[wanted]

    def find(self, name: str) -> ModelInfo | None:
        """None while no worker is known that serves it: requests wait for one."""
        return self.current().get(name)


def check_suits(request: Request, info: ModelInfo) -> None:
    """Raises Unsuitable for what the classifier has not got."""
    spec, files = request.spec, info.card.files
    if isinstance(spec, Generate) and spec.start == "gaussian" and SEEDS not in files:
        raise Unsuitable(f"{info.name} has no class Gaussians to start from; start from noise.")
    if isinstance(spec, PaintFeatures) and isinstance(spec.unit, str) and UNITS not in files:
        raise Unsuitable(f"{info.name} has no catalogue of units; give a unit by number.")
