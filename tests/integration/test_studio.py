"""The app of the studio, as a program that is no browser sees it."""

from __future__ import annotations

import contextlib
import io
import json
import urllib.error
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from google.rpc import code_pb2
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from robust_synthesis import imaging
from robust_synthesis.client.testing import FakeGateway, bad_field, status
from robust_synthesis.studio.app import MAX_MESSAGE_BYTES
from robust_synthesis.studio.envelope import pack, unpack
from robust_synthesis.studio.protection import Visits
from robust_synthesis.studio.running import serving
from robust_synthesis.testing import picture

PNG = imaging.encode(picture())
FRAME = {"model": "fake", "size": 16, "fit": "crop"}
PAINT = {"task": "paint_features", "target": "dog", "steps": 4, "seed": 7}


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as gateway:
        yield gateway


@pytest.fixture
def studio(gateway: FakeGateway) -> Iterator[str]:
    with serving(gateway.target, visits=Visits(pages=2, orders=3)) as url:
        yield url


def socket(studio: str, origin: str | None = None) -> ClientConnection:
    return connect(studio.replace("http", "ws") + "/orders", origin=Origin(origin or studio), max_size=None)


def hear(page: ClientConnection, *events: str) -> tuple[dict[str, Any], list[bytes]]:
    """The next message that is one of these events."""
    while True:
        message = page.recv(timeout=30)
        assert isinstance(message, bytes)
        head, files = unpack(message)
        if head["event"] in events:
            return head, files


def get(url: str, **headers: str) -> tuple[int, Any, bytes]:
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_page_may_load_nothing_from_elsewhere_and_nobody_may_frame_it(studio: str) -> None:
    code, headers, body = get(studio)
    assert code == 200
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert b"http" not in body.replace(b"http-equiv", b"")
    assert get(f"{studio}/page/scripts/main.js")[1]["content-type"].startswith("text/javascript")


def test_files_beside_the_page_are_not_served(studio: str) -> None:
    assert get(f"{studio}/page/../screenshots.py")[0] == 404
    assert get(f"{studio}/page/%2e%2e/screenshots.py")[0] == 404


def test_a_name_that_the_studio_is_not_known_by_is_refused(studio: str) -> None:
    assert get(studio, Host="rebound.example")[0] == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
def test_a_page_of_somebody_else_cannot_open_the_socket(studio: str, origin: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        socket(studio, origin)


def test_a_socket_without_an_origin_is_refused(studio: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(studio.replace("http", "ws") + "/orders")


def test_a_message_that_is_too_large_ends_the_connection_and_no_other(studio: str) -> None:
    with socket(studio) as other:
        with socket(studio) as page:
            with contextlib.suppress(ConnectionClosed):  # in the midst of it
                page.send(bytes(MAX_MESSAGE_BYTES + 1))
            with pytest.raises(ConnectionClosed):
                hear(page, "never")
        other.send(pack({"id": 1, "do": "square", **FRAME}))
        assert hear(other, "picture")[0]["id"] == 1


def test_nonsense_is_answered_and_the_conversation_goes_on(studio: str) -> None:
    with socket(studio) as page:
        page.send(b"\0\0\0\x02{}")
        assert hear(page, "failed")[0]["field"] == "message"
        page.send(pack({"id": 0, "do": "cancel", "of": ["all"]}))
        orders: list[dict[str, Any]] = [
            {"do": "shout"},
            {"do": ["edit"]},
            {"do": "edit"},
            {"do": "edit", **FRAME, "task": 3},
            {"do": "animate"},
        ]
        for number, order in enumerate(orders, 1):
            page.send(pack({"id": number, **order}))
            head, _ = hear(page, "failed")
            assert (head["id"], head["message"][-20:]) == (number, "load the page again.")
        page.send(pack({"id": 9, "do": "square", **FRAME}))
        assert hear(page, "picture")[0]["id"] == 9


def test_edits_from_the_picture_that_the_last_one_left_share_a_session(studio: str, gateway: FakeGateway) -> None:
    with socket(studio) as page:
        page.send(pack({"id": 1, "do": "square", **FRAME}, [PNG]))
        _, (square,) = hear(page, "picture")
        page.send(pack({"id": 2, "do": "edit", **FRAME, "task": PAINT}, [square, PNG]))
        frame, (preview,) = hear(page, "frame")
        assert (frame["step"], frame["steps"]) == (2, 4)
        assert imaging.decode(preview).size == (16, 16)
        result, (painted,) = hear(page, "result")
        assert result["report"]["parameters"]["seed"] == 7
        page.send(pack({"id": 3, "do": "edit", **FRAME, "task": PAINT}, [painted, PNG]))
        hear(page, "result")
        asked = [request.WhichOneof("action") for method, request in gateway.calls if method == "Edit"]
        assert asked == ["open", "apply", "apply"]
        page.send(pack({"id": 4, "do": "edit", **FRAME, "task": PAINT}, [square, PNG]))  # after an undo
        hear(page, "result")
        asked = [request.WhichOneof("action") for method, request in gateway.calls if method == "Edit"]
        assert asked[3:] == ["open", "apply"]


def test_an_empty_file_is_no_blank_picture(studio: str) -> None:
    with socket(studio) as page:
        page.send(pack({"id": 1, "do": "square", **FRAME}, [b""]))
        head, _ = hear(page, "failed", "picture")
        assert (head["field"], head["message"]) == ("image", "is an empty file; open another one.")


def test_what_the_service_says_comes_with_its_field(studio: str, gateway: FakeGateway) -> None:
    violation = bad_field("apply.task.paint_features.descent.steps", "is 4; give 5.")
    gateway.refusals.append(status(code_pb2.INVALID_ARGUMENT, "INVALID_INPUT", "no.", violation))
    with socket(studio) as page:
        page.send(pack({"id": 1, "do": "edit", **FRAME, "task": PAINT}, [PNG, PNG]))
        head, _ = hear(page, "failed")
        assert (head["field"], head["message"]) == ("steps", "is 4; give 5.")
        assert not head["lost"]
        assert not head["cancelled"]


def test_a_visitor_has_so_many_orders_at_a_time(studio: str, gateway: FakeGateway) -> None:
    gateway.seconds = 0.5
    task = {"task": "generate", "target": "dog"}
    with socket(studio) as page:
        for number in range(1, 5):
            page.send(
                pack({"id": number, "do": "make", "model": "", "options": {}, "task": task, "frames": 0, "with": []})
            )
        head, _ = hear(page, "failed")
        assert head["id"] == 4
        assert head["message"].startswith("You have 3 orders under way")
        with socket(studio), socket(studio) as third, pytest.raises(ConnectionClosed) as closed:
            hear(third, "never")
        assert "2 pages" in str(closed.value)


def test_behind_a_proxy_on_this_machine_a_visitor_is_who_the_proxy_says(gateway: FakeGateway) -> None:
    with serving(gateway.target, visits=Visits(pages=1)) as url, contextlib.ExitStack() as stack:

        def visit(address: str) -> ClientConnection:
            headers = {"x-forwarded-for": address}
            at = url.replace("http", "ws") + "/orders"
            return stack.enter_context(connect(at, origin=Origin(url), additional_headers=headers))

        for address in ("192.0.2.1", "192.0.2.2"):
            hear(visit(address), "gateway")
        with pytest.raises(ConnectionClosed):
            hear(visit("192.0.2.1"), "gateway")


def test_frames_that_are_no_frames_are_not_drawn(studio: str) -> None:
    large = imaging.encode(Image.new("RGB", (4000, 4000)))
    with socket(studio) as page:
        page.send(pack({"id": 1, "do": "animate", "format": "gif", "enlarge": 64}, [PNG, large]))
        assert hear(page, "failed")[0]["field"] == "frames"
        page.send(pack({"id": 2, "do": "animate", "format": "gif", "enlarge": 64}, [PNG] * 201))
        assert hear(page, "failed")[0]["message"] == "are 201; give at most 200."
        page.send(pack({"id": 3, "do": "animate", "format": "gif", "enlarge": 64}, [PNG, PNG]))
        _, (file,) = hear(page, "animation")
        assert Image.open(io.BytesIO(file)).size == (64, 64)


def test_leaving_cancels_what_is_under_way(studio: str, gateway: FakeGateway) -> None:
    gateway.seconds = 0.2
    task = {"task": "generate", "target": "dog", "steps": 1000}
    with socket(studio) as page:
        page.send(pack({"id": 1, "do": "make", "model": "", "options": {}, "task": task, "frames": 0, "with": []}))
        assert gateway.computing.wait(30)
    assert gateway.stopped.wait(30)


def test_models_are_described_with_the_defaults_of_their_cards(studio: str) -> None:
    found = json.loads(get(f"{studio}/models")[2])
    assert found["default"] == "fake"
    (model,) = found["models"]
    assert (model["name"], model["classes"], model["size"], model["starts"]) == ("fake", ["cat", "dog"], 16, ["noise"])
    assert model["defaults"]["paint_features"]["steps"] == 140
    assert len(model["defaults"]) == len(model["lengths"]) == 7
    epsilon = model["defaults"]["translate"]["epsilon"]
    lengths = model["lengths"]["translate"]
    assert lengths["l2"]["epsilon"] == epsilon
    assert lengths["linf"]["epsilon"] == pytest.approx(epsilon / (3 * 16 * 16) ** 0.5)


def test_units_are_asked_for_once_and_their_pictures_kept_by_the_browser(studio: str, gateway: FakeGateway) -> None:
    at = f"{studio}/models/fake/0123456789abcdef/units"
    units = json.loads(get(at)[2])
    assert [(unit["unit"], unit["class"], unit["pictured"]) for unit in units] == [(i, "cat", True) for i in range(3)]
    code, headers, file = get(f"{at}/1")
    assert (code, headers["content-type"]) == (200, "image/webp")
    assert "immutable" in headers["cache-control"]
    assert imaging.decode(file).size == (16, 16)
    assert get(f"{at}/7")[0] == 404
    assert sum(method == "ListUnits" for method, _ in gateway.calls) == 2  # two pages of them


def test_a_lost_gateway_is_told(gateway: FakeGateway) -> None:
    with serving(gateway.target) as url, socket(url) as page:
        while not hear(page, "gateway")[0]["up"]:
            pass
        gateway._server.stop(0).wait()
        head, _ = hear(page, "gateway")
        assert head["up"] is False
        assert gateway.target in head["why"]
        page.send(pack({"id": 1, "do": "square", **FRAME}))
        assert hear(page, "failed")[0]["lost"] is True
