"""Records as an aligned table, of which more rows may come later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from vibe_rl.cli.table import Cell, Columns, Terminal
from vibe_rl.cli.text import exact, printable
from vibe_rl.metrics.reading.fields import flat

# Of a text, or of a list, so much is shown.
_WIDEST = 24
# A column to which more rows come: room for -1.23457e-05.
_ROOM = 12


class RecordTable:
    """Prints records below each other; a header stands above, and again where the fields change.

    Args:
        columns: The fields to show. If there are none: as many as fit the terminal, and a line
            that names the others; into a pipe, all.
        grows: Whether rows will come that aren't known yet.
    """

    def __init__(self, columns: tuple[str, ...] = (), *, grows: bool = False) -> None:
        self._wanted = columns
        self._least = _ROOM if grows else 0
        self._terminal = Terminal()
        self._known: dict[str, None] = {}
        self._shown: list[str] = []
        self._columns = Columns("", [])

    def show(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print further records."""
        rows = [dict(flat(record)) for record in records]
        names = [name for row in rows for name in row]
        if rows and not (self._shown and self._known.keys() >= set(names)):
            self._known |= dict.fromkeys(names)
            self._begin(rows)
        if rows:
            lines = self._columns.lines(
                [[_cell(row, name) for name in self._shown] for row in rows]
            )
            self._terminal.show(lines)

    def _begin(self, rows: list[dict[str, Any]]) -> None:
        """Choose the columns, and print a header, unless it would be the one that stands there."""
        before = self._shown
        if self._wanted:
            self._shown = list(self._wanted)
        else:
            self._shown = sorted(
                self._known, key=lambda name: (name != "step", name == "wall_time")
            )
        table: list[list[Cell]] = [[(name, "bold") for name in self._shown]]
        table += [[_cell(row, name) for name in self._shown] for row in rows]
        self._columns = Columns(">" * len(self._shown), table, self._least)
        if not self._wanted and self._terminal.is_terminal:
            ends = accumulate(width + 1 for width in self._columns.widths)
            fitting = sum(end - 1 <= self._terminal.width for end in ends)
            self._shown = self._shown[: max(fitting, 1)]
        if self._shown == before:
            return
        lines = self._columns.lines([table[0][: len(self._shown)]])
        others = [name for name in self._known if name not in self._shown]
        if others and not self._wanted:
            note = f"also: {printable(', '.join(others))}; --column NAME or --json shows them\n"
            lines = Text(note, "dim") + lines
        self._terminal.show(lines)


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    text = exact(row.get(name))
    if isinstance(value := row.get(name), float) and not math.isfinite(value):
        return text, "red"
    return text if cell_len(text) <= _WIDEST else f"{set_cell_size(text, _WIDEST - 1)}…"
