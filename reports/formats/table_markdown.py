"""Plain tables as Markdown sections. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable

from reports.tables import Cell, Table
from reports.words import plain

_SPECIAL = frozenset("\\`*_[]<>#|~$&@")


def render_tables(tables: Iterable[Table]) -> str:
    """One section a table, its notes below it."""
    parts = []
    for table in tables:
        lines = [
            _line(map(_inline, table.columns)),
            "|" + "".join("--:|" if right else "---|" for right in table.right),
        ]
        lines += [
            _line(_strong(cell) if cell.mood == "strong" else _inline(cell.text) for cell in row) for row in table.rows
        ]
        parts += [f"## {_inline(table.title)}", "\n".join(lines), *map(_inline, table.notes)]
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _strong(cell: Cell) -> str:
    return f"**{_inline(cell.text)}**"


def _inline(text: str) -> str:
    return "".join(f"\\{character}" if character in _SPECIAL else character for character in plain(text))
