"""Scales, biases, codebooks and indices of a quantized network, tuned end to end towards the float network's answers.

The loss is KL(float || quantized) of the answers (knowledge distillation: Hinton et al., 2015, arXiv:1503.02531) on
views that are new in every step, so that nothing is learnt by heart; Adam (Kingma and Ba, 2014, arXiv:1412.6980) with a
rate that falls to zero along a cosine, so that the last step is the one to keep.

An index changes where the gradient of its weight keeps one sign: every weight has a hidden value that starts where
the float network's weight stood within the cell of its entry, moves by Adam and is rounded to the nearest entry when it
is used, the gradient passing straight through the rounding (Bengio et al., 2013, arXiv:1308.3432; with the learnt
scales, LSQ: Esser et al., 2019, arXiv:1902.08153). Entries move by gradients summed an entry (Deep Compression).

All numbers have units in which a step of one is large: a scale's is itself, a bias' its layer's outputs, an entry's
the codebook, a hidden value's the distance of two entries; so one rate each serves all layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klaus_runtime import blas, evaluate, forward
from klaus_runtime.errors import CheckError
from klaus_runtime.model import F32, U8, Codebook, Convolution, FullConnect, Layer, Model, Softmax, Weights
from klaus_runtime.quantize.checkpoints import Checkpoints
from klaus_runtime.quantize.gradient import Graph, log_softmax, weight_slope

F64 = npt.NDArray[np.float64]
Views = Callable[[int], F32]  # number of a step -> what both networks read in it, (batch, rows, cols, channels)
Parts = dict[str, F32]  # "scale-N", "bias-N", "entries-N", "hidden-N": how far each was moved, in its own unit

_WORKERS = 2
_DECAYS = (0.9, 0.99)
_SAVE_EVERY = 20
_WARM_STEPS = 10  # with a rate that grows: Adam's first steps know too few gradients
_BIAS_SHARE = 0.3  # of the outputs' rms, that is a bias' unit: its errors add up over all positions
_COARSE = 64  # entries; in a finer codebook an index more or less is nothing
_MARGIN = 0.02  # of its cell, that a hidden value keeps from the cell's edges when it starts


@dataclass(frozen=True, slots=True)
class Course:
    """How to tune."""

    steps: int = 300
    batch: int = 16  # views a step
    rate: float = 3e-4  # of scales, biases and entries, in their units
    hidden_rate: float = 1e-3  # of hidden weights, in their unit; 0: indices stay


def tune(
    exact: Model,
    quantized: Model,
    views: Views,
    *,
    course: Course,
    checkpoints: Checkpoints,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> Model:
    """The quantized model with scales, biases, entries and indices moved; all numbers stay half precision ones.

    views(step) must give the same tensors whenever it is asked for a step. Raises CheckError where the loss is no
    number.
    """
    exact, quantized = _without_softmax(exact), replace(quantized, ranges=())
    tail = quantized.layers[len(exact.layers) :]
    body = replace(quantized, layers=quantized.layers[: len(exact.layers)])
    tuned = _Tuned(exact, body, views(0), course)
    teacher = [evaluate.prepare(layer) for layer in exact.layers]
    adam = _Adam()
    begin = 0
    found = checkpoints.load("tuning")
    if found is not None:
        begin = int(found["step"])
        for key in tuned.moved:
            tuned.moved[key], adam.mean[key], adam.square[key] = (
                found[f"{what}-{key}"] for what in ("moved", "mean", "square")
            )
    for step in range(begin, course.steps):
        report("tuning", step, course.steps)
        loss, slopes = _slopes(exact, teacher, tuned, views(step))
        if not math.isfinite(loss):
            raise CheckError(f"model {body.name}: tuning diverged at step {step}: tune at a lower rate")
        decay = min(1, (step + 1) / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * step / course.steps))
        adam.move(tuned.moved, slopes, step, course.rate * decay, course.hidden_rate * decay)
        if (step + 1) % _SAVE_EVERY == 0:
            state = {f"moved-{key}": values for key, values in tuned.moved.items()}
            state |= {f"mean-{key}": values for key, values in adam.mean.items()}
            state |= {f"square-{key}": values for key, values in adam.square.items()}
            checkpoints.save("tuning", step=np.array(step + 1), **state)
    report("tuning", course.steps, course.steps)
    result = tuned.applied()
    return replace(result, layers=(*result.layers, *tail))


def _without_softmax(model: Model) -> Model:
    layers = model.layers[:-1] if isinstance(model.layers[-1], Softmax) else model.layers
    return replace(model, layers=layers, ranges=())


class _Tuned:
    """The network that is tuned: where its numbers started, their units, and how far they were moved."""

    def __init__(self, exact: Model, model: Model, tensors: F32, course: Course) -> None:
        self.model = model
        self.moved: Parts = {}
        self.units: dict[int, tuple[float, float]] = {}  # of a bias, of an entry
        self.start: dict[int, F32] = {}  # hidden weights
        self.layers = [
            (number, layer)
            for number, layer in enumerate(model.layers)
            if isinstance(layer, Convolution | FullConnect) and layer.weights.codebook is not None
        ]
        outputs = Graph(model).forward(tensors)
        for number, layer in self.layers:
            weights = layer.weights
            assert weights.codebook is not None
            spread = float(np.sqrt(np.mean((outputs[number] - weights.bias) ** 2)))
            entries = weights.codebook.values.astype(np.float64)
            self.units[number] = (max(_BIAS_SHARE * spread, 1e-12), max(float(np.sqrt((entries**2).mean())), 1e-12))
            self.moved[f"scale-{number}"] = np.zeros(len(weights.bias), np.float32)
            self.moved[f"bias-{number}"] = np.zeros(len(weights.bias), np.float32)
            if _is_depthwise(layer):
                continue
            self.moved[f"entries-{number}"] = np.zeros(len(entries), np.float32)
            if course.hidden_rate and 1 < len(entries) <= _COARSE:
                origin = exact.layers[number]
                assert isinstance(origin, Convolution | FullConnect)
                self.start[number] = _hidden(origin.weights, weights)
                self.moved[f"hidden-{number}"] = np.zeros(weights.values.size, np.float32)

    def applied(self) -> Model:
        """The model with everything moved, rounded to half precision as it will be kept."""
        layers = list(self.model.layers)
        for number, layer in self.layers:
            weights = layer.weights
            assert weights.codebook is not None
            spread, size = self.units[number]
            entries = weights.codebook.values
            values = weights.values
            if (shift := self.moved.get(f"entries-{number}")) is not None:
                entries = (entries + np.float32(size) * shift).astype(np.float16)
            if (hidden := self.moved.get(f"hidden-{number}")) is not None:
                current = self.start[number] + np.float32(gap(weights.codebook.values)) * hidden
                values = _nearest(current, entries).reshape(values.shape)
            scale = (_scale(weights) * np.exp(self.moved[f"scale-{number}"])).astype(np.float16).astype(np.float32)
            bias = (weights.bias + np.float32(spread) * self.moved[f"bias-{number}"]).astype(np.float16)
            layers[number] = replace(layer, weights=Weights(values, bias.astype(np.float32), scale, Codebook(entries)))
        return replace(self.model, layers=tuple(layers))

    def gap(self, number: int) -> float:
        """Unit of a layer's hidden weights."""
        return gap(self._codebook(number).values)

    def _codebook(self, number: int) -> Codebook:
        layer = self.model.layers[number]
        assert isinstance(layer, Convolution | FullConnect)
        assert layer.weights.codebook is not None
        return layer.weights.codebook


def _is_depthwise(layer: Layer) -> bool:
    return isinstance(layer, Convolution) and layer.weights.values.shape[3] == 1


def _scale(weights: Weights) -> F32:
    return np.ones(len(weights.bias), np.float32) if weights.scale is None else weights.scale


def gap(entries: npt.NDArray[np.floating]) -> float:
    """Mean distance of two neighbouring entries."""
    return max(float(np.ptp(entries.astype(np.float64))) / max(1, len(entries) - 1), 1e-12)


def _hidden(origin: Weights, weights: Weights) -> F32:
    """The float weights in units of the codebook, each moved into the cell of the entry that was chosen for it."""
    assert weights.codebook is not None
    entries = weights.codebook.values.astype(np.float32)
    order = np.argsort(entries, kind="stable")
    rising = entries[order]
    rank = np.argsort(order, kind="stable")[weights.values.ravel()]
    edges = (rising[1:] + rising[:-1]) / 2
    around = np.float32(gap(rising))
    low = np.concatenate([[rising[0] - around], edges]).astype(np.float32)
    high = np.concatenate([edges, [rising[-1] + around]]).astype(np.float32)
    inside = np.float32(_MARGIN) * (high - low)
    scale = np.where(np.abs(_scale(weights)) > 1e-12, _scale(weights), np.float32(1))
    wanted = (origin.effective().reshape(len(scale), -1) / scale[:, None]).ravel()
    result: F32 = np.clip(wanted, (low + inside)[rank], (high - inside)[rank])
    return result


def _nearest(values: F32, entries: npt.NDArray[np.floating]) -> U8:
    order = np.argsort(entries, kind="stable")
    rising = entries[order].astype(np.float32)
    result: U8 = order.astype(np.uint8)[np.searchsorted((rising[1:] + rising[:-1]) / 2, values)]
    return result


def _slopes(exact: Model, teacher: Sequence[evaluate.Step], tuned: _Tuned, tensors: F32) -> tuple[float, Parts]:
    """Mean KL of a batch and its gradient, by every number that is tuned."""
    model = tuned.applied()
    graph = Graph(model)
    size = math.ceil(len(tensors) / _WORKERS)

    def run(begin: int) -> tuple[float, Parts]:
        part = tensors[begin : begin + size]
        found: Parts = {}

        def visit(
            number: int, layer: Convolution | FullConnect, inputs: Sequence[F32], output: F32, slope: F32
        ) -> None:
            if f"scale-{number}" not in tuned.moved:
                return
            spread, entry = tuned.units[number]
            weights = layer.weights
            total: F64 = slope.sum(axis=(0, 1, 2), dtype=np.float64)
            # Where the activation cuts, the slope is zero; elsewhere the output is what the weights gave, and the bias.
            along: F64 = np.einsum("nrck,nrck->k", slope, output).astype(np.float64)
            found[f"scale-{number}"] = (along - weights.bias * total).astype(np.float32)
            found[f"bias-{number}"] = (spread * total).astype(np.float32)
            if f"entries-{number}" not in tuned.moved:
                return
            assert weights.codebook is not None
            assert weights.scale is not None
            by_weight = weight_slope(layer, inputs[0], slope).reshape(len(weights.scale), -1)
            by_weight *= weights.scale[:, None]
            sums = np.bincount(weights.values.ravel(), by_weight.ravel(), len(weights.codebook.values))
            found[f"entries-{number}"] = (entry * sums).astype(np.float32)
            if f"hidden-{number}" in tuned.moved:
                by_weight *= np.float32(tuned.gap(number))
                found[f"hidden-{number}"] = by_weight.ravel()

        for wanted in forward.walk(exact, part, lambda number, _, inputs: teacher[number](inputs)):  # noqa: B007
            pass
        theirs = log_softmax(wanted.reshape(len(part), -1))
        outputs = graph.forward(part)
        ours = log_softmax(outputs[-1].reshape(len(part), -1))
        share = np.exp(theirs)
        loss = float((share * (theirs - ours)).sum(dtype=np.float64)) / len(tensors)
        slope: F32 = ((np.exp(ours) - share) / len(tensors)).astype(np.float32)
        graph.backward(part, outputs, slope, visit)
        return loss, found

    with blas.one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
        results = list(pool.map(run, range(0, len(tensors), size)))
    slopes: Parts = results[0][1]
    for _, found in results[1:]:
        for key, values in found.items():
            slopes[key] += values
    return sum(loss for loss, _ in results), slopes


class _Adam:
    """Adam's running moments, and one step."""

    def __init__(self) -> None:
        self.mean: Parts = {}
        self.square: Parts = {}

    def move(self, moved: Parts, slopes: Parts, step: int, rate: float, hidden_rate: float) -> None:
        first, second = (np.float32(decay) for decay in _DECAYS)
        for key, slope in slopes.items():
            mean = self.mean.setdefault(key, np.zeros_like(slope))
            square = self.square.setdefault(key, np.zeros_like(slope))
            mean *= first
            mean += (1 - first) * slope
            square *= second
            square += (1 - second) * slope * slope
            own = hidden_rate if key.startswith("hidden") else rate
            # Both moments start at nothing; what that makes too small is divided out again.
            own /= 1 - _DECAYS[0] ** (step + 1)
            root = np.sqrt(square / np.float32(1 - _DECAYS[1] ** (step + 1)))
            root += np.float32(1e-12)
            moved[key] -= np.float32(own) * mean / root
