"""The gRPC server that every service runs: pipeline, health, reflection, limits, drain and stop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferway.errors import NotSupported
from inferway_chassis.addresses import AddressTaken, refuse_open_plaintext
from inferway_chassis.health import Health
from inferway_chassis.native import NativeFront
from inferway_chassis.pipeline import REFUSE_SECONDS, Begin, Pipeline, RpcStatus
from inferway_chassis.process import Process
from inferway_chassis.settings import ServiceSettings
from inferway_chassis.transport import Transport

_LOG = logging.getLogger(__name__)

MAX_PENDING_CALLS = 32768
"""Calls that have arrived and that the event loop has not yet taken up."""
_SHOWN_CHARACTERS = 100


class Server:
    """One gRPC server. Add services, then `start`; `drain` and `stop` end it in two steps."""

    def __init__(
        self,
        settings: ServiceSettings,
        process: Process,
        transport: Transport = Transport.GRPCIO,
        *,
        share_port: bool = False,
    ) -> None:
        """Takes address and limits from `settings`; nothing listens yet. Raises SettingsRefused.

        With `share_port`, other processes may listen on the same address, and the kernel spreads connections.
        """
        refuse_open_plaintext(settings.grpc_address, settings)
        self._settings, self._transport = settings, transport
        self._server = aio.server(options=_options(settings.max_message_bytes, share_port=share_port))
        self._share_port = share_port
        self._begins: dict[str, Begin] = {}
        """Unary methods that need no task, by path."""
        self._front: NativeFront | None = None
        self._pipeline = Pipeline(process.telemetry, settings.slow_reader_seconds)
        self._public_names: list[str] = []
        self._drain_callbacks: list[Callable[[], Awaitable[None]]] = []
        self.health = Health()
        self.port = 0
        """The bound port; 0 before `start`."""

    def add_service(self, descriptor: ServiceDescriptor, servicer: object, public_name: str | None = None) -> None:
        """Serves every rpc of `descriptor` by the method of that name on `servicer`.

        `public_name` is the full service name on the wire where it differs from the descriptor's (foreign protos).
        """
        name = public_name or descriptor.full_name
        handlers = {method.name: self._handler(name, method, servicer) for method in descriptor.methods}
        self._server.add_registered_method_handlers(name, handlers)
        self._public_names.append(name)

    def on_drain(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Calls `callback` once when the server begins to drain."""
        self._drain_callbacks.append(callback)

    async def start(self) -> None:
        """Listens. Raises AddressTaken."""
        self._add_health_and_reflection()
        address = self._settings.grpc_address
        try:
            if self._transport is Transport.NATIVE:
                self._open_front(address)
            else:
                self.port = self._server.add_insecure_port(address)
        except (RuntimeError, OSError) as error:
            message = f"{address} is taken by another process, or is no address of this machine"
            raise AddressTaken(message) from error
        await self._server.start()
        if self._front is not None:
            self._front.start()
        for name in ("", *self._public_names):
            await self.health.set(name, serving=True)
        _LOG.info("listening", extra={"address": address, "port": self.port})

    async def drain(self) -> None:
        """Tells everybody that the server is leaving, while it still serves."""
        await self.health.drain()
        await asyncio.gather(*(callback() for callback in self._drain_callbacks))

    async def stop(self, grace_seconds: float) -> None:
        """Takes nothing new, lets what runs end within `grace_seconds`, then cuts it.

        For a moment new calls are refused with DRAINING: what arrives while grpc closes would be cancelled untold.
        """
        self._pipeline.refusing = True
        await asyncio.sleep(min(REFUSE_SECONDS, grace_seconds))
        if self._front is None:
            await self._server.stop(grace_seconds)
        else:
            await asyncio.gather(self._front.finish(grace_seconds), self._server.stop(grace_seconds))
            await self._front.close()

    def _open_front(self, address: str) -> None:
        front = NativeFront(address, self._settings.max_message_bytes, share_port=self._share_port)
        for path, begin in self._begins.items():
            front.add(path, begin)
        self._server.add_insecure_port(front.fallback_address)
        self._front, self.port = front, front.port

    def _handler(self, service: str, method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Callable[..., Any] = getattr(servicer, method.name)
        parse = message_factory.GetMessageClass(method.input_type).FromString
        serialise = message_factory.GetMessageClass(method.output_type).SerializeToString
        streams = method.client_streaming
        if not _is_async(behaviour):
            begin = self._pipeline.begin(service, method.name, behaviour, parse, serialise)
            self._begins[f"/{service}/{method.name}"] = begin
        wrap = self._pipeline.stream_response if method.server_streaming else self._pipeline.unary_response
        handle = wrap(service, method.name, behaviour, parse, streams=streams)
        shape = f"{'stream' if streams else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(handle, request_deserializer=None, response_serializer=serialise)

    def _add_health_and_reflection(self) -> None:
        health_service = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        self._server.add_generic_rpc_handlers((_health_handler(self.health),))
        self._server.add_generic_rpc_handlers((_UnknownMethods(),))
        names = [*self._public_names, health_service, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server, pool=public_descriptors())


class _UnknownMethods(grpc.GenericRpcHandler):
    """Answers what no service has: added last, so that it is asked last."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler of any kind of call, which reads nothing."""
        method = handler_call_details.method

        async def refuse(requests: Any, context: aio.ServicerContext[Any, Any]) -> None:
            del requests
            message = f"this server has no method {method[:_SHOWN_CHARACTERS]}; reflection lists those it has"
            await context.abort_with_status(RpcStatus(NotSupported(message, feature="method")))

        return grpc.stream_stream_rpc_method_handler(refuse)


def public_descriptors() -> descriptor_pool.DescriptorPool:
    """All contracts in the form in which clients compile them."""
    pool = descriptor_pool.DescriptorPool()
    data = (resources.files("inferway") / "descriptors.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def _health_handler(health: Health) -> grpc.GenericRpcHandler:
    """Health outside the pipeline: its own servicer sets its own statuses."""
    request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    serialisers: dict[str, Any] = {
        "request_deserializer": request.FromString,
        "response_serializer": response.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(health.servicer.Check, **serialisers),
            "Watch": grpc.unary_stream_rpc_method_handler(health.servicer.Watch, **serialisers),
        },
    )


def _is_async(behaviour: object) -> bool:
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def _options(max_message_bytes: int, *, share_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # grpcio shares a port with any other process by default; a second stack must be told that it is taken.
        ("grpc.so_reuseport", int(share_port)),
        # By default grpc cancels what comes in a burst of a few thousand, with no word of why. Our own queues refuse.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        # On a quick network, probing makes the window of every stream megabytes wide, and what is sent there is kept
        # whether anybody reads it or not: fifty streams took gigabytes. For a message being read, grpc makes room.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
