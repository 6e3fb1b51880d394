"""How much work the gateway takes on: bounded by what its workers finish within the grace period, and for each caller by a share.

Policy, without messages or I/O. Work is counted in evaluations at 64 pixels, as callers are charged; the workers' speeds turn it
into seconds. Two facts of fair queueing are used. Among callers who take turns, one with w seconds of work before it is done when
every other has had as much, or all that it wants: after the sum of min(w, each caller's work). And so a request too large for the
bound, which is accepted when there is nothing else, costs the others no more than its caller's share, whatever its size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .errors import DeadlineExceeded, Overloaded, QuotaExceeded

REFRESH = 0.1
"""Seconds after which progress is looked up again."""
SHORTEST_RETRY = 0.1
LONGEST_RETRY = 30.0
_NOTHING = 1e-6
"""Seconds that are rounding."""


class Kind(NamedTuple):
    """Jobs that are computed at one speed."""

    model: str
    side: int
    """Of the picture, in pixels."""
    exact: bool = False


@dataclass(frozen=True)
class Speed:
    """Of some kind of jobs."""

    rate: float
    """Evaluations at 64 pixels in a second, in full batches, by all workers together."""
    step: float
    """Seconds of one evaluation of a job that is alone: no job is faster."""
    workers: frozenset[str]
    """By name."""


@dataclass(frozen=True)
class Work:
    """What a request asks of the workers."""

    kind: Kind
    evaluations: int
    """Of each picture."""
    pictures: int = 1
    bytes: int = 0
    """Of its images and masks."""

    @property
    def cost(self) -> float:
        """In evaluations at 64 pixels."""
        return self.evaluations * self.pictures * (self.kind.side / 64) ** 2


@dataclass(frozen=True)
class Bounds:
    """Of what is held at a time."""

    seconds: float = 12.0
    """Of the workers' time; also the longest that a single job may take where there are others."""
    share: float = 0.5
    """Of each bound, for one caller that has a name. Callers without one are one caller, and may have all."""
    requests: int = 1000
    bytes: int = 512 * 2**20

    def part(self, caller: str, share: float | None) -> float:
        """Of each bound, what a caller may hold; `share` is its own."""
        return share if share is not None else self.share if caller else 1.0


class Place:
    """A request that was let in. `left` is what it still needs, in evaluations at 64 pixels."""

    def __init__(self, caller: str, work: Work) -> None:
        self.caller = caller
        self.work = work
        self.look: Callable[[], float] = lambda: work.cost
        """Says what is left; replaced once somebody knows."""
        self.left = work.cost


class Queue:
    """All that was let in and has not ended."""

    def __init__(self, bounds: Bounds, speed: Callable[[Kind], Speed | None], clock: Callable[[], float]) -> None:
        """`speed` is None where nothing is known, or there is no worker: then work waits for one until its deadline."""
        self._bounds = bounds
        self._speed = speed
        self._clock = clock
        self._places: set[Place] = set()
        self._left: defaultdict[tuple[str, Kind], float] = defaultdict(float)
        self._speeds: dict[Kind, Speed | None] = {}
        self._limits: dict[str, float] = {}
        """Seconds of each caller."""
        self._promised: dict[str, float] = {}
        """Until when others were told to wait, who had used up their share, or, under "", who found the queue full."""
        self._bytes = 0
        self._looked = clock()

    def __len__(self) -> int:
        return len(self._places)

    def enter(
        self, caller: str, work: Work, *, deadline: float, share: float | None = None, interactive: bool = False
    ) -> Place:
        """Let a request in, or raise Overloaded, QuotaExceeded or DeadlineExceeded. `deadline` is on the queue's clock.

        `share` is the caller's own, instead of that of the bounds. An idle server lets in everything, however large.
        """
        self._refresh()
        part = self._bounds.part(caller, share)
        self._limits[caller] = part * self._bounds.seconds
        self._check_room(work)
        self._check_own_room(caller, work, part)
        speed = self._speed_of(work.kind)
        held = {} if speed is None else self._seconds(speed.workers)
        if speed is not None and held:
            self._check_time(caller, work, speed, held)
            rivals = {caller: held.get(caller, 0.0)} if interactive else held
            self._check_deadline(caller, work, speed, rivals, deadline)
        place = Place(caller, work)
        self._places.add(place)
        self._left[caller, work.kind] += place.left
        self._bytes += work.bytes
        return place

    def leave(self, place: Place) -> None:
        """It has ended, however."""
        self._places.remove(place)
        self._bytes -= place.work.bytes
        self._left[place.caller, place.work.kind] -= place.left

    def seconds(self) -> float:
        """Until all that is held is done, as far as can be told, by workers that share it."""
        self._refresh()
        return sum(self._seconds(None).values())

    def _check_room(self, work: Work) -> None:
        full = len(self._places) >= self._bounds.requests
        if full or (self._places and self._bytes + work.bytes > self._bounds.bytes):
            what = f"{len(self._places)} requests" if full else f"{self._bytes / 2**20:.0f} MiB of images"
            mean = sum(self._seconds(None).values()) / len(self._places)
            raise Overloaded(
                f"the queue is full ({what}); try again later.", retry_after_seconds=self._retry(mean, mean)
            )

    def _check_own_room(self, caller: str, work: Work, part: float) -> None:
        requests, most_bytes = part * self._bounds.requests, part * self._bounds.bytes
        if part == 1 or (len(self._places) < requests and self._bytes + work.bytes <= most_bytes):
            return
        own = [place for place in self._places if place.caller == caller]
        held = sum(place.work.bytes for place in own)
        if own and (len(own) >= requests or held + work.bytes > most_bytes):
            mean = self._seconds(None).get(caller, 0.0) / len(own)
            raise QuotaExceeded(
                f"you have {len(own)} requests and {held / 2**20:.0f} MiB of images in the queue, as much as you may; try again "
                "later.",
                retry_after_seconds=self._retry(mean, mean, caller),
            )

    def _check_time(self, caller: str, work: Work, speed: Speed, held: Mapping[str, float]) -> None:
        bound, limit = self._bounds.seconds, self._limits[caller]
        now, own, new = sum(held.values()), held.get(caller, 0.0), work.cost / speed.rate
        if own and own + new > limit and limit < bound:
            message = f"your requests have {own:.1f} s of work in the queue, and may have {limit:.1f}; try again later."
            raise QuotaExceeded(message, retry_after_seconds=self._retry(min(own, own + new - limit), new, caller))
        others = sum(min(seconds, self._limits[who]) for who, seconds in held.items() if who != caller)
        alone = work.evaluations * speed.step
        if new > limit or alone > bound:
            longest = max(new, alone)
            message = f"only an idle server takes so large a request ({longest:.1f} s of work); try again later."
            raise Overloaded(message, retry_after_seconds=self._retry(now, new))
        if others + own + new > bound:
            message = f"the workers have {now:.1f} s of work before them, as much as is accepted; try again later."
            raise Overloaded(message, retry_after_seconds=self._retry(min(now, others + own + new - bound), new))

    def _check_deadline(
        self, caller: str, work: Work, speed: Speed, held: Mapping[str, float], deadline: float
    ) -> None:
        own = held.get(caller, 0.0) + work.cost / speed.rate
        turns = own + sum(min(own, seconds) for who, seconds in held.items() if who != caller)
        needed, allowed = max(turns, work.evaluations * speed.step), deadline - self._clock()
        if needed > allowed:
            raise DeadlineExceeded(
                f"deadline: the result is expected after {needed:.1f} s, and {max(0.0, allowed):.1f} s are allowed; allow more "
                "time, or ask for fewer steps."
            )

    def _retry(self, drained: float, new: float, caller: str = "") -> float:
        """When there will be room for `new` seconds of work, after `drained` and after those who were told to come back before:
        else all come back at once, to be refused again. For a caller who has used up its share, only its own count.
        """
        now = self._clock()
        promised = max(self._promised.get(caller, 0.0), now + drained)
        self._promised[caller] = min(promised + new, now + LONGEST_RETRY)
        return min(max(promised - now, SHORTEST_RETRY), LONGEST_RETRY)

    def _seconds(self, workers: frozenset[str] | None) -> dict[str, float]:
        """What each caller holds, of the time of these workers or of all."""
        held: defaultdict[str, float] = defaultdict(float)
        for (caller, kind), left in self._left.items():
            speed = self._speed_of(kind)
            if speed is not None and (workers is None or speed.workers & workers):
                held[caller] += left / speed.rate
        return {caller: seconds for caller, seconds in held.items() if seconds > _NOTHING}

    def _speed_of(self, kind: Kind) -> Speed | None:
        if kind not in self._speeds:
            self._speeds[kind] = self._speed(kind)
        return self._speeds[kind]

    def _refresh(self) -> None:
        now = self._clock()
        if now < self._looked + REFRESH:
            return
        self._looked = now
        self._speeds.clear()
        self._left.clear()
        self._limits = {place.caller: self._limits[place.caller] for place in self._places}
        self._promised = {caller: until for caller, until in self._promised.items() if until > now}
        for place in self._places:
            place.left = place.look()
            self._left[place.caller, place.work.kind] += place.left
