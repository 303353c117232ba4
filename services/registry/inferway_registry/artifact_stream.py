"""Reads the messages of UploadArtifact in the order in which they are permitted, and never waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from inferway.errors import DeadlineExceeded, StreamProtocolViolated
from inferway.registry.v1.registry_service_pb2 import ArtifactHeader, UploadArtifactRequest

MAX_CHUNK_BYTES = 1 << 20


class ArtifactStream:
    """One call's messages: a header, then chunks."""

    def __init__(self, requests: AsyncIterator[UploadArtifactRequest], patience_seconds: float) -> None:
        self._requests = requests
        self._patience_seconds = patience_seconds

    async def header(self) -> ArtifactHeader:
        """The first message; raises StreamProtocolViolated or DeadlineExceeded."""
        request = await self._next()
        if request is None or request.WhichOneof("message") != "header":
            raise StreamProtocolViolated("the first message must be a header", expected="header")
        return request.header

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of every further message; raises StreamProtocolViolated or DeadlineExceeded."""
        while (request := await self._next()) is not None:
            if request.WhichOneof("message") != "chunk" or len(request.chunk) > MAX_CHUNK_BYTES:
                raise StreamProtocolViolated(
                    f"after the header come chunks of at most {MAX_CHUNK_BYTES} bytes", expected="chunk"
                )
            yield request.chunk

    async def _next(self) -> UploadArtifactRequest | None:
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await anext(self._requests, None)
        except TimeoutError as error:
            message = f"nothing was sent for {self._patience_seconds:g} s; resume the upload"
            raise DeadlineExceeded(message, stage="upload") from error
