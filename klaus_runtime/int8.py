"""int8 arithmetic in numpy: what kernels/ops/int8.h makes of weights and activations, as the numbers they stand for.

Grids and integer weights are the kernels' own, to the bit. What rounded_layer() makes is for statistics: its sums are
float32's, so that a result may fall on the neighbouring step where the kernels' exact sum is at a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    Convolution,
    FullConnect,
    Layer,
    Model,
    Pool,
    Range,
    Slice,
    Weights,
)

I8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where an activation's 256 values lie: scale * (q - zero), q from -128 to 127."""

    scale: np.float32
    zero: int

    def round(self, values: F32) -> I8:
        """The nearest of the grid's values, ties to even, as their q."""
        steps = values / self.scale
        np.rint(steps, out=steps)
        steps += np.float32(self.zero)
        np.clip(steps, -128, 127, out=steps)
        return steps.astype(np.int8)

    def widen(self, rounded: I8) -> F32:
        """The values that some q stand for."""
        values = rounded.astype(np.float32)
        values -= np.float32(self.zero)
        values *= self.scale
        return values


def grid(measured: Range) -> Grid:
    """The grid over a range that was made to hold 0: 0 is one of its values."""
    low, high = np.float32(min(measured.low, 0)), np.float32(max(measured.high, 0))
    scale = (high - low) / np.float32(255)
    if not scale > 1e-30:
        return Grid(np.float32(1), 0)
    return Grid(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def grids(model: Model) -> list[Grid | None]:
    """The network input's grid, then every layer's; None where a kernel passes a layer's output on without rounding it.

    As in the C engine's plans: an addition or activation is done with the layer before it, and pools that compare and
    slices keep the grid of what they read. The last layer's output is float32. The model has ranges of all layers.
    """
    first = model.ranges[0]
    assert first is not None
    found: list[Grid] = [grid(first)]
    for layer, measured in zip(model.layers, model.ranges[1:], strict=True):
        assert measured is not None
        moves = isinstance(layer, Slice) or (isinstance(layer, Pool) and layer.kind == "max")
        found.append(found[layer.inputs[0] + 1] if moves else grid(measured))
    result: list[Grid | None] = list(found)
    readers: dict[int, list[int]] = {}
    for number, layer in enumerate(model.layers):
        for source in layer.inputs:
            readers.setdefault(source, []).append(number)
    for number, layer in enumerate(model.layers):
        if getattr(layer, "activation", Activation.LINEAR) is Activation.LINEAR and len(readers.get(number, ())) == 1:
            reader = model.layers[readers[number][0]]
            joins = isinstance(reader, Add) and isinstance(layer, Convolution) and max(reader.inputs) == number
            if joins or isinstance(reader, Activate):
                result[number + 1] = None
    result[-1] = None
    return result


def integer_weights(layer: Convolution | FullConnect) -> tuple[F32, F32]:
    """Stored weights as int8 numbers (of the layer's shape, float32), and the step of each output's (outputs,)."""
    weights = layer.weights
    stored = weights.stored()
    rows = stored.reshape(len(stored), -1)
    if weights.codebook is not None and isinstance(layer, FullConnect):
        largest = np.full(len(rows), np.abs(weights.codebook.values.astype(np.float32)).max())
    else:
        largest = np.abs(rows).max(axis=1)
    steps = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    numbers: F32 = np.clip(np.rint(rows / steps[:, None]), -127, 127).astype(np.float32).reshape(stored.shape)
    return numbers, steps


def rounded_weights(layer: Convolution | FullConnect) -> F32:
    """Effective weights (of the layer's shape) whose stored weights are rounded to int8."""
    numbers, steps = integer_weights(layer)
    scale = steps if layer.weights.scale is None else steps * layer.weights.scale
    result: F32 = numbers * scale.reshape((-1,) + (1,) * (numbers.ndim - 1))
    return result


def rounded_layer(layer: Convolution | FullConnect, bias: F32, activation: Activation) -> Layer:
    """The layer as float32 engines compute what its int8 kernel does, but for the rounding of the result."""
    weights = Weights(rounded_weights(layer), bias)
    if isinstance(layer, Convolution):
        return Convolution(layer.name, layer.inputs, layer.window, weights, layer.groups, activation)
    return FullConnect(layer.name, layer.inputs, weights, activation)
