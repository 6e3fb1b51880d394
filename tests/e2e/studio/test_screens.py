"""Every other task, as a visitor does it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robust_synthesis.testing import SIZE

from .conftest import LONG, Desk, decoded, levels


def test_a_sketch_becomes_a_picture_and_is_sketched_on(desk: Desk) -> None:
    desk.show("sketch")
    desk.until("Boolean(studio.pictures.present)")  # white paper, without asking
    desk.page.get_by_role("radio", name="Fill").check()
    desk.page.get_by_role("radio", name="Sky blue").check()
    desk.stroke((0.5, 0.5))
    desk.page.get_by_role("radio", name="Brush", exact=True).check()
    desk.page.get_by_role("radio", name="Brown", exact=True).check()
    desk.stroke((0.2, 0.7), (0.8, 0.7))
    drawn = desk.shown()
    assert drawn[20, 20].tolist() == [0x9C, 0xC7, 0xEA]
    assert drawn[int(0.7 * 512), 256].tolist() == [0x6B, 0x44, 0x23]
    desk.choose("square")
    desk.result(lambda: desk.press("Make it a picture"))
    made = levels(desk.present())
    assert made.shape == (SIZE, SIZE, 3)
    report = desk.page.evaluate("studio.pictures.present.report.pictures[0]")
    assert report["target"] == "square"
    assert report["probability_after"] > report["probability_before"]
    desk.page.get_by_role("radio", name="Red").check()
    desk.stroke((0.5, 0.1), (0.5, 0.2))
    assert desk.shown()[77, 256].tolist() == [0xC0, 0x39, 0x2B]
    desk.result(lambda: desk.press("Make it a picture"))


def test_the_eraser_brings_back_what_was_below(desk: Desk) -> None:
    desk.show("sketch")
    desk.until("Boolean(studio.pictures.present)")
    desk.stroke((0.2, 0.5), (0.8, 0.5))
    assert desk.shown()[256, 256].tolist() == [0x6B, 0x44, 0x23]
    desk.page.get_by_role("radio", name="Eraser").check()
    desk.stroke((0.2, 0.5), (0.8, 0.5))
    assert desk.shown()[256, 256].tolist() == [255, 255, 255]


def test_in_painting_fills_the_box_and_keeps_the_rest(desk: Desk, photo: Image.Image) -> None:
    desk.show("inpaint")
    desk.opened(photo)
    before = desk.shown()
    desk.page.get_by_role("radio", name="Box").check()
    desk.stroke((0.25, 0.25), (0.5, 0.75))
    desk.choose("circle")
    desk.result(lambda: desk.press("Fill it"))
    after = levels(desk.present())
    changed = (after != before).any(axis=2)
    assert changed[4:12, 4:8].mean() > 0.9
    assert changed.sum() == changed[4:12, 4:8].sum()


@pytest.mark.usefixtures("library")
def test_in_painting_gives_the_whole_photo_back_and_its_command_makes_it_again(
    desk: Desk, photo: Image.Image, tmp_path: Path
) -> None:
    desk.show("inpaint")
    desk.opened(photo)
    desk.page.get_by_role("radio", name="Box").check()
    desk.stroke((0.25, 0.25), (0.75, 0.75))
    desk.page.get_by_label("Whole photo").check()
    desk.result(lambda: desk.press("Fill it"))
    after = levels(desk.present())
    assert after.shape == (48, 64, 3)
    assert (after[:, :8] == np.asarray(photo)[:, :8]).all()  # beside the square that the classifier saw
    assert (after[16:32, 24:40] != np.asarray(photo)[16:32, 24:40]).any()
    photo.save(tmp_path / "photo.png")  # the visitor has it, by the name that the command uses
    assert (desk.made_again("Copy as command", tmp_path) == after).all()


def test_a_whole_photo_is_drawn_on_where_the_classifier_sees_it(desk: Desk, photo: Image.Image) -> None:
    desk.show("inpaint")
    desk.opened(photo)
    desk.page.get_by_role("radio", name="Box").check()
    desk.stroke((0.25, 0.25), (0.75, 0.75))
    desk.page.get_by_label("Whole photo").check()
    desk.result(lambda: desk.press("Fill it"))
    whole = levels(desk.present())
    surface, frame = (desk.page.locator(f".easel-{part}").bounding_box() for part in ("surface", "frame"))
    assert frame["width"] == pytest.approx(frame["height"])
    assert frame["width"] == pytest.approx(surface["height"])
    assert frame["x"] - surface["x"] == pytest.approx(surface["width"] / 8, abs=1)
    desk.page.evaluate("location.hash = 'paint'")
    desk.page.get_by_role("heading", name="Paint with features").wait_for()
    assert (desk.shown() == whole[:, 8:56]).all()
    desk.page.evaluate("location.hash = 'sketch'")
    desk.page.get_by_role("heading", name="Sketch to image").wait_for()
    desk.stroke((0.02, 0.02))
    drawn = desk.shown()
    assert drawn.shape == (512, 512, 3)
    assert np.abs(drawn[256, 8] - whole[24, 8]).max() < 40  # it is not squeezed: the left edge is that of the square


def test_another_norm_has_a_ball_of_its_own(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.choose("stripes")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps", exact=True).fill("4")
    desk.page.get_by_label("Norm").select_option("linf")
    desk.result(lambda: desk.press("Translate"))
    used = desk.page.evaluate("studio.pictures.present.report.parameters")
    assert used["norm"] == "linf"
    assert used["epsilon"] == pytest.approx(desk.page.evaluate("studio.model.lengths.translate.linf.epsilon"))
    assert used["epsilon"] < 0.5
    assert not desk.page.locator("meter").is_visible()  # it is for L2 balls


def test_translation_makes_the_other_class_likelier(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.choose("stripes")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("10")
    desk.result(lambda: desk.press("Translate"))
    picture = desk.page.evaluate("studio.pictures.present.report.pictures[0]")
    assert picture["target"] == "stripes"
    assert picture["probability_after"] > picture["probability_before"]


def test_with_two_classes_translation_turns_one_into_the_other(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.page.evaluate("globalThis.before = studio.pictures.present")
    desk.page.get_by_label("Classifier").select_option("two")
    desk.until("studio.pictures.present !== before")  # as the other classifier sees it
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("3")
    seen = desk.page.locator(".bars-name").first
    seen.filter(has_text="e").wait_for()
    desk.until("document.querySelectorAll('.bars-row').length === 2")
    predicted = seen.inner_text()
    desk.result(lambda: desk.press("Translate"))
    assert {predicted, desk.page.evaluate("studio.pictures.present.report.pictures[0].target")} == {LONG, "zebra"}


def test_super_resolution_shows_what_goes_in_and_enlarges_it(desk: Desk, photo: Image.Image) -> None:
    desk.show("super-resolve")
    desk.opened(photo)
    assert desk.canvas(".goes-in canvas").shape == (SIZE // 4, SIZE // 4, 3)
    desk.page.get_by_label("Enlarge", exact=True).select_option("2")
    assert desk.canvas(".goes-in canvas").shape == (SIZE // 2, SIZE // 2, 3)
    desk.result(lambda: desk.press("Enlarge"))
    assert levels(desk.present()).shape == (SIZE, SIZE, 3)
    assert desk.page.evaluate("studio.pictures.present.report.parameters.factor") == 2


@pytest.mark.usefixtures("library")
def test_generation_shows_several_seeds_each_of_which_can_be_made_again_and_worked_on(
    desk: Desk, tmp_path: Path
) -> None:
    desk.show("generate")
    desk.choose("waves")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Seed").fill("7")
    desk.page.get_by_label("How many").fill("3")
    desk.press("Generate")
    desk.page.locator(".tile-caption").get_by_text("Seed 9", exact=True).wait_for()
    desk.until("[...document.querySelectorAll('.tile button')].every((button) => !button.disabled)")
    tiles = [
        levels(decoded(canvas.evaluate("canvas => canvas.toDataURL()")))
        for canvas in desk.page.locator(".tile canvas").all()
    ]
    assert [tile.shape for tile in tiles] == [(SIZE, SIZE, 3)] * 3
    assert (tiles[0] != tiles[1]).any()
    for other in (0, 2):  # so that there is one button of each name
        desk.page.evaluate(f"document.querySelectorAll('.tile')[{other}].hidden = true")
    assert (desk.made_again("Copy as command", tmp_path) == tiles[1]).all()
    desk.page.get_by_role("button", name="Work on it").click()
    desk.until("Boolean(studio.pictures.present)")
    assert desk.page.evaluate("location.hash") == "#paint"
    assert (levels(desk.present()) == tiles[1]).all()


def test_generation_goes_on_while_another_screen_is_shown(desk: Desk) -> None:
    desk.show("generate")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps", exact=True).fill("200")
    desk.page.get_by_label("How many").fill("2")
    desk.press("Generate")
    desk.page.get_by_text(" of 200").first.wait_for()
    desk.page.evaluate("location.hash = 'paint'")
    desk.page.get_by_role("heading", name="Paint with features").wait_for()
    desk.page.evaluate("location.hash = 'generate'")
    desk.until("document.querySelectorAll('.tile-actions button:not(:disabled)').length === 10")


def test_without_a_twin_the_classifier_that_has_one_is_offered(desk: Desk, photo: Image.Image) -> None:
    desk.show("inside")
    desk.page.get_by_label("Classifier").select_option("two")
    desk.page.get_by_text("two has nothing to be compared with").wait_for()
    desk.press("Use tiny")
    desk.opened(photo)
    assert desk.page.get_by_role("button", name="Compare", exact=True).is_enabled()
    assert not desk.page.get_by_role("button", name="Before").is_visible()  # there is no one picture to hold it against


def test_further_classifiers_of_the_service_appear_in_the_list(desk: Desk) -> None:
    desk.show("paint")
    found = desk.page.evaluate("fetch('models').then((response) => response.json())")
    found["models"].append({**found["models"][0], "name": "later"})
    desk.page.route("**/models", lambda route: route.fulfill(json=found))
    desk.page.evaluate("studio.loadModels()")
    options = desk.page.locator("#model-select option")
    desk.wait(lambda: options.count() == 4)
    assert options.last.inner_text().startswith("later · ")


def test_robust_and_standard_run_side_by_side_with_the_same_parameters(desk: Desk, photo: Image.Image) -> None:
    desk.show("inside")
    desk.opened(photo)
    desk.choose("circle")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("6")
    desk.press("Compare")
    desk.until("document.querySelectorAll('.side .results button:not(:disabled)').length >= 6")
    sides = desk.page.locator(".side").all()
    assert [side.locator(".side-name").inner_text() for side in sides] == ["tiny", "tiny-standard"]
    for side in sides:
        assert side.locator(".bars-row.target .bars-name").inner_text() == "circle"
        assert "of 2.86" in side.locator(".inside").inner_text()
    one, other = (desk.canvas(f".side:nth-child({i}) canvas") for i in (1, 2))
    assert (one != other).any()


def test_bars_loss_and_ball_tell_what_happened(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.page.locator(".bars-row").first.wait_for()
    names = desk.page.locator(".bars-name").all_inner_texts()
    assert sorted(names) == ["circle", "square", "stripes", "waves"]
    desk.choose("waves")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("8")
    desk.result(lambda: desk.press("Translate"))
    assert desk.page.evaluate("studio.inside.losses.length") == 9
    assert desk.page.locator(".curve-line").get_attribute("points").count(",") == 9
    assert desk.page.locator(".bars-row.target .bars-name").inner_text() == "waves"
    used, of = desk.page.evaluate("studio.pictures.present.inside.ball")
    assert 0 < used <= of + 1e-4
    assert desk.page.locator("meter").evaluate("meter => meter.value") > 0


def test_a_chosen_picture_of_another_format_is_opened_by_the_service(desk: Desk, photo: Image.Image) -> None:
    file = io.BytesIO()
    photo.save(file, "TIFF")
    desk.show("paint")
    desk.page.evaluate("globalThis.before = studio.pictures.present")
    desk.open(file.getvalue(), "photo.tif")  # which the browser cannot read
    desk.until("studio.pictures.present !== before")
    assert desk.shown().shape == (SIZE, SIZE, 3)
