"""Shows what a long command is doing: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status
from rich.text import Text

TITLE_COLUMNS = 22
LINE_SECONDS = 1.0
"""Without a terminal a step says no more than one line in this time."""


@dataclass(slots=True)
class Step:
    """A step under way."""

    title: str
    detail: str = ""
    """Shown behind the title when the step is done."""
    _status: Status | None = field(default=None, repr=False)
    _console: Console | None = field(default=None, repr=False)
    _told_at: float = 0.0

    def tell(self, text: str) -> None:
        """Shows how far the step is; without a terminal, only now and then."""
        if self._status is not None:
            self._status.update(Text(f"{self.title}: {text}"))
        elif self._console is not None and time.monotonic() - self._told_at >= LINE_SECONDS:
            self._told_at = time.monotonic()
            self._console.print(Text(f"  {self.title}: {text}"))


class Steps:
    """Steps one after another on a console."""

    def __init__(self, console: Console) -> None:
        """Writes to `console`."""
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Shows a step while the body runs, and when it is done how long it took."""
        started = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(Text(title)) as status:
                step = Step(title, _status=status)
                yield step
        else:
            self._console.print(Text(f"  {title} ..."))
            step = Step(title, _console=self._console)
            yield step
        seconds = f"{time.monotonic() - started:.1f} s"
        mark = Text("✓ ", style="green") if self._console.is_terminal else Text("✓ ")
        self._console.print(mark.append(f"{title:<{TITLE_COLUMNS}}{step.detail:<30}{seconds:>8}", style="default"))

    def say(self, text: str) -> None:
        """Prints a line between the steps."""
        self._console.print(Text(text))
