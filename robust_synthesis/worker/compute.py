"""A worker's whole work: a bundle in, a reply out. It keeps nothing that a later bundle could not bring again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import imaging
from ..batch_sizes import batch_sizes
from ..bundle import MAX_PICTURES_BYTES, PROTOCOL, BundleError, Failure, JobReply, Output, Reply
from ..engine import graphs
from ..engine.chunk import advance
from ..engine.classifier import Classifier
from ..engine.problem import Problem, State
from ..engine.run import pad
from ..errors import InvalidInput
from ..tasks import measures, predicted_class, prepare
from ..wire import decode, encode_error, encode_reply
from .failures import NOT_A_NUMBER, failure_of
from .helpers import helpers
from .members import Held, Member, pause, segments
from .opening import open_jobs
from .problems import Problems
from .whole_job import whole_job

RUNS = 5
"""Of the warm-up for each batch size; the fastest counts. Those of the first second may be a hundred times slower, and gateways
refuse work that would take so long."""


class Compute:
    """Runs bundles with one classifier, one at a time. Nothing that a caller sends makes it raise."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.step_seconds: dict[int, float] = {}
        self.last_batches: list[tuple[int, int, float]] = []
        """(size with padding, steps, seconds) of every batch of the last bundle."""
        self.last_seconds = 0.0
        self._sizes = batch_sizes(classifier.device.type)
        self._problems = Problems()
        self._held = Held()
        self._helpers = helpers()

    def describe(self) -> dict[str, Any]:
        """What a gateway asks first, as JSON types."""
        return {
            "protocol": PROTOCOL,
            "name": self.classifier.card.name,
            "version": self.classifier.version,
            "card": self.classifier.card.to_json(),
            "device": str(self.classifier.device),
            "precision": self.classifier.precision,
            "batch_sizes": self._sizes,
            "step_seconds": {str(size): seconds for size, seconds in self.step_seconds.items()},
        }

    def warm_up(self, sizes: Sequence[int] | None = None) -> None:
        """Measure the seconds of one step for each batch size at the card's image size, until one takes over 2 s.

        By default sizes 1 and 8; on a GPU all, whose graphs are recorded when they are used first.
        """
        on_gpu = self.classifier.device.type == "cuda"
        for size in sizes or (self._sizes if on_gpu else (1, 8)):
            try:
                self._measure(size)
            except torch.OutOfMemoryError as error:
                if not self.step_seconds:
                    raise
                _free(error)  # bundles of so many jobs are halved
                break
            if self.step_seconds[size] > 2:
                break
        least = math.inf
        for size in sorted(self.step_seconds, reverse=True):
            # No batch is slower than a larger one.
            least = self.step_seconds[size] = min(self.step_seconds[size], least)

    def _measure(self, size: int) -> None:
        device, side = self.classifier.device, self.classifier.card.size
        center = torch.full((3, side, side), 0.5)
        problem = Problem.stack([Problem.single(center, target=0, epsilon=1.0, step_size=0.1)] * size).to(device)
        state = State.stack([State.start(center, 10)] * size).to(device)
        if device.type == "cuda":
            penalised = dataclasses.replace(problem, penalty_weight=torch.ones_like(problem.penalty_weight))
            for each in (penalised, problem):
                advance(self.classifier, each, state, int(state.remaining.max()))
        state, _ = advance(self.classifier, problem, state, 1)
        for _ in range(RUNS):
            started = time.perf_counter()
            advance(self.classifier, problem, state, 2)[0].x.cpu()
            seconds = (time.perf_counter() - started) / 2
            self.step_seconds[size] = min(seconds, self.step_seconds.get(size, seconds))
            if seconds > 0.5:
                break

    def whole(self, fields: Mapping[str, bytes]) -> tuple[bytes, str]:
        """A whole job from the fields of a form: the file and its content type. Raises SynthesisError."""
        return whole_job(self.classifier, fields)

    def run(self, data: bytes) -> bytes:
        """A bundle's blob -> its reply's."""
        started = time.perf_counter()
        self.last_batches, self.last_seconds = [], 0.0
        name, version = self.classifier.card.name, self.classifier.version
        try:
            bundle = decode(data)
            if bundle.model != name or bundle.version not in (None, version):
                wanted = f"{bundle.model} {bundle.version or ''}".strip()
                raise BundleError(f"model: this worker has {name} {version}, not {wanted}; ask one that has it.")
        except BundleError as error:
            return encode_error(str(error))
        self._problems.next_bundle()
        self._held.next_bundle()
        members = open_jobs(bundle.jobs, self.classifier, self._problems, self._held, self._helpers)
        jobs = [member for member in members if isinstance(member, Member)]
        for job in jobs:
            if job.problem.center.shape != jobs[0].problem.center.shape:
                job.failure = Failure(
                    "invalid", "differs from the first job's; send jobs of one size together.", "size"
                )
        running = [job for job in jobs if job.failure is None]
        for group in [[job] for job in running if job.part.exact] + [[job for job in running if not job.part.exact]]:
            self._advance(group)
        replies = _within_room([self._reply(member) for member in members])
        self.last_seconds = time.perf_counter() - started
        device, precision = str(self.classifier.device), self.classifier.precision
        return encode_reply(
            Reply(name, version, replies, self.last_seconds, self.last_batches, device, precision, holds=True)
        )

    def _advance(self, group: Sequence[Member]) -> None:
        """Run a batch to the end of its bundle; where memory is too small for it, in halves."""
        before = [job.state for job in group]
        try:
            self._steps(group)
        except Exception as error:
            if len(group) > 1:  # also finds the one job that fails
                for job, state in zip(group, before, strict=True):
                    job.state = state
                    job.loss.clear()
                    job.probability.clear()
                    job.finishing = job.paused = job.failure = None
                half = len(group) // 2
                _free(error)
                self._advance(group[:half])
                self._advance(group[half:])
            elif group:
                group[0].failure = failure_of(error)

    def _steps(self, group: Sequence[Member]) -> None:
        for k, rows in segments([(job.todo, job.todo < int(job.state.remaining)) for job in group], self._sizes):
            jobs = [group[row] for row in rows]
            self._evaluate(jobs, k)
            ended = [job for job in jobs if len(job.loss) == job.todo]
            for job in ended:
                if job.finished:
                    job.finishing = self._helpers.submit(self._finish, job, self._predicted(job))
            pause([job for job in ended if not job.finished])

    def _evaluate(self, jobs: Sequence[Member], k: int) -> None:
        """Up to k evaluations of every job, as one batch."""
        started = time.perf_counter()
        problem, state = pad(
            Problem.stack([job.problem for job in jobs]), State.stack([job.state for job in jobs]), self._sizes
        )
        state, trace = advance(self.classifier, problem, state, k)
        loss, probability, predicted = trace.loss.cpu(), trace.probability.cpu(), trace.predicted.cpu()
        self.last_batches.append((len(state), k, time.perf_counter() - started))
        for i, job in enumerate(jobs):
            evaluations = min(k, int(job.state.remaining))
            job.state = state.rows(slice(i, i + 1))
            job.loss += loss[:evaluations, i].tolist()
            job.probability += probability[:evaluations, i].tolist()
            job.predicted = int(predicted[evaluations - 1, i])

    def _predicted(self, job: Member) -> str:
        """The class of the result; one more look where its best x comes from a worker that did not say."""
        classes = self.classifier.card.classes
        found = predicted_class(job.problem, job.state, job.predicted)
        if not 0 <= found < len(classes):
            found = int(self.classifier.probabilities(job.state.result(job.problem)).argmax())
        return classes[found]

    def _reply(self, member: Member | JobReply) -> JobReply:
        if isinstance(member, JobReply):
            return member
        job = member
        if job.failure is None and not all(map(math.isfinite, job.loss)):
            job.failure = Failure.of(NOT_A_NUMBER)
        if job.failure is not None:
            return JobReply(failure=job.failure)
        if job.finishing is None:
            return JobReply(
                started=job.started,
                problem=job.sent,
                state=job.paused,
                held=job.hold(self._held),
                loss=job.loss,
                probability=job.probability,
            )
        try:
            reply = job.finishing.result()
        except Exception as error:
            return JobReply(failure=failure_of(error))
        self._problems.pop(job.address)
        return reply

    def _finish(self, job: Member, predicted: str) -> JobReply:
        """What to say of it, which a helper makes while the computing thread goes on."""
        if bool(job.problem.use_best) and not job.improved and job.part.state and job.part.state.best_x is None:
            raise InvalidInput("best_x", "is missing; send it with the bundle that finishes a job.")
        result: Tensor = job.state.result(job.problem)[0].cpu()
        output = job.part.output or Output()
        if job.part.request is not None and job.part.request.paste_back:
            picture = prepare(job.part.request, self.classifier.card).picture(result)
        else:
            picture = imaging.to_image(result.numpy())
        return JobReply(
            started=job.started,
            loss=job.loss,
            probability=job.probability,
            picture=imaging.encode(picture, output.format, output.quality),
            report={"predicted": predicted, **measures(job.problem, job.state, job.probability[-1])},
        )


def _within_room(replies: Sequence[JobReply]) -> list[JobReply]:
    """The same, but for pictures that make the reply too large: theirs come in a smaller bundle, or not at all."""
    left, kept = MAX_PICTURES_BYTES, []
    for reply in replies:
        size = len(reply.picture or b"")
        if size <= left:
            left -= size
            kept.append(reply)
        elif size > MAX_PICTURES_BYTES:
            kept.append(
                JobReply(failure=Failure("invalid", f"makes a file of {size >> 20} MiB; choose jpeg.", "format"))
            )
        else:
            kept.append(
                JobReply(failure=Failure("memory", "the pictures of its bundle are too large together.", "size"))
            )
    return kept


def _free(error: Exception) -> None:
    error.__traceback__ = None  # its frames hold the tensors of the batch that was too large
    graphs.forget()
