"""A client that nobody here wrote, Node's grpc-js, with nothing but the .proto files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robust_synthesis.errors import SynthesisError
from robust_synthesis.gateway.errors import Cancelled, DeadlineExceeded
from robust_synthesis.gateway.group import Plan
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.testing import CLASSES, tiny_model_folder

ROOT = Path(__file__).parents[2]
NODE = ROOT / "clients" / "examples" / "node"
METHODS = {
    "Generate": "generate",
    "Inpaint": "inpaint",
    "Translate": "translate",
    "SuperResolve": "super_resolve",
    "SketchToImage": "sketch_to_image",
    "PaintFeatures": "paint_features",
    "MaximizeClass": "maximize_class",
}


class Watch(Observer):
    """Which requests ended how, and what was sent for them afterwards."""

    def __init__(self) -> None:
        self.ended: dict[Ticket, SynthesisError | None] = {}
        self.begun = 0
        self.sent_for_the_dead = 0

    def request_queued(self, ticket: Ticket) -> None:
        del ticket
        self.begun += 1

    def request_finished(self, ticket: Ticket, error: SynthesisError | None) -> None:
        self.ended[ticket] = error

    def bundle_sent(self, plan: Plan) -> None:
        jobs = {job.candidate for ticket in self.ended for job in ticket.jobs}
        self.sent_for_the_dead += any(job in jobs for job in plan.jobs)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with what it needs installed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install the example's packages: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, watch: Watch) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    tiny_model_folder(models / "tiny")
    with serving(lambda: embedded(models), observer=watch) as target:
        yield target


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PROTOS": str(ROOT / "protos")}
    done = subprocess.run(
        ["node", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def found(node: Path, server: str) -> Any:
    """What `every_method.mjs` has seen."""
    return json.loads(run(node, "every_method.mjs", server))


def test_it_runs_every_method(found: Any) -> None:
    assert found["models"]["listed"] == ["tiny"]
    assert found["models"]["classes"] == [*CLASSES]
    assert len(found["models"]["units"]) == 1
    assert {method: result["task"] for method, result in found["results"].items()} == METHODS
    for method, result in found["results"].items():
        assert (result["format"], result["seed"]) == ("WEBP", "7")
        assert result["pictures"] == (2 if method == "Generate" else 1)
        assert 0 < result["after"] <= 1
    assert found["classified"][0]["name"] == CLASSES[0]


def test_it_sees_progress_with_pictures(found: Any) -> None:
    assert set(found["events"][:-1]) <= {"queued", "progress"}
    assert found["events"].count("progress") > 1
    assert found["events"][-1] == "result"
    assert found["preview"] == "ffd8"


def test_its_cancel_and_its_deadline_stop_the_computation(found: Any, watch: Watch) -> None:
    assert found["cancelled"]["code"] == "CANCELLED"
    assert found["deadline"]["code"] == "DEADLINE_EXCEEDED"
    until = time.monotonic() + 10
    while len(watch.ended) < watch.begun and time.monotonic() < until:
        time.sleep(0.01)
    assert len(watch.ended) == watch.begun > 10
    assert sum(isinstance(error, (Cancelled, DeadlineExceeded)) for error in watch.ended.values()) == 2
    assert watch.sent_for_the_dead == 0


@pytest.mark.parametrize(
    ("call", "code", "reason", "field", "text"),
    [
        ("badField", "INVALID_ARGUMENT", "INVALID_INPUT", "spec.descent.steps", "is 0; give a whole number from 1"),
        ("noClass", "NOT_FOUND", "NOT_FOUND", "spec.target", "there is no class 'circlex'; did you mean circle?"),
        ("noModel", "NOT_FOUND", "NOT_FOUND", "model", "there is no model 'nobody'; choose one of tiny."),
        ("noImage", "INVALID_ARGUMENT", "INVALID_INPUT", "image", "classify needs an image."),
    ],
)
def test_it_decodes_the_details_of_errors(call: str, code: str, reason: str, field: str, text: str, found: Any) -> None:
    error = found[call]
    assert error["code"] == code
    assert error["ErrorInfo"] == {"reason": reason, "domain": "robust-synthesis"}
    (violation,) = error["BadRequest"]["field_violations"]
    assert violation["field"] == field
    assert violation["description"].startswith(text)


def test_it_edits(found: Any) -> None:
    assert found["edit"] == [
        {"event": "current", "undoable": 0},
        {"event": "result", "undoable": 1, "id": "5"},
        {"event": "failure", "id": "6", "code": "NOT_FOUND"},
        {"event": "current", "undoable": 0},
    ]


def test_the_example_draws_a_picture(node: Path, server: str) -> None:
    printed = run(node, "generate.mjs", server, "waves")
    assert "of 10: waves" in printed
    assert (node / "generated.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_names_no_registry() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text())
    hosts = {package["resolved"].split("/")[2] for package in lock["packages"].values() if "resolved" in package}
    assert hosts <= {"registry.npmjs.org"}
