"""The gateway's end of the link to one worker: dial, greet, carry, and dial again, for as long as the process lives.

    dial ──► hello ⇄ hello ──► frames out, answers and credits in ──► lost ──► wait ──► dial …

Each link is a connection of its own; envelopes too large for a link go as plain calls on one more connection. A
link has one reader and one writer and no timer. The writer takes all that was bound since its last write, and writes
when the loop has nothing better to do: at once if the process is idle, and in large frames if it is busy.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from google.rpc.status_pb2 import Status
from grpc import RpcError, StatusCode, aio

from inferway.errors import InferwayError, InvalidField, WorkerLost
from inferway.status import from_status
from inferway.worker.v1 import worker_service_pb2 as pb
from inferway.worker.v1.worker_service_pb2_grpc import WorkerServiceStub
from inferway_chassis.channel import open_channel
from inferway_chassis.clock import Clock
from inferway_gateway.convert import to_speed, to_speeds, to_standings, write_envelope
from inferway_gateway.dispatch import Dispatcher
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.workers import LoadState, Worker

_LOG = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
MAX_HELD_VERSIONS = 1000
"""That a worker lets a link name."""
HELLO_SECONDS = 5.0
"""A worker that accepts a link and says nothing for so long is given up."""
RETRY_SECONDS = (0.1, 1.0)
"""First and longest wait before a worker is dialled again."""


GATHER_SECONDS = 0.005
"""While the process is busy, a frame is kept open for so long, since what else arrives can go with it: a message costs
the loop twenty times as much as an envelope in it. Measured in docs/adr/0005."""
GATHER_ENVELOPES = 24
"""So many in a frame are enough: while the worker is busy with them, the next ones are gathered."""
IDLE_TURN_SECONDS = 10e-6
"""A turn of the event loop that takes less has found nothing else to do."""
IDLE_TURNS = 4
"""So many in a row mean that the process is idle. Fewer are common between two events of a busy one."""


class LinkRefused(Exception):
    """The peer does not speak this protocol."""


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How links are made."""

    gateway: str
    """Names this process to workers."""
    max_message_bytes: int = 64 * 1024 * 1024
    links_per_worker: int = 1


class Link:
    """One link. Start `run` as a task; cancelling it closes the link."""

    def __init__(
        self, worker: Worker, dispatcher: Dispatcher, clock: Clock, options: LinkOptions, large: Large
    ) -> None:
        """Nothing is dialled before `run`."""
        self._worker, self._dispatcher, self._clock, self._options = worker, dispatcher, clock, options
        self._large = large
        self._something_to_write = asyncio.Event()
        self._lane: Lane | None = None
        self._held: frozenset[str] = frozenset()

    async def run(self, on_down: Callable[[], None]) -> None:
        """Keeps the link up until cancelled; `on_down` is called each time it was lost or could not be made."""
        delay = RETRY_SECONDS[0]
        while True:
            try:
                async with open_channel(self._worker.address, self._options.max_message_bytes) as channel:
                    await self._live(WorkerServiceStub(channel))
            except (RpcError, TimeoutError, LinkRefused, asyncio.InvalidStateError) as error:
                _LOG.debug("no link", extra={"address": self._worker.address, "cause": _cause(error)})
            except Exception:  # noqa: BLE001 - whatever breaks one link, the next one may work; without, nothing does
                _LOG.exception("a link broke", extra={"address": self._worker.address})
            delay = RETRY_SECONDS[0] if self._lane is not None else min(delay * 2, RETRY_SECONDS[1])
            self._lane = None
            on_down()
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    def hold(self, versions: frozenset[str]) -> None:
        """Has the worker told, in this life of the link and in each further one, that streams need these versions."""
        self._held = versions
        self.wake()

    def wake(self) -> None:
        """The lane has something to write."""
        self._something_to_write.set()

    def carry_large(self, flight: Flight) -> Callable[[], object]:
        """Sends `flight` beside the link."""
        assert self._lane is not None
        return self._large.send(self._lane, flight)

    async def _live(self, stub: WorkerServiceStub) -> None:
        """One life of the link."""
        call: aio.StreamStreamCall[pb.LinkRequest, pb.LinkResponse] = stub.Link()
        ends: list[asyncio.Task[None]] = []
        try:
            lane = self._lane = await self._greet(call)
            self._worker.links_up += 1
            ends = [
                asyncio.create_task(self._read(call, lane), name="link-reader"),
                asyncio.create_task(self._write(call, lane), name="link-writer"),
            ]
            await _first_ended(ends)
        finally:
            call.cancel()
            if ends:
                await _ended(ends)
                self._worker.links_up -= 1
                _LOG.info("a link was lost", extra={"worker": self._worker.name, "address": self._worker.address})
                self._dispatcher.lost(lane)

    async def _greet(self, call: aio.StreamStreamCall[pb.LinkRequest, pb.LinkResponse]) -> Lane:
        async with asyncio.timeout(HELLO_SECONDS):
            hello = pb.GatewayHello(protocol_version=PROTOCOL_VERSION, gateway=self._options.gateway)
            await call.write(pb.LinkRequest(hello=hello))
            message = await call.read()
        if not isinstance(message, pb.LinkResponse) or not message.HasField("hello"):
            raise LinkRefused("the peer does not begin with its hello")
        if message.hello.protocol_version != PROTOCOL_VERSION:
            raise LinkRefused(f"the worker speaks version {message.hello.protocol_version} of the link")
        lane = Lane(self._worker, message.hello.max_link_envelope_bytes or 1 << 20, self)
        self._lane = lane
        self._introduce(lane, message.hello)
        _LOG.info("a link is up", extra={"worker": self._worker.name, "address": self._worker.address})
        return lane

    async def _read(self, call: aio.StreamStreamCall[pb.LinkRequest, pb.LinkResponse], lane: Lane) -> None:
        while isinstance(message := await call.read(), pb.LinkResponse):
            kind = message.WhichOneof("message")
            if kind == "answers":
                for answer in message.answers.answers:
                    self._answer(lane, answer)
                for grant in message.answers.credits:
                    self._granted(lane, grant)
                self._dispatcher.has_room_again()
            elif kind == "credits":
                self._granted(lane, message.credits)
            elif kind == "hello":
                self._introduce(lane, message.hello)
            elif kind == "drain":
                lane.draining = True
                self._dispatcher.set_ready(lane, ())

    def _answer(self, lane: Lane, answer: pb.Answer) -> None:
        if answer.HasField("error"):
            self._dispatcher.failed(lane, answer.id, from_status(answer.error))
        else:
            self._dispatcher.answered(lane, answer.id, answer)

    def _granted(self, lane: Lane, grant: pb.CreditGrant) -> None:
        if grant.HasField("speed"):
            self._worker.speeds[grant.version] = to_speed(grant.speed)
        self._dispatcher.grant(lane, grant.version, grant.rows)

    def _introduce(self, lane: Lane, hello: pb.WorkerHello) -> None:
        standings = to_standings(hello.versions)
        self._worker.introduce(hello.worker, hello.boot_id, standings, to_speeds(hello.versions))
        self._worker.keeps_held = "hold" in hello.capabilities
        if self._worker.is_silent:
            self._dispatcher.spoke_again(self._worker)
        ready = frozenset([name for name, standing in standings.items() if standing.state is LoadState.READY])
        lane.told_ready(ready)
        if not lane.draining:
            self._dispatcher.set_ready(lane, ready)

    async def _write(self, call: aio.StreamStreamCall[pb.LinkRequest, pb.LinkResponse], lane: Lane) -> None:
        told_held: frozenset[str] = frozenset()
        while True:
            if told_held != self._held and self._worker.keeps_held:
                told_held = self._held
                await call.write(_hold(told_held))
            await self._something_to_write.wait()
            self._something_to_write.clear()
            await self._gather(lane)
            flights, cancelled = lane.take_frame()
            if flights:  # first: what was taken may end during any wait, and its inputs go then
                await call.write(self._frame(flights))
            if cancelled:
                await call.write(pb.LinkRequest(cancel=pb.Cancel(ids=cancelled)))

    async def _gather(self, lane: Lane) -> None:
        """Lets the loop do what else is ready, which may bring more envelopes; returns soon if it is idle."""
        began = turned = self._clock()
        idle_turns = 0
        while idle_turns < IDLE_TURNS and turned - began < GATHER_SECONDS and lane.forming < GATHER_ENVELOPES:
            await asyncio.sleep(0)
            before, turned = turned, self._clock()
            idle_turns = idle_turns + 1 if turned - before < IDLE_TURN_SECONDS else 0

    def _frame(self, flights: list[Flight]) -> pb.LinkRequest:
        message, now = pb.LinkRequest(), self._clock()
        envelopes = message.envelopes.envelopes
        for flight in flights:
            write_envelope(envelopes.add(), flight, now)
        return message


class Large:
    """Envelopes too large for a link, as unary calls on a connection of their own."""

    def __init__(self, address: str, dispatcher: Dispatcher, clock: Clock, max_message_bytes: int) -> None:
        """Dials when first used."""
        self._dispatcher, self._clock = dispatcher, clock
        self._channel = open_channel(address, max_message_bytes)
        self.stub = WorkerServiceStub(self._channel)
        self._tasks = set[asyncio.Task[None]]()

    def send(self, lane: Lane, flight: Flight) -> Callable[[], object]:
        """Begins the call; its end is told to the dispatcher. Returns what cancels it."""
        task = asyncio.create_task(self._call(lane, flight), name="large-envelope")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    async def close(self) -> None:
        """Cuts what is under way."""
        await self._channel.close()

    async def _call(self, lane: Lane, flight: Flight) -> None:
        request, now, ticket = pb.InferRequest(), self._clock(), flight.ticket
        write_envelope(request.envelope, flight, now)
        try:
            response = await self.stub.Infer(request, timeout=flight.envelope.deadline - now)
        except aio.AioRpcError as error:
            self._dispatcher.failed(lane, ticket, _error_of(error))
        else:
            self._dispatcher.answered(lane, ticket, response.answer)
        self._dispatcher.has_room_again()


def _hold(versions: frozenset[str]) -> pb.LinkRequest:
    return pb.LinkRequest(hold=pb.VersionHold(versions=sorted(versions)[:MAX_HELD_VERSIONS]))


def _error_of(error: aio.AioRpcError) -> InferwayError:
    """What the worker said, or what grpc itself means: a message is too large for it, or the worker is lost."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return from_status(Status.FromString(value))
    if error.code() is StatusCode.RESOURCE_EXHAUSTED:
        return InvalidField.at("inputs", f"the request or its answer does not fit a message ({error.details()})")
    return WorkerLost(f"the call to the worker ended with {error.code().name}")


def _cause(error: Exception) -> str:
    return error.code().name if isinstance(error, aio.AioRpcError) else str(error) or type(error).__name__


async def _first_ended(ends: list[asyncio.Task[None]]) -> None:
    """Returns when one of them has ended: a link with one end is none. Raises what that one raised."""
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in done:
        end.result()


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
