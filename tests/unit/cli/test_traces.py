"""Spans come in by OTLP, are kept within bounds, and become a tree."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from inferway_cli.traces.receiver import IGNORED_SERVICES, TRACE_SERVICE, TraceReceiver
from inferway_cli.traces.record import Link, Span
from inferway_cli.traces.show import trace_lines
from inferway_cli.traces.store import TraceStore
from inferway_cli.traces.tree import build, flatten

TRACE, OTHER = "a" * 32, "b" * 32


def span(number: int, parent: int = 0, trace_id: str = TRACE, links: tuple[Link, ...] = ()) -> Span:
    """A span that begins at its number."""
    return Span(
        trace_id,
        _id(number),
        _id(parent) if parent else "",
        f"hop {number}",
        "inferway-gateway",
        number,
        99,
        links=links,
    )


def _id(number: int) -> str:
    return f"{number:016x}"


def names(trace_id: str, spans: list[Span]) -> list[str]:
    """The hops of a tree, parents first."""
    return [found.name for found in flatten(build(trace_id, spans))]


def test_hops_stand_under_what_caused_them_in_the_order_of_their_start():
    """However they arrived."""
    roots = build(TRACE, [span(4, 2), span(3, 1), span(2, 1), span(1)])
    assert [hop.span.name for hop in roots] == ["hop 1"]
    assert names(TRACE, [span(4, 2), span(3, 1), span(2, 1), span(1)]) == ["hop 1", "hop 2", "hop 4", "hop 3"]


def test_a_hop_whose_parent_is_missing_is_a_root():
    """The client's own span is often not reported to us."""
    assert names(TRACE, [span(2, 1), span(3, 2)]) == ["hop 2", "hop 3"]


def test_a_batch_is_part_of_every_request_in_it():
    """It has one parent, and links to all."""
    first, second = span(1), span(2, trace_id=OTHER, links=(Link(TRACE, _id(3)),))
    batch = span(3, 1, links=(Link(TRACE, _id(1)), Link(OTHER, _id(2))))
    spans = [first, second, batch, span(4, 3)]
    assert names(TRACE, spans) == ["hop 1", "hop 3", "hop 4"]
    assert names(OTHER, spans) == ["hop 2", "hop 3", "hop 4"]


def test_a_tree_is_lines_that_fit_a_terminal():
    """Eighty columns."""
    lines = trace_lines(build(TRACE, [span(1), span(2, 1), span(3, 2), span(4, 1)]))
    assert [line.split()[:2] for line in lines[1:]] == [["hop", "1"], ["├─", "hop"], ["│", "└─"], ["└─", "hop"]]
    assert all(len(line) <= 80 for line in lines)


def test_the_oldest_traces_are_forgotten(tmp_path: Path):
    """The file does not grow for ever."""
    with TraceStore(tmp_path / "traces.db", max_traces=2) as store:
        for number in range(1, 5):
            store.add([span(number, trace_id=f"{number:032x}")])
        kept = [bool(store.related(f"{number:032x}")) for number in range(1, 5)]
        assert kept == [False, False, True, True]
        assert store.latest() == f"{4:032x}"


def test_another_process_reads_while_one_writes(tmp_path: Path):
    """`inferway trace` beside `inferway up`."""
    path = tmp_path / "traces.db"
    batch = span(3, trace_id=OTHER, links=(Link(TRACE, _id(1)),))
    with TraceStore(path) as writer, TraceStore(path) as reader:
        writer.add([span(1), batch])
        assert names(TRACE, reader.related(TRACE)) == ["hop 1", "hop 3"]


@pytest.fixture
def store(tmp_path: Path):
    """An empty store."""
    with TraceStore(tmp_path / "traces.db") as store:
        yield store


async def test_what_an_exporter_sends_is_kept(store: TraceStore):
    """Any OpenTelemetry SDK can report to `inferway up`; its metrics and logs are taken and dropped."""
    sent = trace_pb2.Span(
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(_id(7)),
        name="gateway.queue",
        start_time_unix_nano=1_000,
        end_time_unix_nano=3_000,
        attributes=[KeyValue(key="inferway.rows", value=AnyValue(int_value=4))],
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message="QUEUE_FULL"),
    )
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add()
    spans.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="inferway-gateway")))
    spans.scope_spans.add().spans.append(sent)
    async with TraceReceiver(store, 0) as receiver, grpc.aio.insecure_channel(receiver.target) as channel:
        waiting = asyncio.create_task(receiver.until(TRACE, bool, 10.0))
        await _export(channel, TRACE_SERVICE, request.SerializeToString())
        for service in IGNORED_SERVICES:
            await _export(channel, service, b"")
        (kept,) = await waiting
    assert (kept.name, kept.service, kept.error) == ("gateway.queue", "inferway-gateway", "QUEUE_FULL")
    assert kept.attributes == {"inferway.rows": 4}
    assert kept.seconds == 2e-6


async def test_a_taken_otlp_port_is_no_problem(store: TraceStore):
    """A collector may run on the machine already; our services are told the other port."""
    async with TraceReceiver(store, 0) as first:
        port = int(first.target.rpartition(":")[2])
        async with TraceReceiver(store, port) as second:
            assert second.target != first.target


async def test_waiting_for_spans_ends_with_what_there_is(store: TraceStore):
    """A hop that never reports does not hang the demo."""
    async with TraceReceiver(store, 0) as receiver:
        receiver.keep([span(1)])
        assert [found.name for found in await receiver.until(TRACE, lambda spans: len(spans) == 2, 0.05)] == ["hop 1"]


async def _export(channel: grpc.aio.Channel, service: str, request: bytes) -> bytes:
    call: Any = channel.unary_unary(f"/{service}/Export")
    return bytes(await call(request, timeout=5))
