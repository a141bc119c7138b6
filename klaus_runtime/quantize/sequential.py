"""Layer by layer through the network on calibration photos, what is lost so far made up for where possible.

Two copies of every photo's activations travel along: those of the float network, x, and those of the network whose
layers are quantized so far, xq. A layer with weights W is fitted not to W but to the T that brings xq nearest to W x:
T = W E[x xq'] E[xq xq']^-1. Then its indices are chosen under the covariance of xq (fit.py), and its bias takes the
mean that remains (bias correction: Nagel et al., 2019, arXiv:1906.04721).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from klaus_runtime import blas, evaluate, forward, shapes
from klaus_runtime.model import (
    F32,
    NETWORK_INPUT,
    U8,
    Activate,
    Activation,
    Codebook,
    Convolution,
    FullConnect,
    GlobalPool,
    Layer,
    Model,
    Weights,
    Window,
)
from klaus_runtime.quantize import assign, moments
from klaus_runtime.quantize.assign import Problem
from klaus_runtime.quantize.checkpoints import Arrays, Checkpoints
from klaus_runtime.quantize.fit import Effort, fit

F64 = npt.NDArray[np.float64]
Pair = tuple[F32, F32]  # an activation of the float and of the quantized network
Report = Callable[[str, int, int], None]  # (what is done, steps done, of how many)
Note = Callable[[int, float, U8, int], None]  # (layer, its importance-weighted error, indices, entries)

_CHUNK_BYTES = 1 << 26
_WORKERS = 2
_POINT = Window(1, 1)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How one layer is quantized."""

    entries: int  # of its codebook, at most
    rate: float = 0.0  # importance-weighted error that one bit may save
    importance: F64 | None = None  # (outputs,) what a squared error of an output (before its activation) costs


@dataclass(frozen=True, slots=True)
class Method:
    """Numbers of the method, the same for all layers."""

    damping: float = 0.01  # of the covariance that indices are chosen under, in shares of its mean diagonal
    caution: float = 1.0  # the same of the regression that moves the target away from the weights
    rows_a_weight: int = 32  # positions that moments are measured at, for each weight of an output
    least_rows: int = 8_000  # of pointwise layers
    least_windows: int = 2_000  # the same where positions must be unfolded, which takes longer than all else
    live_bytes: int = 2_500_000_000  # of kept activations; early layers of large nets see fewer views for it
    pooled_share: float = 0.5  # of a full connect's covariance that comes from behind the pool, the rest before it
    effort: Effort = field(default_factory=Effort)


def quantize_layers(
    model: Model,
    tensors: F32,
    plans: Sequence[LayerPlan | None],
    *,
    method: Method,
    seed: int,
    checkpoints: Checkpoints,
    report: Report = lambda *_: None,
    note: Note = lambda *_: None,
) -> Model:
    """The model with every layer that has a plan quantized; tensors (n, rows, cols, channels) are what it reads.

    Scales and biases come out as half precision numbers (kept as float32), entries as float16.
    """
    travel = _Travel(model, tensors, method.live_bytes)
    planned = [number for number, plan in enumerate(plans) if plan is not None]
    done: list[tuple[int, Weights]] = []
    for number in planned:  # what an earlier run finished needs no measuring again
        found = checkpoints.load(f"layer-{number}")
        if found is None:
            break
        done.append((number, _restored(found)))
    finished = dict(done)
    for number, layer in enumerate(model.layers):
        plan = plans[number]
        if plan is None:
            travel.advance(number, layer, layer)
            continue
        assert isinstance(layer, Convolution | FullConnect)
        weights = finished.get(number)
        if weights is None:
            report(layer.name, planned.index(number), len(planned))
            weights, error = _fitted(layer, plan, _measured(travel, model, number, layer, method, seed), method)
            assert weights.codebook is not None
            note(number, error, weights.values.astype(np.uint8, copy=False), len(weights.codebook.values))
            weights = travel.corrected(number, layer, replace(layer, weights=weights))
            checkpoints.save(f"layer-{number}", **_stored(weights))
        else:
            travel.advance(number, layer, replace(layer, weights=weights))
        finished[number] = weights
    report("layers", len(planned), len(planned))
    return replace(model, layers=tuple(_with(layer, finished.get(n)) for n, layer in enumerate(model.layers)))


def half(values: npt.NDArray[np.floating]) -> F32:
    """Rounded to half precision, as float32: what a package keeps in two bytes."""
    limit = float(np.finfo(np.float16).max)
    result: F32 = np.clip(values, -limit, limit).astype(np.float16).astype(np.float32)
    return result


def _with(layer: Layer, weights: Weights | None) -> Layer:
    if weights is None:
        return layer
    assert isinstance(layer, Convolution | FullConnect)
    return replace(layer, weights=weights)


def _stored(weights: Weights) -> dict[str, npt.NDArray[np.generic]]:
    assert weights.codebook is not None
    assert weights.scale is not None
    return {
        "indices": weights.values,
        "entries": weights.codebook.values,
        "scale": weights.scale,
        "bias": weights.bias,
    }


def _restored(found: Arrays) -> Weights:
    return Weights(found["indices"], found["bias"], found["scale"], Codebook(found["entries"]))


def _measured(
    travel: _Travel, model: Model, number: int, layer: Convolution | FullConnect, method: Method, seed: int
) -> moments.Moments:
    pointwise = isinstance(layer, FullConnect) or layer.window == _POINT
    least = method.least_rows if pointwise else method.least_windows
    rows = max(least, method.rows_a_weight * (layer.weights.values.size // len(layer.weights.bias)))
    share = math.ceil(rows / travel.chunk_count(layer))
    found = moments.measure(layer, travel.read(layer), rows=share, seed=seed + number)
    source = model.layers[layer.inputs[0]] if layer.inputs[0] != NETWORK_INPUT else None
    if isinstance(layer, FullConnect) and isinstance(source, GlobalPool):
        # Few pooled vectors say too little of a thousand inputs; the positions that were pooled say more.
        point = Convolution(layer.name, source.inputs, _POINT, layer.weights)
        share = math.ceil(rows / travel.chunk_count(point))
        before = moments.measure(point, travel.read(point), rows=share, seed=seed + number)
        found = moments.mixed(found, before, method.pooled_share)
    return found


def _fitted(
    layer: Convolution | FullConnect, plan: LayerPlan, found: moments.Moments, method: Method
) -> tuple[Weights, float]:
    """The layer's new weights, and the importance-weighted error of its outputs that is left."""
    weights = layer.weights
    shape = weights.values.shape
    groups = len(found.quantized)
    stored = weights.stored().astype(np.float64).reshape(groups, shape[0] // groups, -1)
    given = np.ones(shape[0]) if weights.scale is None else weights.scale.astype(np.float64)
    target = _target(stored, found, method.caution)
    covariance = assign.damped(found.quantized, method.damping)
    importance = (np.ones(shape[0]) if plan.importance is None else plan.importance) * given**2
    problem = Problem(target, covariance, importance.reshape(groups, -1))
    result = fit(problem, plan.entries, rate=plan.rate, effort=method.effort)
    scale = half(result.scale.ravel() * given)
    return Weights(result.indices.reshape(shape), weights.bias, scale, Codebook(result.entries)), result.error


def _target(stored: F64, found: moments.Moments, caution: float) -> F64:
    """The T that brings T xq nearest to W x, drawn towards W: ridge regression.

    Without much caution a few hundred photos are learnt by heart (docs/quantization.md): their loss nearly vanishes,
    that of other photos grows.
    """
    ridged = assign.damped(found.quantized, caution)
    wanted = stored @ (found.cross + (ridged - found.quantized))
    result: F64 = np.linalg.solve(ridged, wanted.transpose(0, 2, 1)).transpose(0, 2, 1).astype(np.float64)
    return result


class _Travel:
    """Activations of both networks that later layers still read, for as many views as memory allows."""

    def __init__(self, model: Model, tensors: F32, live_bytes: int) -> None:
        self.model = model
        self.tensors = tensors
        self.live_bytes = live_bytes
        self.views = 0
        self.started = False
        self.live: dict[int, Pair] = {}
        self.steps: list[tuple[evaluate.Step, evaluate.Step]] = []
        self.cells = [int(np.prod(shape)) for shape in shapes.infer(model)]
        self.last_reader: dict[int, int] = {}
        for number, layer in enumerate(model.layers):
            self.last_reader |= dict.fromkeys(layer.inputs, number)
            for source in layer.inputs:  # what is pooled is looked at once more, by the full connect behind
                if isinstance(layer, FullConnect) and source >= 0 and isinstance(model.layers[source], GlobalPool):
                    self.last_reader |= dict.fromkeys(model.layers[source].inputs, number)

    def chunk_count(self, layer: Layer) -> int:
        self._fill()
        return len(list(self._slices(layer)))

    def read(self, layer: Layer) -> Iterator[Pair]:
        """The layer's input in chunks of views."""
        self._fill()
        x, xq = self._pair(layer.inputs[0])
        for part in self._slices(layer):
            yield x[part], xq[part]

    def corrected(self, number: int, exact: Convolution | FullConnect, quantized: Convolution | FullConnect) -> Weights:
        """The quantized layer's weights with a bias that restores the mean of every output; advances behind it."""
        linear = [replace(layer, activation=Activation.LINEAR) for layer in (exact, quantized)]
        steps = [evaluate.prepare(layer) for layer in linear]
        outputs = self._computed(number, exact, steps)
        axes = (0, 1, 2)
        shift = outputs[0].mean(axis=axes, dtype=np.float64) - outputs[1].mean(axis=axes, dtype=np.float64)
        bias = half(quantized.weights.bias + shift)
        outputs[1] += bias - quantized.weights.bias
        weights = replace(quantized.weights, bias=bias)
        activate = evaluate.prepare(Activate(exact.name, exact.inputs, exact.activation))
        self.steps.append((evaluate.prepare(exact), evaluate.prepare(replace(quantized, weights=weights))))
        self._keep(number, (activate([outputs[0]]), activate([outputs[1]])))
        return weights

    def advance(self, number: int, exact: Layer, quantized: Layer) -> None:
        """Computes layer `number` of both networks and lets go what nobody reads any more."""
        self.steps.append((evaluate.prepare(exact), evaluate.prepare(quantized)))
        if not self.started:  # nothing was asked for yet: views are computed when they are
            return
        outputs = self._computed(number, exact, self.steps[number])
        self._keep(number, (outputs[0], outputs[1]))

    def _keep(self, number: int, pair: Pair) -> None:
        if number in self.last_reader:
            self.live[number] = pair
        for source in [source for source in self.live if self.last_reader[source] <= number]:
            del self.live[source]

    def _computed(self, number: int, layer: Layer, steps: Sequence[evaluate.Step]) -> list[F32]:
        """The outputs of the float and the quantized layer for all views."""
        inputs = [self._pair(source) for source in layer.inputs]
        rows, cols, channels = shapes.infer(self.model, until=number)[number]
        outputs = [np.empty((self.views, rows, cols, channels), np.float32) for _ in steps]

        def run(part: slice) -> None:
            for side, step in enumerate(steps):
                outputs[side][part] = step([pair[side][part] for pair in inputs])

        with blas.one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(run, list(self._slices(layer, number))))
        return outputs

    def _pair(self, source: int) -> Pair:
        if source == NETWORK_INPUT:
            given = self.tensors[: self.views]
            return given, given
        return self.live[source]

    def _slices(self, layer: Layer, number: int | None = None) -> Iterator[slice]:
        """Parts of the views small enough that a few of them, unfolded, fit in memory."""
        cells = max(int(np.prod(self.model.input_shape)) if s == NETWORK_INPUT else self.cells[s] for s in layer.inputs)
        cells = max(cells, self.cells[number] if number is not None else 0)
        size = max(1, _CHUNK_BYTES // (8 * cells))
        for begin in range(0, self.views, size):
            yield slice(begin, min(begin + size, self.views))

    def _fill(self) -> None:
        """Brings in as many more views as fit by now: activations shrink towards the end of a network."""
        number = len(self.steps)
        self.started = True
        alive = {s for s in range(number) if self.last_reader.get(s, -1) >= number}
        cells = sum(self.cells[source] for source in alive) + self.cells[number]
        wanted = min(len(self.tensors), max(1, self.live_bytes // (8 * cells)))
        if wanted <= self.views:
            return
        fresh = self.tensors[self.views : wanted]
        extended = {
            source: tuple(np.empty((wanted, *self._shape(source)), np.float32) for _ in range(2)) for source in alive
        }
        for source, pair in self.live.items():
            for old, new in zip(pair, extended[source], strict=True):
                new[: self.views] = old
        size = max(1, _CHUNK_BYTES // (8 * max([int(np.prod(self.model.input_shape)), *self.cells[: number + 1]])))

        def run(job: tuple[int, int]) -> None:
            side, begin = job
            given = fresh[begin : begin + size]
            place = slice(self.views + begin, self.views + begin + len(given))
            apply = lambda index, _layer, inputs: self.steps[index][side](inputs)  # noqa: E731
            for index, output in enumerate(forward.walk(self.model, given, apply, 0, number)):
                if index in alive:
                    extended[index][side][place] = output

        with blas.one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(run, [(side, begin) for begin in range(0, len(fresh), size) for side in range(2)]))
        self.live = {source: (pair[0], pair[1]) for source, pair in extended.items()}
        self.views = wanted

    def _shape(self, source: int) -> tuple[int, int, int]:
        return shapes.infer(self.model, until=source)[source]
