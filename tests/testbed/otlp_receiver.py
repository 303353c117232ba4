"""A real OTLP receiver that remembers spans and lets a test wait for them."""

from __future__ import annotations

import threading
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """What tests ask of a span."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    start_ns: int
    end_ns: int
    attributes: dict[str, str]


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on `target`; use as a context."""

    def __init__(self) -> None:
        """Takes a free port."""
        self._arrived = threading.Condition()
        self._spans: list[Span] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, self._server
        )
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        """Starts."""
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops."""
        self._server.stop(0).wait()

    def Export(self, request: Any, context: Any) -> Any:
        """Takes spans in."""
        with self._arrived:
            for resource in request.resource_spans:
                labels = {item.key: item.value.string_value for item in resource.resource.attributes}
                spans = [span for scope in resource.scope_spans for span in scope.spans]
                self._spans += [_span(labels["service.name"], span) for span in spans]
            self._arrived.notify_all()
        return pb.ExportTraceServiceResponse()

    def wait_for(self, trace_id: str, names: set[str], timeout_seconds: float = 15.0) -> list[Span]:
        """The spans of a trace, once all `names` are among them."""

        def complete() -> bool:
            return names <= {span.name for span in self._spans if span.trace_id == trace_id}

        with self._arrived:
            assert self._arrived.wait_for(complete, timeout_seconds), self._missing(trace_id, names)
            return [span for span in self._spans if span.trace_id == trace_id]

    def _missing(self, trace_id: str, names: set[str]) -> str:
        seen = {span.name for span in self._spans if span.trace_id == trace_id}
        return f"missing {sorted(names - seen)}; seen {sorted(seen)}"


def _span(service: str, span: Any) -> Span:
    return Span(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(link.span_id.hex() for link in span.links),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {item.key: item.value.string_value or str(item.value.int_value) for item in span.attributes},
    )
