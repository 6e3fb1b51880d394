"""Paint, with the pointer and the keyboard; undo; the recipe of what was painted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robust_synthesis.testing import SIZE

from .conftest import Desk, levels

ROW = [(0.2, 0.25), (0.5, 0.25), (0.8, 0.25)]
BELOW = slice(SIZE * 5 // 8, None)
"""Rows that a stroke along ROW with the usual brush does not touch."""


def painting(desk: Desk, photo: Image.Image) -> None:
    desk.show("paint")
    desk.opened(photo)
    desk.page.get_by_role("radio", name="Class", exact=True).check()
    desk.choose("stripes")


def test_a_stroke_changes_what_is_under_it_and_nothing_else_before_the_button_is_released(
    desk: Desk, photo: Image.Image
) -> None:
    painting(desk, photo)
    before = desk.shown()
    desk.stroke(*ROW, lift=False)
    desk.wait(lambda: np.abs(desk.shown()[2:6, 4:12] - before[2:6, 4:12]).mean() > 2, "it changes under the brush")
    during = desk.shown()
    assert desk.page.evaluate("studio.pictures.undoable") is False  # the stroke is not done
    assert (during[BELOW] == before[BELOW]).all()
    desk.wait(lambda: not desk.canvas(".easel-layer").any(), "the tint is gone where the picture has changed")
    desk.result(desk.page.mouse.up)
    after = levels(desk.present())
    assert np.abs(after[2:6, 4:12] - before[2:6, 4:12]).mean() > 2
    assert (after[BELOW] == before[BELOW]).all()


def test_the_picture_follows_while_the_brush_moves(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    before = desk.shown()

    def changed(x: float) -> bool:
        here = (slice(3, 5), int(x * SIZE))
        return bool((desk.shown()[here] != before[here]).any())

    desk.stroke(ROW[0], lift=False)
    for x in (0.4, 0.6, 0.8):
        desk.page.mouse.move(*desk.at(x, 0.25))
        desk.wait(partial(changed, x))
    assert desk.page.evaluate("studio.pictures.undoable") is False
    desk.page.mouse.up()


def test_a_feature_paints_and_its_examples_are_shown(desk: Desk, photo: Image.Image) -> None:
    desk.show("paint")
    desk.opened(photo)
    examples = desk.page.locator(".row.pictured img").first
    assert examples.evaluate("image => image.decode().then(() => image.naturalWidth)") > SIZE
    desk.result(lambda: desk.stroke(*ROW))
    report = desk.page.evaluate("studio.pictures.present.report.parameters")
    assert report["target"] is None
    assert isinstance(report["unit"], int)


def test_the_soft_mask_lets_the_outside_change(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    before = desk.shown()
    desk.page.get_by_role("radio", name="Soft", exact=True).check()
    desk.result(lambda: desk.stroke(*ROW))
    assert (levels(desk.present())[BELOW] != before[BELOW]).any()


def test_undo_redo_and_before_show_the_pictures_that_were(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    first = desk.shown()
    desk.result(lambda: desk.stroke(*ROW))
    second = desk.shown()
    desk.page.get_by_role("button", name="Before").focus()
    desk.page.keyboard.down("Enter")
    assert (desk.shown() == first).all()
    desk.page.keyboard.up("Enter")
    assert (desk.shown() == second).all()
    desk.page.keyboard.press("Control+z")
    assert (desk.shown() == first).all()
    desk.press("Redo")
    assert (desk.shown() == second).all()
    assert desk.page.get_by_role("button", name="Redo").is_disabled()


def test_the_keys_of_a_text_field_stay_its_own(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    desk.result(lambda: desk.stroke(*ROW))
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps", exact=True).focus()
    desk.page.keyboard.type("12")
    desk.page.keyboard.press("Control+z")
    assert desk.page.evaluate("studio.pictures.redoable") is False


@pytest.mark.parametrize("screen", ["paint", "sketch", "inpaint"])
def test_brackets_change_the_brush(desk: Desk, screen: str) -> None:
    desk.show(screen)
    size = desk.page.get_by_label("Brush size")
    before = float(size.input_value())
    desk.page.keyboard.press("]")
    larger = float(size.input_value())
    desk.page.keyboard.press("[")
    assert larger > float(size.input_value()) >= before - 1


def test_a_picture_that_was_begun_with_by_mistake_is_undone(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    desk.result(lambda: desk.stroke(*ROW))
    painted = desk.present()
    desk.page.evaluate("globalThis.before = studio.pictures.present")
    desk.press("Blank")
    desk.until("studio.pictures.present !== before")
    desk.press("Undo")
    assert desk.present() == painted


def test_another_classifier_keeps_what_was_made_to_be_undone(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    desk.result(lambda: desk.stroke(*ROW))
    painted = desk.present()
    desk.page.evaluate("globalThis.before = studio.pictures.present")
    desk.page.get_by_label("Classifier").select_option("two")
    desk.until("studio.pictures.present !== before")
    desk.press("Undo")
    assert desk.present() == painted


def test_the_keyboard_paints(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    before = desk.shown()
    desk.page.locator(".easel-surface").focus()
    for _ in range(4):
        desk.page.keyboard.press("ArrowUp")
    desk.page.keyboard.down(" ")
    for _ in range(4):
        desk.page.keyboard.press("ArrowRight")
    desk.result(lambda: desk.page.keyboard.up(" "))
    after = levels(desk.present())
    assert (after[3:5, 8:12] != before[3:5, 8:12]).any()
    assert (after[BELOW] == before[BELOW]).all()


@pytest.mark.usefixtures("library")
def test_what_was_painted_is_made_again_by_its_command_and_its_program(
    desk: Desk, photo: Image.Image, tmp_path: Path
) -> None:
    painting(desk, photo)
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("4")
    desk.result(lambda: desk.stroke(ROW[0], ROW[0]))
    painted = levels(desk.present())
    for button in ("Copy as command", "Copy as Python"):
        assert (desk.made_again(button, tmp_path) == painted).all()


def test_the_way_there_is_downloaded_as_an_animation(desk: Desk, photo: Image.Image) -> None:
    painting(desk, photo)
    desk.result(lambda: desk.stroke(*ROW))
    for kind in ("GIF", "WebP"):
        with desk.page.expect_download() as waiting:
            desk.press(f"Download the way there as {kind}")
        with Image.open(waiting.value.path()) as animation:
            assert animation.format == kind.upper()
            assert animation.n_frames > 1  # type: ignore[attr-defined]
    with desk.page.expect_download() as waiting:
        desk.press("Download as PNG")
    assert waiting.value.path().read_bytes() == desk.present()
    assert waiting.value.suggested_filename.startswith("paint-features-stripes-")
