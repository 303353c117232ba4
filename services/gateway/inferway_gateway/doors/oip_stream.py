"""One `ModelStreamInfer`, in Triton's form: requests are handled concurrently and answered as they complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

from inferway.errors import InferwayError
from inferway.foreign.inference import grpc_service_pb2 as pb
from inferway_gateway.doors.oip_messages import InferParameters, to_response
from inferway_gateway.doors.results import Pending, Result, Results

MAX_IN_FLIGHT = 64
"""Requests unanswered at once on one stream; the next is read when one of them was answered."""


class Submitted(NamedTuple):
    """A request of the stream that is on its way."""

    parameters: InferParameters
    pending: Pending


class _Key(NamedTuple):
    request: pb.ModelInferRequest
    parameters: InferParameters


class OipStream:
    """See the module."""

    def __init__(
        self,
        submit: Callable[[pb.ModelInferRequest], Submitted],
        *,
        grpc_errors: bool,
    ) -> None:
        """`grpc_errors`: the first error ends the stream as its status, instead of travelling in a message."""
        self._submit, self._grpc_errors = submit, grpc_errors
        self._results: Results[_Key] = Results(ordered=False)

    async def run(self, requests: AsyncIterator[pb.ModelInferRequest]) -> AsyncGenerator[pb.ModelStreamInferResponse]:
        """Yields the server's messages."""
        reader = asyncio.create_task(self._read(requests), name="oip-stream-reader")
        try:
            async for known in self._results.take():
                for result in known:
                    self._results.sending(1)
                    yield self._response(result)
        finally:
            reader.cancel()
            self._results.close()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        failure: BaseException | None = None
        try:
            async for request in requests:
                self._start(request)
                await self._results.room(MAX_IN_FLIGHT)
        except Exception as error:  # noqa: BLE001 - handed to the writer, which raises it as the stream's own
            failure = error
        self._results.end(failure)

    def _start(self, request: pb.ModelInferRequest) -> None:
        # Only what the answer repeats is kept: the inputs of a request must not outlive their way to the worker.
        echo = pb.ModelInferRequest(model_name=request.model_name, id=request.id)
        try:
            parameters, pending = self._submit(request)
        except InferwayError as error:
            self._results.fail(_Key(echo, InferParameters()), error)
        else:
            self._results.start(_Key(echo, parameters), pending)

    def _response(self, result: Result[_Key]) -> pb.ModelStreamInferResponse:
        (request, parameters), outcome = result
        if not isinstance(outcome, InferwayError):
            response = to_response(request, outcome, timing=parameters.timing)
            if parameters.empty_final_response:
                # The answer is the last of its request, so it is the final one itself: no empty one follows.
                response.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=response)
        if self._grpc_errors:
            raise outcome
        failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        return pb.ModelStreamInferResponse(error_message=outcome.message, infer_response=failed)
