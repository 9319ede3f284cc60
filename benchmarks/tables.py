"""A report as tables: on the terminal, and in the manual between marks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.plots import PICTURES
from benchmarks.results import Report, Result, Spread
from benchmarks.targets import compared

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

Rows = list[list[str]]


def show(report: Report) -> None:
    """Print everything to the terminal."""
    console = Console()
    # Tables are read beside each other: none is cut to a terminal's width.
    console.width = max(console.width, 180)
    console.print(_about(report), highlight=False)
    for name, results in report.results.items():
        for title, header, rows in _tables(results):
            table = Table(title=f"{name}: {title}", title_justify="left")
            for nth, column in enumerate(header):
                table.add_column(column, justify="right" if nth else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table, highlight=False)
    for where, target, value in compared(report):
        verdict = "met" if target.is_met(value) else "MISSED"
        console.print(f"{verdict:6}  {where}: {_number(value)} (target {target})", highlight=False)
    for name, why in report.failed.items():
        console.print(f"FAILED  {name}: {why}", highlight=False)


def write_docs(report: Report, page: Path = PAGE) -> None:
    """Put a report's tables in the manual's page, between the marks of each benchmark."""
    text = page.read_text()
    parts = {"machine": _about(report), "targets": _markdown(*_targets(report))}
    for name, results in report.results.items():
        picture = f"![{name}, drawn](images/{name}.svg)\n\n" if name in PICTURES else ""
        parts[name] = picture + "\n\n".join(
            f"**{title[0].upper()}{title[1:]}**\n\n{_markdown(header, rows)}"
            for title, header, rows in _tables(results)
        )
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{page} has no marks {begin.strip()} and {end}")
        text = f"{before}{begin}\n{part}\n\n{end}{after}"
    page.write_text(text)


def _tables(results: Iterable[Result]) -> Iterator[tuple[str, list[str], Rows]]:
    by_title: dict[str, list[Result]] = {}
    for result in results:
        by_title.setdefault(result.table, []).append(result)
    for title, cases in by_title.items():
        columns = list(dict.fromkeys(column for case in cases for column in case.figures))
        rows = [
            [case.case, case.why or _cell(case, columns[0])]
            + [_cell(case, column) for column in columns[1:]]
            if columns
            else [case.case, case.why]
            for case in cases
        ]
        yield title, ["", *(columns or ["why"])], rows


def _targets(report: Report) -> tuple[list[str], Rows]:
    rows = [
        [where, str(target), _number(value), "met" if target.is_met(value) else "**missed**"]
        for where, target, value in compared(report)
    ]
    return ["", "target", "measured", ""], rows


def _about(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    text = f"{report.date} UTC, {report.machine}; {versions}."
    for name, why in report.absent.items():
        text += f" Not measured: {name} ({why})."
    return text


def _cell(result: Result, column: str) -> str:
    if column not in result.figures:
        return ""
    figure = result.figures[column]
    if figure.low == figure.high:
        return _number(figure.median)
    return f"{_number(figure.median)} ({_between(figure)})"


def _between(figure: Spread) -> str:
    return f"{_number(figure.low)} to {_number(figure.high)}"


def _number(value: float) -> str:
    """Three significant digits; more for ratios near 1, where they matter."""
    if 0.9 <= value < 2:
        return f"{value:.3f}"
    if abs(value) < 1000:
        return f"{value:.3g}"
    return f"{float(f'{value:.3g}'):,.0f}"


def _markdown(header: list[str], rows: Rows) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
