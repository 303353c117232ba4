"""The native transport: unary calls that need no task, answered by a server whose HTTP/2 runs outside the GIL.

    IO thread (Rust) → waiter (a thread) ⇄ event loop: every call that has come since, begun in one turn
                     → Unix socket → grpcio: streams, health, reflection, everything else

While the loop is busy it asks for more calls itself; only when there are none does the thread wait for it again. So a
busy process takes calls in batches and changes threads for none of them.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.pipeline import Begin, Metadata, RpcStatus

_LOG = logging.getLogger(__name__)

IO_THREADS = 1
"""A second one brought nothing on two cores."""
MAX_BATCH = 256
"""Calls begun in one turn of the event loop."""
MAX_CONCURRENT_STREAMS = 1024
"""Calls that one connection may have open: the front receives messages whole before anybody can refuse them."""
RESERVED = frozenset({"grpc-retry-pushback-ms"})
"""Headers that the library does not send for others. RetryInfo in the details says the same."""


@dataclass(slots=True)
class _Head:
    """As `observing.Head`."""

    metadata: Sequence[tuple[str, str | bytes]]
    seconds_left: float | None

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return self.seconds_left


class _Call:
    """As `pipeline.Reply`."""

    __slots__ = ("_number", "_owner", "abandon")

    def __init__(self, owner: NativeFront, number: int) -> None:
        self._owner, self._number = owner, number
        self.abandon: Callable[[], None] = _nothing

    def answer(self, message: bytes, metadata: Metadata) -> None:
        if self._owner.ended(self._number):
            self._owner.front.respond(self._number, message, trailing_metadata=metadata or None)

    def fail(self, status: RpcStatus) -> None:
        if self._owner.ended(self._number):
            metadata = [(key, value) for key, value in status.trailing_metadata if key not in RESERVED]
            self._owner.front.fail(self._number, status.code.value[0], status.details, trailing_metadata=metadata)


def _nothing() -> None:
    pass


class NativeFront:
    """Listens; add methods, then `start`."""

    def __init__(self, address: str, max_message_bytes: int, *, share_port: bool) -> None:
        """Binds `address`. Raises SettingsRefused if the package is missing, OSError if it is taken."""
        try:
            from pygrpc_native import EVENT_CANCEL, NativeGrpcFront  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            message = "the transport `native` needs the package pygrpc-native: install the extra `native`"
            raise SettingsRefused(message) from error
        self.front = NativeGrpcFront(
            address,
            [],
            io_threads=IO_THREADS,
            call_details=True,
            max_concurrent_streams=MAX_CONCURRENT_STREAMS,
            reuse_port=share_port,
        )
        self.port = self.front.bound_port
        self._cancelled = EVENT_CANCEL
        self._max_message_bytes = max_message_bytes
        self._methods: dict[int, Begin] = {}
        self._calls: dict[int, _Call] = {}
        self._is_idle = threading.Event()
        self._is_empty = asyncio.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="inferway-")
        self.fallback_address = f"unix:{self._directory.name}/grpcio.sock"
        """Where a server must listen that answers all other calls."""

    def add(self, path: str, begin: Begin) -> None:
        """Answers the unary method at `path` (`/service/method`)."""
        (number,) = self.front.add_methods([(path, False)])
        self._methods[number] = begin

    def start(self) -> None:
        """Takes calls on the running event loop; the fallback is listening."""
        self.front.set_fallback(self.fallback_address.removeprefix("unix:"))
        self.front.start()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._wait, args=(loop,), name="native-waiter", daemon=True).start()

    async def finish(self, grace_seconds: float) -> None:
        """Lets what runs end within `grace_seconds`, then cuts it."""
        try:
            async with asyncio.timeout(grace_seconds):
                while self._calls:
                    self._is_empty.clear()
                    await self._is_empty.wait()
        except TimeoutError:
            for call in list(self._calls.values()):
                call.abandon()

    async def close(self) -> None:
        """Closes the port and every connection, those of the fallback's calls too."""
        await asyncio.to_thread(self.front.close)
        self._is_idle.set()
        self._directory.cleanup()

    def ended(self, number: int) -> bool:
        """That call will be answered now; False if nobody waits for it any more."""
        known = self._calls.pop(number, None) is not None
        if not self._calls:
            self._is_empty.set()
        return known

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: waits for the first call, and then until the loop has nothing more to do."""
        while (events := self.front.recv_batch_details(MAX_BATCH)) is not None:
            self._is_idle.clear()
            try:
                loop.call_soon_threadsafe(self._take, events)
            except RuntimeError:  # the loop was closed without `stop`
                self.front.close()
                return
            self._is_idle.wait()

    def _take(self, events: list[Any] | None) -> None:
        """On the loop: begins what came, and comes again while more does."""
        for kind, number, method, message, _, details in events or ():
            if kind == self._cancelled:
                self._cancel(number)
                continue
            try:
                self._begin(number, method, message, details)
            except Exception:  # noqa: BLE001 - one call that cannot be begun must not silence the others
                _LOG.exception("a call could not be begun")
                if self.ended(number):
                    self.front.fail(number, grpc.StatusCode.INTERNAL.value[0], "internal error")
        more = self.front.recv_batch_details(MAX_BATCH, 0)
        if more:
            asyncio.get_running_loop().call_soon(self._take, more)
        else:
            self._is_idle.set()

    def _begin(self, number: int, method: int, message: bytes, details: Any) -> None:
        if len(message) > self._max_message_bytes:
            text = f"Received message larger than max ({len(message)} vs. {self._max_message_bytes})"
            self.front.fail(number, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], text)
            return
        metadata, _, seconds_left = details
        call = self._calls[number] = _Call(self, number)
        call.abandon = self._methods[method](message, _Head(metadata, seconds_left), call)

    def _cancel(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None and self.ended(number):
            call.abandon()
