"""What int8 arithmetic needs to know of a network, from unlabelled photos: activation ranges and corrections.

Rounding weights and activations shifts the mean of nearly every output, and over fifty layers that costs far more than
what scatters about it (docs/quantization.md). So each output gets a correction of its bias, for int8 arithmetic alone:
layer by layer, behind the int8 layers before it, the one that restores the mean that the float network has there (bias
correction: Nagel et al., 2019, arXiv:1906.04721). The means are those behind the activation, as noise that ReLU cuts
off raises them: restored before it, they would leave every layer a little too large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime import evaluate, images, int8
from klaus_runtime.errors import InputError
from klaus_runtime.model import F32, Activate, Activation, Convolution, FullConnect, Layer, Model, Range

TAIL = 1e-4  # of the values, cut off at each end by the method "percentile"
_SAMPLES = 4096  # of each layer and photo, that percentiles are taken from

F64 = npt.NDArray[np.float64]

_MOST_PHOTOS = 128  # that corrections are measured on: every n-th of more
_TOGETHER = 4  # photos that a layer computes at a time
_STEPS = 3  # of Newton's method, behind an activation
_LEAST_SLOPE = 0.05  # an output that its activation nearly always cuts off is not moved by more than its error / this


def calibrate(
    model: Model,
    photos: Sequence[Path],
    *,
    method: str = "minmax",
    report: Callable[[int], None] = lambda _: None,
) -> Model:
    """The model with a Range for its input and for every layer's output, and with corrections for int8 arithmetic.

    Over one patch of every photo. method: "minmax" takes the least and the largest value of all; "percentile" leaves
    TAIL of the values outside at each end, so that a few outliers do not make all steps coarse. Corrections are
    measured on at most 128 of the photos. `report` is told how many photos are done.
    Raises InputError for photos that cannot be read, for none, or for values that are not finite.
    """
    if method not in ("minmax", "percentile"):
        raise InputError(f"ranges cannot be measured by {method!r}: there are minmax and percentile")
    if not photos:
        raise InputError("ranges are measured on photos: give a folder that holds some")
    engine = evaluate.FastEngine(model)
    lows = np.full(len(model.layers) + 1, np.inf)
    highs = -lows
    samples: list[list[F32]] = [[] for _ in lows]
    rng = np.random.default_rng(0)
    every = -(-len(photos) // _MOST_PHOTOS)
    tensors: list[F32] = []
    totals: list[F64] = [np.zeros(1) for _ in model.layers]
    for done, photo in enumerate(photos):
        try:
            tensor = images.form(model, images.read_picture(photo))
        except InputError as error:
            raise InputError(f"{photo}: {error}" if str(photo) not in str(error) else str(error)) from error
        chosen = done % every == 0
        if chosen:
            tensors.append(tensor)
        for number, values in enumerate(_with_input(tensor, engine)):
            if chosen and number:
                totals[number - 1] = totals[number - 1] + values.mean(axis=(0, 1), dtype=np.float64)
            lows[number] = min(lows[number], float(values.min()))
            highs[number] = max(highs[number], float(values.max()))
            if method == "percentile":
                flat = values.ravel()
                samples[number].append(flat if flat.size <= _SAMPLES else rng.choice(flat, _SAMPLES))
        report(done + 1)
    if not np.isfinite([lows, highs]).all():
        raise InputError(
            f"model {model.name}: some layer's output is not finite on these photos: its weights are broken"
        )
    ranges = []
    for low, high, drawn in zip(lows, highs, samples, strict=True):
        if method == "percentile":
            low, high = np.quantile(np.concatenate(drawn), (TAIL, 1 - TAIL))  # noqa: PLW2901
            ranges.append(Range(float(low), float(high), "percentile"))
        else:
            ranges.append(Range(float(low), float(high)))
    means = [total / len(tensors) for total in totals]
    return _corrected(replace(model, ranges=tuple(ranges)), tensors, means)


def _with_input(tensor: F32, engine: evaluate.FastEngine) -> Iterator[F32]:
    yield tensor
    yield from engine.activations(tensor)


def _corrected(model: Model, tensors: Sequence[F32], means: Sequence[F64]) -> Model:
    """The model with corrections on all weights: what a calibrated one's int8 layers need to keep float's means.

    tensors: network inputs (rows, cols, channels); means: of every layer's output (channels,) in the float network.
    """
    grids = int8.grids(model)
    last_reader: dict[int, int] = {}
    for number, layer in enumerate(model.layers):
        last_reader |= dict.fromkeys(layer.inputs, number)
    inputs = [np.stack(tensors[begin : begin + _TOGETHER]) for begin in range(0, len(tensors), _TOGETHER)]
    kept = {-1: _Activation(grids[0], inputs)}
    layers: list[Layer] = []
    for number, layer in enumerate(model.layers):
        sources = [kept[source] for source in layer.inputs]
        if isinstance(layer, Convolution | FullConnect):
            correction = _correction(layer, sources[0], means[number])
            layers.append(replace(layer, weights=replace(layer.weights, correction=correction)))
            step = evaluate.prepare(int8.rounded_layer(layer, layer.weights.bias + correction, layer.activation))
        else:
            layers.append(layer)
            step = evaluate.prepare(layer)
        outputs = (step(given) for given in zip(*(source.chunks() for source in sources), strict=True))
        kept[number] = _Activation(grids[number + 1], outputs)
        for source in [source for source in kept if last_reader.get(source, -1) <= number and source != number]:
            del kept[source]
    return replace(model, layers=tuple(layers))


class _Activation:
    """A layer's output for all photos: a byte a number where it lies on a grid."""

    def __init__(self, grid: int8.Grid | None, chunks: Iterator[F32] | Sequence[F32]) -> None:
        self._grid = grid
        self._rounded: list[int8.I8] = []
        self._plain: list[F32] = []
        for chunk in chunks:
            if grid is None:
                self._plain.append(chunk)
            else:
                self._rounded.append(grid.round(chunk))

    def chunks(self) -> Iterator[F32]:
        """Arrays (photos, rows, cols, channels)."""
        for rounded in self._rounded:
            assert self._grid is not None
            yield self._grid.widen(rounded)
        yield from self._plain


def _correction(layer: Convolution | FullConnect, source: _Activation, wanted: F64) -> F32:
    """What to add to each output's bias (outputs,) so that its mean is `wanted`, behind the layer's activation."""
    step = evaluate.prepare(int8.rounded_layer(layer, layer.weights.bias, Activation.LINEAR))
    linear = layer.activation is Activation.LINEAR
    activate = evaluate.prepare(Activate(layer.name, layer.inputs, layer.activation))
    result = np.zeros(wanted.shape, np.float32)
    for _ in range(1 if linear else _STEPS):
        total, passed, photos = np.zeros(wanted.shape), np.zeros(wanted.shape), 0
        for chunk in source.chunks():
            before = step([chunk]) + result
            after = activate([before])
            total += after.mean(axis=(1, 2), dtype=np.float64).sum(axis=0)
            passed += ((before == after) & (after != 0)).mean(axis=(1, 2), dtype=np.float64).sum(axis=0)
            photos += len(chunk)
        slope = np.ones(wanted.shape) if linear else np.maximum(passed / photos, _LEAST_SLOPE)
        result += ((wanted - total / photos) / slope).astype(np.float32)
    return _few_bits(result)


def _few_bits(values: F32) -> F32:
    """Rounded to two bits behind the first, as binary16 with an empty lower byte: packages keep a byte of each.

    A correction that is an eighth off still takes away 98 % of the squared error.
    """
    if np.abs(values).max(initial=0) < 2**-9:  # binary16 has no bits left for all of them: packages keep float32
        bits = values.astype(np.float32).view(np.uint32)
        return (((bits & 0x7FFFFFFF) + 0x100000) & 0x7FE00000 | bits & 0x80000000).view(np.float32)
    most = np.float32(57344)  # the largest such number
    halves = np.clip(values, -most, most).astype(np.float16).view(np.uint16)
    rounded = np.minimum((halves & 0x7FFF) + 0x80, 0x7BFF) & 0x7F00 | halves & 0x8000
    result: F32 = rounded.astype(np.uint16).view(np.float16).astype(np.float32)
    return result
