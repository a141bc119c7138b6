"""What a device's plan computes in int8, in numpy: activations and weights rounded where its steps round them.

Convolutions and full connects follow kernels/ops/int8.h to the bit: exact sums, one float32 multiply-add, one rounding;
additions and averages follow their kernels likewise, as ties are many where ranges are whole multiples of each other.
The rest is computed in float64 and rounded: a normalization's kernel may be one step off. Between the layers of a
fused step nothing is rounded, which is all that fused and unfused plans differ by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from device_tests.errors import ProgramError
from device_tests.program_records import StepRecord
from klaus_runtime import int8
from klaus_runtime.int8 import Grid
from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    Convolution,
    FullConnect,
    GlobalPool,
    Layer,
    Model,
    Pool,
    Slice,
    Weights,
)
from klaus_runtime.reference import activate, apply_layer

Given = Mapping[int, F32] | Sequence[F32]  # outputs by the number of their layer


def numbers(grid: Grid, values: F32) -> F32:
    """The nearest int8 numbers less the grid's zero, as kernels/ops/cast does it: by the step's inverse."""
    nearest = np.clip(np.rint(values * (np.float32(1) / grid.scale)) + np.float32(grid.zero), -128, 127)
    result: F32 = (nearest - np.float32(grid.zero)).astype(np.float32)
    return result


def rounded(grid: Grid, values: F32) -> F32:
    """The nearest values that int8 numbers stand for."""
    return numbers(grid, values) * grid.scale


class Planned:
    """A model with activation ranges, run by the steps of a plan."""

    def __init__(self, model: Model, steps: Sequence[StepRecord]) -> None:
        """Raises ProgramError where the steps do not make the model's last layer."""
        self._model = model
        self.steps = [step for step in steps if step.layers]  # those without layers are casts
        known = range(len(model.layers))
        if not self.steps or self.steps[-1].layers[-1] != known[-1]:
            raise ProgramError(f"the plan of {model.name} does not end with its last layer")
        if any(number not in known for step in self.steps for number in step.layers):
            raise ProgramError(f"the plan of {model.name} has layers that the model has not")

    def quantization(self, layer: int) -> Grid:
        """Of a layer's output, -1: of the model's input; as kernels/engine takes it from the range."""
        while layer >= 0 and _only_chooses(self._model.layers[layer]):
            layer = self._model.layers[layer].inputs[0]
        measured = self._model.ranges[layer + 1]
        assert measured is not None
        return int8.grid(measured)

    def reach(self, layer: int) -> float:
        """The largest magnitude in a layer's range."""
        quantization = self.quantization(layer)
        return float(quantization.scale * max(127 - quantization.zero, 128 + quantization.zero))

    def exact(self, step: StepRecord) -> bool:
        """Whether step() has all that its kernel computes to the bit: not where numbers are normalized."""
        first = self._model.layers[step.layers[0]]
        return (
            isinstance(first, Convolution | FullConnect | Add | GlobalPool) or _averages(first) or _only_chooses(first)
        )

    def step(self, step: StepRecord, tensor: F32, given: Given) -> F32:
        """A step's output for what the layers before it gave, `tensor` being the model's input."""
        first, last, (taken, gives) = step.layers[0], step.layers[-1], step.dtypes
        layer = self._model.layers[first]
        if taken == "i8" and isinstance(layer, Convolution | FullConnect):
            return self._exact(step, layer, tensor, given)
        if step.dtypes == ("i8", "i8") and isinstance(layer, Add):
            return self._added(step, layer, tensor, given)
        if step.dtypes == ("i8", "i8") and (isinstance(layer, GlobalPool) or _averages(layer)):
            return self._averaged(step, layer, tensor, given)
        inside: dict[int, F32] = {}

        def read(number: int) -> F32:
            if number in inside:
                return inside[number]
            values = tensor if number < 0 else given[number]
            return rounded(self.quantization(number), values) if taken == "i8" else values

        for number in step.layers:
            layer = self._model.layers[number]
            inside[number] = apply_layer(layer, [read(before) for before in layer.inputs])
        return rounded(self.quantization(last), inside[last]) if gives == "i8" else inside[last]

    def _exact(self, step: StepRecord, layer: Convolution | FullConnect, tensor: F32, given: Given) -> F32:
        """A convolution or full connect on int8 numbers, with the addition and the activation that follow."""
        integers, steps = int8.integer_weights(layer)
        (source,) = layer.inputs
        taken = self.quantization(source)
        inputs = numbers(taken, tensor if source < 0 else given[source])
        bare = Weights(integers, np.zeros_like(layer.weights.bias))
        sums = apply_layer(dataclasses.replace(layer, weights=bare, activation=Activation.LINEAR), [inputs])
        rounds = step.dtypes[1] == "i8"
        target = self.quantization(step.layers[-1]) if rounds else Grid(np.float32(1), 0)
        scale = np.float32(1) if layer.weights.scale is None else layer.weights.scale
        bias = layer.weights.bias
        if layer.weights.correction is not None:
            bias = bias + layer.weights.correction
        values = _multiply_add(sums, taken.scale * steps * scale / target.scale, bias / target.scale)
        activation = layer.activation
        for before, number in pairwise(step.layers):
            follows = self._model.layers[number]
            assert isinstance(follows, Add | Activate), "kernels fuse nothing else"
            activation = follows.activation
            if isinstance(follows, Add):
                (other,) = [read for read in follows.inputs if read != before]
                addend = self.quantization(other)
                more = numbers(addend, tensor if other < 0 else given[other])
                if rounds:
                    values = _multiply_add(more, addend.scale / target.scale, values)
                else:
                    values = values + more * addend.scale
        if not rounds:
            return activate(values.astype(np.float64), activation).astype(np.float32)
        return _limited(values, target, activation)

    def _added(self, step: StepRecord, layer: Add, tensor: F32, given: Given) -> F32:
        """An addition of int8 numbers with the activation that follows, as ops/add/add_i8_neon64.c does it."""
        target = self.quantization(step.layers[-1])
        first, second = ((number, self.quantization(number)) for number in layer.inputs)
        one = numbers(first[1], tensor if first[0] < 0 else given[first[0]])
        other = numbers(second[1], tensor if second[0] < 0 else given[second[0]])
        values = _multiply_add(other, second[1].scale / target.scale, one * (first[1].scale / target.scale))
        return _limited(values, target, _activation_of(self._model.layers[step.layers[-1]]))

    def _averaged(self, step: StepRecord, layer: Layer, tensor: F32, given: Given) -> F32:
        """Averages of int8 numbers as ops/pool_i8_neon64.h takes them: an exact sum times one factor."""
        (source,) = layer.inputs
        taken, target = self.quantization(source), self.quantization(step.layers[-1])
        read = numbers(taken, tensor if source < 0 else given[source])
        means = apply_layer(layer, [read]).astype(np.float64)
        if isinstance(layer, Pool):
            window = layer.window
            rows = _inside(means.shape[0], window.rows, window.stride_rows, window.pads[0], read.shape[0])
            cols = _inside(means.shape[1], window.cols, window.stride_cols, window.pads[1], read.shape[1])
            cells = np.multiply.outer(rows, cols)[:, :, None].astype(np.float32)
        else:
            cells = np.full((1, 1, 1), read.shape[0] * read.shape[1], np.float32)
        sums = np.rint(means * cells).astype(np.float32)
        values: F32 = sums * (taken.scale / (target.scale * cells))
        return _limited(values, target, _activation_of(self._model.layers[step.layers[-1]]))

    def run(self, tensor: F32) -> F32:
        """The last layer's output."""
        given: dict[int, F32] = {}
        for step in self.steps:
            given[step.layers[-1]] = self.step(step, tensor, given)
        return given[self.steps[-1].layers[-1]]


def _only_chooses(layer: Layer) -> bool:
    return isinstance(layer, Slice) or (isinstance(layer, Pool) and layer.kind == "max")


def _multiply_add(values: F32, factor: F32 | np.float32, start: F32) -> F32:
    """values * factor + start, rounded once: products of float32 are exact in float64."""
    result: F32 = (values.astype(np.float64) * factor + start).astype(np.float32)
    return result


def _averages(layer: Layer) -> bool:
    return isinstance(layer, Pool) and layer.kind == "average"


def _activation_of(layer: Layer) -> Activation:
    return layer.activation if isinstance(layer, Add | Activate) else Activation.LINEAR


def _inside(outputs: int, size: int, stride: int, pad: int, inputs: int) -> npt.NDArray[np.int64]:
    """How many cells of each window along one side lie inside the input; at least one, as kernels divide by it."""
    begins = np.arange(outputs) * stride - pad
    cells: npt.NDArray[np.int64] = np.maximum(np.minimum(begins + size, inputs) - np.maximum(begins, 0), 1)
    return cells


def _limited(values: F32, target: Grid, activation: Activation) -> F32:
    """Steps rounded, within klaus_int8_limits(), as what they stand for."""
    low = np.float32(-128) - target.zero if activation is Activation.LINEAR else np.float32(0)
    high = np.float32(127) - target.zero
    if activation is Activation.RELU6:
        high = min(high, np.rint(np.float32(6) / target.scale))
    result: F32 = np.clip(np.rint(values), low, high).astype(np.float32) * target.scale
    return result
