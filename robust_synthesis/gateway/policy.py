"""The numbers that the batcher's decisions rest on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """How long something is left alone that has failed: twice as long each time, less a random part of up to half."""

    first: float
    longest: float

    def seconds(self, failures: int, jitter: float) -> float:
        """After so many failures in a row, at least one; `jitter` is in [0, 1]."""
        return float(min(self.longest, self.first * 2.0 ** min(failures - 1, 30))) * (1 - jitter / 2)


@dataclass(frozen=True)
class Policy:
    """Times are in seconds."""

    chunk: tuple[float, float] = (0.15, 0.3)
    """That a bundle computes for at least, at up to 64 pixels and at 224 and above."""
    overhead_share: float = 0.03
    """Of that time, which making, sending and reading a bundle may take before bundles become longer."""
    stretch: float = 2.0
    """How many times as long they become at most."""
    shared_parts: int = 3
    """Bundles that a job takes at least while others share its worker, so that they can join and leave on its way: where all of
    a job fits the chunk target, whoever comes later would wait for all of it."""
    shortest_part: float = 0.04
    """No bundle is cut shorter for others: the way to the worker and back costs milliseconds."""
    followed_parts: int = 5
    """The same where a worker holds jobs, so that bundles follow each other without a pause..."""
    shortest_followed: float = 0.02
    """... and may be shorter."""
    interactive_chunk: float = 0.05
    interactive_weight: float = 4.0
    """How many times the share of all others the interactive jobs get at most while others wait."""
    patience: int = 3
    """Losses in a row, computed alone, after which a job is given up."""
    linger: float = 0.005
    """That a worker waits after a bundle whose jobs ended, where fewer of its kind are waiting than it had: callers may send
    others, to share the next one. Interactive jobs are not waited with."""
    longest_linger: float = 0.025
    """That it waits at most where more have ended than are waiting..."""
    linger_share: float = 0.1
    """... and of what the bundle computed for."""
    returning: float = 0.3
    """After a bundle with which more jobs ended than are waiting, while jobs go in short bundles, so that callers who come back
    later do not wait for few."""
    lead: float = 0.05
    """Of what a bundle computes for: so long before its end, and half of the way there and back, the next goes to a worker that
    holds its jobs. Whoever comes later does not join that one."""
    shortest_lead: float = 0.003
    follow_share: float = 0.25
    """Of the jobs of a bundle that must go on, for the next one to be sent before its end: the callers of the others may send
    more, which few should not keep waiting."""
    in_a_row: int = 64
    """Bundles that follow each other, before one goes out after a reply, which tells how long the way is now."""
    alone: float = 1.0
    """That a worker gets one bundle after the other where it refused one that followed, or did not have its jobs."""
    ending_share: float = 1 / 3
    """Of the jobs of a bundle that follows: where as many end with the one before, it is short, so that their callers can join
    the next."""
    bundle_bytes: int = 16 * 2**20
    """A bundle takes no further job beyond this; one job alone may be larger."""
    shortest_timeout: float = 5.0
    timeout_factor: float = 20.0
    """Bundle timeout as a multiple of its expected compute time."""
    first_use: float = 30.0
    """Added to the timeout where a worker has not run this batch size before: kernels are chosen, graphs captured."""
    lost: Backoff = Backoff(0.2, 10.0)
    """Of a worker that lost a bundle."""
    unavailable: Backoff = Backoff(0.05, 2.0)
    refused: Backoff = Backoff(1.0, 60.0)
    """Of a worker's model whose reply could not be read, or that could not read the bundle."""

    def chunk_target(self, size: int, overhead: float = 0.0) -> float:
        """That a bundle should compute for at `size` pixels, where it takes `overhead` on top of that."""
        share = (size**2 - 64**2) / (224**2 - 64**2)
        shortest = self.chunk[0] + (self.chunk[1] - self.chunk[0]) * min(max(share, 0.0), 1.0)
        return min(max(shortest, overhead / self.overhead_share), self.stretch * shortest)

    def lingers(self, bundle: float, *, more_ended: bool) -> float:
        """Seconds that a worker waits after a bundle that computed for so long, with which jobs ended."""
        return max(self.linger, min(self.longest_linger, self.linger_share * bundle)) if more_ended else self.linger

    def largest(self, size: int, jobs: int) -> int:
        """R, the most jobs of a bundle, where a worker's share is `jobs`: more would gain little, or take too long to send."""
        if size <= 64 and jobs >= 64:
            return 32
        return next((most for side, most in ((112, 16), (224, 8), (448, 4)) if size <= side), 2)

    def timeout(self, expected: float, *, first_use: bool) -> float:
        return max(self.shortest_timeout, self.timeout_factor * expected) + self.first_use * first_use
