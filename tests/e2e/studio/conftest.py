"""The studio over a gateway with tiny classifiers, in Debian's Chromium."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from robust_synthesis.errors import SynthesisError
from robust_synthesis.gateway.running import embedded, serving
from robust_synthesis.gateway.seams import Observer
from robust_synthesis.gateway.tickets import Ticket
from robust_synthesis.model_folder import MODELS_VARIABLE
from robust_synthesis.studio.running import serving as serving_studio
from robust_synthesis.testing import tiny_card, tiny_model_folder

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 30_000
"""Milliseconds that a test waits for something to appear."""
LONG = "a horse, whose name is longer than anybody would expect of a class, even in ImageNet"

Levels = NDArray[np.int16]


class InFlight(Observer):
    """The requests that the gateway has."""

    def __init__(self) -> None:
        self.tickets: set[Ticket] = set()
        self.most = 0

    def request_queued(self, ticket: Ticket) -> None:
        self.tickets.add(ticket)
        self.most = max(self.most, len(self.tickets))

    def request_finished(self, ticket: Ticket, error: SynthesisError | None) -> None:
        del error
        self.tickets.discard(ticket)


class Service:
    """A gateway that can be stopped, and started again on its port."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.in_flight = InFlight()
        self.target = ""
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        port = int(self.target.rpartition(":")[2] or 0)
        gateway = serving(lambda: embedded(self.models), observer=self.in_flight, port=port)
        self.target = self._stack.enter_context(gateway)

    def stop(self) -> None:
        self._stack.close()


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robust and a standard classifier of 16 pixels, alike, and one of two classes."""
    directory = tmp_path_factory.mktemp("models")
    tiny_model_folder(directory / "tiny", tiny_card("tiny"))
    standard = dataclasses.replace(tiny_card("tiny-standard"), role="standard")
    tiny_model_folder(directory / "tiny-standard", standard, seed=1)
    tiny_model_folder(directory / "two", tiny_card("two", classes=(LONG, "zebra")))
    return directory


@pytest.fixture(scope="package")
def service(models: Path) -> Iterator[Service]:
    service = Service(models)
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="package")
def studio(service: Service) -> Iterator[str]:
    """Its address."""
    with serving_studio(service.target) as url:
        yield url


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """It has to be gone before other tests: playwright keeps an event loop running in their thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no Chromium; `make browser` installs Debian's")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Desk:
    """A page of the studio, and what a visitor does with it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.requests.append(request.url))

    def show(self, screen: str) -> None:
        self.page.goto(f"{self.url}/#{screen}")
        self.until("Boolean(globalThis.studio?.model)")

    def until(self, condition: str) -> None:
        """Wait for what JavaScript says; the page's policy does not let playwright's own way of asking in."""
        self.wait(lambda: bool(self.page.evaluate(condition)), condition)

    def wait(self, condition: Callable[[], bool], what: str = "what was waited for") -> None:
        end = time.monotonic() + PATIENCE / 1000
        while not condition():
            assert time.monotonic() < end, f"never came true: {what}"
            self.page.wait_for_timeout(20)

    def open(self, photo: Image.Image | bytes, name: str = "photo.png") -> None:
        """As by the file dialogue."""
        file = photo if isinstance(photo, bytes) else png(photo)
        self.page.evaluate("globalThis.before = studio.pictures.present")
        self.page.set_input_files("input[type=file]", {"name": name, "mimeType": "image/png", "buffer": file})

    def opened(self, photo: Image.Image) -> None:
        self.open(photo)
        self.until("studio.pictures.present !== before")

    def choose(self, name: str) -> None:
        """One of the list that is shown."""
        self.page.locator(".list:visible").get_by_role("radio", name=name, exact=True).check()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def result(self, act: Callable[[], None]) -> None:
        """Do something, and wait until it has made another picture the present one."""
        self.page.evaluate("globalThis.before = studio.pictures.present")
        act()
        self.until("studio.pictures.present !== before && Boolean(studio.pictures.present.report)")

    def shown(self) -> Levels:
        """What the easel shows, [H, W, 3]."""
        return self.canvas(".easel-base")

    def canvas(self, selector: str) -> Levels:
        return levels(decoded(self.page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")))

    def present(self) -> bytes:
        """The file of the present picture."""
        return decoded(
            self.page.evaluate(
                "new Promise((done) => { const reader = new FileReader(); reader.onload = () => done(reader.result);"
                "reader.readAsDataURL(studio.pictures.present.blob); })"
            )
        )

    def made_again(self, button: str, folder: Path) -> Levels:
        """What the text that a button copies makes, run in a folder."""
        self.page.evaluate("navigator.clipboard.writeText('')")
        self.press(button)
        self.until("navigator.clipboard.readText().then(Boolean)")
        script = folder / "script"
        script.write_text(self.page.evaluate("navigator.clipboard.readText()"))
        program = ["bash", "-e"] if "command" in button else [sys.executable]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*program, str(script)],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result = folder / "result.png"
        made = levels(result.read_bytes())
        result.unlink()
        return made

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is on the page, in shares of its side."""
        box = self.page.locator(".easel-surface").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def stroke(self, *points: tuple[float, float], lift: bool = True) -> None:
        mouse = self.page.mouse
        mouse.move(*self.at(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(*point), steps=4)
        if lift:
            mouse.up()


@pytest.fixture
def desk(browser: Any, studio: str) -> Iterator[Desk]:
    context = browser.new_context(viewport={"width": 1366, "height": 800}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=studio)
    desk = Desk(context.new_page(), studio)
    yield desk
    context.close()
    assert desk.errors == []
    assert {request for request in desk.requests if not request.startswith((studio, "blob:"))} == set()


@pytest.fixture
def photo() -> Image.Image:
    """A smooth photo of 64 x 48 pixels."""
    noise = np.random.default_rng(0).integers(60, 200, (4, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)


@pytest.fixture
def library(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifiers of the service are those of the command line, too."""
    monkeypatch.setenv(MODELS_VARIABLE, str(models))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def levels(file: bytes) -> Levels:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(np.int16)


def decoded(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])
