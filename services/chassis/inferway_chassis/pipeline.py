"""What happens around every rpc of every service, folded once when a service is added: observe, then encode errors.

    transport → observe (metrics, span) → parse → servicer method → serialise
                  ▲ errors become statuses here and nowhere else

Servicers raise `InferwayError`s; anything else they raise is logged under its trace and leaves as INTERNAL with no
text of its own. A unary method is a coroutine, or a plain one that returns `Started`: a call that needs no task.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from inferway.errors import Draining, InferwayError, MalformedMessage, SlowConsumer
from inferway.status import to_status
from inferway_chassis.observing import Head, Observed, observer
from inferway_chassis.rpc_metrics import RpcMetrics
from inferway_chassis.telemetry import LATENCY_BUCKETS_SECONDS, Telemetry
from inferway_chassis.writes import Writes

REFUSE_SECONDS = 0.2
"""A server refuses for so long before it closes its connections. Who comes back after it finds them closed, dials
again, and reaches whoever listens there now."""
_CODES = {code.name: code for code in grpc.StatusCode}
_OFTEN_RETRIED = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
"""By clients and proxies that know no more of an error than its code."""

Context = aio.ServicerContext[Any, Any]
Servicer = Callable[[Any, Any], Any]
Parse = Callable[[bytes], Message]
Metadata = tuple[tuple[str, str | bytes], ...]
T = TypeVar("T")


class RpcStatus(grpc.Status):
    """An error in the form in which grpc ends a call: code, message, and details in the trailing metadata."""

    def __init__(self, error: InferwayError, more: Metadata = ()) -> None:
        """Encodes `error`; RetryInfo is repeated as grpc's own pushback, of which -1 says that a retry is no use.

        `more` trailing metadata comes first.
        """
        self.code = _CODES[error.code]
        self.details = error.message
        metadata: list[tuple[str, str | bytes]] = [
            *more,
            ("grpc-status-details-bin", to_status(error).SerializeToString()),
        ]
        if error.retry_after_seconds is not None:
            metadata.append(("grpc-retry-pushback-ms", str(int(error.retry_after_seconds * 1000))))
        elif error.code in _OFTEN_RETRIED:
            metadata.append(("grpc-retry-pushback-ms", "-1"))
        self.trailing_metadata = tuple(metadata)


@dataclass(slots=True)
class Started(Generic[T]):
    """A unary call under way."""

    result: asyncio.Future[T]
    to_response: Callable[[T], Message]
    abandon: Callable[[], None]
    """Called if the caller goes away before the result is there."""
    metadata: Metadata = ()
    """Trailing, of the answer as of an error."""


class Reply(Protocol):
    """Ends one call."""

    def answer(self, message: bytes, metadata: Metadata) -> None:
        """With a response, and trailing metadata."""

    def fail(self, status: RpcStatus) -> None:
        """With an error."""


Begin = Callable[[bytes, Head, Reply], Callable[[], None]]
"""Begins a unary call without a task: message, head, where to reply. Returns what abandons it. Raises nothing."""


class Pipeline:
    """Wraps servicer methods. One for each server."""

    def __init__(self, telemetry: Telemetry, slow_reader_seconds: float) -> None:
        """Registers the metrics of all rpcs. A stream whose client reads nothing for so long is ended."""
        self._writes = Writes(slow_reader_seconds)
        self._telemetry = telemetry
        self._metrics = RpcMetrics(LATENCY_BUCKETS_SECONDS)
        telemetry.registry.register(self._metrics)
        self.refusing = False
        """New calls are refused: the server is about to stop."""

    def unary_response(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, *, streams: bool
    ) -> Servicer:
        """Wraps a method that returns one message; `streams` if its request is a stream."""
        observe = self._observer(service, method)
        respond: Servicer = behaviour if inspect.iscoroutinefunction(behaviour) else partial(_awaited, behaviour)

        async def handle(request: Any, context: Context) -> Message:
            observed = observe(context)
            try:
                with observed.current():
                    self._refuse_if_stopping()
                    response: Message = await respond(_requested(parse, request, context, streams=streams), context)
            except Exception as error:  # noqa: BLE001 - the one place where all errors end
                failure = observed.failure(error)
            except BaseException as error:
                observed.ended(observed.failure(error))
                raise
            else:
                observed.ended()
                return response
            observed.ended(failure)
            await context.abort_with_status(RpcStatus(failure, tuple(context.trailing_metadata() or ())))
            raise AssertionError  # abort_with_status raises

        return handle

    def stream_response(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, *, streams: bool
    ) -> Servicer:
        """Wraps a method that yields messages; `streams` if its request is a stream."""
        observe = self._observer(service, method)

        writes = self._writes

        async def handle(request: Any, context: Context) -> None:
            observed, task = observe(context), _this_task()
            try:
                with observed.current():
                    self._refuse_if_stopping()
                    async with aclosing(
                        behaviour(_requested(parse, request, context, streams=streams), context)
                    ) as responses:
                        async for response in responses:
                            writes.begin(task)
                            await context.write(response)
                            writes.end(task)
            except Exception as error:  # noqa: BLE001 - the one place where all errors end
                failure = observed.failure(error)
            except BaseException as error:
                if not writes.gave_up(task):
                    observed.ended(observed.failure(error))
                    raise
                failure = SlowConsumer(f"the client has read nothing for {writes.limit_seconds:g} s")
            else:
                observed.ended()
                return
            finally:
                writes.end(task)
            observed.ended(failure)
            await context.abort_with_status(RpcStatus(failure))

        return handle

    def begin(
        self, service: str, method: str, behaviour: Servicer, parse: Parse, serialise: Callable[[Any], bytes]
    ) -> Begin:
        """Wraps a unary method that returns `Started`, for transports that need no task for a call."""
        observe = self._observer(service, method)

        def begin(message: bytes, head: Head, reply: Reply) -> Callable[[], None]:
            observed = observe(head)
            try:
                with observed.current():
                    self._refuse_if_stopping()
                    started: Started[Any] = behaviour(_parse_one(parse, message), head)
            except Exception as error:  # noqa: BLE001 - the one place where all errors end
                _fail(observed, reply, error)
                return _nothing
            started.result.add_done_callback(partial(_finish, observed, started, serialise, reply))
            return started.abandon

        return begin

    def _refuse_if_stopping(self) -> None:
        if self.refusing:
            message = "the server is shutting down; go elsewhere, or try again in a moment"
            raise Draining(message, retry_after_seconds=REFUSE_SECONDS)

    def _observer(self, service: str, method: str) -> Callable[[Head], Observed]:
        return observer(self._telemetry, self._metrics, service, method)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _awaited(
    behaviour: Callable[[Message, Context], Started[Any]], request: Message, context: Context
) -> Message:
    started = behaviour(request, context)
    if started.metadata:
        context.set_trailing_metadata(started.metadata)
    try:
        return started.to_response(await started.result)
    except asyncio.CancelledError:
        started.abandon()
        raise


def _finish(
    observed: Observed,
    started: Started[Any],
    serialise: Callable[[Any], bytes],
    reply: Reply,
    result: asyncio.Future[Any],
) -> None:
    try:
        message = serialise(started.to_response(result.result()))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the one place where all errors end
        _fail(observed, reply, error, started.metadata)
    else:
        observed.ended()
        reply.answer(message, started.metadata)


def _fail(observed: Observed, reply: Reply, error: BaseException, metadata: Metadata = ()) -> None:
    failure = observed.failure(error)
    observed.ended(failure)
    reply.fail(RpcStatus(failure, metadata))


def _nothing() -> None:
    pass


def _requested(parse: Parse, request: Any, context: Context, *, streams: bool) -> Any:
    return _parse_stream(parse, context) if streams else _parse_one(parse, request)


def _parse_one(parse: Parse, data: bytes) -> Message:
    try:
        return parse(data)
    except DecodeError as error:
        message = "the request is not a valid protobuf message of this method's type"
        raise MalformedMessage(message) from error


async def _parse_stream(parse: Parse, context: Context) -> AsyncIterator[Message]:
    """Reads from the call itself: grpc's own iterator would be one more step for each message."""
    while isinstance(data := await context.read(), bytes):
        yield _parse_one(parse, data)
