"""How commands talk: tables or JSON on stdout, progress and one-line errors on stderr.

Tables fit 80 columns. Without a terminal nothing moves and nothing is coloured: plain lines, for logs and pipes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from inferway.errors import (
    DeadlineExceeded,
    EndpointNotFound,
    EtagMismatch,
    InferwayError,
    ModelNotFound,
    NotSynchronised,
    NoWorker,
    ResourceInUse,
    RolloutActive,
    RolloutNotFound,
    RolloutState,
    Unreachable,
    VersionLoadFailed,
    VersionNotFound,
    VersionNotReady,
    VersionUnloaded,
)

T = TypeVar("T")
Row = Mapping[str, Any]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""

HINTS: dict[type[InferwayError], str] = {
    Unreachable: "`inferway up` starts inferway; --gateway and --registry say where it is",
    EndpointNotFound: "`inferway models` lists what there is",
    ModelNotFound: "`inferway models` lists what there is",
    VersionNotFound: "`inferway model NAME` lists the versions",
    VersionUnloaded: "`inferway unload NAME --version V --restore` brings it back",
    VersionLoadFailed: "`inferway model NAME` shows every worker's reason",
    VersionNotReady: "`inferway model NAME` shows how far it is",
    NoWorker: "`inferway status` shows the workers",
    NotSynchronised: "try again in a second",
    ResourceInUse: "delete or move what uses it first",
    RolloutActive: "`inferway rollout status` shows it; `inferway rollout abort ENDPOINT` ends it",
    RolloutNotFound: "`inferway rollout list` shows what there is",
    RolloutState: "`inferway rollout status ENDPOINT` shows where it stands",
    EtagMismatch: "somebody else changed it; try again",
    DeadlineExceeded: "--timeout allows more",
}


class CommandError(Exception):
    """The command cannot go on; the message is one line that says what to do."""


class _Screen(Console):
    """A console that spells out what a terminal would obey: much of what is shown was named by others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As the base, with text escaped; what rich itself tells the terminal stays."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


def escaped(text: str) -> str:
    """The text with every character that cannot be printed as Python writes it in a string; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


out = _Screen(highlight=False, soft_wrap=not sys.stdout.isatty())
"""Results."""
err = _Screen(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
"""Progress and errors."""


def run(action: Coroutine[Any, Any, T]) -> T:
    """Runs the action of a command to its end; Ctrl-C cancels it and exits with 130."""
    try:
        return asyncio.run(action)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def explain(error: InferwayError) -> str:
    """The message of an error and what to do about it, in one line."""
    hint = next((HINTS[kind] for kind in type(error).__mro__ if kind in HINTS), "")
    message = " ".join(error.message.split())
    return f"{message} ({hint})" if hint else message


def report(message: str) -> None:
    """Prints an error as one line on stderr."""
    err.print(Text("error: ", style="bold red").append(message, style="default not bold"))


def note(message: str) -> None:
    """Prints a line for people on stderr, so that stdout stays for results."""
    err.print(Text(message))


def print_json(value: object) -> None:
    """Prints a value as JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Row], empty: str) -> None:
    """Prints rows under their columns, or the sentence `empty`; cells are `str` of the rows' values."""
    listed = list(rows)
    if title:
        out.print(Text(title, style="bold"))
    if not listed:
        out.print(Text(empty, style="dim"))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in listed:
        table.add_row(*(Text(escaped(_cell(row.get(column)))) for column in columns))
    out.print(table)


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
