"""The cut must cut, or the fleet's survival of it means nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from examples.fleet.network import Network

SECONDS = 5.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(100):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def connected(network: Network) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = network.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def said_back(network: Network, said: bytes) -> bytes:
    """Nothing if the connection ends."""
    async with connected(network) as (reader, writer):
        writer.write(said)
        try:
            return await reader.read(100)
        except ConnectionError:
            return b""


async def test_a_cut_ends_what_there_is_and_what_comes_until_it_is_mended():
    """Both directions, and afterwards all is as before."""
    async with (
        asyncio.timeout(SECONDS),
        await asyncio.start_server(echo, "127.0.0.1", 0) as server,
        Network(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as network,
    ):
        async with connected(network) as (reader, writer):
            writer.write(b"open")
            assert await reader.read(100) == b"open"

            network.cut()
            assert await reader.read(100) == b""
        assert await said_back(network, b"refused") == b""

        network.mend()
        assert await said_back(network, b"again") == b"again"


async def test_a_gateway_that_is_down_is_a_connection_that_ends():
    """So that the client tries elsewhere."""
    async with asyncio.timeout(SECONDS):
        taken = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = taken.sockets[0].getsockname()[1]
        taken.close()
        await taken.wait_closed()
        async with Network(f"127.0.0.1:{port}") as network:
            assert await said_back(network, b"nobody") == b""
