"""Plain tables of finished texts, which every format can draw: for pages that are not a run's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mood = Literal["", "good", "bad", "strong", "dim"]  # a format may show it or not


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table."""

    text: str
    mood: Mood = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One table; every row has as many cells as there are columns."""

    title: str
    columns: tuple[str, ...]
    right: tuple[bool, ...]  # of each column: numbers
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
