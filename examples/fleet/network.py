"""The network between the vehicles and a gateway, which can be cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024


class Network:
    """Forwards what comes to `address` to a gateway at `target`, for use as `async with`."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`."""
        host, _, port = target.rpartition(":")
        self._gateway = (host, int(port))
        self._ends: set[asyncio.StreamWriter] = set()
        self._cut = False
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cuts everything and listens no more."""
        ends = list(self._ends)
        self.cut()
        self._server.close()
        await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections at once, and new ones until `mend`."""
        self._cut = True
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        """Lets connections through again."""
        self._cut = False

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._cut:
                raise ConnectionRefusedError
            gateway_reader, gateway_writer = await asyncio.open_connection(*self._gateway)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, gateway_writer}
        self._ends |= ends
        try:
            await asyncio.gather(_pump(reader, gateway_writer), _pump(gateway_reader, writer))
        finally:
            self._ends -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
