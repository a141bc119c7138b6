"""Scales, biases, codebooks and indices of a quantized network, tuned end to end towards the float network's answers.

The loss is KL(float || quantized) of the answers on unlabelled photos (knowledge distillation: Hinton et
al., 2015, arXiv:1503.02531); Adam (Kingma and Ba, 2014, arXiv:1412.6980) with a rate that falls to zero along a cosine,
so that the last step is the one to keep. What is tuned is few numbers beside the weights: photos suffice that would
teach the weights themselves nothing but these photos (as in quantizers that learn step sizes alone: Esser et al., 2019,
arXiv:1902.08153; codebooks by gradients summed an entry: Deep Compression, Han et al., 2016).

An index changes where the gradient of its weight keeps one sign: every weight has a hidden value that starts on its
entry, moves by Adam and is rounded to the nearest entry when it is used, the gradient passing straight through the
rounding (Bengio et al., 2013, arXiv:1308.3432). Noise moves a hidden value by less than half a step in the few steps
there are, so few indices change, those that matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klaus_runtime import blas
from klaus_runtime.errors import CheckError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import F32, U8, Codebook, Convolution, FullConnect, Layer, Model, Softmax, Weights
from klaus_runtime.quantize.checkpoints import Checkpoints
from klaus_runtime.quantize.gradient import Graph, log_softmax, weight_slope

F64 = npt.NDArray[np.float64]
Reals = npt.NDArray[np.float64] | F32
Parts = dict[str, Reals]  # "scale-N", "bias-N", "entries-N", "weights-N": how far each was moved, in its own unit

_WORKERS = 2
_DECAYS = (0.9, 0.99)
_SAVE_EVERY = 10
_WARM_STEPS = 10  # with a rate that grows: Adam's first steps know too few gradients
_BIAS_SHARE = 0.3  # of the outputs' rms, that is a bias' unit: its errors add up over all positions
_COARSE = 64  # entries; in a finer codebook an index more or less is nothing


@dataclass(frozen=True, slots=True)
class Course:
    """How to tune."""

    steps: int = 200
    batch: int = 16  # photos a step
    rate: float = 3e-4  # of the first step, relative to each number's unit
    codebooks: bool = True
    weight_rate: float = 0.0  # of hidden weights, relative to the mean distance of two entries; 0: indices stay


def tune(
    exact: Model,
    quantized: Model,
    tensors: F32,
    *,
    course: Course,
    seed: int,
    checkpoints: Checkpoints,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Model:
    """The quantized model with scales, biases and entries moved; all stay half precision numbers.

    tensors (n, rows, cols, channels): what both networks read. Raises CheckError where the loss is no number.
    """
    exact, quantized = _without_softmax(exact), _keeping(quantized)
    tail = quantized.layers[len(exact.layers) :]
    body = replace(quantized, layers=quantized.layers[: len(exact.layers)])
    wanted = checkpoints.load("teacher")
    teacher = wanted["logits"] if wanted else FastEngine(exact).logits(tensors)
    if wanted is None:
        checkpoints.save("teacher", logits=teacher)
    adam = _Adam()
    moved = _start(body, course)
    order = _order(len(tensors), course, seed)
    begin = 0
    found = checkpoints.load("tuning")
    if found is not None:
        begin = int(found["step"])
        for key in moved:
            moved[key], adam.mean[key], adam.square[key] = found[key], found[f"mean-{key}"], found[f"square-{key}"]
    units = _units(body, tensors[: course.batch])
    for step in range(begin, course.steps):
        report("tuning", step, course.steps)
        picked = order[step]
        loss, slopes = _slopes(_applied(body, moved, units), tensors[picked], teacher[picked], units, moved)
        if not math.isfinite(loss):
            raise CheckError(f"model {body.name}: tuning diverged at step {step}: tune at a lower rate")
        decay = min(1, (step + 1) / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * step / course.steps))
        adam.move(moved, slopes, step, course.rate * decay, course.weight_rate * decay)
        if (step + 1) % _SAVE_EVERY == 0:
            state = {f"mean-{key}": adam.mean[key] for key in moved}
            state |= {f"square-{key}": adam.square[key] for key in moved}
            checkpoints.save("tuning", step=np.array(step + 1), **moved, **state)
    report("tuning", course.steps, course.steps)
    result = _applied(body, moved, units)
    return replace(result, layers=(*result.layers, *tail))


def _without_softmax(model: Model) -> Model:
    layers = model.layers[:-1] if isinstance(model.layers[-1], Softmax) else model.layers
    return replace(model, layers=layers, ranges=())


def _keeping(model: Model) -> Model:
    return replace(model, ranges=())


def _order(count: int, course: Course, seed: int) -> list[npt.NDArray[np.int64]]:
    """Which tensors each step sees: all of them in a shuffled order, again and again."""
    rng = np.random.default_rng(seed)
    batch = min(course.batch, count)
    rounds = math.ceil(course.steps * batch / count)
    line = np.concatenate([rng.permutation(count) for _ in range(max(1, rounds))])
    return [line[step * batch : (step + 1) * batch] for step in range(course.steps)]


def _tuned(model: Model) -> list[tuple[int, Convolution | FullConnect]]:
    return [
        (number, layer)
        for number, layer in enumerate(model.layers)
        if isinstance(layer, Convolution | FullConnect) and layer.weights.codebook is not None
    ]


def _start(model: Model, course: Course) -> Parts:
    moved: Parts = {}
    for number, layer in _tuned(model):
        moved[f"scale-{number}"] = np.zeros(len(layer.weights.bias))
        moved[f"bias-{number}"] = np.zeros(len(layer.weights.bias))
        assert layer.weights.codebook is not None
        entries = len(layer.weights.codebook.values)
        if course.codebooks and not _is_depthwise(layer):
            moved[f"entries-{number}"] = np.zeros(entries)
        if course.weight_rate and entries <= _COARSE:
            moved[f"weights-{number}"] = np.zeros(layer.weights.values.size, np.float32)
    return moved


def _is_depthwise(layer: Layer) -> bool:
    return isinstance(layer, Convolution) and layer.weights.values.shape[3] == 1


def _units(model: Model, tensors: F32) -> dict[int, tuple[float, float]]:
    """For each tuned layer (rms of its outputs without bias, rms of its entries): what a step of 1 would move."""
    outputs = Graph(model).forward(tensors)
    units = {}
    for number, layer in _tuned(model):
        assert layer.weights.codebook is not None
        spread = float(np.sqrt(np.mean((outputs[number] - layer.weights.bias) ** 2)))
        entries = layer.weights.codebook.values.astype(np.float64)
        units[number] = (max(_BIAS_SHARE * spread, 1e-12), max(float(np.sqrt((entries**2).mean())), 1e-12))
    return units


def _applied(model: Model, moved: Parts, units: dict[int, tuple[float, float]]) -> Model:
    """The model with everything moved, rounded to half precision as it will be kept."""
    layers = list(model.layers)
    for number, layer in _tuned(model):
        weights = layer.weights
        assert weights.codebook is not None
        spread, size = units[number]
        given = np.ones(len(weights.bias)) if weights.scale is None else weights.scale
        entries = weights.codebook.values
        if (shift := moved.get(f"entries-{number}")) is not None:
            entries = (entries + size * shift).astype(np.float16)
        scale = (given * (1 + moved[f"scale-{number}"])).astype(np.float16).astype(np.float32)
        bias = (weights.bias + spread * moved[f"bias-{number}"]).astype(np.float16).astype(np.float32)
        values = weights.values
        if (hidden := moved.get(f"weights-{number}")) is not None:
            values = _rounded(values, entries, hidden)
        layers[number] = replace(layer, weights=Weights(values, bias, scale, Codebook(entries)))
    return replace(model, layers=tuple(layers))


def _gap(entries: npt.NDArray[np.floating]) -> float:
    """Mean distance of two neighbouring entries: the unit of hidden weights."""
    return max(float(np.ptp(entries.astype(np.float64))) / max(1, len(entries) - 1), 1e-12)


def _rounded(indices: npt.NDArray[np.generic], entries: npt.NDArray[np.floating], hidden: Reals) -> U8:
    """Indices of the entries nearest to the hidden weights."""
    order = np.argsort(entries, kind="stable")
    rising = entries[order].astype(np.float32)
    values = entries.astype(np.float32)[indices.ravel()]
    values += np.float32(_gap(entries)) * hidden.astype(np.float32, copy=False)
    found = order.astype(np.uint8)[np.searchsorted((rising[1:] + rising[:-1]) / 2, values)]
    result: U8 = np.where(hidden == 0, indices.ravel(), found).astype(np.uint8).reshape(indices.shape)
    return result


def _slopes(
    model: Model, tensors: F32, teacher: F32, units: dict[int, tuple[float, float]], moved: Parts
) -> tuple[float, Parts]:
    """Mean KL of a batch and its gradient, by every number that is tuned."""
    graph = Graph(model)
    size = math.ceil(len(tensors) / _WORKERS)

    def run(begin: int) -> tuple[float, Parts]:
        part = slice(begin, begin + size)
        found: Parts = {}

        def visit(
            number: int, layer: Convolution | FullConnect, inputs: Sequence[F32], output: F32, slope: F32
        ) -> None:
            if f"scale-{number}" not in moved:
                return
            spread, entry = units[number]
            weights = layer.weights
            total: F64 = slope.sum(axis=(0, 1, 2), dtype=np.float64)
            # Where the activation cuts, the slope is zero; elsewhere the output is what the weights gave, and the bias.
            along: F64 = np.einsum("nrck,nrck->k", slope, output).astype(np.float64)
            found[f"scale-{number}"] = along - weights.bias.astype(np.float64) * total
            found[f"bias-{number}"] = (spread * total).astype(np.float64)
            by_entry, by_index = f"entries-{number}" in moved, f"weights-{number}" in moved
            if not by_entry and not by_index:
                return
            assert weights.codebook is not None
            assert weights.scale is not None
            by_weight = weight_slope(layer, inputs[0], slope).reshape(len(weights.scale), -1)
            by_weight *= weights.scale[:, None]
            if by_index:
                found[f"weights-{number}"] = by_weight.ravel() * np.float32(_gap(weights.codebook.values))
            if by_entry:
                count = len(weights.codebook.values)
                sums: F64 = np.bincount(weights.values.ravel(), by_weight.ravel(), count).astype(np.float64)
                found[f"entries-{number}"] = entry * sums

        outputs = graph.forward(tensors[part])
        logits = outputs[-1].reshape(len(outputs[-1]), -1)
        ours, theirs = log_softmax(logits), log_softmax(teacher[part])
        share = np.exp(theirs)
        loss = float((share * (theirs - ours)).sum(dtype=np.float64)) / len(tensors)
        slope: F32 = ((np.exp(ours) - share) / len(tensors)).astype(np.float32)
        graph.backward(tensors[part], outputs, slope, visit)
        return loss, found

    with blas.one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
        results = list(pool.map(run, range(0, len(tensors), size)))
    slopes: Parts = {key: np.sum([found[key] for _, found in results], axis=0) for key in moved}
    return sum(loss for loss, _ in results), slopes


class _Adam:
    """Adam's running moments, and one step."""

    def __init__(self) -> None:
        self.mean: Parts = {}
        self.square: Parts = {}

    def move(self, moved: Parts, slopes: Parts, step: int, rate: float, weight_rate: float) -> None:
        first, second = _DECAYS
        for key, slope in slopes.items():
            self.mean[key] = first * self.mean.get(key, 0.0) + (1 - first) * slope
            self.square[key] = second * self.square.get(key, 0.0) + (1 - second) * slope**2
            mean = self.mean[key] / (1 - first ** (step + 1))
            square = self.square[key] / (1 - second ** (step + 1))
            own = weight_rate if key.startswith("weights") else rate
            change: Reals = own * mean / (np.sqrt(square) + 1e-12)
            moved[key] = (
                moved[key] - change if moved[key].dtype == np.float64 else moved[key] - change.astype(np.float32)
            )
