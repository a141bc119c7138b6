"""Second moments of what a layer reads, in the float network and in the one quantized so far.

Everything has a leading axis of groups: grouped convolutions have several, depthwise ones as many as channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import F32, Convolution, FullConnect, Window

F64 = npt.NDArray[np.float64]
_BLOCK_CELLS = 1 << 24  # of unfolded columns at a time


@dataclass(frozen=True, slots=True)
class Moments:
    """Covariances of a layer's inputs, the mean taken out (a bias carries it). K = weights of one output."""

    quantized: F64  # (groups, K, K): E[xq xq'], xq = what the layer reads behind quantized layers
    cross: F64  # (groups, K, K): E[x xq'], x = what it reads in the float network


def measure(layer: Convolution | FullConnect, pairs: Iterable[tuple[F32, F32]], *, rows: int, seed: int) -> Moments:
    """Moments over (float, quantized) inputs of shape (n, rows, cols, channels), from about `rows` positions a pair."""
    rng = np.random.default_rng(seed)
    total = None
    for x, xq in pairs:
        picks = _positions(layer, x, rows, rng)
        size = max(1, _BLOCK_CELLS // _cells(layer))
        for begin in range(0, len(picks), size):
            part = picks[begin : begin + size]
            a, b = unfold(layer, x, part), unfold(layer, xq, part)
            found = [a.shape[1], _sum(a), _sum(b), _product(b, b), _product(a, b)]
            total = found if total is None else [old + new for old, new in zip(total, found, strict=True)]
    assert total is not None
    count, first, firstq, second, cross = total
    mean, meanq = first / count, firstq / count
    return Moments(second / count - _outer(meanq, meanq), cross / count - _outer(mean, meanq))


def mixed(first: Moments, second: Moments, share: float) -> Moments:
    """share of the first and 1 - share of the second, the second brought to the first one's total variance."""
    wanted = first.quantized.trace(axis1=1, axis2=2)
    factor = (wanted / np.maximum(second.quantized.trace(axis1=1, axis2=2), 1e-30))[:, None, None] * (1 - share)
    return Moments(
        share * first.quantized + factor * second.quantized,
        share * first.cross + factor * second.cross,
    )


def unfold(layer: Convolution | FullConnect, x: F32, picks: npt.NDArray[np.int64]) -> F32:
    """(groups, positions, K) columns in the order of the layer's weights, at the output positions `picks`."""
    batch = len(x)
    if isinstance(layer, FullConnect):
        return x.reshape(1, batch, -1)[:, picks]
    window, groups = layer.window, layer.groups
    if groups == 1 and window == Window(1, 1):
        return x.reshape(1, -1, x.shape[3])[:, picks]
    top, left, bottom, right = window.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (window.rows, window.cols), axis=(1, 2))
    seen = seen[:, :: window.stride_rows, :: window.stride_cols]
    _, rows, cols, channels = seen.shape[:4]
    picture, rest = np.divmod(picks, rows * cols)
    cells = seen[picture, rest // cols, rest % cols]  # (positions, channels, kernel rows, kernel cols)
    grouped = cells.reshape(len(picks), groups, channels // groups, window.rows, window.cols)
    return np.ascontiguousarray(grouped.transpose(1, 0, 3, 4, 2)).reshape(groups, len(picks), -1)


def _positions(
    layer: Convolution | FullConnect, x: F32, wanted: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Which outputs (picture, row, col) to look at: evenly spread from a random start."""
    count = len(x)
    if isinstance(layer, Convolution):
        window = layer.window
        top, left, bottom, right = window.pads
        count *= (x.shape[1] + top + bottom - window.rows) // window.stride_rows + 1
        count *= (x.shape[2] + left + right - window.cols) // window.stride_cols + 1
    if count <= wanted:
        return np.arange(count)
    return np.floor((np.arange(wanted) + rng.random(wanted)) * (count / wanted)).astype(np.int64)


def _cells(layer: Convolution | FullConnect) -> int:
    """Numbers of one unfolded position, all groups."""
    values = layer.weights.values
    groups = layer.groups if isinstance(layer, Convolution) else 1
    return groups * (values.size // len(values))


def _sum(columns: F32) -> F64:
    result: F64 = columns.sum(axis=1, dtype=np.float64)
    return result


def _product(a: F32, b: F32) -> F64:
    return (a.transpose(0, 2, 1) @ b).astype(np.float64)


def _outer(a: F64, b: F64) -> F64:
    return a[:, :, None] * b[:, None, :]
