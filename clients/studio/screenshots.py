"""Screenshots of every screen of a studio, for the README: `make screenshots`.

    python clients/studio/screenshots.py [--out docs/studio] [--model NAME] [--all] [URL]

Without a URL a studio is started over a gateway of its own. Needs Chromium and the `dev` extra.
`--all` takes further ones, to look at.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data

from robust_synthesis.cli.own_gateway import own_gateway
from robust_synthesis.model_folder import available, models_directory
from robust_synthesis.studio.running import serving

LAPTOP, TABLET, PHONE = (1366, 800), (1024, 768), (400, 860)
SECONDS = 120
QUALITY = 82


def photo() -> dict[str, Any]:
    """Chelsea the cat, by Stefan van der Walt, public domain; shipped by scikit-image."""
    file = io.BytesIO()
    Image.fromarray(data.chelsea()).crop((60, 0, 360, 300)).save(file, "PNG")
    return {"name": "cat.png", "mimeType": "image/png", "buffer": file.getvalue()}


class Visitor:
    """Shows a screen, does something on it, and takes its picture."""

    def __init__(self, page: Page, out: Path, *, further: bool) -> None:
        self.page, self.out, self.further = page, out, further

    def until(self, condition: str) -> None:
        end = time.monotonic() + SECONDS
        while not self.page.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            self.page.wait_for_timeout(50)

    def show(self, screen: str) -> None:
        self.page.evaluate(f"location.hash = '{screen}'")
        self.page.locator(f"a[href='#{screen}'][aria-current]").wait_for()

    def open(self) -> None:
        self.page.evaluate("globalThis.before = studio.pictures.present")
        self.page.set_input_files("input[type=file]", photo())
        self.until("studio.pictures.present !== before")

    def choose(self, *names: str) -> None:
        """The first of the classes that there is."""
        for name in names:
            row = self.page.locator(".list:visible").get_by_role("radio", name=name, exact=True)
            if row.count():
                row.first.check()
                return

    def stroke(self, *points: tuple[float, float]) -> None:
        box = self.page.locator(".easel-surface").bounding_box()
        assert box is not None
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=12)
        self.page.mouse.up()

    def result(self, act: Callable[[], None]) -> None:
        self.page.evaluate("globalThis.before = studio.pictures.present")
        act()
        self.until("studio.pictures.present !== before && Boolean(studio.pictures.present.report)")
        self.page.wait_for_timeout(700)  # the bars follow

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def colour(self, name: str) -> None:
        self.page.get_by_role("radio", name=name, exact=True).check()

    def look(self, name: str, **how: Any) -> None:
        """A screenshot that the README does not need."""
        if self.further:
            self.shoot(name, **how)

    def shoot(self, name: str, *, theme: str = "light", size: tuple[int, int] = LAPTOP) -> None:
        self.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.evaluate("for (const part of document.querySelectorAll('.panel, .stage')) part.scrollTop = 0")
        self.page.evaluate("scrollTo(0, 0)")
        self.page.wait_for_timeout(300)
        with Image.open(io.BytesIO(self.page.screenshot())) as image:
            image.convert("RGB").save(self.out / f"{name}.webp", quality=QUALITY, method=6)
        print(self.out / f"{name}.webp", flush=True)
        self.page.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})


def paint(visitor: Visitor) -> None:
    visitor.show("paint")
    visitor.look("empty")
    visitor.open()
    visitor.page.get_by_role("radio", name="Feature", exact=True).check()
    features = visitor.page.locator(".row.pictured:visible input")
    for words in ("orange and black wings", "frog"):  # of the one classifier or another
        visitor.page.get_by_placeholder("Search").first.fill(words)
        if features.count():
            break
    features.first.check()
    visitor.result(lambda: visitor.stroke((0.15, 0.2), (0.5, 0.1), (0.9, 0.2)))
    visitor.shoot("paint")
    visitor.look("paint-tablet", size=TABLET)
    visitor.shoot("paint-phone", size=PHONE)
    visitor.page.get_by_role("radio", name="Class", exact=True).check()
    visitor.choose("dog", "golden retriever")
    visitor.result(lambda: visitor.stroke((0.3, 0.6), (0.7, 0.6), (0.5, 0.8)))
    visitor.shoot("paint-dark", theme="dark")


def sketch(visitor: Visitor) -> None:
    visitor.show("sketch")
    visitor.press("New sketch")
    visitor.page.wait_for_timeout(300)
    visitor.page.get_by_role("radio", name="Fill", exact=True).check()
    visitor.colour("Sky blue")
    visitor.stroke((0.5, 0.5))
    visitor.page.get_by_role("radio", name="Brush", exact=True).check()
    size = visitor.page.get_by_label("Brush size")
    for colour, width, points in (
        ("Grey", 150, ((0.0, 0.9), (1.0, 0.9))),
        ("Red", 96, ((0.22, 0.6), (0.78, 0.6))),
        ("Red", 80, ((0.38, 0.48), (0.6, 0.48))),
        ("White", 44, ((0.4, 0.47), (0.58, 0.47))),
        ("Black", 84, ((0.3, 0.7),)),
        ("Black", 84, ((0.7, 0.7),)),
    ):
        visitor.colour(colour)
        size.fill(str(width))
        visitor.stroke(*points)
        visitor.page.wait_for_timeout(200)
    visitor.choose("automobile", "sports car")
    visitor.look("sketch-drawn")
    visitor.result(lambda: visitor.press("Make it a picture"))
    visitor.shoot("sketch")


def inpaint(visitor: Visitor) -> None:
    visitor.show("inpaint")
    visitor.open()
    visitor.page.get_by_role("radio", name="Box", exact=True).check()
    visitor.stroke((0.5, 0.3), (0.85, 0.62))
    visitor.look("inpaint-marked")
    visitor.choose("cat", "tabby")
    visitor.result(lambda: visitor.press("Fill it"))
    visitor.shoot("inpaint")


def one_button(visitor: Visitor, screen: str, button: str, *classes: str) -> None:
    visitor.show(screen)
    visitor.open()
    visitor.choose(*classes)
    visitor.result(lambda: visitor.press(button))
    visitor.shoot(screen)


def generate(visitor: Visitor) -> None:
    visitor.show("generate")
    visitor.choose("horse", "golden retriever")
    visitor.page.get_by_label("How many").fill("6")
    visitor.press("Generate")
    visitor.page.wait_for_timeout(600)
    visitor.look("generate-running")
    visitor.until("document.querySelectorAll('.tile button:disabled').length === 0")
    visitor.shoot("generate")
    visitor.look("generate-phone", size=PHONE)


def inside(visitor: Visitor) -> None:
    """With the classifier that is shown, where it has a twin, or else another."""
    visitor.show("inside")
    visitor.open()
    models = visitor.page.locator("#model-select option").all()
    for name in [str(model.get_attribute("value")) for model in models]:
        if visitor.page.get_by_role("button", name="Compare", exact=True).is_enabled():
            break
        visitor.page.get_by_label("Classifier").select_option(name)
        visitor.page.wait_for_timeout(1000)
    visitor.choose("dog", "golden retriever")
    visitor.press("Compare")
    visitor.until("document.querySelectorAll('.side .results button:not(:disabled)').length >= 6")
    visitor.page.wait_for_timeout(700)
    visitor.shoot("inside")
    visitor.look("inside-dark", theme="dark")


@contextlib.contextmanager
def address(url: str | None) -> Iterator[str]:
    """Of the studio that is given, or of one over a gateway with all classifiers of the models directory."""
    if url:
        yield url
        return
    folders = [models_directory() / name for name in available()]
    with own_gateway(folders, backend="embedded") as gateway, serving(gateway.server) as own:
        yield own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="of a studio that runs")
    parser.add_argument("--out", type=Path, default=Path("docs/studio"))
    parser.add_argument("--model", help="the classifier to show")
    parser.add_argument("--all", action="store_true", help="further ones, to look at")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with address(options.url) as url, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": LAPTOP[0], "height": LAPTOP[1]})
        page.goto(url)
        visitor = Visitor(page, options.out, further=options.all)
        visitor.until("Boolean(globalThis.studio?.model)")
        if options.model:
            page.get_by_label("Classifier").select_option(options.model)
        paint(visitor)
        sketch(visitor)
        inpaint(visitor)
        one_button(visitor, "translate", "Translate", "dog", "golden retriever", "zebra", "orange")
        one_button(visitor, "super-resolve", "Enlarge", "cat", "tabby")
        generate(visitor)
        inside(visitor)
        browser.close()


if __name__ == "__main__":
    main()
