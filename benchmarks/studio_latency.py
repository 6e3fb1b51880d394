"""From the pointer's press in the studio to the first changed picture on the page: browser, app, gateway and engine together.

    python benchmarks/studio_latency.py [--models DIR] [--model cifar10] [--strokes 20]

Starts a gateway and a studio of its own, and Chromium. Each stroke is a press and a short drag, painting a class; the next one
waits for it to settle. The time runs from the page's pointerdown event to the animation frame after the picture was first drawn
anew. Prints the least, the median and the largest, the first stroke left out.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data

from robust_synthesis.cli.own_gateway import own_gateway
from robust_synthesis.model_folder import models_directory
from robust_synthesis.studio.running import serving

WATCH = """
globalThis.waits = [];
let pressed = 0;
document.querySelector(".easel-surface").addEventListener("pointerdown", () => (pressed = performance.now()), true);
const show = studio.easel.show.bind(studio.easel);
studio.easel.show = (bitmap) => {
  show(bitmap);
  const since = pressed;
  pressed = 0;
  if (since) requestAnimationFrame(() => waits.push(performance.now() - since));
};
null;  // else playwright takes the function for what it should call
"""


def until(page: Page, condition: str) -> None:
    for _ in range(3000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(condition)


def measure(page: Page, strokes: int) -> list[float]:
    """Milliseconds of each."""
    file = io.BytesIO()
    Image.fromarray(data.chelsea()).save(file, "PNG")  # type: ignore[no-untyped-call]
    page.set_input_files("input[type=file]", {"name": "cat.png", "mimeType": "image/png", "buffer": file.getvalue()})
    until(page, "Boolean(studio.pictures.present)")
    page.get_by_role("radio", name="Class", exact=True).check()
    page.evaluate(WATCH)
    box = page.locator(".easel-surface").bounding_box()
    assert box is not None
    for number in range(strokes + 1):
        rows = page.locator(".list:visible input")
        rows.nth(number % rows.count()).check()
        page.evaluate("globalThis.before = studio.pictures.present")
        x, y = box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 20, y, steps=2)
        until(page, f"waits.length > {number}")
        page.mouse.up()
        until(page, "studio.pictures.present !== before")
    waits: list[float] = page.evaluate("waits")
    return waits[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=models_directory())
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--strokes", type=int, default=20)
    options = parser.parse_args(arguments)
    with (
        own_gateway([options.models / options.model], backend="embedded") as gateway,
        serving(gateway.server) as url,
        sync_playwright() as playwright,
    ):
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1366, "height": 800})
        page.goto(url)
        until(page, "Boolean(globalThis.studio?.model)")
        waits = measure(page, options.strokes)
        browser.close()
    summary = f"least {min(waits):.0f}, median {statistics.median(waits):.0f}, largest {max(waits):.0f}"
    print(f"{options.model}: from the press to the first changed picture, ms: {summary} ({len(waits)} strokes)")


if __name__ == "__main__":
    main()
