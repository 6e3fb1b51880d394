"""A name server for tests: names that stand for several addresses, which come and go, as a headless Service's do."""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict

_A, _INTERNET = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583
_LIVES = 1
"""Seconds that an answer may be remembered."""
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHHIH4s")


class Names:
    """Answers on UDP at the address, port 53, where resolvers look, until it is closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._known: defaultdict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def add(self, name: str, address: str) -> None:
        with self._lock:
            self._known[name].add(address)

    def remove(self, name: str, address: str) -> None:
        with self._lock:
            self._known[name].discard(address)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waking:
            waking.sendto(b"", (self.address, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], _HEADER.size
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        question = query[_HEADER.size : at + 5]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        with self._lock:
            known = sorted(self._known.get(".".join(labels), ()))
        records = known if kind == _A else []
        number = int.from_bytes(query[:2])
        header = _HEADER.pack(number, _ANSWER if known else _NO_SUCH_NAME, 1, len(records), 0, 0)
        pointer = 0xC000 | _HEADER.size
        packed = [_RECORD.pack(pointer, _A, _INTERNET, _LIVES, 4, socket.inet_aton(each)) for each in records]
        return header + question + b"".join(packed)
