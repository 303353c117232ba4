"""The map: ground, destinations and vehicles in a rectangle of characters."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from examples.fleet.tracks import Floats

CELL_ASPECT = 2.0
"""A character is so many times as high as it is wide."""
GROUND_STYLE = "grey27"
DESTINATION_STYLE = "grey50"

Mark = tuple[Floats, str, str]
"""Where in km [2], the character, its style."""


class TownMap:
    """Draws to scale what lies on the `ground` [points, 2] km; north is up."""

    def __init__(self, ground: Floats) -> None:
        """The ground is drawn as dots."""
        self._ground = ground
        self._low, self._high = ground.min(axis=0), ground.max(axis=0)
        self._size = (0, 0)

    def lines(self, width: int, height: int, marks: Iterable[Mark]) -> list[Text]:
        """`height` lines of `width` characters; later marks cover earlier ones."""
        self._fit(width, height)
        cells: list[list[tuple[str, str]]] = [[*row] for row in self._dots]
        for where, character, style in marks:
            column, row = self._cell(where)
            cells[row][column] = (character, style)
        return [_line(row) for row in cells]

    def _fit(self, width: int, height: int) -> None:
        if (width, height) == self._size:
            return
        self._size = (width, height)
        extent = np.maximum(self._high - self._low, 1e-3)
        room = np.array([width - 1, (height - 1) * CELL_ASPECT])
        self._km = float((extent / room).max())
        self._margin = (room - extent / self._km) / 2
        self._dots = [[(" ", GROUND_STYLE)] * width for _ in range(height)]
        for point in self._ground:
            column, row = self._cell(point)
            self._dots[row][column] = ("·", GROUND_STYLE)

    def _cell(self, where: NDArray[np.float64]) -> tuple[int, int]:
        width, height = self._size
        across, up = (where - self._low) / self._km + self._margin
        column, row = round(across), height - 1 - round(up / CELL_ASPECT)
        return min(max(column, 0), width - 1), min(max(row, 0), height - 1)


def _line(cells: list[tuple[str, str]]) -> Text:
    """With one span for each run of a style, which makes drawing several times cheaper than one for each cell."""
    runs = groupby(cells, key=lambda cell: cell[1])
    return Text.assemble(*(("".join(character for character, _ in run), style) for style, run in runs))
