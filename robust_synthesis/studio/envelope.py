"""What travels over the WebSocket: a JSON object and any number of files, in one binary message.

4 bytes, big-endian: length of the JSON | the JSON, whose `files` are the lengths of the files | the files
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput


def pack(head: Mapping[str, Any], files: Sequence[bytes] = ()) -> bytes:
    text = json.dumps({**head, "files": [len(file) for file in files]}).encode()
    return b"".join((struct.pack(">I", len(text)), text, *files))


def unpack(message: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The object, without `files`, and the files. Raises InvalidInput for anything else."""
    try:
        (length,) = struct.unpack_from(">I", message)
        head = json.loads(message[4 : 4 + length])
        lengths = head.pop("files")
        files, at = [], 4 + length
        for each in lengths:
            if not isinstance(each, int) or each < 0:
                raise ValueError("a length is no number")
            files.append(message[at : at + each])
            at += each
        if at != len(message):
            raise ValueError("the lengths do not add up")
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInput("message", f"is none of this page's ({error}); load the page again.") from error
    return head, files
