"""Credits of one version: how many rows each link may send. Pure.

The version's window (about two batches) is shared evenly by the links. A link's part is open while it was granted
and not finished; what is not open is due. Small dues wait until they are a quarter of the part, because a grant is
a message of its own: three quarters are then open, so nobody starves meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable

GRANT_PARTS = 4


class CreditPool:
    """The window of one version. Links are any hashable objects."""

    def __init__(self, window_rows: int) -> None:
        """No links yet."""
        self._window_rows = window_rows
        self._open: dict[Hashable, int] = {}

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
        share = max(1, self._window_rows // len(self._open))
        due = share - opened
        if due < max(1, share // GRANT_PARTS):
            return 0
        self._open[link] = share
        return due
