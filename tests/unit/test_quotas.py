from __future__ import annotations

import pytest

from robust_synthesis.gateway.errors import QuotaExceeded
from robust_synthesis.gateway.quotas import Quotas


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _allowed(quotas: Quotas, caller: str, rate: float) -> int:
    for count in range(10_000):
        try:
            quotas.spend(caller, rate)
        except QuotaExceeded:
            return count
    raise AssertionError


def test_a_minutes_requests_may_come_at_once_and_then_at_their_rate() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    assert _allowed(quotas, "a", 30) == 30
    with pytest.raises(QuotaExceeded, match="your key allows 30 requests a minute") as caught:
        quotas.spend("a", 30)
    assert caught.value.retry_after_seconds == pytest.approx(2)
    clock.now += 2
    assert _allowed(quotas, "a", 30) == 1
    clock.now += 20
    assert _allowed(quotas, "a", 30) == 10
    clock.now += 1000
    assert _allowed(quotas, "a", 30) == 30
    assert _allowed(quotas, "b", 30) == 30
    quotas.spend("a", None)


def test_less_than_one_a_minute_is_a_rate() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    assert _allowed(quotas, "a", 0.5) == 1
    with pytest.raises(QuotaExceeded) as caught:
        quotas.spend("a", 0.5)
    clock.now += caught.value.retry_after_seconds
    assert (clock.now, _allowed(quotas, "a", 0.5)) == (120, 1)


def test_open_requests_are_counted_however_they_end() -> None:
    quotas = Quotas(Clock())
    with quotas.opened("a", 2):
        with pytest.raises(RuntimeError), quotas.opened("a", 2):
            raise RuntimeError
        with (
            quotas.opened("a", 2),
            quotas.opened("b", 1),
            pytest.raises(QuotaExceeded, match="you have 2 requests open"),
            quotas.opened("a", 2),
        ):
            pass
    with quotas.opened("a", 1):
        pass
