"""One-dimensional k-means: the codebook that weights are chosen from.

Lloyd's iteration (S. Lloyd, Least squares quantization in PCM, 1982) from a *linear* start, entries spread evenly
from the least to the largest weight: Deep Compression (Han et al., 2016) found that it keeps the few large weights,
which matter most, better than starts by density do. On sorted values with running sums a step costs
O(entries * log(values)), so that tens of millions of weights are no trouble; nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import F32, U8

_MAX_STEPS = 2000
_HALF_MAX = float(np.finfo(np.float16).max)
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """What k-means found."""

    entries: npt.NDArray[np.float16]  # (at most k,), strictly rising, each the nearest entry of some value
    indices: U8  # the shape of the values: each one's nearest entry


def cluster(
    values: npt.NDArray[np.float32] | npt.NDArray[np.float16], k: int, weights: F32 | F64 | None = None
) -> Clusters:
    """At most k (1..256) half precision entries for values of any shape, minimising the sum of squared errors.

    weights: of the values' shape, how much each one's error counts; all 1 by default.
    Raises ValueError for an empty array, values that are not finite or weights that are negative or not finite.
    """
    if not 1 <= k <= 256:
        raise ValueError(f"a codebook has 1 to 256 entries, not {k}")
    if values.dtype == np.float16:
        return _cluster_half(values.astype(np.float16, copy=False), k, weights)
    flat = values.astype(np.float32, copy=False).ravel()
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError("k-means needs values, all finite")
    if weights is None:
        ordered = np.sort(flat)
        mass = np.arange(flat.size + 1, dtype=np.float64)
        moment = _running(ordered.astype(np.float64))
    else:
        counted = weights.astype(np.float64, copy=False).ravel()
        if counted.shape != flat.shape or not np.isfinite(counted).all() or counted.min() < 0:
            raise ValueError("k-means needs one weight a value, all finite and none negative")
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        mass = _running(counted[order])
        moment = _running(counted[order] * ordered)
    centres = np.linspace(float(ordered[0]), float(ordered[-1]), k)
    centres = _lloyd(ordered, mass, moment, centres)
    # Rounded to half precision, some entries may coincide or lose their last value; then fewer do the same work.
    entries = np.unique(np.clip(centres, -_HALF_MAX, _HALF_MAX).astype(np.float16))
    indices = nearest(flat, entries)
    used = np.unique(indices)
    entries = entries[used]
    return Clusters(entries, np.searchsorted(used, indices).astype(np.uint8).reshape(values.shape))


def _cluster_half(values: npt.NDArray[np.float16], k: int, weights: F32 | F64 | None) -> Clusters:
    """Half precision has 65,536 values at most: those that occur are clustered, each as often as it occurs."""
    keys = np.ascontiguousarray(values).view(np.uint16).ravel()
    counts = np.bincount(keys, minlength=1 << 16)
    mass = counts if weights is None else np.bincount(keys, weights.ravel(), 1 << 16)
    present = np.flatnonzero(counts)
    found = cluster(present.astype(np.uint16).view(np.float16).astype(np.float32), k, mass[present].astype(np.float64))
    table = np.zeros(1 << 16, np.uint8)
    table[present] = found.indices
    return Clusters(found.entries, table[keys].reshape(values.shape))


def nearest(values: F32, entries: npt.NDArray[np.float16]) -> U8:
    """The index of each value's nearest entry; entries rise; halfway goes to the lower one."""
    exact = entries.astype(np.float64)
    limits = ((exact[1:] + exact[:-1]) / 2).astype(np.float32)
    return np.searchsorted(limits, values, side="left").astype(np.uint8)


def _running(values: F64) -> F64:
    sums = np.zeros(values.size + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _lloyd(ordered: F32, mass: F64, moment: F64, centres: F64) -> F64:
    """Moves every centre to the mean of the values nearest to it until none moves; one without values stays."""
    bounds = np.zeros(len(centres) + 1, np.int64)
    bounds[-1] = ordered.size
    for _ in range(_MAX_STEPS):
        limits = ((centres[1:] + centres[:-1]) / 2).astype(np.float32)
        bounds[1:-1] = np.searchsorted(ordered, limits, side="right")
        held = mass[bounds[1:]] - mass[bounds[:-1]]
        sums = moment[bounds[1:]] - moment[bounds[:-1]]
        moved = np.where(held > 0, sums / np.where(held > 0, held, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.asarray(centres)
