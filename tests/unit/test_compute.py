"""A worker's work: bundles in, replies out, whatever is in them."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load, save

from benchmarks import simulated
from robust_synthesis import imaging, specs
from robust_synthesis.batch_sizes import FINE, POWERS, padded
from robust_synthesis.bundle import (
    MAX_BYTES,
    PROTOCOL,
    Bundle,
    BundleError,
    FixedProblem,
    JobPart,
    JobReply,
    JobState,
    Output,
)
from robust_synthesis.engine.chunk import advance
from robust_synthesis.engine.classifier import Classifier
from robust_synthesis.engine.problem import LEVELS
from robust_synthesis.errors import InvalidInput
from robust_synthesis.library import Synthesizer
from robust_synthesis.requests import Request
from robust_synthesis.tasks import make_jobs, prepare
from robust_synthesis.testing import mask, picture, tiny_classifier
from robust_synthesis.wire import decode_reply, encode
from robust_synthesis.worker import compute as compute_module
from robust_synthesis.worker.compute import Compute
from robust_synthesis.worker.members import segments


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


IMAGE, MASK = png(picture(seed=3)), png(mask())
REQUESTS = (
    Request(spec=specs.Generate(target="square", seed=5)),
    Request(spec=specs.Generate(target="circle", seed=6, start="noise", norm="linf", epsilon=0.1)),
    Request(spec=specs.Inpaint(target="waves", seed=1), image=IMAGE, mask=MASK),
    Request(spec=specs.SuperResolve(factor=2, seed=1), image=IMAGE),
    Request(spec=specs.SketchToImage(target="stripes", seed=1, steps=12), image=IMAGE),
    Request(spec=specs.PaintFeatures(unit=1, seed=1, hard_mask=False), image=IMAGE, box=(2, 2, 7, 7)),
    Request(spec=specs.PaintFeatures(target="circle", seed=1), image=IMAGE, mask=MASK, paste_back=True),
    Request(spec=specs.MaximizeClass(target="waves", seed=2, random_start=True, steps=9, use_best=False), image=IMAGE),
    Request(spec=specs.Translate(target="circle", seed=1, steps=11), image=IMAGE),
)


@pytest.fixture
def classifier() -> Classifier:
    return tiny_classifier()


@pytest.fixture
def compute(classifier: Classifier) -> Compute:
    return Compute(classifier)


def ask(compute: Compute, parts: Sequence[JobPart], **known: Any) -> Sequence[JobReply]:
    return decode_reply(compute.run(encode(Bundle("tiny", parts, **known)))).jobs


def start(request: Request, steps: int = 10_001, *, exact: bool = True, index: int = 0) -> JobPart:
    return JobPart(steps, request, index, exact=exact, output=Output())


def drive(
    compute: Callable[[], Compute], request: Request, k: int, *, send: bool = False, key: str | None = None
) -> JobReply:
    """A job in chunks of k evaluations, each on the worker that `compute` gives, as a gateway would drive it; with a key, the
    worker holds it.
    """
    part = JobPart(k, request, exact=True, key=key)
    best_x, problem = None, None
    losses: list[float] = []
    while True:
        (reply,) = ask(compute(), [part])
        assert reply.failure is None
        losses += reply.loss
        if reply.picture is not None:
            return dataclasses.replace(reply, loss=losses)
        assert reply.state is not None
        problem = problem or reply.problem
        assert problem is not None
        best_x = reply.state.best_x if reply.state.best_x is not None else best_x
        last = reply.state.remaining <= k
        assert reply.held == (key is not None)
        if reply.held:
            needed = request if last and request.paste_back else None
            part = JobPart(k, needed, exact=True, key=key, held=reply.state.remaining)
            continue
        part = JobPart(
            k,
            request if last and request.paste_back else None,
            state=dataclasses.replace(reply.state, best_x=best_x if last else None),
            problem=problem if send else None,
            address=problem.address,
            exact=True,
        )


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.spec.task)
def test_a_job_is_the_librarys_bit_for_bit_however_it_is_cut(classifier: Classifier, request_: Request) -> None:
    compute = Compute(classifier)
    exact = dataclasses.replace(request_, spec=dataclasses.replace(request_.spec, exact=True))
    expected = Synthesizer(classifier).answer(exact).pictures[0]
    (whole,) = ask(compute, [start(request_)])
    for reply in (
        whole,
        drive(lambda: compute, request_, 3),
        drive(lambda: compute, request_, 3, key="job"),
        drive(lambda: Compute(classifier), request_, 4, send=True),
    ):
        assert reply.picture is not None
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(reply.picture))), np.asarray(expected.image))
        assert reply.loss == list(expected.losses)
        assert reply.report["predicted"] == expected.predicted
        assert reply.report["l2"] == expected.l2
        assert reply.report["probability_after"] == expected.probability_after


@pytest.mark.parametrize("use_best", [True, False])
def test_the_predicted_class_is_the_classifiers_for_the_result(classifier: Classifier, use_best: bool) -> None:
    # Steps as long as these lead past the best picture.
    spec = specs.Generate(
        target="circle", seed=2, start="noise", steps=9, step_size=25, epsilon=30, use_best=use_best, exact=True
    )
    prepared = prepare(Request(spec=spec), classifier.card)
    (job,) = make_jobs(spec, prepared.inputs, classifier)
    state, trace = advance(classifier, job.problem, job.state, 10)
    assert int(trace.loss.argmin()) < 9
    (reply,) = ask(Compute(classifier), [start(Request(spec=spec))])
    expected = int(classifier.probabilities(state.result(job.problem)).argmax())
    assert reply.report["predicted"] == classifier.card.classes[expected]


def test_a_worker_whose_steps_sleep_pauses_its_jobs(classifier: Classifier) -> None:
    with simulated.sleeping(0.0):
        (reply,) = ask(Compute(classifier), [start(REQUESTS[0], steps=2)])
    assert reply.state is not None
    assert reply.state.best_class == 0


def test_the_predicted_class_is_said_also_where_the_worker_before_did_not_say_it(
    classifier: Classifier,
) -> None:
    (begun,) = ask(Compute(classifier), [JobPart(4, REQUESTS[0], exact=True)])
    assert begun.state is not None
    assert begun.state.best_x is not None
    best = torch.from_numpy(begun.state.best_x.astype(np.float32)) / LEVELS
    seen = int(classifier.probabilities(best[None]).argmax())
    assert begun.state.best_class == seen
    other = (seen + 1) % len(classifier.card.classes)
    for told, said in ((other, other), (-1, seen), (999, seen)):
        unbeaten = dataclasses.replace(begun.state, best_loss=-1.0, best_class=told)
        part = JobPart(100, None, state=unbeaten, problem=begun.problem, exact=True, output=Output())
        (reply,) = ask(Compute(classifier), [part])
        assert reply.report["predicted"] == classifier.card.classes[said]


def test_what_a_worker_reports_of_a_started_job_is_what_the_library_reports(classifier: Classifier) -> None:
    (reply,) = ask(Compute(classifier), [start(REQUESTS[3])])
    expected = Synthesizer(classifier).answer(REQUESTS[3])
    assert reply.started["target"] == expected.pictures[0].target
    assert reply.started["parameters"].items() <= expected.parameters.items()
    assert reply.started["evaluations"] == expected.pictures[0].steps + 1


def test_jobs_of_all_tasks_share_a_bundle(compute: Compute) -> None:
    replies = ask(compute, [start(request, exact=False) for request in REQUESTS])
    assert all(reply.picture for reply in replies)
    sizes = [size for size, _, _ in compute.last_batches]
    assert sizes[0] == padded(len(REQUESTS), FINE)
    assert sizes == sorted(sizes, reverse=True)


def test_a_classification_is_the_librarys_and_shares_a_bundle(compute: Compute, classifier: Classifier) -> None:
    looked = Request(spec=specs.Classify(seed=1), image=IMAGE)
    broken = Request(spec=specs.Classify(seed=1), image=b"no image")
    generated, seen, failed = ask(compute, [start(REQUESTS[0]), start(looked), start(broken)])
    expected = Synthesizer(classifier).classify(IMAGE)
    assert seen.report["probabilities"] == pytest.approx(expected)
    assert list(seen.report["probabilities"]) == list(expected)
    assert (seen.report["predicted"], seen.picture, seen.state) == (next(iter(expected)), b"", None)
    assert seen.probability == pytest.approx([max(expected.values())])
    assert np.exp(-np.asarray(seen.loss)) == pytest.approx(seen.probability)
    assert generated.picture
    assert failed.failure is not None
    assert failed.failure.field == "image"


def test_each_picture_of_a_request_is_a_job(classifier: Classifier) -> None:
    request = Request(spec=specs.Generate(target="square", seed=5, count=3, exact=True))
    expected = Synthesizer(classifier).answer(request).images
    replies = ask(Compute(classifier), [start(request, index=i) for i in range(3)])
    for reply, image in zip(replies, expected, strict=True):
        assert reply.picture is not None
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(reply.picture))), np.asarray(image))


def test_jobs_that_go_on_together_end_as_those_that_were_never_cut(classifier: Classifier) -> None:
    requests = [
        dataclasses.replace(request, spec=dataclasses.replace(request.spec, steps=12)) for request in REQUESTS[:4]
    ]
    whole = ask(Compute(classifier), [start(request, exact=False) for request in requests])
    compute = Compute(classifier)
    replies = ask(compute, [start(request, 5, exact=False) for request in requests])
    best: list[Any] = [None] * 4
    addresses = [reply.problem.address for reply in replies if reply.problem is not None]
    for steps in (4, 4):
        parts = []
        for i, reply in enumerate(replies):
            assert reply.state is not None
            best[i] = reply.state.best_x if reply.state.best_x is not None else best[i]
            last = reply.state.remaining <= steps
            state = dataclasses.replace(reply.state, best_x=best[i] if last else None)
            parts.append(JobPart(steps, state=state, address=addresses[i], output=Output()))
        replies = ask(compute, parts)
    for reply, expected in zip(replies, whole, strict=True):
        assert reply.picture is not None
        assert reply.picture == expected.picture
        assert reply.report == expected.report


def test_a_job_that_has_finished_stops_costing_compute(compute: Compute) -> None:
    steps = (2, 2, 2, 30)
    parts = [
        start(Request(spec=specs.Generate(target="square", seed=i, steps=n)), exact=False) for i, n in enumerate(steps)
    ]
    ask(compute, parts)
    assert [(size, k) for size, k, _ in compute.last_batches] == [(4, 3), (1, 28)]


@pytest.mark.parametrize(
    ("sizes", "jobs", "expected"),
    [
        (POWERS, [(5, False)], [(5, 1)]),
        (POWERS, [(5, True), (5, True), (2, False)], [(2, 3), (3, 2)]),
        (POWERS, [(4, False), (4, False), (4, False), (9, False), (9, False)], [(4, 5), (5, 2)]),
        (POWERS, [(2, False), (4, False), (4, False), (9, False), (9, False)], [(2, 5), (2, 4), (5, 2)]),
        (POWERS, [(1, True), (3, True)], [(1, 2), (2, 1)]),
        (FINE, [(2, False), (4, False), (9, False), (9, False)], [(2, 4), (2, 3), (5, 2)]),
        (FINE, [(2, False), (4, False), *[(9, False)] * 8], [(4, 10), (5, 8)]),
    ],
)
def test_segments_end_where_a_batch_can_shrink(
    sizes: Sequence[int], jobs: Sequence[tuple[int, bool]], expected: Sequence[tuple[int, int]]
) -> None:
    assert [(k, len(rows)) for k, rows in segments(jobs, sizes)] == expected


def broken_parts(state: JobState, problem: FixedProblem) -> list[tuple[str, JobPart]]:
    """(field that the failure names, a job part that cannot be run)."""

    def going_on(**changes: Any) -> JobPart:
        return JobPart(2, state=dataclasses.replace(state, **changes), problem=problem)

    def having(**scalars: Any) -> JobPart:
        return JobPart(2, state=state, problem=dataclasses.replace(problem, scalars={**problem.scalars, **scalars}))

    small = np.zeros((3, 8, 8), np.uint16)
    return [
        ("steps", JobPart(0, state=state, problem=problem)),
        ("steps", JobPart(1_000_000, state=state, problem=problem)),
        ("state", JobPart(2)),
        ("held", JobPart(2, held=3)),
        ("held", JobPart(2, key="job", held=0)),
        ("held", JobPart(2, key="job", held=3, state=state, problem=problem)),
        ("held", JobPart(2, key="job", held=3)),
        ("problem", JobPart(2, state=state)),
        ("problem", JobPart(2, state=state, address="f" * 32)),
        ("x", going_on(x=small)),
        ("x", going_on(x=state.x.astype(np.float32))),
        ("x", going_on(x=state.x[:, :, :8])),
        ("best_x", going_on(best_x=small)),
        ("remaining", going_on(remaining=0)),
        ("best_x", going_on(remaining=1, best_loss=-1e9, best_x=None)),
        ("mask", JobPart(2, state=state, problem=dataclasses.replace(problem, mask=small[:1]))),
        ("problem.target", having(target=4)),
        ("problem.unit", having(unit=-1)),
        ("problem.norm", having(norm=7)),
        ("problem.epsilon", having(epsilon=-1.0)),
        ("problem.step_size", having(step_size="far")),
        ("problem.surprise", having(surprise=1)),
        ("image", start(dataclasses.replace(REQUESTS[3], image=IMAGE[:60]))),
        ("class", start(Request(spec=specs.Generate(target="octagon", seed=1)))),
        ("seed", start(Request(spec=specs.Generate(target="square")))),
        ("size", start(Request(spec=specs.Generate(target="square", seed=1), size=1000))),
        ("size", start(Request(spec=specs.Generate(target="square", seed=1), size=24))),
        ("index", start(Request(spec=specs.Generate(target="square", seed=1)), index=1)),
    ]


def test_each_broken_job_fails_alone_and_names_its_field(compute: Compute) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0])])
    assert begun.state is not None
    assert begun.problem is not None
    good = start(REQUESTS[0])
    (alone,) = ask(compute, [good])
    for field, part in broken_parts(begun.state, begun.problem):
        first, failed, last = ask(compute, [good, part, good])
        assert failed.failure is not None
        assert field in failed.failure.field or field in failed.failure.message, failed.failure
        assert failed.failure.message.endswith(".")
        assert first.picture == last.picture == alone.picture


@pytest.mark.parametrize("name", ["x", "problem.center"])
def test_a_tensor_that_is_missing_fails_its_job_alone_and_is_named(compute: Compute, name: str) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0])])
    assert begun.state is not None
    finishing = JobPart(100, None, 0, begun.state, begun.problem, output=Output())
    data = encode(Bundle("tiny", [start(REQUESTS[0]), finishing]))
    (length,) = struct.unpack_from("<Q", data)
    tensors = load(data)
    del tensors[f"1.{name}"]
    reply = compute.run(save(tensors, metadata=json.loads(data[8 : 8 + length])["__metadata__"]))
    whole, failed = decode_reply(reply).jobs
    assert whole.picture
    assert failed.failure is not None
    assert failed.failure.field == name.removeprefix("problem.")


@pytest.mark.parametrize("field", ["best_loss", "best_probability", "best_class"])
def test_a_number_that_is_none_fails_its_job_alone_and_is_named(compute: Compute, field: str) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0])])
    assert begun.state is not None
    going_on = JobPart(
        2,
        None,
        0,
        dataclasses.replace(begun.state, best_loss=0.125, best_probability=0.375, best_class=2147483647),
        begun.problem,
    )
    data = encode(Bundle("tiny", [start(REQUESTS[0]), going_on]))
    number, none = {
        "best_loss": (b"0.125", b"NaN  "),
        "best_probability": (b"0.375", b"NaN  "),
        "best_class": (b"2147483647", b"9999999999"),
    }[field]
    assert data.count(number) == 1
    whole, failed = decode_reply(compute.run(data.replace(number, none))).jobs
    assert whole.picture
    assert failed.failure is not None
    assert failed.failure.field == f"state.{field}"


def test_helpers_compute_with_one_thread_each_and_the_engine_with_all(classifier: Classifier) -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compute = Compute(classifier)
        seen = set(compute._helpers.map(lambda _: torch.get_num_threads(), range(50)))
        with ThreadPoolExecutor(1) as engine:  # a thread that has not used torch before
            assert (seen, engine.submit(torch.get_num_threads).result()) == ({1}, 3)
    finally:
        torch.set_num_threads(usual)


def test_a_loss_that_is_not_a_number_fails_its_job_only(compute: Compute, classifier: Classifier) -> None:
    with torch.no_grad():
        classifier.network.fc.bias[0] = torch.nan
    failed, _ = ask(compute, [start(REQUESTS[0]), start(REQUESTS[5])])
    assert failed.failure is not None
    assert failed.failure.field == "loss"


def test_of_jobs_that_pause_together_only_the_one_whose_gradient_is_not_a_number_fails(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Classifier.logits_and_latent

    def steep(self: Classifier, x: torch.Tensor, fake_relu: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, latent = real(self, x, fake_relu)
        return logits + ((0 * x).sum((1, 2, 3)) + torch.arange(len(x))).sqrt()[:, None], latent

    monkeypatch.setattr(Classifier, "logits_and_latent", steep)
    broken, sound = ask(compute, [JobPart(1, REQUESTS[0]), JobPart(1, REQUESTS[0])])
    assert broken.failure is not None
    assert broken.failure.field == "loss"
    assert sound.failure is None
    assert sound.state is not None


@pytest.mark.parametrize("k", [1, 40])
def test_a_gradient_that_is_not_a_number_fails_its_job_wherever_the_chunks_end(
    compute: Compute, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    real = Classifier.logits_and_latent

    def steep(
        self: Classifier, x: torch.Tensor, fake_relu: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits, latent = real(self, x, fake_relu)
        return logits + (0 * x).sum((1, 2, 3)).sqrt()[:, None], latent  # the slope of a root at 0

    monkeypatch.setattr(Classifier, "logits_and_latent", steep)
    (reply,) = ask(compute, [JobPart(k, REQUESTS[0], exact=True)])
    assert reply.failure is not None
    assert reply.failure.field == "loss"


def broken_headers(header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The header with one value after another replaced by each of several that make no sense there."""
    junk: tuple[Any, ...] = (None, True, -1, 10**400, 1e300, math.nan, "x", [], [1], {}, {"x": [[]]})

    def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield (*path, key)
            yield from places(value[key], (*path, key))

    for *path, last in places(header):
        for wrong in junk:
            broken = json.loads(json.dumps(header))
            place = broken
            for key in path:
                place = place[key]
            place[last] = wrong
            yield broken


def test_no_header_makes_a_worker_raise_and_no_job_suffers_from_another(compute: Compute) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[6])])
    assert begun.state is not None
    going_on = JobPart(1, REQUESTS[6], 0, begun.state, begun.problem, output=Output())
    starting = JobPart(1, dataclasses.replace(REQUESTS[5], size=16))
    data = encode(Bundle("tiny", [going_on, starting, JobPart(1, REQUESTS[0])], compute.classifier.version))
    (length,) = struct.unpack_from("<Q", data)
    tensors = json.loads(data[8 : 8 + length])
    header = json.loads(tensors["__metadata__"]["bundle"])
    ran = 0
    for broken in broken_headers(header):
        tensors["__metadata__"]["bundle"] = json.dumps(broken)
        text = json.dumps(tensors).encode()
        reply = compute.run(struct.pack("<Q", len(text)) + text + data[8 + length :])
        if isinstance(broken["jobs"], list) and len(broken["jobs"]) == 3 and broken["jobs"][:2] != header["jobs"][:2]:
            assert decode_reply(reply).jobs[2].failure is None
            ran += 1
    assert ran > 500


@pytest.mark.parametrize("data", [b"", b"hello", b"\x10" + bytes(7) + b'{"a":1}         ', bytes(200)])
def test_what_is_no_bundle_gets_a_clear_error(compute: Compute, data: bytes) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        decode_reply(compute.run(data))


def test_a_truncated_bundle_gets_a_clear_error(compute: Compute) -> None:
    data = encode(Bundle("tiny", [start(REQUESTS[3])]))
    with pytest.raises(BundleError, match="send the whole blob"):
        decode_reply(compute.run(data[:-100]))


def test_a_bundle_of_another_protocol_gets_a_version_error(compute: Compute) -> None:
    data = encode(Bundle("tiny", [start(REQUESTS[0])]))
    newer = data.replace(f'\\"protocol\\": {PROTOCOL}'.encode(), f'\\"protocol\\": {PROTOCOL + 1}'.encode())
    assert newer != data
    with pytest.raises(BundleError, match="speaks bundle protocol 1, the other 2"):
        decode_reply(compute.run(newer))


def test_a_bundle_for_another_classifier_gets_a_clear_error(compute: Compute) -> None:
    with pytest.raises(BundleError, match="this worker has tiny"):
        ask(compute, [start(REQUESTS[0])], version="0123456789abcdef")


def test_out_of_memory_splits_the_batch_and_goes_on(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = Compute._steps

    def limited(self: Compute, group: Sequence[Any]) -> None:
        sizes.append(len(group))
        if len(group) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, group)

    parts = [start(Request(spec=specs.Generate(target="square", seed=i)), exact=False) for i in range(5)]
    expected = [reply.picture for reply in ask(compute, [dataclasses.replace(part, exact=True) for part in parts])]
    monkeypatch.setattr(Compute, "_steps", limited)
    replies = ask(compute, parts)
    assert sizes == [5, 2, 3, 1, 2]
    assert replies[2].picture == expected[2]
    assert all(reply.picture for reply in replies)


def test_one_job_that_does_not_fit_into_memory_says_so(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Compute, group: Sequence[Any]) -> None:
        if group:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Compute, "_steps", none)
    (reply,) = ask(compute, [start(REQUESTS[0])])
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.field) == ("memory", "size")


def test_pictures_that_do_not_fit_into_a_reply_come_in_a_smaller_bundle_or_are_refused(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [start(Request(spec=specs.Generate(target="square", seed=i))) for i in range(3)]
    files = [reply.picture or b"" for reply in ask(compute, parts)]
    monkeypatch.setattr(compute_module, "MAX_PICTURES_BYTES", len(files[0]) + len(files[1]))
    replies = ask(compute, parts)
    assert [reply.picture for reply in replies] == [*files[:2], None]
    assert [reply.failure and reply.failure.kind for reply in replies] == [None, None, "memory"]
    assert ask(compute, parts[2:])[0].picture == files[2]
    monkeypatch.setattr(compute_module, "MAX_PICTURES_BYTES", len(files[2]) - 1)
    (refused,) = ask(compute, parts[2:])
    assert refused.failure is not None
    assert (refused.failure.kind, refused.failure.field) == ("invalid", "format")


def test_a_classifier_whose_weights_are_not_numbers_fails_to_classify_and_gives_a_reply(classifier: Classifier) -> None:
    with torch.no_grad():
        classifier.network.fc.weight.fill_(math.nan)
    (reply,) = ask(Compute(classifier), [start(Request(spec=specs.Classify(), image=IMAGE))])
    assert reply.failure is not None
    assert reply.failure.kind == "internal"


def test_the_largest_request_fits_into_a_bundle_that_finishes_it() -> None:
    file = bytes(imaging.MAX_BYTES)
    request = Request(spec=specs.Inpaint(target="waves", seed=1), image=file, mask=file, paste_back=True)
    levels = np.zeros((3, 1024, 1024), np.uint16)
    problem = FixedProblem(levels, levels[:1], {"epsilon": 1.0})
    state = JobState(levels, 10, best_x=levels)
    blob = encode(Bundle("tiny", [JobPart(10, request, state=state, problem=problem, output=Output())]))
    assert len(blob) <= MAX_BYTES


def test_an_unknown_problem_is_asked_for(compute: Compute) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0])])
    assert begun.state is not None
    assert begun.problem is not None
    part = JobPart(100, state=begun.state, address=begun.problem.address, exact=True)
    (known,) = ask(compute, [part])
    assert known.picture is not None
    (forgotten,) = ask(compute, [part])  # a job that is done leaves nothing behind
    assert forgotten.failure is not None
    assert forgotten.failure.kind == "unknown_problem"


def test_a_job_is_held_once_and_only_where_it_stands(compute: Compute) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0], key="job")])
    assert begun.held
    assert begun.state is not None
    left = begun.state.remaining
    (elsewhere,) = ask(compute, [JobPart(2, key="job", held=left - 1)])
    (gone,) = ask(compute, [JobPart(2, key="job", held=left)])
    for reply in (elsewhere, gone):
        assert reply.failure is not None
        assert reply.failure.kind == "unknown_state"


def test_a_job_is_held_only_where_the_picture_of_lowest_loss_is_known(compute: Compute) -> None:
    (begun,) = ask(compute, [JobPart(3, REQUESTS[0])])
    assert not begun.held
    assert begun.state is not None
    state = dataclasses.replace(begun.state, best_loss=-1e9)  # nothing found later is better
    for best_x in (None, state.x):
        sent = dataclasses.replace(state, best_x=best_x)
        (reply,) = ask(compute, [JobPart(2, state=sent, problem=begun.problem, key="job")])
        assert reply.failure is None
        assert reply.held == (best_x is not None)


def test_a_job_that_failed_is_not_held(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0], key="job")])
    assert begun.state is not None
    with monkeypatch.context() as patched:
        patched.setattr(compute_module, "advance", _raise)
        (failed,) = ask(compute, [JobPart(2, key="job", held=begun.state.remaining)])
        assert failed.failure is not None
        assert failed.failure.kind == "internal"
    (reply,) = ask(compute, [JobPart(2, key="job", held=begun.state.remaining)])
    assert reply.failure is not None
    assert reply.failure.kind == "unknown_state"


def test_a_job_for_which_there_is_too_little_memory_is_not_held(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute._held, "put", _out_of_memory)
    (begun,) = ask(compute, [JobPart(2, REQUESTS[0], key="job")])
    assert begun.state is not None
    assert not begun.held


def _out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError


def _raise(*_: Any) -> None:
    raise RuntimeError("oops")


def test_a_form_gets_a_picture_or_a_report(compute: Compute, classifier: Classifier) -> None:
    form = {"task": b"inpaint", "target": b"waves", "seed": b"1", "exact": b"true", "image": IMAGE, "mask": MASK}
    body, kind = compute.whole(form)
    expected = Synthesizer(classifier).inpaint(IMAGE, MASK, "waves", seed=1, exact=True)
    assert kind == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), np.asarray(expected.image))
    report, kind = compute.whole({"task": b"generate", "target": b"square", "count": b"2", "format": b"json"})
    assert kind == "application/json"
    assert len(json.loads(report)["pictures"]) == 2


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("task", {}),
        ("task", {"task": b"juggle"}),
        ("steps", {"task": b"generate", "target": b"square", "steps": b"many"}),
        ("steps", {"task": b"generate", "target": b"square", "steps": b"0"}),
        ("target", {"task": b"generate"}),
        ("colour", {"task": b"generate", "target": b"square", "colour": b"red"}),
        ("count", {"task": b"generate", "target": b"square", "count": b"2"}),
        ("exact", {"task": b"generate", "target": b"square", "exact": b"maybe"}),
        ("format", {"task": b"generate", "target": b"square", "format": b"bmp"}),
        ("image", {"task": b"maximize_class", "target": b"square"}),
        ("image", {"task": b"generate", "target": b"square", "image": IMAGE}),
        ("mask", {"task": b"inpaint", "image": IMAGE}),
        ("target", {"task": b"generate", "target": b"\xff"}),
    ],
)
def test_a_form_that_cannot_be_used_names_its_field(compute: Compute, field: str, form: dict[str, bytes]) -> None:
    with pytest.raises(InvalidInput) as caught:
        compute.whole(form)
    assert caught.value.field == field


def test_a_slow_first_use_is_no_step_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Compute(tiny_classifier())
    taken = [0.4, 0.3, 0.3, 0.3, 0.01, 0.3, 0.006, 0.3, 0.3, 0.3]  # by two steps
    ticks = iter([tick for seconds in taken for tick in (0.0, seconds)])
    monkeypatch.setattr("robust_synthesis.worker.compute.time.perf_counter", lambda: next(ticks))
    compute.warm_up()
    assert compute.step_seconds == {1: pytest.approx(0.003), 8: pytest.approx(0.003)}


@pytest.mark.parametrize("size", [1, 8])
def test_batches_that_memory_is_too_small_for_are_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    compute = Compute(tiny_classifier())
    measure = compute._measure

    def measuring(jobs: int) -> None:
        if jobs == size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        measure(jobs)

    monkeypatch.setattr(compute, "_measure", measuring)
    if size == 1:
        with pytest.raises(torch.OutOfMemoryError):
            compute.warm_up()
    else:
        compute.warm_up()
        assert list(compute.step_seconds) == [1]
