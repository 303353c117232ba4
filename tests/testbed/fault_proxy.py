"""A TCP proxy that breaks a hop on command: cut, refuse, black hole, delay, throttle.

Put it between two processes by giving the dialling one the proxy's address.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class FaultProxy:
    """Forwards `127.0.0.1:port` to `target` until told otherwise."""

    def __init__(self, target: str) -> None:
        """`target` is `host:port`."""
        host, _, port = target.rpartition(":")
        self._upstream = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.delay_seconds = 0.0
        """Added to every chunk, each way."""
        self.bytes_per_second = 0
        """Of each direction of each connection; 0 is no limit."""
        self.connections = 0
        """Accepted since the start."""
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Cuts everything and stops listening."""
        self._flowing.set()
        self.cut()
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """Resets every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def refuse(self) -> None:
        """Resets every connection, now and to come."""
        self._refusing = True
        self.cut()

    def hold(self) -> None:
        """Black hole: connections stay up and nothing passes."""
        self._flowing.clear()

    def restore(self) -> None:
        """Forwards as at the start; what was held passes on."""
        self._refusing = False
        self.delay_seconds = 0.0
        self.bytes_per_second = 0
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        try:
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        finally:
            self._writers -= {writer, upstream_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                seconds = self.delay_seconds + (len(data) / self.bytes_per_second if self.bytes_per_second else 0.0)
                if seconds:
                    await asyncio.sleep(seconds)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
