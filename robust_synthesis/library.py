"""Every task in this process, for people who want pictures rather than a service."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import imaging, specs
from .engine.ball import l2_norm
from .engine.classifier import Classifier
from .engine.run import BUCKETS, Finished, run
from .engine.run import Progress as BatchProgress
from .errors import InvalidInput
from .results import Picture, Progress, Result
from .tasks import Inputs, Job, input_size, make_jobs

ImageSource = Image.Image | np.ndarray | bytes | str | os.PathLike[str]
OnProgress = Callable[[Progress], None]
Box = str | tuple[int, int, int, int]


class Synthesizer:
    """All synthesis tasks with one classifier.

    Every task takes, beside what its spec in `robust_synthesis.specs` names, `size` (side of the result in pixels, default
    the classifier's), `fit` (crop, pad or stretch: how a photo becomes a square), `frames` (how many pictures of the way
    there to keep) and `on_progress`. Tasks with a mask also take `box` (x, y, width, height in pixels of the photo) instead,
    and `paste_back`, to return the whole photo with the edit in it. Raises InvalidInput and NotFound, which name the field.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def generate(self, target: str, **options: Any) -> Result:
        """Make pictures of a class: `generate("dog", seed=1, count=4)`."""
        return self._make(specs.Generate, None, None, target=target, **options)

    def maximize_class(self, image: ImageSource, target: str, **options: Any) -> Result:
        """Add the features of a class to an image."""
        return self._make(specs.MaximizeClass, image, None, target=target, **options)

    def inpaint(
        self, image: ImageSource, mask: ImageSource | None = None, target: str | None = None, **options: Any
    ) -> Result:
        """Fill the part of an image that the mask marks white."""
        return self._make(specs.Inpaint, image, mask, target=target, **options)

    def translate(self, image: ImageSource, target: str | None = None, **options: Any) -> Result:
        """Turn an image of one domain into another."""
        return self._make(specs.Translate, image, None, target=target, **options)

    def super_resolve(self, image: ImageSource, target: str | None = None, **options: Any) -> Result:
        """Enlarge an image, which is first reduced to `size / factor` pixels where it is larger."""
        return self._make(specs.SuperResolve, image, None, target=target, **options)

    def sketch_to_image(self, image: ImageSource, target: str, **options: Any) -> Result:
        """Turn a crude drawing into a picture of a class."""
        return self._make(specs.SketchToImage, image, None, target=target, **options)

    def paint_features(self, image: ImageSource, mask: ImageSource | None = None, **options: Any) -> Result:
        """Paint with a latent `unit` or a class (`target`) where the mask is white."""
        return self._make(specs.PaintFeatures, image, mask, **options)

    def classify(self, image: ImageSource, *, fit: str = "crop", top: int | None = None) -> dict[str, float]:
        """Class probabilities of an image, largest first."""
        size = self.classifier.card.size
        pixels = torch.from_numpy(imaging.to_square(imaging.decode(image), size, fit))
        found = self.classifier.probabilities(pixels[None])[0]
        order = found.argsort(descending=True)[:top].tolist()
        return {self.classifier.card.classes[i]: float(found[i]) for i in order}

    def _make(
        self, kind: type[specs.Spec], image: ImageSource | None, mask: ImageSource | None, **options: Any
    ) -> Result:
        names = {field.name for field in dataclasses.fields(kind)}
        try:
            spec = kind(**{name: value for name, value in options.items() if name in names})
            return self.make(spec, image, mask, **{name: value for name, value in options.items() if name not in names})
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None:
                raise
            raise InvalidInput(unknown[1], f"is not a parameter of {kind.task}.") from error

    def make(
        self,
        spec: specs.Spec,
        image: ImageSource | None = None,
        mask: ImageSource | None = None,
        *,
        box: Box | None = None,
        size: int | None = None,
        fit: str = "crop",
        paste_back: bool = False,
        frames: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Run any spec."""
        started = time.perf_counter()
        card = self.classifier.card
        spec = specs.with_seed(spec)
        size = card.size if size is None else size
        if not card.min_size <= size <= card.max_size:
            raise InvalidInput("size", f"is {size}; {card.name} accepts {card.min_size} to {card.max_size} pixels.")
        photo = None if image is None else imaging.decode(image)
        drawn = None if photo is None else _drawn(photo, mask, box, size)
        inputs = _inputs(spec, photo, drawn, size, fit)
        jobs = make_jobs(spec, inputs, self.classifier)
        frames_of: list[list[tuple[int, Image.Image]]] = [[(0, _to_image(job.state.x[0]))] for job in jobs]

        def progress(batch: BatchProgress) -> None:
            if frames:
                for i, pixels in zip(batch.jobs, batch.pictures, strict=True):
                    frames_of[i].append((batch.step, _to_image(pixels)))
            if on_progress is not None:
                on_progress(
                    Progress(batch.step, batch.steps, float(batch.loss.mean()), float(batch.probability.mean()))
                )

        steps = int(jobs[0].parameters["steps"])
        finished = run(
            self.classifier,
            self.classifier.device,
            [(job.problem, job.state) for job in jobs],
            chunk=max(1, steps // frames) if frames else max(1, min(10, steps // 10)),
            batch=1 if spec.exact else BUCKETS[-1],
            on_progress=progress,
        )
        geometry = {"size": size} if photo is None else {"size": size, "fit": fit, "box": box, "paste_back": paste_back}
        pictures = []
        for job, done, name, way in zip(jobs, finished, self._predict(jobs, finished), frames_of, strict=True):
            pixels = done.state.result(job.problem)[0]
            whole = None
            if paste_back and photo is not None:
                edited = None if inputs.mask is None else inputs.mask.numpy()
                whole = imaging.paste_back(photo, pixels.numpy(), edited, fit, drawn=drawn)
            pictures.append(
                _picture(
                    job,
                    done,
                    image=whole or _to_image(pixels),
                    predicted=name,
                    target=card.classes[job.target],
                    seed=spec.seed,
                    frames=tuple(way) if frames else (),
                )
            )
        return Result(
            task=spec.task,
            model=card.name,
            version=self.classifier.version,
            parameters=_parameters(spec, jobs[0], card.classes[jobs[0].target]) | geometry,
            seconds=time.perf_counter() - started,
            pictures=tuple(pictures),
        )

    def _predict(self, jobs: Sequence[Job], finished: Sequence[Finished]) -> list[str]:
        pictures = torch.cat([f.state.result(job.problem) for job, f in zip(jobs, finished, strict=True)])
        found = torch.cat([self.classifier.probabilities(part).argmax(1) for part in torch.split(pictures, 64)])
        return [self.classifier.card.classes[int(i)] for i in found]


def _drawn(photo: Image.Image, mask: ImageSource | None, box: Box | None, size: int) -> Image.Image | None:
    if mask is not None and box is not None:
        raise InvalidInput("box", "give either a mask or a box, not both.")
    if box is not None:
        return imaging.drawn_rectangle(box, photo.size)
    return None if mask is None else imaging.drawn_mask(mask, photo.size, size)


def _inputs(spec: specs.Spec, photo: Image.Image | None, drawn: Image.Image | None, size: int, fit: str) -> Inputs:
    if photo is None:
        return Inputs(size)
    picture = torch.from_numpy(imaging.to_square(photo, input_size(spec, size), fit))
    if drawn is None:
        return Inputs(size, picture)
    return Inputs(size, picture, torch.from_numpy(imaging.mask_square(drawn, photo.size, size, fit)))


def _parameters(spec: specs.Spec, job: Job, target: str) -> dict[str, Any]:
    """The spec as it really ran: defaults filled in, and the class that was predicted where none was named."""
    ran = dataclasses.asdict(spec) | dict(job.parameters)
    return ran if ran.get("unit") is not None else ran | {"target": target}


def _picture(job: Job, done: Finished, **known: Any) -> Picture:
    """The report of a finished job, beside what is `known` of it."""
    change = done.state.result(job.problem) - job.problem.center
    probabilities = tuple(done.trace.probability[:, 0].tolist())
    return Picture(
        start=_to_image(job.problem.center[0]),
        index=job.index,
        probability_before=probabilities[0],
        probability_after=float(done.state.best_probability) if bool(job.problem.use_best) else probabilities[-1],
        l2=float(l2_norm(change)),
        linf=float(change.abs().max()),
        steps=int(job.parameters["steps"]),
        losses=tuple(done.trace.loss[:, 0].tolist()),
        probabilities=probabilities,
        **known,
    )


def _to_image(pixels: Tensor) -> Image.Image:
    return imaging.to_image(pixels.numpy())


def load(model: str | Path, *, device: str | None = None, precision: str = "auto") -> Synthesizer:
    """A synthesizer for a model folder, by path or by its name in the models directory."""
    return Synthesizer(Classifier.load(model, device=device, precision=precision))
