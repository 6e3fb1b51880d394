"""Who is let in: origins, and how much of a visitor."""

from __future__ import annotations

import pytest

from robust_synthesis.errors import InvalidInput
from robust_synthesis.studio.protection import TooMany, Visits, allowed_origins


def test_on_the_loopback_interface_its_names_are_known() -> None:
    origins = allowed_origins("127.0.0.1:8300", 8300, [])
    assert origins == {"http://127.0.0.1:8300", "http://localhost:8300", "http://[::1]:8300"}


def test_a_proxy_adds_its_own() -> None:
    assert "http://127.1.2.3:8300" in allowed_origins("127.1.2.3:8300", 8300, [])
    assert "https://studio.example" in allowed_origins("127.0.0.1:8300", 8300, ["https://Studio.example"])


def test_on_the_network_whoever_runs_it_says_what_visitors_type() -> None:
    with pytest.raises(InvalidInput, match="origin: is missing"):
        allowed_origins("0.0.0.0:8300", 8300, [])
    origin = "http://studio.example:8300"
    assert allowed_origins("0.0.0.0:8300", 8300, [origin]) == {origin}


@pytest.mark.parametrize(
    "origin", ["studio.example", "https://", "https://studio.example/path", "ftp://studio.example", "*"]
)
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInput, match="give what visitors type"):
        allowed_origins("127.0.0.1:8300", 8300, [origin])


def test_a_visitor_has_so_many_orders_and_others_have_their_own() -> None:
    visits = Visits(orders=2)
    with visits.job("a"), visits.job("a"):
        with pytest.raises(TooMany, match="You have 2 orders under way"), visits.job("a"):
            pass
        with visits.job("b"):
            pass
    with visits.job("a"):
        pass
    assert not visits._orders
