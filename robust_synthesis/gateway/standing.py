"""What the batcher remembers of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .policy import Backoff

if TYPE_CHECKING:
    from .group import Plan

Model = tuple[str, str]
"""Name and version."""
MOST_TIRED = 60.0


@dataclass
class Trouble:
    """Something that failed, and is left alone for a while."""

    failures: int = 0
    """In a row."""
    until: float = 0.0
    message: str = ""

    def again(self, backoff: Backoff, now: float, jitter: float, message: str) -> None:
        """Failed once more. Failing while it is left alone already, like a second bundle lost with the first, is the same."""
        self.message = message
        if now >= self.until:
            self.failures += 1
            self.until = now + backoff.seconds(self.failures, jitter)


@dataclass
class Standing:
    """A worker's bundles and troubles."""

    outstanding: list[Plan] = field(default_factory=list)
    absent: Trouble = field(default_factory=Trouble)
    """It was unavailable."""
    losses: Trouble = field(default_factory=Trouble)
    """It lost a bundle."""
    refused: dict[Model, Trouble] = field(default_factory=dict)
    """It did not understand us."""
    tired_until: float = 0.0
    """Others are preferred to it: a hung worker wastes a timeout each time it is tried."""
    ended: tuple[float, int] = (0.0, 0)
    """When its last bundle came back, and with how many jobs if any of them ended with it."""
    used: set[tuple[str, str, int, int]] = field(default_factory=set)
    """Model, version, image size and bucket of the batches that it has run since it last stopped."""

    def lingers(self, jobs: int, linger: float, now: float) -> bool:
        """Whether to wait for more than so many jobs, as the bundle before had more and some of its callers may come back."""
        return jobs < self.ended[1] and now < self.ended[0] + linger

    def away(self, now: float) -> bool:
        return now < max(self.absent.until, self.losses.until)

    def refuses(self, model: Model, now: float) -> bool:
        return model in self.refused and now < self.refused[model].until

    def lost(self, backoff: Backoff, now: float, jitter: float, wasted: float, message: str) -> None:
        self.losses.again(backoff, now, jitter, message)
        self.tired_until = max(self.tired_until, now + min(wasted * 2 ** (self.losses.failures - 1), MOST_TIRED))
        self.used.clear()

    def answered(self, model: Model) -> None:
        self.absent, self.losses, self.tired_until = Trouble(), Trouble(), 0.0
        self.refused.pop(model, None)

    def message(self, model: Model) -> str:
        """What is wrong with it."""
        refused = self.refused.get(model, Trouble()).message
        return refused or self.losses.message or self.absent.message

    def returns(self, now: float, linger: float) -> list[float]:
        """When it can be asked again, for everything that it is left alone with."""
        times = [
            self.tired_until,
            self.ended[0] + linger * (self.ended[1] > 0),
            *(t.until for t in (self.absent, self.losses, *self.refused.values())),
        ]
        return [time for time in times if time > now]
