"""What the batcher remembers of a worker."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .policy import Backoff, Policy

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


@dataclass(frozen=True)
class Ended:
    """A bundle with which jobs ended. Their callers may send others before long, to share the next one."""

    at: float
    kind: tuple[str, int]
    """Classifier and image size."""
    jobs: int
    """It had."""
    ended: int
    """Of them, with it."""
    seconds: float
    """That it should compute."""


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
    ended: Ended | None = None
    """The last bundle with which jobs ended."""
    holds: set[Model] = field(default_factory=set)
    """Classifiers of which it keeps where jobs stand."""
    follow_at: float = math.inf
    """When the bundle behind the one under way should go out."""
    alone_until: float = 0.0
    """Before which no bundle is sent to follow another: it refused one, or did not have its jobs."""
    in_a_row: int = 0
    """Bundles of which each followed the one before."""
    used: set[tuple[str, str, int, int]] = field(default_factory=set)
    """Model, version, side of the images and size of the batches, with padding, that it has run since it last stopped."""

    def away(self, now: float) -> bool:
        return now < max(self.absent.until, self.losses.until)

    def refuses(self, model: Model, now: float) -> bool:
        return model in self.refused and now < self.refused[model].until

    def lost(self, backoff: Backoff, now: float, jitter: float, wasted: float, message: str) -> None:
        self.losses.again(backoff, now, jitter, message)
        self.tired_until = max(self.tired_until, now + min(wasted * 2 ** (self.losses.failures - 1), MOST_TIRED))
        self.used.clear()
        self.holds.clear()

    def answered(self, model: Model) -> None:
        self.absent, self.losses, self.tired_until = Trouble(), Trouble(), 0.0
        self.refused.pop(model, None)

    def message(self, model: Model) -> str:
        """What is wrong with it."""
        refused = self.refused.get(model, Trouble()).message
        return refused or self.losses.message or self.absent.message

    def lingers_until(self, kind: tuple[str, int], waiting: int, policy: Policy) -> float:
        """Before which no bundle of the kind goes out while so few jobs wait for it."""
        if self.ended is None or kind != self.ended.kind or waiting >= self.ended.jobs:
            return -math.inf
        return self.ended.at + policy.lingers(self.ended.seconds, more_ended=waiting < self.ended.ended)

    def expects(self, kind: tuple[str, int], waiting: int, policy: Policy, now: float) -> bool:
        """Whether more jobs of the kind than wait may come while a bundle computes, as more have ended just now."""
        if self.ended is None or kind != self.ended.kind:
            return False
        return waiting < self.ended.ended and now < self.ended.at + policy.returning

    def returns(self, now: float, policy: Policy) -> list[float]:
        """When it can be asked again, for everything that it is left alone with."""
        ended = self.ended
        times = [
            self.tired_until,
            self.follow_at if self.outstanding else -math.inf,
            *(ended.at + policy.lingers(ended.seconds, more_ended=more) for more in (False, True) if ended is not None),
            *(t.until for t in (self.absent, self.losses, *self.refused.values())),
        ]
        return [time for time in times if now < time < math.inf]
