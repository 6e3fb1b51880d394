"""For everybody: axe-core finds nothing serious on any screen, and every control fits where there are 400 pixels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .conftest import Desk

SCREENS = ("paint", "sketch", "inpaint", "translate", "super-resolve", "generate", "inside")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="package")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program that looks for barriers."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("axe") / "axe"
    shutil.copytree(Path(__file__).parent / "axe", folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install axe-core: {done.stderr.strip().splitlines()[-1:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def barriers(desk: Desk, axe: str) -> list[Any]:
    """Serious ones that are on the page now."""
    desk.page.evaluate(axe)
    found = desk.page.evaluate("rules => axe.run(document, rules).then((found) => found.violations)", RULES)
    return [
        (rule["id"], rule["impact"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_screen(desk: Desk, photo: Image.Image, axe: str, theme: str) -> None:
    desk.show("paint")
    desk.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    assert barriers(desk, axe) == []  # without a picture
    desk.opened(photo)
    desk.result(lambda: desk.stroke((0.3, 0.3), (0.6, 0.3)))
    for screen in SCREENS:
        desk.page.evaluate(f"location.hash = '{screen}'")
        desk.page.locator(f"a[href='#{screen}'][aria-current]").wait_for()
        desk.page.evaluate("for (const more of document.querySelectorAll('details')) more.open = true")
        assert barriers(desk, axe) == [], screen


def test_every_screen_fits_a_width_of_400_pixels(desk: Desk, photo: Image.Image) -> None:
    desk.page.set_viewport_size({"width": 400, "height": 800})
    desk.show("paint")
    desk.page.get_by_label("Classifier").select_option("two")  # with a long name of a class
    desk.opened(photo)
    for screen in SCREENS:
        desk.page.evaluate(f"location.hash = '{screen}'")
        desk.page.locator(f"a[href='#{screen}'][aria-current]").wait_for()
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= 400, screen
    links = desk.page.locator("#screens")
    assert links.evaluate("links => links.scrollWidth - links.clientWidth") == 0  # all of them are seen


def test_the_first_tab_skips_to_the_controls_of_the_screen_that_is_shown(desk: Desk) -> None:
    desk.show("translate")
    desk.page.keyboard.press("Tab")
    desk.page.keyboard.press("Enter")
    assert desk.page.evaluate("document.activeElement.id") == "controls"
    assert desk.page.locator(".screen-title").inner_text() == "Translate"


def test_every_control_is_reached_by_the_tab_key(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    names = set()
    for _ in range(40):
        desk.page.keyboard.press("Tab")
        names.add(
            desk.page.evaluate(
                "(document.activeElement.innerText || document.activeElement.labels?.[0]?.innerText || '').trim()"
            )
        )
    assert names >= {"Paint", "Translate", "Open", "Blank", "Advanced", "PNG"}
    assert {"circle", "How far", "Smooth"} <= names
