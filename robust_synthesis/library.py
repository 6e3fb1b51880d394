"""Every task in this process, for people who want pictures rather than a service."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import imaging, specs
from .batch_sizes import LARGEST
from .engine.classifier import Classifier
from .engine.run import Progress as BatchProgress
from .engine.run import run
from .frames import evenly, stride
from .methods import TaskMethods
from .requests import Box, ImageSource, Request
from .results import Picture, Progress, Result
from .tasks import make_jobs, measures, predicted_class, prepare, ran_with

OnProgress = Callable[[Progress], None]


class Synthesizer(TaskMethods[Result]):
    """All synthesis tasks with one classifier.

    Every task takes, beside what its spec in `robust_synthesis.specs` names, `size` (side of the result in pixels, default
    the classifier's), `fit` (crop, pad or stretch: how a photo becomes a square), `frames` (how many pictures of the way
    there to keep, the result among them, beside the start) and `on_progress`. Tasks with an image also take `paste_back`, to
    return the whole photo with the edit in it, and those with a mask a `box` (x, y, width, height in pixels of the photo)
    instead. Raises InvalidInput and NotFound, which name the field.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def side(self) -> int:
        """Of results where no size is asked for, pixels."""
        return self.classifier.card.size

    def classify(self, image: ImageSource, *, fit: str = "crop", top: int | None = None) -> dict[str, float]:
        """Class probabilities of an image, largest first."""
        size = self.classifier.card.size
        pixels = torch.from_numpy(imaging.to_square(imaging.decode(image), size, fit))
        found = self.classifier.probabilities(pixels[None])[0]
        order = found.argsort(descending=True)[:top].tolist()
        return {self.classifier.card.classes[i]: float(found[i]) for i in order}

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
        spec = specs.with_seed(spec)
        request = Request(spec=spec, image=image, mask=mask, box=box, size=size, fit=fit, paste_back=paste_back)
        return self.answer(request, frames=frames, on_progress=on_progress)

    def answer(self, request: Request, *, frames: int = 0, on_progress: OnProgress | None = None) -> Result:
        """Run a request; one whose spec has no seed gets one."""
        started = time.perf_counter()
        request = dataclasses.replace(request, spec=specs.with_seed(request.spec))
        spec, card = request.spec, self.classifier.card
        prepared = prepare(request, card)
        jobs = make_jobs(spec, prepared.inputs, self.classifier)
        frames_of: list[list[tuple[int, Image.Image]]] = [[(0, _to_image(job.state.x[0]))] for job in jobs]

        def progress(batch: BatchProgress) -> None:
            if frames and batch.step < batch.steps:
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
            chunk=stride(steps, frames) if frames else max(1, min(10, steps // 10)),
            batch=1 if spec.exact else LARGEST,
            on_progress=progress,
        )
        geometry = (
            {} if request.image is None else {name: getattr(request, name) for name in ("fit", "box", "paste_back")}
        )
        unit = getattr(spec, "unit", None)
        pictures = []
        for job, done, way in zip(jobs, finished, frames_of, strict=True):
            pixels = done.state.result(job.problem)[0]
            pictures.append(
                Picture(
                    image=prepared.picture(pixels),
                    start=_to_image(job.problem.center[0]),
                    target=card.classes[job.target] if unit is None else str(unit),
                    seed=spec.seed,
                    index=job.index,
                    predicted=card.classes[predicted_class(job.problem, done.state, int(done.trace.predicted[-1, 0]))],
                    steps=steps,
                    losses=tuple(done.trace.loss[:, 0].tolist()),
                    probabilities=tuple(done.trace.probability[:, 0].tolist()),
                    frames=(way[0], *evenly([*way[1:], (steps, _to_image(pixels))], frames)) if frames else (),
                    probability_before=float(done.trace.probability[0, 0]),
                    **measures(job.problem, done.state, float(done.trace.probability[-1, 0])),
                )
            )
        return Result(
            task=spec.task,
            model=card.name,
            version=self.classifier.version,
            precision=self.classifier.precision,
            device=str(self.classifier.device),
            parameters=ran_with(spec, jobs[0], card.classes) | {"size": prepared.inputs.size} | geometry,
            seconds=time.perf_counter() - started,
            pictures=tuple(pictures),
        )


def _to_image(pixels: Tensor) -> Image.Image:
    return imaging.to_image(pixels.numpy())


def load(model: str | Path, *, device: str | None = None, precision: str = "auto") -> Synthesizer:
    """A synthesizer for a model folder, by path or by its name in the models directory.

    `precision` is one of `precisions.PRECISIONS`; InvalidInput is raised for one that is not to be had here.
    """
    return Synthesizer(Classifier.load(model, device=device, precision=precision))
