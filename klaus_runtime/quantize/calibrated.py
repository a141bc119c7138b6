"""The schemes that look at calibration photos: q8, q6, q5, q4, q3, and what `auto` makes of a budget.

One road for all: importance of every output (importance.py), a first rough pass that says how error and bits trade in
each layer, prices of a bit so that all layers together take the bits that were asked for, the full pass
(sequential.py), tuning end to end (tune.py). docs/quantization.md says what each step gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import F32, NETWORK_INPUT, Convolution, FullConnect, Layer, Model
from klaus_runtime.quantize import importance, sequential, tune, views
from klaus_runtime.quantize.checkpoints import Checkpoints
from klaus_runtime.quantize.fit import Effort, entropy
from klaus_runtime.quantize.sequential import LayerPlan, Method
from klaus_runtime.quantize.tune import Course

F64 = npt.NDArray[np.float64]
Report = Callable[[str, int, int], None]
_IMPORTANCE_VIEWS = 128
_ROUGH_VIEWS = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a scheme asks for."""

    entries: int  # of a codebook
    bits: float | None = None  # a weight, on average, entropy coded; None: whatever the entries take
    fine_entries: int = 256  # of the first layer and of depthwise ones, which are few weights and suffer most
    views: int = 3  # of every photo
    course: Course | None = None
    method: Method = field(default_factory=Method)


RECIPES = {
    "q8": Recipe(256, views=1),
    "q6": Recipe(64, views=2),
    "q5": Recipe(32, views=3),
    "q4": Recipe(16, views=6),
    "q3": Recipe(9, views=3),
}


def apply(
    model: Model, recipe: Recipe, photos: tuple[Path, ...], *, seed: int, work: Path | None, report: Report
) -> Model:
    """The model quantized by a recipe. work: folder for what an interrupted run has finished; None keeps nothing.

    Raises InputError for photos that cannot be read or a model that does not say how it reads pictures.
    """
    report("reading photos", 0, 1)
    tensors = views.form(model, photos, recipe.views, seed=seed)
    checkpoints = Checkpoints(work, model, tensors, replace(recipe, course=None), seed)
    rates, weights = _prices(model, recipe, tensors, seed, checkpoints, report)
    plans = [_plan(layer, recipe, rate, own) for layer, rate, own in zip(model.layers, rates, weights, strict=True)]
    result = sequential.quantize_layers(
        model, tensors, plans, method=recipe.method, seed=seed, checkpoints=checkpoints, report=report
    )
    if recipe.course is not None:
        course = recipe.course
        result = tune.tune(
            model,
            result,
            lambda step: views.fresh(model, photos, course.batch, np.random.default_rng((seed, step))),
            course=course,
            checkpoints=Checkpoints(work, model, tensors, recipe, seed),
            report=report,
        )
    return result


def is_fine(layer: Layer) -> bool:
    """Whether a layer gets the larger codebook: it reads the network's input, or each output sees one channel."""
    return isinstance(layer, Convolution) and (NETWORK_INPUT in layer.inputs or layer.weights.values.shape[3] == 1)


def _plan(layer: Layer, recipe: Recipe, rate: float, own: F64 | None) -> LayerPlan | None:
    if not isinstance(layer, Convolution | FullConnect):
        return None
    return LayerPlan(recipe.fine_entries if is_fine(layer) else recipe.entries, rate, own)


def _prices(
    model: Model, recipe: Recipe, tensors: F32, seed: int, checkpoints: Checkpoints, report: Report
) -> tuple[list[float], list[F64 | None]]:
    """For every layer what a bit costs, and its outputs' importance."""
    free = [0.0] * len(model.layers)
    found = checkpoints.load("importance")
    if found is None:
        measured = importance.measure(model, tensors[:_IMPORTANCE_VIEWS], seed=seed, report=report)
        kept = {f"layer-{number}": values for number, values in enumerate(measured) if values is not None}
        checkpoints.save("importance", **kept)
        found = kept
    weights = [found.get(f"layer-{number}") for number in range(len(model.layers))]
    if recipe.bits is None:
        return free, weights
    rough = replace(recipe, bits=None)
    plans = [_plan(layer, rough, 0.0, own) for layer, own in zip(model.layers, weights, strict=True)]
    costs: dict[int, tuple[int, float, float]] = {}  # of each layer: weights, bits a weight, error

    def note(number: int, error: float, indices: npt.NDArray[np.uint8], entries: int) -> None:
        costs[number] = (indices.size, entropy(indices, entries), error)

    sequential.quantize_layers(
        model,
        tensors[:_ROUGH_VIEWS],
        plans,
        method=replace(recipe.method, effort=Effort(1, 0)),
        seed=seed,
        checkpoints=Checkpoints(None),
        report=report,
        note=note,
    )
    rate = solve_rate(list(costs.values()), recipe.bits)
    return [rate if number in costs else 0.0 for number in range(len(model.layers))], weights


def solve_rate(costs: Sequence[tuple[int, float, float]], bits: float) -> float:
    """The price of a bit at which layers (weights, bits a weight, error) come to `bits` a weight on average.

    Error falls by 4 a bit (high-rate theory: Gish and Pierce, 1968); where a further bit saves less than its price,
    it is not bought. No layer takes more than its codebook gave at price 0, and none less than half a bit.
    """
    sizes, most, errors = (np.array(column, np.float64) for column in zip(*costs, strict=True))
    slope = np.maximum(errors, 1e-30) / sizes * 2 * np.log(2)  # error that one bit of one weight saves, at `most` bits

    def taken(rate: float) -> float:
        own = np.clip(most + 0.5 * np.log2(slope / rate), np.minimum(0.5, most), most)
        return float((own * sizes).sum() / sizes.sum())

    low, high = float(slope.min()) / 4, float(slope.max()) * 4**8
    if taken(low) <= bits:
        return 0.0
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if taken(middle) > bits else (low, middle)
    return high
