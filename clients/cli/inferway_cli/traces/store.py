"""Spans of the last traces, in SQLite: one process writes, any may read.

The store is bounded in traces, and each trace in spans, so that it never needs cleaning up.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from inferway_cli.traces.record import Link, Span

MAX_TRACES = 2_000
MAX_SPANS_OF_TRACE = 2_000
BUSY_SECONDS = 2.0

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS traces (number INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT NOT NULL, name TEXT NOT NULL, service TEXT NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, error TEXT NOT NULL, attributes TEXT NOT NULL,
    links TEXT NOT NULL, PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    to_trace_id TEXT NOT NULL, trace_id TEXT NOT NULL, PRIMARY KEY (to_trace_id, trace_id)
) WITHOUT ROWID;
"""
_INSERT = "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_RELATED = """
SELECT * FROM spans WHERE trace_id = :trace
    OR trace_id IN (SELECT trace_id FROM links WHERE to_trace_id = :trace)
ORDER BY start_ns LIMIT :limit
"""
_OLD = "(SELECT trace_id FROM traces WHERE number <= (SELECT MAX(number) FROM traces) - :keep)"


class TraceStore:
    """A file of spans, for use as `with TraceStore(path) as store`."""

    def __init__(self, path: Path, max_traces: int = MAX_TRACES) -> None:
        """Makes the file if there is none."""
        self._max_traces = max_traces
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._connection.close()

    def add(self, spans: Sequence[Span]) -> None:
        """Keeps the spans, and forgets the oldest traces beyond the bound."""
        with self._connection as transaction:
            transaction.executemany(
                "INSERT OR IGNORE INTO traces (trace_id) VALUES (?)", [(span.trace_id,) for span in spans]
            )
            transaction.executemany(_INSERT, [_to_row(span) for span in spans])
            transaction.executemany(
                "INSERT OR IGNORE INTO links VALUES (?, ?)",
                [(link.trace_id, span.trace_id) for span in spans for link in span.links],
            )
            for table in ("spans", "links", "traces"):
                transaction.execute(f"DELETE FROM {table} WHERE trace_id IN {_OLD}", {"keep": self._max_traces})  # noqa: S608 - constants

    def related(self, trace_id: str) -> list[Span]:
        """The spans of a trace and of every trace that links to it, by start; empty if it is unknown."""
        parameters = {"trace": trace_id, "limit": MAX_SPANS_OF_TRACE}
        return [_from_row(row) for row in self._connection.execute(_RELATED, parameters)]

    def latest(self) -> str | None:
        """The id of the newest trace; None if there is none."""
        row = self._connection.execute("SELECT trace_id FROM traces ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])


def _to_row(span: Span) -> tuple[str | int, ...]:
    links = json.dumps([(link.trace_id, link.span_id) for link in span.links])
    attributes = json.dumps(span.attributes)
    ids = (span.trace_id, span.span_id, span.parent_id)
    return (*ids, span.name, span.service, span.start_ns, span.end_ns, span.error, attributes, links)


def _from_row(row: tuple[str, str, str, str, str, int, int, str, str, str]) -> Span:
    *_, attributes, links = row
    return Span(*row[:8], json.loads(attributes), tuple(Link(*link) for link in json.loads(links)))
