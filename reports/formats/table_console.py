"""Plain tables for people at a terminal: as in a run's report, texts are never markup and controls stand escaped."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports.tables import Mood, Table
from reports.words import plain

STYLES: dict[Mood, str] = {"": "", "good": "green", "bad": "bold red", "strong": "bold", "dim": "dim"}
PIPE_WIDTH = 132  # where no terminal tells one


def print_tables(tables: Iterable[Table], console: Console | None = None) -> None:
    """Draws plain tables, their notes below each."""
    out = console or Console()
    if console is None and not out.is_terminal:
        out = Console(width=PIPE_WIDTH)
    for each in tables:
        table = RichTable(title=Text(plain(each.title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for title, right in zip(each.columns, each.right, strict=True):
            table.add_column(title, justify="right" if right else "left", no_wrap=True)
        for row in each.rows:
            table.add_row(*(Text(plain(cell.text), STYLES[cell.mood]) for cell in row))
        out.print(table)
        for note in each.notes:
            out.print(Text(plain(note), "dim italic"))
