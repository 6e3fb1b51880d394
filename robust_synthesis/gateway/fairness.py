"""Who is next: start-time fair queueing (Goyal, Vin and Cheng 1996) between callers, and between interactive jobs and others.

Every caller has a tag, the work it was given so far; the lowest is next. Who did not wait starts again at the level of those who
do, so nobody saves up a claim, and nobody pays later for what nobody else wanted.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable
from typing import Generic, Self, TypeVar

Key = TypeVar("Key", bound=Hashable)
LEAD = 20_000.0
"""Most that a caller can be ahead of those who wait, in evaluations at 64 pixels: it can come from work that nobody who
waits could have had, because it was for another classifier."""

Who = tuple[bool, str]
"""Whether interactive, and the caller."""


class FairShare(Generic[Key]):
    """One level of fair queueing."""

    def __init__(self) -> None:
        self._level = 0.0
        self._tags: dict[Key, float] = {}
        self._waiting: frozenset[Key] = frozenset()
        self._served: dict[Key, int] = {}
        self._turns = 0

    def __copy__(self) -> Self:
        other = type(self)()
        other.__dict__.update(self.__dict__, _tags=dict(self._tags), _served=dict(self._served))
        return other

    def rank(self, key: Key) -> tuple[float, int]:
        """Lowest is next: the work it was given, then how recently it had a turn."""
        return self._tag(key), self._served.get(key, 0)

    def charge(self, key: Key, cost: float) -> None:
        self._tags[key] = self._tag(key) + cost
        self._turns += 1
        self._served[key] = self._turns

    def settle(self, waiting: Collection[Key]) -> None:
        """After every round of turns: who had to go on waiting."""
        tags = {key: self._tag(key) for key in waiting}
        level = min(tags.values()) if tags else max(self._tags.values(), default=0.0)
        self._level = max(self._level, level)
        self._tags = {key: tag for key, tag in self._tags.items() if tag > self._level} | tags
        self._served = {key: turn for key, turn in self._served.items() if key in self._tags}
        self._waiting = frozenset(waiting)

    def _tag(self, key: Key) -> float:
        tag = self._tags.get(key, self._level)
        return min(tag if key in self._waiting else max(tag, self._level), self._level + LEAD)


class Fairness:
    """Interactive jobs come first, up to a multiple of the others' share; within each kind, callers have equal shares."""

    def __init__(self, interactive_weight: float) -> None:
        self._weight = interactive_weight
        self._kinds: FairShare[bool] = FairShare()
        self._callers: FairShare[Who] = FairShare()

    def trial(self) -> Fairness:
        """A copy, to find an order with."""
        other = Fairness(self._weight)
        other._kinds, other._callers = copy.copy(self._kinds), copy.copy(self._callers)
        return other

    def kind_rank(self, interactive: bool) -> tuple[float, bool]:
        return self._kinds.rank(interactive)[0], not interactive

    def caller_rank(self, who: Who) -> tuple[float, int]:
        return self._callers.rank(who)

    def charge(self, who: Who, cost: float) -> None:
        self._kinds.charge(who[0], cost / (self._weight if who[0] else 1.0))
        self._callers.charge(who, cost)

    def settle(self, waiting: Collection[Who]) -> None:
        self._kinds.settle({who[0] for who in waiting})
        self._callers.settle(waiting)
