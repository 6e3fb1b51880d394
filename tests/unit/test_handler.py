"""The TorchServe handler, driven as a TorchServe worker process drives it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from robust_synthesis.bundle import Bundle, JobPart, Output
from robust_synthesis.requests import Request
from robust_synthesis.shipped import HANDLER, METRICS, MODEL_CONFIG, shipped
from robust_synthesis.specs import Generate
from robust_synthesis.testing import SIZE, tiny_model_folder
from robust_synthesis.wire import decode_reply, encode

Answer = tuple[int, str, dict[str, str], bytes]
"""Status, content type, other headers, body."""


@contextlib.contextmanager
def torchserve() -> Iterator[None]:
    """Its modules leave the files that they read to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthesis", shipped(HANDLER))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with torchserve():
        spec.loader.exec_module(module)
    return module


class Worker:
    """The Python side of TorchServe with one model loaded, without its sockets."""

    def __init__(self, module: ModuleType, folder: Path, metrics: Path) -> None:
        from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
        from ts.service import Service
        from ts.utils.util import list_classes_from_module

        (handler,) = list_classes_from_module(module)
        self.handler = handler()
        with torchserve():
            cache = MetricsCacheYamlImpl(str(metrics))
        cache.initialize_cache()
        cache.model_name = "tiny"
        self.service = Service("tiny", str(folder), None, self.handler.handle, None, 1, metrics_cache=cache)
        self.handler.initialize(self.service.context)
        self.service.set_cl_socket(None)

    def __call__(self, *, grpc: bool = False, **fields: Any) -> Answer:
        parameters = [{"name": name, "value": value, "contentType": ""} for name, value in fields.items()]
        headers = [] if grpc else [{"name": b"Host", "value": b"127.0.0.1"}]
        request = {"requestId": b"some-id", "headers": headers, "parameters": parameters}
        return _unpack(bytes(self.service.predict([request])))


def _unpack(message: bytes) -> Answer:
    """What TorchServe's frontend reads: of one request, or of an error."""
    stream = io.BytesIO(message)

    def number() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def text() -> str:
        return stream.read(number()).decode()

    status, reason = number(), text()
    assert text() == "some-id"
    content_type, code, _ = text(), number(), text()
    headers = {text(): text() for _ in range(number())}
    body = stream.read(number())
    assert number() == -1
    assert code == status
    return status, content_type, headers, body if status == 200 else reason.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny").path


@pytest.fixture(scope="module")
def worker(module: ModuleType, folder: Path) -> Worker:
    return Worker(module, folder, shipped(METRICS))


@pytest.fixture
def emitted(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Names and labels of the metrics that a worker has printed, of which TorchServe reads the output."""
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        found = [re.match(r"\[METRICS\](\w+)\.\w+:[0-9.e-]+\|#([^|]*)\|#type:(\w+)", line) for line in lines]
        return [f"{match[1]}{{{match[2]}}}" for match in found if match and match[3] == "HISTOGRAM"]

    return read


def bundle(steps: int = 4, jobs: int = 3, *, exact: bool = False) -> bytes:
    request = Request(spec=Generate(target="circle", seed=1, steps=steps))
    return encode(Bundle("tiny", [JobPart(steps + 1, request, exact=exact, output=Output())] * jobs))


def test_a_bundle_is_computed_and_measured(worker: Worker, emitted: Callable[[], list[str]]) -> None:
    status, content_type, _, body = worker(bundle=bytearray(bundle()))
    assert (status, content_type) == (200, "application/octet-stream")
    reply = decode_reply(body)
    assert [Image.open(io.BytesIO(job.picture or b"")).size for job in reply.jobs] == [(SIZE, SIZE)] * 3
    assert emitted() == [
        "ts_bundle_seconds{ModelName:tiny,Level:Model}",
        "ts_batch_size{ModelName:tiny,Level:Model}",
        "ts_step_seconds{ModelName:tiny,Level:Model,BatchSize:3}",
    ]


def test_a_bundle_that_cannot_be_read_is_answered_in_band(worker: Worker, emitted: Callable[[], list[str]]) -> None:
    status, _, _, body = worker(bundle=b"no bundle")
    assert status == 200
    assert b"is not a bundle of this service" in body
    assert emitted() == []


def test_without_our_metrics_a_bundle_is_computed_all_the_same(
    module: ModuleType, folder: Path, emitted: Callable[[], list[str]]
) -> None:
    stock = Path(sys.modules["ts"].__file__ or "").parent / "configs" / "metrics.yaml"
    answer = Worker(module, folder, stock)(bundle=bundle(exact=True))
    assert len(decode_reply(answer[3]).jobs) == 3
    assert emitted() == []


def test_a_form_gives_a_picture_of_the_format_that_it_asks_for(worker: Worker) -> None:
    form: dict[str, Any] = {
        "task": "generate",
        "target": "circle",
        "seed": "1",
        "steps": "2",
    }  # TorchServe makes text of text
    for format in ("png", "jpeg", "webp"):
        status, content_type, _, body = worker(**form, format=bytearray(format.encode()))
        assert (status, content_type) == (200, f"image/{format}")
        picture = Image.open(io.BytesIO(body))
        assert (picture.format, picture.size) == (format.upper(), (SIZE, SIZE))
    status, content_type, _, body = worker(**form, format="json", count="2")
    assert (status, content_type) == (200, "application/json")
    assert len(json.loads(body)["pictures"]) == 2


def test_a_json_object_is_as_good_as_a_form(worker: Worker) -> None:
    given = {"task": "generate", "target": "circle", "seed": 1, "steps": 2, "random_start": True}
    form: dict[str, Any] = {name: json.dumps(value).strip('"') for name, value in given.items()}
    assert worker(body=given) == worker(**form)
    assert worker(body=given)[0] == 200


def test_describe_is_json_that_has_the_card(worker: Worker) -> None:
    status, content_type, _, body = worker(describe=b"")
    assert (status, content_type) == (200, "application/json")
    described = json.loads(body)
    assert described["name"] == "tiny"
    assert set(described["step_seconds"]) == {"1", "8"}


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("target", {"task": "generate", "target": "dog"}),
        ("task", {"task": "paint"}),
        ("task", {}),
        ("body", {"body": b"\xff\xfe"}),
        ("body", {"body": [1]}),
        ("steps", {"task": "generate", "target": "circle", "steps": "0"}),
        ("sise", {"task": "generate", "target": "circle", "sise": "16"}),
        ("image", {"task": "sketch_to_image", "target": "circle"}),
        ("image", {"task": "sketch_to_image", "target": "circle", "image": b"GIF89a"}),
        ("image", {"task": "sketch_to_image", "target": "circle", "image": {"a": 1}}),
        ("target", {"task": "generate", "target": b"\xff"}),
        ("format", {"task": "generate", "target": "circle", "format": "tiff"}),
        ("size", {"task": "generate", "target": "circle", "size": "100000"}),
    ],
)
def test_bad_input_is_a_400_whose_sentence_names_the_field(worker: Worker, field: str, form: dict[str, Any]) -> None:
    status, _, _, message = worker(**form)
    assert status == 400
    assert message.decode().startswith(f"{field}: ")
    assert message.endswith(b".")
    assert b"\n" not in message


def test_a_bug_is_a_500_and_too_little_memory_a_507_and_the_worker_lives_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in ((RuntimeError("secret"), 500), (MemoryError(), 507), (torch.OutOfMemoryError("CUDA"), 507)):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(worker.handler.compute, "whole", fail)
            status, _, _, message = worker(task="generate")
        assert status == expected
        assert b"secret" not in message
    assert worker(describe="")[0] == 200


def test_a_stream_over_grpc_is_ended_and_http_is_not_taken_for_one(worker: Worker) -> None:
    assert worker(describe="", grpc=True)[2].get("ts_stream_next") == "false"
    assert worker(bundle=bundle(), Host="a field", grpc=True)[2].get("ts_stream_next") == "false"
    assert "ts_stream_next" not in worker(describe="")[2]


def test_the_files_that_torchserve_reads_say_what_the_handler_relies_on() -> None:
    config = yaml.safe_load(shipped(MODEL_CONFIG).read_text())
    assert (config["minWorkers"], config["maxWorkers"], config["batchSize"], config["jobQueueSize"]) == (1, 1, 1, 64)
    declared = yaml.safe_load(shipped(METRICS).read_text())["model_metrics"]
    assert {metric["name"] for metric in declared["histogram"]} == {
        "ts_bundle_seconds",
        "ts_batch_size",
        "ts_step_seconds",
    }
