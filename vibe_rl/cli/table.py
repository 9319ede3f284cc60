"""Aligned columns on the terminal; a table of thousands of rows takes rich itself seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vibe_rl.cli.text import printable

Cell = str | tuple[str, str]
"""A cell's text, or its text and the style in which rich shows it."""


class Columns:
    """The widths of a table's columns.

    Args:
        alignment: For each column `<` or `>`.
        rows: The rows that shall fit, among them the header.
        least: The least width of a column.
    """

    def __init__(self, alignment: str, rows: Sequence[Sequence[Cell]], least: int = 0) -> None:
        self._alignment = alignment
        columns = zip(*rows, strict=True)
        self.widths = [
            max(least, *(cell_len(_text(cell)) for cell in column)) for column in columns
        ]

    def lines(self, rows: Iterable[Sequence[Cell]]) -> Text:
        """The rows as lines, one space between columns."""
        lines = Text()
        for row in rows:
            line = Text()
            for nth, cell in enumerate(row):
                text = _text(cell)
                room = " " * (self.widths[nth] - cell_len(text))
                text = text + room if self._alignment[nth] == "<" else room + text
                line.append(text, _style(cell)).append(" ")
            line.rstrip()
            lines.append_text(line).append("\n")
        return lines


class Terminal(Console):
    """Stdout, with colours where it is a terminal; a long line stays one line to copy."""

    def __init__(self) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def show(self, text: Text) -> None:
        """Print lines at once, also into a pipe."""
        self.print(text, end="")
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command; rich would exit with 1."""
        raise  # noqa: PLE0704 - it is called where the error is handled


def _text(cell: Cell) -> str:
    """What a cell shows: names and values are whatever somebody has logged."""
    return printable(cell if isinstance(cell, str) else cell[0])


def _style(cell: Cell) -> str | None:
    return None if isinstance(cell, str) else cell[1]
