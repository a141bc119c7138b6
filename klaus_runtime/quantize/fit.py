"""A layer's codebook, scales and indices, fitted to a target under the covariance of its inputs.

The codebook is shared by the whole layer, each output has a scale of its own. They start from weighted k-means
(Deep Compression, Han et al., 2016, with the linear start it recommends), then indices (assign.py) and, in closed form
by least squares, entries and scales are improved in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import U8
from klaus_runtime.quantize import assign
from klaus_runtime.quantize.assign import Book, Problem

F64 = npt.NDArray[np.float64]
_START_ROUNDS = 4  # of k-means and scales in turn, before the covariance counts
_KMEANS_STEPS = 60
_CREST = 4.0  # a scale starts at the rms of its output, or at its largest weight / 4 where that is more
_OUTPUTS = 48  # that a codebook is solved from: its few unknowns need no more
_LEAST_SHARE = 1e-4  # of an entry, in its price: an entry that has died out may come back


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to try."""

    rounds: int = 3
    sweeps: int = 2


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights = entries[indices] * scale; entries are half precision numbers, rising."""

    indices: U8  # (G, O, K)
    entries: npt.NDArray[np.float16]  # (E,)
    scale: F64  # (G, O)
    error: float  # sum of importance * squared output error
    bits: float  # entropy of the indices, bits a weight


def fit(problem: Problem, entries: int, *, rate: float = 0.0, effort: Effort | None = None) -> Fit:
    """The best found: least error + rate * entropy in bits of all indices together."""
    effort = effort or Effort()
    book = _start(problem, entries)
    best: Fit | None = None
    least = np.inf
    indices = assign.compensate(problem, book)
    for number in range(effort.rounds):
        if number:
            book = _priced(book, indices, rate)
            # The first round with prices starts anew: prices change which entries are used at all.
            indices = assign.compensate(problem, book) if rate and number == 1 else indices
            indices = assign.descend(problem, book, indices, effort.sweeps)
        book, indices = _refit(problem, book, indices)
        bits = entropy(indices, len(book.entries))
        cost = float(assign.error(problem, book, indices).sum())
        if cost + rate * bits * indices.size < least:
            least = cost + rate * bits * indices.size
            best = Fit(indices, book.entries.astype(np.float16), book.scale, cost, bits)
    assert best is not None
    return best


def entropy(indices: U8, entries: int) -> float:
    """Bits a weight of an ideal coder that knows how often each entry occurs."""
    share = np.bincount(indices.ravel(), minlength=entries) / indices.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def _priced(book: Book, indices: U8, rate: float) -> Book:
    share = np.bincount(indices.ravel(), minlength=len(book.entries)) / indices.size
    return Book(book.entries, book.scale, -rate * np.log2(np.maximum(share, _LEAST_SHARE)))


def _start(problem: Problem, entries: int) -> Book:
    """Codebook and scales that fit the targets by the covariance's diagonal alone."""
    target = problem.target
    scale = np.maximum(np.sqrt((target**2).mean(axis=2)), np.abs(target).max(axis=2) / _CREST)
    scale = np.maximum(scale, max(1e-6 * float(scale.max()), 1e-12))
    diagonal = np.diagonal(problem.covariance, axis1=1, axis2=2)[:, None, :]
    book = Book(np.zeros(entries), scale, np.zeros(entries))
    for number in range(_START_ROUNDS):
        scaled = target / scale[:, :, None]
        mass = diagonal * (problem.importance * scale**2)[:, :, None]
        if number == 0:
            low, high = np.quantile(scaled, (0.0005, 0.9995))
            centres = np.linspace(low, high, entries)
        else:
            centres = book.entries
        centres = _kmeans(scaled.ravel(), mass.ravel(), centres)
        book = Book(centres, scale, np.zeros(entries))
        chosen = centres[assign.nearest(problem, book)]
        own = (diagonal * chosen * chosen).sum(axis=2)
        solved = (diagonal * chosen * target).sum(axis=2) / np.maximum(own, 1e-30)
        scale = np.where(solved > 0.25 * scale, np.minimum(solved, 4 * scale), scale)
    return Book(np.sort(book.entries), scale, book.price)


def _kmeans(values: F64, mass: F64, centres: F64) -> F64:
    """Lloyd's iteration on sorted values with running sums; a centre that loses its values stays where it is."""
    order = np.argsort(values)
    values = values[order]
    held = np.concatenate([[0.0], np.cumsum(mass[order])])
    moment = np.concatenate([[0.0], np.cumsum(mass[order] * values)])
    for _ in range(_KMEANS_STEPS):
        bounds = np.concatenate([[0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]])
        weight = held[bounds[1:]] - held[bounds[:-1]]
        sums = moment[bounds[1:]] - moment[bounds[:-1]]
        moved = np.sort(np.where(weight > 0, sums / np.where(weight > 0, weight, 1), centres))
        if np.allclose(moved, centres, rtol=1e-6, atol=0):
            break
        centres = moved
    return np.asarray(centres)


def _refit(problem: Problem, book: Book, indices: U8) -> tuple[Book, U8]:
    """Entries, then scales, by least squares under the covariance; entries become half precision numbers, rising."""
    entries = _solve_entries(problem, book, indices)
    order = np.argsort(entries, kind="stable")
    entries, indices = entries[order], np.argsort(order).astype(np.uint8)[indices]
    chosen = entries[indices]
    seen = chosen @ problem.covariance
    own = np.einsum("gok,gok->go", seen, chosen)
    solved = np.einsum("gok,gok->go", seen, problem.target) / np.maximum(own, 1e-30)
    scale = np.where((own > 0) & (solved > 0), solved, book.scale)
    return Book(entries, scale, book.price[order]), indices


def _solve_entries(problem: Problem, book: Book, indices: U8) -> F64:
    count = len(book.entries)
    groups, outputs, size = problem.target.shape
    system, right = np.zeros((count, count)), np.zeros(count)
    weight = problem.importance * book.scale**2
    step = max(1, groups * outputs // _OUTPUTS)
    seen = problem.target @ problem.covariance
    for number in range(0, groups * outputs, step):
        group, output = divmod(number, outputs)
        hot = np.zeros((size, count))
        hot[np.arange(size), indices[group, output]] = 1
        system += weight[group, output] * (hot.T @ (problem.covariance[group] @ hot))
        right += weight[group, output] / book.scale[group, output] * (hot.T @ seen[group, output])
    # A little of the old entries keeps those that occur rarely, or never, in place.
    pull = max(1e-6 * float(system.trace()) / count, 1e-30)
    held = np.where(np.diag(system) > 0, pull, 1e6 * pull)
    solved = np.linalg.solve(system + np.diag(held), right + held * book.entries)
    limit = float(np.finfo(np.float16).max)
    return np.clip(solved, -limit, limit).astype(np.float16).astype(np.float64)
