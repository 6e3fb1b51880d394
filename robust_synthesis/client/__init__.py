"""The client of a gateway, for programs with asyncio and without; the base install has all that it needs.

    with Client("127.0.0.1:50051") as client:
        result = client.inpaint("photo.png", box=(120, 80, 60, 60), paste_back=True)

`client.errors` draws the tree of what it raises.
"""

from ..errors import InvalidInput, NotFound, ServerError, SynthesisError
from .aio import AsyncClient, AsyncEvents
from .aio_edits import AsyncEdit, AsyncEditSession
from .errors import (
    Cancelled,
    DeadlineExceeded,
    JobLost,
    Overloaded,
    QuotaExceeded,
    ServerFailed,
    Unauthenticated,
    Unavailable,
    Unsuitable,
)
from .results import Model, ModelSummary, Picture, Progress, Queued, Result, Timings, Unit
from .sync import Client, Events
from .sync_edits import Edit, EditSession

__all__ = [
    "AsyncClient",
    "AsyncEdit",
    "AsyncEditSession",
    "AsyncEvents",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Edit",
    "EditSession",
    "Events",
    "InvalidInput",
    "JobLost",
    "Model",
    "ModelSummary",
    "NotFound",
    "Overloaded",
    "Picture",
    "Progress",
    "Queued",
    "QuotaExceeded",
    "Result",
    "ServerError",
    "ServerFailed",
    "SynthesisError",
    "Timings",
    "Unauthenticated",
    "Unavailable",
    "Unit",
    "Unsuitable",
]
