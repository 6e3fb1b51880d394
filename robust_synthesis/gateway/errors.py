"""Why a job of the gateway ends without a result.

SynthesisError
├── InvalidInput, NotFound   what was asked for cannot be done; the worker said so, or the gateway
├── Unsuitable               the classifier cannot do the task
├── Cancelled                by the caller
├── Unauthenticated          the caller has not shown who it is
├── Overloaded               no room for more work now; come back later
│   └── QuotaExceeded        none for this caller's
├── DeadlineExceeded         the caller's deadline came first; says what the job waited for
│   └── SessionIdle          nothing was asked of a session for too long
├── JobLost                  workers stopped or failed at it too often, each time computing it alone
├── NoWorker                 no worker can answer now
├── ShuttingDown             the gateway takes no more jobs, or had no more time for this one
├── BundleError              (bundle.py) a reply that cannot be read; stays inside the gateway
├── WorkerLost               (backends/base.py) stays inside the gateway: the bundle is retried, split
└── WorkerUnavailable        (backends/base.py) stays inside the gateway: the bundle goes elsewhere
"""

from __future__ import annotations

from ..bundle import Failure
from ..errors import InvalidInput, NotFound, SynthesisError


class Cancelled(SynthesisError):
    """The caller took the request back."""


class Unsuitable(SynthesisError):
    """The classifier cannot do this task, whatever the other parameters."""


class Overloaded(SynthesisError):
    """The gateway has as much work as it accepts."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QuotaExceeded(Overloaded):
    """The caller has had, or has under way, as much as it may."""


class DeadlineExceeded(SynthesisError):
    """There was no result in time."""


class SessionIdle(DeadlineExceeded):
    """Nothing was asked of a session of edits for too long."""


class JobLost(SynthesisError):
    """No worker could compute this job, though others may go on."""


class NoWorker(SynthesisError):
    """No worker that could answer is up; a request for pictures would wait for one."""


class ShuttingDown(SynthesisError):
    """The gateway is closing."""


def error_of(failure: Failure) -> SynthesisError:
    """The exception that a worker turned into a failure."""
    if failure.kind == "not_found":
        error = NotFound(failure.field, "", ())
        error.message = failure.message
        return error.at(failure.field)
    if failure.kind == "invalid" and failure.field:
        return InvalidInput(failure.field, failure.message)
    return SynthesisError(failure.message)
