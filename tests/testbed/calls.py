"""Plain calls of the tiny model, without a client library that would retry."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.foreign.inference import grpc_service_pb2 as oip
from inferway.status import from_status

CALL_SECONDS = 10.0


def tiny_request(rows: np.ndarray, model: str = "tiny", version: str = "") -> oip.ModelInferRequest:
    """`x` [n, 32] float32 for the tiny model."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=list(rows.shape))
    raw = [rows.astype("<f4").tobytes()]
    return oip.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor], raw_input_contents=raw)


def model_infer(channel: aio.Channel) -> Any:
    """The ModelInfer rpc on the public path."""
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )


def decoded(error: aio.AioRpcError) -> Exception:
    """The typed error, or the transport's own if the call never reached a server of ours."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return from_status(Status.FromString(details)) if isinstance(details, bytes) else error


class Traffic:
    """Callers that never stop, and what became of every call."""

    def __init__(self, channel: aio.Channel, model: str) -> None:
        """Nothing is sent yet."""
        self._call, self._model = model_infer(channel), model
        self.outcomes = Counter[str]()
        """`version 1`, or the name of an error's class."""
        self._progress = asyncio.Condition()

    async def caller(self) -> None:
        """Calls one after the other until cancelled."""
        request = tiny_request(np.ones((1, 32)), self._model)
        while True:
            try:
                outcome = f"version {(await self._call(request, timeout=CALL_SECONDS)).model_version}"
            except aio.AioRpcError as failed:
                outcome = type(decoded(failed)).__name__
            async with self._progress:
                self.outcomes[outcome] += 1
                self._progress.notify_all()

    async def until(self, outcome: str, more: int, timeout_seconds: float = 60.0) -> None:
        """Returns after `more` further calls ended with `outcome`."""
        wanted = self.outcomes[outcome] + more
        async with asyncio.timeout(timeout_seconds), self._progress:
            await self._progress.wait_for(lambda: self.outcomes[outcome] >= wanted)

    @property
    def failures(self) -> Counter[str]:
        """Everything that was no answer."""
        return Counter({name: count for name, count in self.outcomes.items() if not name.startswith("version")})


@asynccontextmanager
async def traffic(target: str, model: str = "tiny", callers: int = 4) -> AsyncIterator[Traffic]:
    """Keeps `callers` calls of `model` in flight while the body runs."""
    async with aio.insecure_channel(target) as channel:
        made = Traffic(channel, model)
        tasks = [asyncio.create_task(made.caller()) for _ in range(callers)]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
