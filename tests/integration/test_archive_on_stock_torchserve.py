"""An archive on a TorchServe as anyone installs it, with nothing of ours beside it, driven with curl."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

import robust_synthesis
from robust_synthesis.archive import build
from robust_synthesis.bundle import Bundle, JobPart, Output
from robust_synthesis.library import Synthesizer
from robust_synthesis.requests import Request
from robust_synthesis.shipped import METRICS, shipped
from robust_synthesis.specs import SPECS, Generate
from robust_synthesis.testing import SIZE, tiny_model_folder
from robust_synthesis.wire import decode_reply, encode

from .stock_torchserve import Server, environment, serving

pytestmark = pytest.mark.real

CASES: list[tuple[str, Mapping[str, Any]]] = [
    ("generate", {"target": "circle"}),
    ("generate", {"target": "waves", "start": "noise", "size": 24}),
    ("inpaint", {"box": "20,10,15,15"}),
    ("inpaint", {"mask": "mask.png", "target": "square", "paste_back": True}),
    ("translate", {"target": "waves"}),
    ("super_resolve", {"factor": 4}),
    ("sketch_to_image", {"target": "stripes", "random_start": True}),
    ("paint_features", {"mask": "mask.png", "unit": 0}),
    ("paint_features", {"box": "20,10,15,15", "target": "circle"}),
    ("maximize_class", {"target": "square", "epsilon": 1.5, "norm": "l2"}),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("stock") / "venv")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, its archive, a photo of 60 x 40 pixels and a mask for it."""
    folder = tmp_path_factory.mktemp("work")
    build(tiny_model_folder(folder / "tiny").path)
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(noise).resize((60, 40), Image.Resampling.BICUBIC).save(folder / "photo.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:25, 20:35] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture(scope="module")
def server(python: Path, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("torchserve") / "server"
    with serving(python, folder, work / "tiny.mar", metrics=shipped(METRICS).resolve()) as server:
        yield server


@pytest.fixture(scope="module")
def synthesizer(work: Path) -> Synthesizer:
    return robust_synthesis.load(work / "tiny", device="cpu")


def form(**fields: object) -> list[str]:
    """Options of curl."""
    return [option for name, value in fields.items() for option in ("-F", f"{name}={value}")]


def ask(server: Server, *options: str) -> tuple[int, str, bytes]:
    return server.curl(*options, path="predictions/tiny")


def worker_pid(server: Server) -> int:
    (model,) = json.loads(server.curl(port="management", path="models/tiny")[2])
    (worker,) = model["workers"]
    return int(worker["pid"])


def pixels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(picture.convert("RGB"))


def test_the_environment_has_nothing_of_ours(python: Path) -> None:
    for module in ("robust_synthesis", "tqdm", "pytest"):
        done = subprocess.run([python, "-c", f"import {module}"], cwd="/", capture_output=True, text=True, check=False)
        assert f"No module named '{module}'" in done.stderr
    code = "import torch, ts, safetensors, PIL, numpy, yaml; print(ts.__file__)"
    done = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(python.parent.parent)), done.stderr


@pytest.mark.parametrize(("task", "options"), CASES, ids=[f"{task}-{next(iter(given))}" for task, given in CASES])
def test_curl_gets_the_librarys_picture_bit_for_bit(
    server: Server, work: Path, synthesizer: Synthesizer, task: str, options: Mapping[str, Any]
) -> None:
    shared: dict[str, Any] = {"seed": 7, "exact": True, "steps": 12}
    pictures = {"image": "photo.png"} if SPECS[task].needs_image else {}
    pictures |= {name: options[name] for name in ("mask",) if name in options}
    rest = {name: value for name, value in options.items() if name != "mask"}
    files = {name: work / file for name, file in pictures.items()}
    text = {name: str(value).lower() if value is True else value for name, value in (shared | rest).items()}
    uploads = {name: f"@{path}" for name, path in files.items()}
    status, content_type, body = ask(server, *form(task=task, **text, **uploads))
    assert (status, content_type) == (200, "image/png"), body
    expected = getattr(synthesizer, task)(**files, **shared, **rest).image
    picture = Image.open(io.BytesIO(body))
    size = options.get("size", SIZE)
    assert (picture.format, picture.size) == ("PNG", (60, 40) if "paste_back" in options else (size, size))
    assert np.array_equal(pixels(picture), pixels(expected))


def test_every_task_is_among_them() -> None:
    assert {task for task, _ in CASES} == set(SPECS)


def test_the_answer_has_the_format_that_was_asked_for(server: Server) -> None:
    request = form(task="generate", target="circle", steps=2)
    for format in ("jpeg", "webp"):
        status, content_type, body = ask(server, *request, *form(format=format))
        assert (status, content_type) == (200, f"image/{format}")
        assert Image.open(io.BytesIO(body)).format == format.upper()
    status, content_type, body = ask(server, *request, *form(format="json", count=3))
    assert (status, content_type) == (200, "application/json")
    found = [Image.open(io.BytesIO(base64.b64decode(entry["png"]))) for entry in json.loads(body)["pictures"]]
    assert [picture.size for picture in found] == [(SIZE, SIZE)] * 3
    as_json = ("-H", "Content-Type: application/json", "-d", '{"task": "generate", "target": "circle", "steps": 2}')
    assert ask(server, *as_json)[:2] == (200, "image/png")


def test_bad_input_is_a_400_that_names_the_field_and_the_worker_lives_on(server: Server, work: Path) -> None:
    before = worker_pid(server)
    (work / "short.png").write_bytes((work / "photo.png").read_bytes()[:200])
    for field, options in {
        "target": form(task="generate", target="dog"),
        "task": form(task="dream"),
        "steps": form(task="generate", target="circle", steps=-1),
        "sise": form(task="generate", target="circle", sise=16),
        "epsilon": form(task="generate", target="circle", epsilon="nan"),
        "image": form(task="translate", target="circle", image=f"@{work / 'short.png'}"),
        "mask": form(task="inpaint", image=f"@{work / 'photo.png'}"),
        "size": form(task="generate", target="circle", size=10**6),
        "box": form(task="inpaint", image=f"@{work / 'photo.png'}", box="900,900,5,5"),
        "body": ["-H", "Content-Type: image/png", "--data-binary", f"@{work / 'photo.png'}"],
    }.items():
        status, content_type, body = ask(server, *options)
        assert (status, content_type) == (400, "application/json"), (field, body)
        assert re.fullmatch(rf"{field}: [^\n]+\.", json.loads(body)["message"]), body
    assert ask(server, *form(task="generate", target="circle", steps=2))[0] == 200
    assert worker_pid(server) == before
    assert "Prediction failed" not in server.log


def test_a_bundle_with_a_bad_job_runs_the_others_and_is_measured(
    server: Server, work: Path, synthesizer: Synthesizer
) -> None:
    good = Request(spec=Generate(target="circle", seed=3, steps=8))
    bad = Request(spec=Generate(target="dog", seed=3, steps=8))
    parts = [JobPart(9, request, exact=True, output=Output()) for request in (good, bad)]
    (work / "bundle").write_bytes(encode(Bundle("tiny", parts, version=synthesizer.classifier.version)))
    status, content_type, body = ask(server, *form(bundle=f"@{work / 'bundle'}"))
    assert (status, content_type) == (200, "application/octet-stream")
    first, second = decode_reply(body).jobs
    expected = synthesizer.generate("circle", seed=3, steps=8, exact=True).image
    assert np.array_equal(pixels(Image.open(io.BytesIO(first.picture or b""))), pixels(expected))
    assert second.failure is not None
    assert (second.failure.kind, second.failure.field) == ("not_found", "target")
    assert b"is not a bundle of this service" in ask(server, *form(bundle="nonsense"))[2]
    wanted = {"ts_bundle_seconds_count": 1, "ts_batch_size_sum": 1, "ts_step_seconds_count": 1}
    assert _metrics(server, wanted) == wanted
    assert 'BatchSize="1"' in server.curl(port="metrics", path="metrics")[2].decode()


def _metrics(server: Server, wanted: Mapping[str, float], seconds: float = 30) -> dict[str, float]:
    """TorchServe reads its workers' metrics from their output, a little later."""
    until = time.monotonic() + seconds
    while True:
        lines = server.curl(port="metrics", path="metrics")[2].decode().splitlines()
        found = {line.partition("{")[0]: float(line.split()[-1]) for line in lines if "{" in line}
        kept = {name: value for name, value in found.items() if name in wanted}
        if kept == wanted or time.monotonic() > until:
            return kept
        time.sleep(0.2)


def test_describe_says_what_the_archive_is(server: Server, synthesizer: Synthesizer) -> None:
    status, content_type, body = ask(server, *form(describe=1))
    assert (status, content_type) == (200, "application/json")
    described = json.loads(body)
    assert (described["name"], described["version"]) == ("tiny", synthesizer.classifier.version)
    (model,) = json.loads(server.curl(port="management", path="models/tiny")[2])
    assert model["modelVersion"] == synthesizer.classifier.version


def test_over_grpc_errors_are_invalid_arguments_and_a_stream_ends(server: Server) -> None:
    before = worker_pid(server)
    key = (("authorization", f"Bearer {server.key('inference')}"),)
    service = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc_inference']}") as channel:
        unary = channel.unary_unary(f"{service}/Predictions", bytes, bytes)
        stream = channel.unary_stream(f"{service}/StreamPredictions", bytes, bytes)
        good = _predictions_request(task=b"generate", target=b"circle", steps=b"2")
        assert b"\x89PNG" in unary(good, metadata=key, timeout=60)
        assert [b"\x89PNG" in part for part in stream(good, metadata=key, timeout=60)] == [True]
        with pytest.raises(grpc.RpcError) as caught:
            unary(_predictions_request(task=b"generate", target=b"dog"), metadata=key, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith("target: there is no class 'dog'")
    assert worker_pid(server) == before


def _predictions_request(**fields: bytes) -> bytes:
    """TorchServe's PredictionsRequest: model_name = 1, map<string, bytes> input = 3."""

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes([number << 3 | 2, len(content)]) + content

    entries = [field(3, field(1, name.encode()) + field(2, value)) for name, value in fields.items()]
    return field(1, b"tiny") + b"".join(entries)
