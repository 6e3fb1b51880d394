"""What a caller orders, as the gateway takes it in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ..bundle import Output
from ..errors import InvalidInput
from ..requests import Request
from ..specs import MAX_SEED

MAX_REQUEST_ID = 128


@dataclass(frozen=True)
class Order:
    """A request, for which classifier, and how its result is delivered. Raises InvalidInput for a `request_id` that is none."""

    request: Request
    model: str = ""
    """Empty is the server's default."""
    request_id: str = ""
    """The caller's own name for it."""
    output: Output = field(default_factory=Output)
    previews: bool = False
    frames: int = 0
    """How many reports of progress at least; 0 leaves it to the batcher."""
    interactive: bool = False

    def __post_init__(self) -> None:
        if len(self.request_id) > MAX_REQUEST_ID or not all(" " <= letter <= "~" for letter in self.request_id):
            raise InvalidInput("request_id", f"give up to {MAX_REQUEST_ID} printable ASCII characters.")

    def fingerprint(self) -> bytes:
        """Of all that is asked for, but for its name. Takes a moment where there are pictures."""
        request = self.request
        rest = (request.spec, request.box, request.size, request.fit, request.paste_back, self.model, self.output)
        digest = hashlib.sha256(repr((rest, self.previews, self.frames, self.interactive)).encode())
        for file in (request.image, request.mask):
            digest.update(hashlib.sha256(file).digest() if isinstance(file, bytes) else b"-")
        return digest.digest()

    @property
    def derived_seed(self) -> int | None:
        """What a request without a seed gets, so that a repeat at another gateway computes the same picture."""
        if not self.request_id:
            return None
        return int.from_bytes(hashlib.sha256(self.request_id.encode()).digest()[:8], "big") & MAX_SEED
