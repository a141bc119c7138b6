"""Which codebook entry each weight takes, so that the layer's *outputs* err least.

With H the covariance of a layer's inputs, a row t of wanted weights and its choice q cost (t - q)' H (t - q). Rounding
each weight to its nearest entry ignores H's off-diagonal; the two methods here use it.

`compensate` walks through the columns once and moves the not yet chosen weights so that they make up for what the
chosen ones lost: Frantar et al., GPTQ, 2022 (arXiv:2210.17323), after Hassibi and Stork's optimal brain surgeon;
columns of the largest variance first. `descend` takes a finished choice and goes through the columns again, each entry
the best given all the others (coordinate descent: Behdin et al., QuantEase, 2023, arXiv:2309.01885): never worse.

Both take a price of an entry in bits, so that choices that a coder shortens are preferred: entropy-constrained
quantization (Chou, Lookabaugh and Gray, IEEE Trans. ASSP 37, 1989).

Shapes: G groups, O outputs a group, K weights an output, E entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import U8

F64 = npt.NDArray[np.float64]
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be approximated: target (G, O, K), covariance (G, K, K) positive definite, importance (G, O)."""

    target: F64
    covariance: F64
    importance: F64


@dataclass(frozen=True, slots=True)
class Book:
    """Entries (E,) rising, a scale (G, O) of each output, and what an entry costs (E,) in units of the problem."""

    entries: F64
    scale: F64
    price: F64


def damped(covariance: F64, share: float) -> F64:
    """covariance + share of its mean diagonal (of every group) on the diagonal: what few samples leave open."""
    size = covariance.shape[-1]
    mean = covariance.trace(axis1=1, axis2=2) / size
    overall = max(float(mean.mean()), 1e-30)
    result: F64 = covariance + (share * np.maximum(mean, 1e-6 * overall))[:, None, None] * np.eye(size)
    return result


def nearest(problem: Problem, book: Book) -> U8:
    """Each target's nearest entry; prices and off-diagonal covariance are ignored."""
    return _nearest(problem.target / book.scale[:, :, None], book.entries)


def compensate(problem: Problem, book: Book) -> U8:
    """Indices (G, O, K), every column's error handed on to the columns after it."""
    size = problem.target.shape[2]
    order = np.argsort(-np.diagonal(problem.covariance, axis1=1, axis2=2).mean(axis=0), kind="stable")
    factor = _inverse_factor(problem.covariance[:, order][:, :, order])
    rest = problem.target[:, :, order].copy()
    chosen = np.empty(rest.shape, np.uint8)
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        errors = np.empty((*rest.shape[:2], end - begin))
        for column in range(begin, end):
            pivot = factor[:, column, column][:, None]
            choice = _choose(rest[:, :, column], book, problem.importance / pivot**2)
            chosen[:, :, column] = choice
            error = (rest[:, :, column] - book.entries[choice] * book.scale) / pivot
            errors[:, :, column - begin] = error
            rest[:, :, column + 1 : end] -= error[:, :, None] * factor[:, None, column, column + 1 : end]
        rest[:, :, end:] -= errors @ factor[:, begin:end, end:]
    result = np.empty_like(chosen)
    result[:, :, order] = chosen
    return result


def descend(problem: Problem, book: Book, indices: U8, sweeps: int) -> U8:
    """Indices after `sweeps` passes in which each weight takes the best entry given all the others."""
    target, covariance = problem.target, problem.covariance
    size = target.shape[2]
    indices = indices.copy()
    values = book.entries[indices] * book.scale[:, :, None]
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    for _ in range(sweeps):
        before = indices.copy()
        for begin in range(0, size, _BLOCK):
            end = min(begin + _BLOCK, size)
            slope = (values - target) @ covariance[:, :, begin:end]
            for column in range(begin, end):
                own = diagonal[:, column][:, None]
                best = values[:, :, column] - slope[:, :, column - begin] / own
                choice = _choose(best, book, problem.importance * own, indices[:, :, column])
                indices[:, :, column] = choice
                moved = book.entries[choice] * book.scale
                change = moved - values[:, :, column]
                values[:, :, column] = moved
                slope += change[:, :, None] * covariance[:, None, column, begin:end]
        if np.array_equal(before, indices):
            break
    return indices


def error(problem: Problem, book: Book, indices: U8) -> F64:
    """(G, O): importance * (t - q)' H (t - q)."""
    missed = problem.target - book.entries[indices] * book.scale[:, :, None]
    quadratic: F64 = np.einsum("gok,gok->go", missed @ problem.covariance, missed)
    return quadratic * problem.importance


def _choose(wanted: F64, book: Book, weight: F64, current: U8 | None = None) -> U8:
    """The entry (G, O) that costs least: weight * squared error + price. Without prices, the nearest."""
    scaled = wanted / book.scale
    if not book.price.any():
        return _nearest(scaled, book.entries)
    cost = (scaled[:, :, None] - book.entries) ** 2
    cost *= (weight * book.scale**2)[:, :, None]
    cost += book.price
    best: U8 = cost.argmin(axis=2).astype(np.uint8)
    if current is None:
        return best
    # A tie keeps what is: a sweep that gains nothing changes nothing.
    least = np.take_along_axis(cost, best[:, :, None].astype(np.intp), axis=2)
    kept = np.take_along_axis(cost, current[:, :, None].astype(np.intp), axis=2)
    result: U8 = np.where(kept <= least, current[:, :, None], best[:, :, None])[:, :, 0].astype(np.uint8)
    return result


def _nearest(scaled: F64, entries: F64) -> U8:
    result: U8 = np.searchsorted((entries[1:] + entries[:-1]) / 2, scaled, side="left").astype(np.uint8)
    return result


def _inverse_factor(covariance: F64) -> F64:
    """Upper U (G, K, K) with inverse(covariance) = U' U."""
    inverse = np.linalg.inv(covariance)
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
    return np.ascontiguousarray(np.linalg.cholesky(inverse).transpose(0, 2, 1))
