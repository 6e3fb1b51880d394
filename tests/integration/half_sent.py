"""A hostile client: calls whose requests never end, over HTTP/2 written by hand, since gRPC's own clients send whole messages."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK, END_HEADERS = 1, 4
INITIAL_WINDOW = 5
WINDOW = 65535


class HalfSent:
    """`sent[stream]` is how many bytes of the request's message the server has taken of a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._initial = WINDOW
        self._window = WINDOW
        self._windows: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.ended: set[int] = set()
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b""))

    def call(self, method: str, declared: int, sends: int) -> int:
        """Begin a call whose message says that it has `declared` bytes, and sends fewer."""
        stream = 1 + 2 * len(self.sent)
        names = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        names |= {"content-type": "application/grpc", "te": "trailers"}
        headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in names.items())
        self._writer.write(_frame(HEADERS, END_HEADERS, stream, headers))
        self.sent[stream] = 0
        self._windows[stream] = self._initial - 5
        self._window -= 5
        self._left[stream] = sends
        self._writer.write(_frame(DATA, 0, stream, struct.pack(">BI", 0, declared)))
        return stream

    async def go_on(self) -> None:
        """Send whatever the server takes, until it hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._send()
                await self._writer.drain()
                self._take(*await self._frame())

    def _send(self) -> None:
        for stream in self._left.keys() - self.ended:
            while (size := min(self._left[stream], 16384, self._window, self._windows[stream])) > 0:
                self._writer.write(_frame(DATA, 0, stream, bytes(size)))
                self._window -= size
                self._windows[stream] -= size
                self._left[stream] -= size
                self.sent[stream] += size

    async def _frame(self) -> tuple[int, int, int, bytes]:
        head = await self._reader.readexactly(9)
        stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
        return head[3], head[4], stream, await self._reader.readexactly(int.from_bytes(head[:3]))

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == WINDOW_UPDATE and stream:
            self._windows[stream] += int.from_bytes(body)
        elif kind == WINDOW_UPDATE:
            self._window += int.from_bytes(body)
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(body), 6):
                name, value = struct.unpack_from(">HI", body, at)
                if name == INITIAL_WINDOW:
                    self._windows = {each: window + value - self._initial for each, window in self._windows.items()}
                    self._initial = value
            self._writer.write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._writer.write(_frame(PING, ACK, 0, body))
        elif kind == RST_STREAM or (kind == HEADERS and flags & 1):
            self.ended.add(stream)


@contextlib.asynccontextmanager
async def half_sent(target: str) -> AsyncIterator[HalfSent]:
    """A connection, which sends on its own."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    client = HalfSent(reader, writer)
    going = asyncio.create_task(client.go_on())
    try:
        yield client
    finally:
        going.cancel()
        await asyncio.wait({going})
        writer.close()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode()
