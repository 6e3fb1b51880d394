"""What a visitor is told, and what happens, when something is wrong."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from PIL import Image

from robust_synthesis.studio.running import serving

from .conftest import Desk, Service, levels


def test_a_corrupt_file_is_refused_with_the_sentence_of_the_service(desk: Desk, photo: Image.Image) -> None:
    desk.show("paint")
    desk.open(b"\x89PNG\r\n\x1a\n and nothing else")
    failure = desk.page.locator(".bench > .failure")
    failure.wait_for()
    assert failure.inner_text().startswith("image: ")
    desk.page.evaluate("location.hash = 'translate'")
    desk.page.get_by_role("heading", name="Translate").wait_for()
    assert not failure.is_visible()  # it is not about this screen
    desk.opened(photo)


def test_a_wrong_parameter_is_told_next_to_its_control(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.choose("waves")
    desk.page.get_by_text("Advanced").click()
    steps = desk.page.get_by_label("Steps")
    steps.fill("20000")
    desk.press("Translate")
    error = desk.page.locator("[data-field=steps] .field-error")
    error.wait_for()
    assert error.inner_text() == "steps: is 20000; give a whole number from 1 to 10000."
    assert steps.get_attribute("aria-invalid") == "true"
    steps.fill("5")
    assert not error.is_visible()
    desk.result(lambda: desk.press("Translate"))


def test_what_is_no_number_is_told_next_to_its_control(desk: Desk, photo: Image.Image) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps", exact=True).focus()
    desk.page.keyboard.type("1e")
    for screen, button in (("translate", "Translate"), ("generate", "Generate")):
        desk.page.evaluate(f"location.hash = '{screen}'")
        desk.page.get_by_role("button", name=button, exact=True).wait_for()
        if screen == "generate":
            desk.page.get_by_text("Advanced").click()
            desk.page.get_by_label("Steps", exact=True).focus()
            desk.page.keyboard.type("-")
        desk.press(button)
        error = desk.page.locator("[data-field=steps] .field-error")
        error.wait_for()
        assert error.inner_text() == "steps: is no number."
    assert desk.page.evaluate("studio.pictures.undoable") is False


def test_a_double_click_asks_once(desk: Desk, photo: Image.Image, service: Service) -> None:
    desk.show("translate")
    desk.opened(photo)
    desk.choose("stripes")
    service.in_flight.most = 0
    desk.result(lambda: desk.page.get_by_role("button", name="Translate", exact=True).dblclick())
    assert desk.page.evaluate("studio.pictures.before.report") is None  # one result, from the photo
    desk.wait(lambda: not service.in_flight.tickets)


def test_a_mask_with_nothing_in_it_is_told_at_the_mask(desk: Desk, photo: Image.Image) -> None:
    desk.show("inpaint")
    desk.opened(photo)
    desk.press("Fill it")
    desk.page.get_by_text("mask: is empty").wait_for()


def test_a_photo_that_is_too_large_is_not_sent(desk: Desk) -> None:
    desk.show("paint")
    desk.page.evaluate("studio.limits.photo_bytes = 1000")
    desk.open(b"\x89PNG" + bytes(2000))
    desk.page.get_by_text("image: has 1 MiB").wait_for()


def test_the_page_reconnects_and_goes_on_after_the_gateway_was_restarted(
    desk: Desk, photo: Image.Image, service: Service
) -> None:
    desk.show("paint")
    desk.opened(photo)
    desk.page.get_by_role("radio", name="Class", exact=True).check()
    desk.choose("stripes")
    desk.result(lambda: desk.stroke((0.2, 0.25), (0.8, 0.25)))
    painted = levels(desk.present())
    service.stop()
    try:
        desk.page.get_by_text("Reconnecting…").wait_for()
        desk.page.evaluate("globalThis.before = studio.pictures.present")
        desk.stroke((0.2, 0.75), (0.8, 0.75))  # asked for while nobody is there
        assert desk.canvas(".easel-layer")[12].any()  # the tint says that it waits
    finally:
        service.start()
    desk.page.get_by_text("Connected").wait_for()
    desk.until("studio.pictures.present !== before")
    again = levels(desk.present())
    assert (again[:6] == painted[:6]).all()  # what was painted before is still there
    assert (again[10:14] != painted[10:14]).any()
    desk.errors.clear()  # the browser may log that models could not be asked for


def test_the_page_goes_on_after_the_studio_itself_was_restarted(
    browser: Any, photo: Image.Image, service: Service
) -> None:
    with contextlib.ExitStack() as first:
        url = first.enter_context(serving(service.target))
        desk = Desk(browser.new_page(), url)
        desk.show("translate")
        desk.opened(photo)
        desk.choose("stripes")
    desk.page.get_by_text("Reconnecting…").wait_for()
    desk.press("Translate")
    with serving(service.target, listen=url.removeprefix("http://")):
        desk.until("Boolean(studio.pictures.present.report)")
    desk.page.close()


def test_closing_the_page_cancels_its_jobs(desk: Desk, photo: Image.Image, service: Service) -> None:
    desk.show("generate")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("10000")
    desk.page.get_by_label("How many").fill("4")
    desk.press("Generate")
    desk.wait(lambda: len(service.in_flight.tickets) == 4)
    desk.page.close()
    end = time.monotonic() + 30
    while service.in_flight.tickets:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stop_cancels_what_is_under_way_and_the_picture_stays(desk: Desk, photo: Image.Image, service: Service) -> None:
    desk.show("translate")
    desk.opened(photo)
    before = desk.shown()
    desk.choose("waves")
    desk.page.get_by_text("Advanced").click()
    desk.page.get_by_label("Steps").fill("10000")
    desk.press("Translate")
    desk.page.get_by_text(" of 10000").wait_for()
    desk.press("Stop")
    desk.wait(lambda: not service.in_flight.tickets)
    desk.page.get_by_role("button", name="Translate", exact=True).wait_for()
    assert (desk.shown() == before).all()
