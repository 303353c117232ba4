"""Receives spans by OTLP over gRPC, as any OpenTelemetry collector does, and keeps them in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from inferway_cli.traces.record import Link, Span
from inferway_cli.traces.store import TraceStore

TRACE_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
IGNORED_SERVICES = (
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "opentelemetry.proto.collector.logs.v1.LogsService",
)
"""Exporters send these, too; metrics have their own ports, and logs their files."""


class TraceReceiver:
    """An OTLP server on loopback, for use as `async with`; `target` says where."""

    def __init__(self, store: TraceStore, port: int) -> None:
        """Port 0 takes any free one, and so does a taken port."""
        self._store = store
        self._port = port
        self._received = asyncio.Event()
        self.target = ""
        """`host:port`, once entered."""

    async def __aenter__(self) -> Self:
        """Listens."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(_handlers(self._export))
        try:
            port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        except RuntimeError:
            port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._stack = AsyncExitStack()
        self._stack.push_async_callback(server.stop, None)
        self.target = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops."""
        await self._stack.aclose()

    async def until(self, trace_id: str, complete: Callable[[list[Span]], bool], seconds: float) -> list[Span]:
        """Returns the spans related to a trace as soon as they are `complete`, or what there is after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not complete(spans := self._store.related(trace_id)):
            self._received.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._received.wait()
            except TimeoutError:
                break
        return spans

    def keep(self, spans: list[Span]) -> None:
        """Keeps spans, whether they came by OTLP or were made in this process."""
        self._store.add(spans)
        self._received.set()

    async def _export(
        self, request: ExportTraceServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ExportTraceServiceResponse:
        del context
        self.keep(list(spans_of(request)))
        return ExportTraceServiceResponse()


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """The spans of an export."""
    for resource_spans in request.resource_spans:
        service = _service(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span, service)


def _span(span: trace_pb2.Span, service: str) -> Span:
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        service=service,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        error=(span.status.message or "failed") if failed else "",
        attributes=_attributes(span.attributes),
        links=tuple(Link(link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _service(resource: Resource) -> str:
    return str(_attributes(resource.attributes).get("service.name", ""))


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return str(value) if kind in (None, "kvlist_value", "bytes_value") else getattr(value, kind)


def _handlers(export: Callable[..., Any]) -> tuple[grpc.GenericRpcHandler, ...]:
    async def ignore(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        del request, context
        return b""

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    ignored: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(ignore)
    return (
        grpc.method_handlers_generic_handler(TRACE_SERVICE, {"Export": handler}),
        *(grpc.method_handlers_generic_handler(service, {"Export": ignored}) for service in IGNORED_SERVICES),
    )
