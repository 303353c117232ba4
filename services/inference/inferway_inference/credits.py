"""Credits of one version: how many rows each link may send. Pure.

The version's window is shared evenly by the links. A link's part is open while it was granted and not finished; what
is not open is due. Small dues wait until they are a quarter of the part: three quarters are then open, so nobody
starves meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from inferway_inference.latency import Speed

GRANT_PARTS = 4
WINDOW_BATCHES = 2
WINDOW_SECONDS = 0.02
"""Of work, at least, for short batches: a round trip to a gateway takes a part of it."""


class CreditPool:
    """The window of one version. Links are any hashable objects."""

    def __init__(self, window_rows: int) -> None:
        """No links yet."""
        self.speed = Speed()
        """What was learned of the version, for whoever is granted rows."""
        self._window_rows = window_rows
        self._open: dict[Hashable, int] = {}

    def resize(self, window_rows: int, speed: Speed) -> None:
        """Another window holds from now on; what is granted beyond it is not taken back."""
        self._window_rows, self.speed = window_rows, speed

    def leave(self, link: Hashable) -> None:
        """A link is gone, with its credits."""
        self._open.pop(link, None)

    def finished(self, link: Hashable, rows: int) -> None:
        """Rows of the link were answered or cancelled."""
        if link in self._open:
            self._open[link] -= rows

    def take_due(self, link: Hashable) -> int:
        """Rows to grant the link now; they count as granted. 0 if it is not worth a message yet.

        The first call makes the link take part.
        """
        opened = self._open.setdefault(link, 0)
        share = self._share()
        due = share - opened
        if due < max(1, share // GRANT_PARTS):
            return 0
        self._open[link] = share
        return due

    def shares(self) -> Iterator[tuple[Hashable, int, int]]:
        """Each link with the rows that it has open, and those that it may have open."""
        for link, opened in self._open.items():
            yield link, opened, self._share()

    def _share(self) -> int:
        return max(1, self._window_rows // max(1, len(self._open)))


def window_rows(speed: Speed, best_rows: int, max_rows: int, capacity: int) -> int:
    """Rows that gateways may have underway: two batches for each caller, but at least what a round trip takes.

    Never more than two of the largest batches for each, and never so few that callers of single rows would wait.
    """
    largest = WINDOW_BATCHES * capacity * max_rows
    wanted = max(WINDOW_BATCHES * capacity * best_rows, int(speed.rows_per_second * WINDOW_SECONDS))
    return max(2 * (capacity + 1), min(wanted, largest))
