"""The numpy oracle: every layer written as its definition reads, for clarity and not for speed.

Inputs and outputs of each layer are float32 (rows, cols, channels); sums are taken in float64, so that what is left
when another engine is compared with this one is that engine's own rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from klaus_runtime import forward, shapes
from klaus_runtime.engine import Crop
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    U8,
    Activate,
    Activation,
    Add,
    Concat,
    Convolution,
    FullConnect,
    GlobalPool,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Slice,
    Softmax,
    Window,
)

F64 = npt.NDArray[np.float64]


class NumpyEngine:
    """Runs a model layer by layer with `apply_layer`; implements engine.Engine."""

    def __init__(self, model: Model) -> None:
        """Raises InputError for a malformed model."""
        shapes.validate(model)
        self.model = model

    def activations(self, tensor: F32) -> Iterator[F32]:
        """Yields every layer's output for one input tensor."""
        tensor = forward.check_tensors(self.model, tensor, batch=False)
        yield from forward.walk(self.model, tensor, _apply)

    def logits(self, tensors: F32) -> F32:
        """Last layer's outputs (n, outputs)."""
        tensors = forward.check_tensors(self.model, tensors, batch=True)
        if not len(tensors):
            return np.empty((0, shapes.outputs(self.model)), np.float32)
        return self._run(tensors, 0, len(self.model.layers)).reshape(len(tensors), -1)

    def probabilities(self, picture: U8, *, patches: Literal[1, 10], crop: Crop = "center") -> F32:
        """Class probabilities (outputs,) of a picture."""
        return forward.probabilities(self.model, self._run, picture, patches=patches, crop=crop)

    def _run(self, tensors: F32, first: int, stop: int) -> F32:
        results = []
        for tensor in tensors:
            output = tensor
            for output in forward.walk(self.model, tensor, _apply, first, stop):  # noqa: B007
                pass
            results.append(output)
        return np.stack(results)


def _apply(_index: int, layer: Layer, inputs: Sequence[F32]) -> F32:
    return apply_layer(layer, inputs)


def apply_layer(layer: Layer, inputs: Sequence[F32]) -> F32:
    """A layer's output for its inputs, each (rows, cols, channels)."""
    x = inputs[0].astype(np.float64)
    if isinstance(layer, Convolution):
        y = activate(_convolve(layer, x), layer.activation)
    elif isinstance(layer, FullConnect):
        y = activate(_full_connect(layer, x), layer.activation)
    elif isinstance(layer, Pool):
        y = _pool(layer, x)
    elif isinstance(layer, GlobalPool):
        y = x.mean(axis=(0, 1), keepdims=True)
    elif isinstance(layer, LocalResponseNorm):
        y = _normalise(layer, x)
    elif isinstance(layer, Add):
        y = activate(x + inputs[1], layer.activation)
    elif isinstance(layer, Concat):
        y = np.concatenate([value.astype(np.float64) for value in inputs], axis=2)
    elif isinstance(layer, Slice):
        y = x[:, :, layer.begin : layer.begin + layer.channels]
    elif isinstance(layer, Softmax):
        y = forward.softmax(inputs[0]).astype(np.float64)
    elif isinstance(layer, Activate):
        y = activate(x, layer.activation)
    else:
        raise InputError(f"layer {layer.name!r} is of a kind that the reference does not know")
    with np.errstate(over="ignore"):  # an overflow becomes infinite, as it does in float32 arithmetic
        return np.ascontiguousarray(y, dtype=np.float32)


def activate(x: F64, activation: Activation) -> F64:
    """The activation, elementwise."""
    if activation is Activation.RELU:
        return np.maximum(x, 0.0)
    if activation is Activation.RELU6:
        return np.clip(x, 0.0, 6.0)
    return x


def _convolve(layer: Convolution, x: F64) -> F64:
    window, groups = layer.window, layer.groups
    weights = layer.weights.stored().astype(np.float64)
    count, _, _, group_inputs = weights.shape
    weights = weights.reshape(groups, count // groups, window.rows, window.cols, group_inputs)
    padded, rows, cols = _padded(x, window, 0.0)
    total = np.zeros((groups, rows * cols, count // groups))
    for row in range(window.rows):
        for col in range(window.cols):
            seen = _seen(padded, window, row, col, rows, cols).reshape(rows * cols, groups, group_inputs)
            total += seen.transpose(1, 0, 2) @ weights[:, :, row, col].transpose(0, 2, 1)
    sums = total.transpose(1, 0, 2).reshape(rows, cols, count)
    return _scaled(layer, sums)


def _full_connect(layer: FullConnect, x: F64) -> F64:
    sums = layer.weights.stored().astype(np.float64) @ x.reshape(-1)
    return _scaled(layer, sums.reshape(1, 1, -1))


def _scaled(layer: Convolution | FullConnect, sums: F64) -> F64:
    scale = layer.weights.scale
    return (sums if scale is None else sums * scale) + layer.weights.bias


def _pool(layer: Pool, x: F64) -> F64:
    """Cells of the padding count neither for the maximum nor for the average."""
    window = layer.window
    padded, rows, cols = _padded(x, window, -np.inf if layer.kind == "max" else 0.0)
    inside, _, _ = _padded(np.ones((*x.shape[:2], 1)), window, 0.0)
    result = np.full((rows, cols, x.shape[2]), -np.inf if layer.kind == "max" else 0.0)
    cells = np.zeros((rows, cols, 1))
    for row in range(window.rows):
        for col in range(window.cols):
            seen = _seen(padded, window, row, col, rows, cols)
            result = np.maximum(result, seen) if layer.kind == "max" else result + seen
            cells += _seen(inside, window, row, col, rows, cols)
    return result if layer.kind == "max" else result / cells


def _normalise(layer: LocalResponseNorm, x: F64) -> F64:
    rows, cols, channels = x.shape
    grouped = x.reshape(rows, cols, layer.groups, channels // layer.groups)
    reach = layer.size // 2
    squares = np.pad(grouped**2, ((0, 0), (0, 0), (0, 0), (reach, reach)))
    width = grouped.shape[3]
    sums = sum(squares[..., begin : begin + width] for begin in range(2 * reach + 1))
    base = np.float64(np.float32(layer.kappa)) + np.float64(np.float32(layer.alpha)) * sums
    normalised: F64 = grouped * base ** -np.float64(np.float32(layer.beta))
    return normalised.reshape(rows, cols, channels)


def _padded(x: npt.NDArray[Any], window: Window, value: float) -> tuple[F64, int, int]:
    """The padded tensor, and how many rows and columns of windows fit it."""
    top, left, bottom, right = window.pads
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=value)
    rows = (padded.shape[0] - window.rows) // window.stride_rows + 1
    cols = (padded.shape[1] - window.cols) // window.stride_cols + 1
    return padded, rows, cols


def _seen(padded: F64, window: Window, row: int, col: int, rows: int, cols: int) -> F64:
    """What kernel cell (row, col) sees at every one of the rows x cols window positions."""
    return padded[
        row : row + (rows - 1) * window.stride_rows + 1 : window.stride_rows,
        col : col + (cols - 1) * window.stride_cols + 1 : window.stride_cols,
    ]
