"""Mixed precision under a budget: as many bits as fit into so many bytes, or as few as lose so little.

How the bits are shared out among the layers is calibrated.py's business: a bit costs the same everywhere, so the layers
in which it saves most take it. Here only the one number is sought: bits a weight on average.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from klaus_runtime import package, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Model
from klaus_runtime.quantize import calibrated, views
from klaus_runtime.quantize.calibrated import Recipe
from klaus_runtime.quantize.sequential import Report

LADDER = ("q3", "q4", "q5", "q6", "q8")  # what a loss is sought on, fewest bits first
_TRIES = 4
_NEAR = 0.985  # of the budget: near enough to stop
_LEAST_BITS, _MOST_BITS = 1.0, 8.0
_FEW_ENTRIES_TO = 3.6  # bits a weight that 16 entries still serve well
_HELD_OUT = 5  # every fifth photo is kept from the quantizer, to see what is lost
_LEAST_HELD_OUT = 20


def package_bytes(model: Model) -> int:
    """Every byte that the package of a model ships."""
    with tempfile.TemporaryDirectory(prefix="klaus-") as folder:
        return package.write_package(model, Path(folder)).total_bytes


def within_bytes(
    model: Model,
    budget: int,
    photos: tuple[Path, ...],
    *,
    seed: int,
    work: Path | None,
    report: Report,
    measure: Callable[[Model], int] = package_bytes,
) -> tuple[Model, float]:
    """The model in at most `budget` bytes as `measure` counts them, and the bits a weight that it was asked for.

    Raises InputError for a budget that cannot be met: even a bit a weight takes more.
    """
    weights = shapes.weight_count(model)
    bits = min(_MOST_BITS, max(_LEAST_BITS, 8 * budget / weights - 0.2))
    best: tuple[int, Model, float] | None = None
    size = 0
    for _ in range(_TRIES):
        found = calibrated.apply(model, _recipe(bits), photos, seed=seed, work=work, report=report)
        size = measure(found)
        if size <= budget and (best is None or size > best[0]):
            best = (size, found, bits)
        if _NEAR * budget <= size <= budget or (size <= budget and bits >= _MOST_BITS):
            break
        # A little under the budget is aimed at: what comes out differs from what is asked for by some thousandths.
        wanted = bits + 8 * (0.994 * budget - size) / weights
        if (wanted < _LEAST_BITS and bits == _LEAST_BITS) or abs(wanted - bits) < 1e-3:
            break
        bits = min(_MOST_BITS, max(_LEAST_BITS, wanted))
    if best is None:
        raise InputError(f"{budget:,} bytes are too few for model {model.name}: {size:,} is what was reached")
    return best[1], best[2]


def within_loss(
    model: Model, points: float, photos: tuple[Path, ...], *, seed: int, work: Path | None, report: Report
) -> tuple[Model, str]:
    """The model by the first scheme of LADDER whose answers stay, and that scheme's name.

    points: of 100 photos, how many may be answered otherwise than by the float model; seen on every fifth photo, which
    that trial does not calibrate on. The scheme found is then calibrated on all. Raises InputError for too few photos,
    or where even q8 loses more.
    """
    held = photos[::_HELD_OUT]
    rest = tuple(photo for photo in photos if photo not in held)
    if len(held) < _LEAST_HELD_OUT:
        raise InputError(f"{len(photos)} photos are too few to measure a loss on: give {_HELD_OUT * _LEAST_HELD_OUT}")
    tensors = views.form(model, held, 1, seed=seed)
    wanted = FastEngine(model).logits(tensors).argmax(axis=1)
    lost = 0.0
    for scheme in LADDER:
        recipe = calibrated.RECIPES[scheme]
        trial = calibrated.apply(model, recipe, rest, seed=seed, work=work, report=report)
        lost = 100 * float(np.mean(FastEngine(trial).logits(tensors).argmax(axis=1) != wanted))
        if lost <= points:
            return calibrated.apply(model, recipe, photos, seed=seed, work=work, report=report), scheme
    raise InputError(f"model {model.name}: q8 already changes {lost:.1f} of 100 answers: allow more than {points:g}")


def _recipe(bits: float) -> Recipe:
    """Small codebooks as long as they serve; beyond, large ones at a price."""
    if bits <= _FEW_ENTRIES_TO:
        return Recipe(16, bits=bits)
    return Recipe(256, bits=bits)
