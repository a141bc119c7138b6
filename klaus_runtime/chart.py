"""The picture of a table: package size against misses, drawn with Pillow alone.

Two panels, top-5 and top-1, size on a logarithmic axis. Klaus' published figures are drawn in for reference: a point
where its size is known, levels where only the miss rate is.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from klaus_runtime import accuracy
from klaus_runtime.published import KLAUS_SHIPPED_BYTES, REFERENCES
from klaus_runtime.quant_table import Row, Table

_SCALE = 2  # drawn twice as large, then shrunk: smooth lines
_WIDTH, _HEIGHT = 1200, 520
_LEFT, _TOP, _RIGHT, _BOTTOM, _GAP = 64, 64, 24, 70, 80
_INK, _GRID, _OWN, _KLAUS = "#222222", "#e4e4e4", "#1f5fa8", "#b4561c"
_SIZES_MB = (0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200)


@dataclass(frozen=True, slots=True)
class _Axes:
    """From values to pixels in one panel."""

    left: float
    right: float
    top: float
    bottom: float
    sizes: tuple[float, float]  # bytes
    misses: tuple[float, float]  # percent

    def x(self, size: float) -> float:
        low, high = map(math.log, self.sizes)
        return self.left + (math.log(size) - low) / (high - low) * (self.right - self.left)

    def y(self, miss: float) -> float:
        low, high = self.misses
        return self.bottom - (min(max(miss, low), high) - low) / (high - low) * (self.bottom - self.top)


def draw(table: Table) -> bytes:
    """A PNG file."""
    image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    pen = ImageDraw.Draw(image)
    _text(pen, (_LEFT, 14), f"{table.model}: package size against misses on {table.photos} photos", 20)
    panel = (_WIDTH - _LEFT - _RIGHT - _GAP) / 2
    for number, (title, rank) in enumerate((("top-5 miss, %", 5), ("top-1 miss, %", 1))):
        left = _LEFT + number * (panel + _GAP)
        _panel(pen, table, rank, title, left, left + panel)
    buffer = io.BytesIO()
    image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).quantize(64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _panel(pen: ImageDraw.ImageDraw, table: Table, rank: int, title: str, left: float, right: float) -> None:
    points = [_point(row, rank) for row in table.rows]
    levels = [(item.name, miss) for item in REFERENCES[:3] if (miss := _published(item, rank)) is not None]
    shipped = REFERENCES[3].top5_miss if rank == 5 else None
    sizes = [row.total_bytes for row in table.rows] + ([KLAUS_SHIPPED_BYTES] if shipped else [])
    edges = [edge for _, low, high in points for edge in (low, high)] + [miss for _, miss in levels]
    axes = _Axes(
        left,
        right,
        _TOP + 24,
        _HEIGHT - _BOTTOM,
        (min(sizes) / 1.3, max(sizes) * 1.3),
        (0, min(100, max(edges) * 1.08)),
    )
    _frame(pen, axes, title)
    labels = _Labels(pen, axes)
    for name, miss in levels:
        _dashed(pen, axes, miss)
        below = 1 if name.endswith("8 bits") else -14  # 8 and 4 bits lie close together
        labels.fixed((axes.left + 6, axes.y(miss) + below), f"{name} {miss:.2f}", 11, _KLAUS)
    if shipped is not None:
        _mark(pen, axes, KLAUS_SHIPPED_BYTES, (shipped, shipped, shipped), _KLAUS)
        labels.beside(axes.x(KLAUS_SHIPPED_BYTES), axes.y(shipped), f"Klaus, as shipped {shipped:.2f}", 11, _KLAUS)
    for row, point in zip(table.rows, points, strict=True):
        _mark(pen, axes, row.total_bytes, point, _OWN)
    for row, point in zip(table.rows, points, strict=True):
        labels.beside(axes.x(row.total_bytes), axes.y(point[0]), row.scheme, 12, _OWN)


class _Labels:
    """Words beside points, none over another."""

    def __init__(self, pen: ImageDraw.ImageDraw, axes: _Axes) -> None:
        self._pen, self._axes = pen, axes
        self._taken: list[tuple[float, float, float, float]] = []

    def fixed(self, at: tuple[float, float], text: str, size: int, colour: str) -> None:
        """At one place, whatever stands there."""
        self._taken.append(self._box(at, text, size))
        _text(self._pen, at, text, size, colour)

    def beside(self, x: float, y: float, text: str, size: int, colour: str) -> None:
        """Right of a point, else left of it, above or below, where there is room."""
        left, _, right, _ = self._box((0, 0), text, size)
        wide = right - left
        places = [(side, y + down) for down in (-16, 4, -32, 20, -48, 36) for side in (x + 7, x - 7 - wide)]
        inside = [at for at in places if self._axes.left <= at[0] and at[0] + wide <= self._axes.right]
        free = [at for at in inside if not any(_overlap(self._box(at, text, size), box) for box in self._taken)]
        self.fixed((free or inside or places)[0], text, size, colour)

    def _box(self, at: tuple[float, float], text: str, size: int) -> tuple[float, float, float, float]:
        return self._pen.textbbox(at, text, font=ImageFont.load_default(size))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _point(row: Row, rank: int) -> tuple[float, float, float]:
    """Miss in percent, and its interval."""
    hits = row.score.top5 if rank == 5 else row.score.top1
    low, high = accuracy.interval(hits, row.score.photos)
    return 100 - 100 * hits / row.score.photos, 100 - 100 * high, 100 - 100 * low


def _published(item: object, rank: int) -> float | None:
    found: float | None = getattr(item, f"top{rank}_miss")
    return found


def _frame(pen: ImageDraw.ImageDraw, axes: _Axes, title: str) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 25) if axes.misses[1] / step <= 9)
    for miss in range(0, int(axes.misses[1]) + 1, step):
        _line(pen, (axes.left, axes.y(miss)), (axes.right, axes.y(miss)), _GRID)
        _text(pen, (axes.left - 30, axes.y(miss) - 8), f"{miss:>3}", 12)
    for size in _SIZES_MB:
        if axes.sizes[0] <= size * 1e6 <= axes.sizes[1]:
            _line(pen, (axes.x(size * 1e6), axes.top), (axes.x(size * 1e6), axes.bottom), _GRID)
            _text(pen, (axes.x(size * 1e6) - 10, axes.bottom + 8), f"{size:g}", 12)
    _text(pen, (axes.left, axes.top - 24), title, 14)
    _text(pen, (axes.right - 150, axes.bottom + 30), "package, million bytes", 13)
    _line(pen, (axes.left, axes.top), (axes.left, axes.bottom), _INK)
    _line(pen, (axes.left, axes.bottom), (axes.right, axes.bottom), _INK)


def _mark(pen: ImageDraw.ImageDraw, axes: _Axes, size: float, point: Sequence[float], colour: str) -> None:
    x = axes.x(size)
    miss, low, high = point
    _line(pen, (x, axes.y(low)), (x, axes.y(high)), colour)
    for end in (low, high):
        _line(pen, (x - 4, axes.y(end)), (x + 4, axes.y(end)), colour)
    box = (x - 4, axes.y(miss) - 4, x + 4, axes.y(miss) + 4)
    pen.ellipse([value * _SCALE for value in box], fill=colour)


def _dashed(pen: ImageDraw.ImageDraw, axes: _Axes, miss: float) -> None:
    x = axes.left
    while x < axes.right:
        _line(pen, (x, axes.y(miss)), (min(x + 6, axes.right), axes.y(miss)), _KLAUS)
        x += 12


def _line(pen: ImageDraw.ImageDraw, begin: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    pen.line([value * _SCALE for value in (*begin, *end)], fill=colour, width=_SCALE)


def _text(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str = _INK) -> None:
    font = ImageFont.load_default(size * _SCALE)
    pen.text((at[0] * _SCALE, at[1] * _SCALE), text, font=font, fill=colour)
