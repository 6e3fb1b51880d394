"""What both clients raise, what they try again, and how they connect."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from PIL import Image

from robust_synthesis.client import (
    Client,
    DeadlineExceeded,
    InvalidInput,
    JobLost,
    NotFound,
    Overloaded,
    QuotaExceeded,
    ServerError,
    ServerFailed,
    Unauthenticated,
    Unavailable,
    Unsuitable,
)
from robust_synthesis.client.connection import SERVER_VARIABLE, Connection
from robust_synthesis.client.testing import CALL_ID, FakeGateway, bad_field, colour, status

PHOTO = Image.new("RGB", (6, 4), (10, 20, 30))
MASK = Image.new("L", (6, 4), 255)


BUSY = status(code_pb2.UNAVAILABLE, "SHUTTING_DOWN", "the gateway is stopping.")


def _later(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(int(1000 * seconds))
    return error_details_pb2.RetryInfo(retry_delay=delay)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("spec.descent.steps", "steps"),
        ("spec.placement.size", "size"),
        ("spec.region.mask", "mask"),
        ("task.paint_features.unit_name", "unit"),
        ("spec.brush", "unit"),
        ("model", "model"),
        ("output.quality", "quality"),
    ],
)
def test_bad_input_names_the_clients_own_parameter(field: str, name: str, client: Client, gateway: FakeGateway) -> None:
    details = bad_field(field, "is wrong; mend it.")
    gateway.errors.append(status(code_pb2.INVALID_ARGUMENT, "INVALID_INPUT", "x", details))
    with pytest.raises(InvalidInput, match=f"^{name}: is wrong; mend it.$") as caught:
        client.generate("dog")
    assert caught.value.field == name
    assert not isinstance(caught.value, NotFound)


def test_not_found_has_the_servers_near_names(either: Any, gateway: FakeGateway) -> None:
    details = bad_field("spec.target", "there is no class 'dgo'; did you mean dog?")
    gateway.errors.append(status(code_pb2.NOT_FOUND, "NOT_FOUND", "x", details))
    with pytest.raises(NotFound, match=r"^target: there is no class 'dgo'; did you mean dog\?$") as caught:
        either.generate("dgo")
    assert caught.value.field == "target"


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("FAILED_PRECONDITION", "UNSUITABLE_MODEL", Unsuitable),
        ("UNAUTHENTICATED", "UNAUTHENTICATED", Unauthenticated),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", DeadlineExceeded),
        ("ABORTED", "JOB_LOST", JobLost),
        ("INTERNAL", "INTERNAL", ServerFailed),
        ("UNIMPLEMENTED", "", ServerFailed),
    ],
)
def test_statuses_become_exceptions(
    code: str, reason: str, kind: type[Exception], either: Any, gateway: FakeGateway
) -> None:
    gateway.errors.append(status(code_pb2.Code.Value(code), reason, "one sentence."))
    with pytest.raises(kind, match="one sentence") as caught:
        either.generate("dog")
    assert type(caught.value) is kind
    if isinstance(caught.value, ServerError):
        assert (caught.value.code, caught.value.reason, caught.value.request_id) == (code, reason, CALL_ID)


@pytest.mark.parametrize(("reason", "kind"), [("OVERLOADED", Overloaded), ("QUOTA_EXCEEDED", QuotaExceeded)])
def test_an_overloaded_server_says_when_to_come_back(reason: str, kind: type[Overloaded], gateway: FakeGateway) -> None:
    gateway.errors.append(status(code_pb2.RESOURCE_EXHAUSTED, reason, "full.", _later(2.5)))
    with Client(gateway.target, attempts=1) as client, pytest.raises(kind, match=r"^full\.$") as caught:
        client.generate("dog")
    assert type(caught.value) is kind
    assert caught.value.retry_after_seconds == 2.5


def test_what_is_wrong_before_it_is_sent_is_not_sent(either: Any, gateway: FakeGateway) -> None:
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: either.generate("dog", steps=0), "steps"),
        (lambda: either.generate("dog", size=-1), "size"),
        (lambda: either.generate("dog", size="64"), "size"),
        (lambda: either.generate("dog", colour="red"), "colour"),
        (lambda: either.generate("d\udcffg"), "target"),
        (lambda: either.generate("dog", paste_back=True), "paste_back"),
        (lambda: either.generate("dog", format="bmp"), "format"),
        (lambda: either.generate("dog", quality=0), "quality"),
        (lambda: either.inpaint(PHOTO), "mask"),
        (lambda: either.inpaint(b"not an image", MASK), "image"),
        (lambda: either.inpaint(PHOTO, box=(-1, 0, 2, 2)), "box"),
        (lambda: either.paint_features(PHOTO, MASK, unit=-1), "unit"),
        (lambda: either.translate("missing.png"), "image"),
        (lambda: either.classify(PHOTO, top=0), "top"),
        (lambda: either.classify(PHOTO, fit="bend"), "fit"),
    ]
    for call, field in wrong:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.field == field
    assert gateway.calls == []


def test_a_picture_that_cannot_be_read_is_the_servers_fault(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_synthesis.client.testing._file", lambda *_: b"{}")
    with pytest.raises(ServerFailed, match="sent a picture that cannot be used"):
        client.generate("dog")


# Retries and deadlines


def test_calls_are_tried_again_with_the_same_request_id(either: Any, gateway: FakeGateway) -> None:
    gateway.errors += [BUSY, BUSY]
    assert either.generate("dog", seed=4).image.getpixel((0, 0)) == colour(4)
    assert len(gateway.calls) == 3
    assert len({request.request_id for _, request in gateway.calls}) == 1


def test_streams_that_have_not_begun_are_tried_again_too(client: Client, gateway: FakeGateway) -> None:
    gateway.errors.append(BUSY)
    assert client.stream.generate("dog", seed=4).result().image.getpixel((0, 0)) == colour(4)
    assert len(gateway.calls) == 2


def test_large_images_are_tried_again_too(client: Client, gateway: FakeGateway) -> None:
    gateway.errors.append(BUSY)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    client.maximize_class(noise, "dog")
    (_, request), _ = gateway.calls
    assert len(request.spec.image) > 2_500_000


def test_attempts_are_bounded(client: Client, gateway: FakeGateway) -> None:
    gateway.errors += [BUSY] * 9
    gateway.pushback = 1
    with pytest.raises(Unavailable, match="the gateway is stopping"):
        client.generate("dog")
    assert len(gateway.calls) == 5


def test_the_servers_pushback_is_obeyed(client: Client, gateway: FakeGateway) -> None:
    gateway.errors.append(status(code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED", "full.", _later(0.7)))
    gateway.pushback = 700
    started = time.monotonic()
    client.generate("dog")
    assert time.monotonic() - started >= 0.7
    gateway.errors.append(BUSY)
    gateway.pushback = -1
    with pytest.raises(Unavailable):
        client.generate("dog")


def test_errors_that_a_retry_cannot_mend_are_not_tried_again(client: Client, gateway: FakeGateway) -> None:
    gateway.errors.append(status(code_pb2.INTERNAL, "INTERNAL", "broken."))
    with pytest.raises(ServerFailed):
        client.generate("dog")
    assert len(gateway.calls) == 1


def test_a_timeout_ends_a_call_and_its_computation(either: Any, gateway: FakeGateway) -> None:
    gateway.seconds = 0.05
    with pytest.raises(DeadlineExceeded, match="allow more"):
        either.generate("dog", steps=1000, timeout=0.2)
    assert gateway.stopped.wait(5)


def test_nobody_at_the_address_is_unavailable() -> None:
    with (
        Client("127.0.0.1:1", attempts=1) as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be reached"),
    ):
        client.models()


def test_a_port_that_is_open_and_silent_may_be_a_server_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Connection.options.fget  # type: ignore[attr-defined]
    impatient = property(lambda self: [*usual(self), ("grpc.min_reconnect_backoff_ms", 200)])  # 20 s by default
    monkeypatch.setattr(Connection, "options", impatient)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, attempts=1) as client, pytest.raises(Unavailable, match="it may be starting"):
            client.models()


# Connections


@pytest.mark.parametrize("server", ["host:port", ":50051", "host:0", "host:70000", ""])
def test_an_address_that_is_none_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    with pytest.raises(InvalidInput, match=r"^server: "):
        Client(server)


def test_the_environment_names_the_server(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, gateway.target)
    with Client() as client:
        assert client.models()[0].name == "fake"


def test_the_key_is_shown(gateway: FakeGateway) -> None:
    with Client(gateway.target, key="secret") as client:
        client.generate("dog")
        client.models()
    assert gateway.keys == ["Bearer secret"] * 2
    with pytest.raises(InvalidInput, match=r"^key: "):
        Client(gateway.target, key="a\nb")


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_and_a_certificate_of_ones_own(mutual: bool, tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("localhost", "caller"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = (tmp_path / "localhost.key").read_bytes(), (tmp_path / "localhost.pem").read_bytes()
    ca = (tmp_path / "ca.pem").read_bytes() if mutual else None
    own: dict[str, Any]
    own = {"tls_cert": tmp_path / "caller.pem", "tls_key": tmp_path / "caller.key"} if mutual else {}
    with FakeGateway(credentials=grpc.ssl_server_credentials([pair], ca, mutual)) as gateway:
        with Client(gateway.target, tls_ca=tmp_path / "ca.pem", **own) as client:
            assert client.models()[0].name == "fake"
        wrong: dict[str, Any] = {"tls_ca": tmp_path / "ca.pem"} if mutual else {"tls": True}
        with (
            Client(gateway.target, attempts=1, **wrong) as stranger,
            pytest.raises(Unavailable, match="check the address"),
        ):
            stranger.models()
