"""Picture resampling as matrices: ccv's area and cubic rules.

Both are separable, so a resampling is (new rows, rows) x picture x (cols, new cols). The matrices are dense and
float64: this is the oracle that the C code is compared with, and pictures are small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import F32

F64 = npt.NDArray[np.float64]
MatrixMaker = Callable[[int, int], F64]

_CCV_A = -0.75
_CHUNK_ELEMENTS = 1 << 22


def resample(picture: npt.NDArray[Any], rows: int, cols: int, matrix: MatrixMaker) -> F32:
    """Brings a picture (old rows, old cols, channels) of numbers to rows x cols in float32; nothing is clamped."""
    old_rows, old_cols, channels = picture.shape
    down = matrix(old_rows, rows)
    across = matrix(old_cols, cols)
    narrow = np.empty((rows, old_cols, channels))
    step = max(1, _CHUNK_ELEMENTS // (old_rows * channels))
    for begin in range(0, old_cols, step):  # in strips: a big photo never stands in memory as float64
        strip = picture[:, begin : begin + step].astype(np.float64)
        narrow[:, begin : begin + step] = (down @ strip.reshape(old_rows, -1)).reshape(rows, -1, channels)
    wide = across @ narrow.transpose(1, 0, 2).reshape(old_cols, -1)
    return wide.reshape(cols, rows, channels).transpose(1, 0, 2).astype(np.float32, order="C")


def ccv_area(size: int, new_size: int) -> F64:
    """Matrix (new_size, size) of ccv's area rule: each new cell is the mean of what it covers, overlaps exact."""
    step = size / new_size
    edges = np.arange(new_size + 1) * step
    cells = np.arange(size)
    upper = np.minimum(edges[1:, None], cells[None] + 1)
    lower = np.maximum(edges[:-1, None], cells[None])
    overlap: F64 = np.maximum(upper - lower, 0) / step
    return overlap


def ccv_cubic(size: int, new_size: int) -> F64:
    """Matrix (new_size, size) of ccv's cubic rule, a = -0.75.

    The base cell is the position truncated toward zero: before the first cell's centre the fraction is negative and
    goes into the same polynomials, as ccv does it. Taps outside the picture take its border.
    """
    position = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    base = np.trunc(position)
    x = position - base
    a = _CCV_A
    outer_left = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    inner_left = ((a + 2) * x - (a + 3)) * x * x + 1
    inner_right = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    outer_right = 1 - outer_left - inner_left - inner_right
    matrix = np.zeros((new_size, size))
    for tap, weight in enumerate((outer_left, inner_left, inner_right, outer_right)):
        cells = np.clip(base.astype(np.int64) + tap - 1, 0, size - 1)
        np.add.at(matrix, (np.arange(new_size), cells), weight)
    return matrix
