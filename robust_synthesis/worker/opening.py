"""The beginning of a bundle: what was sent for each job becomes tensors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from ..bundle import Failure, JobPart, JobReply, JobState
from ..engine.classifier import Classifier
from ..engine.problem import Problem
from ..errors import InvalidInput
from ..model_folder import Card
from ..requests import Request
from ..specs import Spec
from ..tasks import Inputs, make_job, prepare, ran_with
from . import transport
from .failures import failure_of
from .members import Held, Member
from .problems import Problems


def open_jobs(
    parts: Sequence[JobPart | Failure], classifier: Classifier, problems: Problems, held: Held, helpers: Executor
) -> list[Member | JobReply]:
    """A member for each part, or a reply where there is nothing to descend to.

    Photographs of those that start are read by the helpers, outside the interpreter's lock; what else there is to start are many
    short operations, for which they would wait for each other. Those that go on become tensors together, if they are not
    tensors still.
    """
    starting = {
        i: (part, part.request)
        for i, part in enumerate(parts)
        if isinstance(part, JobPart) and part.state is None and part.held is None and part.request is not None
    }
    reading = {
        i: helpers.submit(_read, request, classifier.card)
        for i, (_, request) in starting.items()
        if request.image is not None
    }
    opened = _go_on({i: part for i, part in enumerate(parts) if i not in starting}, classifier, problems, held)
    for i, (part, request) in starting.items():
        try:
            inputs = reading.pop(i).result() if i in reading else _read(request, classifier.card)
            if request.spec.descends:
                opened[i] = _start(part, request.spec, inputs, classifier, problems)
            else:
                opened[i] = _classify(inputs, classifier)
        except Exception as error:
            opened[i] = JobReply(failure=failure_of(error))
    return [opened[i] for i in range(len(parts))]


def _read(request: Request, card: Card) -> Inputs:
    """Without the photograph, which may be large."""
    return prepare(request, card).inputs


def _classify(inputs: Inputs, classifier: Classifier) -> JobReply:
    """The probability of every class, likeliest first; the loss is that of the first."""
    (found,) = classifier.probabilities(inputs.picture[None])
    order = found.argsort(descending=True, stable=True).tolist()
    probabilities = {classifier.card.classes[i]: float(found[i]) for i in order}
    first = float(found[order[0]])
    if not math.isfinite(first):
        raise ArithmeticError("the classifier's answer is not a number")
    report = {"predicted": classifier.card.classes[order[0]], "probabilities": probabilities}
    return JobReply(loss=[-math.log(first)], probability=[first], picture=b"", report=report)


def _start(part: JobPart, spec: Spec, inputs: Inputs, classifier: Classifier, problems: Problems) -> Member:
    if spec.seed is None:
        raise InvalidInput("seed", "is missing; a gateway chooses it, so that a retry computes the same picture.")
    job = make_job(spec, inputs.number(part.index), classifier)
    evaluations = int(job.state.remaining)
    todo = min(part.steps, evaluations)
    sent = transport.fixed(job.problem) if todo < evaluations else None  # one that ends here needs none
    started = {
        "parameters": ran_with(spec, job, classifier.card.classes) | {"size": inputs.size},
        "target": classifier.card.classes[job.target],
        "evaluations": evaluations,
    }
    problem = job.problem.to(classifier.device)
    if sent:
        transport.checked(sent.scalars, classifier)  # as it will be where it is sent
        problem = problems.keep(sent, problem)
    state = job.state.to(classifier.device)
    return Member(part, problem, state, todo, sent.address if sent else "", sent=sent, started=started)


def _go_on(
    parts: Mapping[int, JobPart | Failure], classifier: Classifier, problems: Problems, held: Held
) -> dict[int, Member | JobReply]:
    opened: dict[int, Member | JobReply] = {}
    sizes: defaultdict[int, dict[int, tuple[JobPart, JobState, Problem]]] = defaultdict(dict)
    for i, part in parts.items():
        try:
            if isinstance(part, Failure):
                opened[i] = JobReply(failure=part)
            elif part.held is not None:
                opened[i] = _take_up(part, part.held, held)
            elif (problem := _problem(part, classifier, problems)) is None:
                unknown = Failure("unknown_problem", "this worker does not have it; send it again.", "problem")
                opened[i] = JobReply(failure=unknown)
            else:
                assert part.state is not None
                sizes[part.state.x.shape[-1]][i] = part, part.state, problem
        except Exception as error:
            opened[i] = JobReply(failure=failure_of(error))
    for going in sizes.values():
        try:
            states = transport.states([sent for _, sent, _ in going.values()], classifier.device)
        except Exception as error:  # there is too little memory for all of them
            opened |= dict.fromkeys(going, JobReply(failure=failure_of(error)))
            continue
        for row, (i, (part, sent, problem)) in enumerate(going.items()):
            state = states.rows(slice(row, row + 1))
            todo = min(part.steps, sent.remaining)
            opened[i] = Member(part, problem, state, todo, str(part.address), sent.best_loss)
    return opened


def _take_up(part: JobPart, remaining: int, held: Held) -> Member | JobReply:
    """A job that the worker holds. It is held no longer: where this bundle is lost, it goes on from an earlier state."""
    found = held.pop(str(part.key))
    if found is None or int(found.state.remaining) != remaining:
        unknown = Failure("unknown_state", "this worker does not hold it; send its state.", "held")
        return JobReply(failure=unknown)
    return Member(part, found.problem, found.state, min(part.steps, remaining), found.address, found.best_loss)


def _problem(part: JobPart, classifier: Classifier, problems: Problems) -> Problem | None:
    """Of a job that goes on; None for one that this worker does not have. Raises InvalidInput where the state does not fit."""
    assert part.state is not None
    problem = problems.get(str(part.address)) if part.problem is None else problems.add(part.problem, classifier)
    if problem is not None and problem.center.shape[1:] != part.state.x.shape:
        raise InvalidInput("x", f"has shape {part.state.x.shape}, but the problem's centre is another's.")
    return problem
