"""Messages between the page and the app."""

from __future__ import annotations

import json
import struct

import pytest

from robust_synthesis.errors import InvalidInput
from robust_synthesis.studio.envelope import pack, unpack


def test_what_is_packed_is_unpacked() -> None:
    head = {"do": "edit", "name": "größer", "task": {"steps": 3}}
    assert unpack(pack(head, [b"one", b"", b"\0\xff"])) == (head, [b"one", b"", b"\0\xff"])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x02{}",
        b"\xff\xff\xff\xff{}",
        b"\0\0\0\x04null",
        pack({}, [b"file"])[:-1],
        pack({}, [b"file"]) + b"x",
        struct.pack(">I", 100_000) + b"[" * 100_000,
        *(
            struct.pack(">I", len(text)) + text
            for text in (json.dumps({"files": bad}).encode() for bad in (3, [-1], ["1"]))
        ),
    ],
)
def test_anything_else_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidInput, match="load the page again"):
        unpack(message)
