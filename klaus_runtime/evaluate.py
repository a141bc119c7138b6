"""The fast engine: the same networks in batches, over numpy's BLAS, in float32; checked against the numpy oracle.

Scales are multiplied into expanded float32 weights when the engine is made. Convolutions become matrix products
(depthwise ones sums of shifted products), in blocks that bound the memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from klaus_runtime import blas, forward, shapes
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

_BATCH_BYTES = 1 << 25  # of the largest activation of a batch
_COLUMN_BYTES = 1 << 25  # of a convolution's unfolded input
_BLOCK_BYTES = 1 << 18  # of the temporary in depthwise sums: it should stay in the cache

_WORKERS = min(8, os.cpu_count() or 1)

# Inputs (n, rows, cols, channels) -> output (n, ...)
Step = Callable[[Sequence[F32]], F32]


class FastEngine:
    """Runs a model in batches; implements engine.Engine. Results agree with the oracle's to float32 rounding."""

    def __init__(self, model: Model) -> None:
        """Raises InputError for a malformed model. Expands all weights to float32."""
        shapes.validate(model)
        self.model = model
        self._steps = [prepare(layer) for layer in model.layers]
        largest = max(rows * cols * channels for rows, cols, channels in (model.input_shape, *shapes.infer(model)))
        self._batch = max(1, min(64, _BATCH_BYTES // (4 * largest)))

    def activations(self, tensor: F32) -> Iterator[F32]:
        """Yields every layer's output (rows, cols, channels) for one input tensor."""
        tensor = forward.check_tensors(self.model, tensor, batch=False)
        for output in forward.walk(self.model, tensor[None], self._apply):
            yield output[0]

    def logits(self, tensors: F32) -> F32:
        """Last layer's outputs (n, outputs) for tensors (n, rows, cols, channels)."""
        tensors = forward.check_tensors(self.model, tensors, batch=True)
        if not len(tensors):
            return np.empty((0, shapes.outputs(self.model)), np.float32)
        return self._run(tensors, 0, len(self.model.layers)).reshape(len(tensors), -1)

    def probabilities(self, picture: U8, *, patches: Literal[1, 10], crop: Crop = "center") -> F32:
        """Class probabilities (outputs,) of a picture."""
        return forward.probabilities(self.model, self._run, picture, patches=patches, crop=crop)

    def _apply(self, index: int, _layer: Layer, inputs: Sequence[F32]) -> F32:
        return self._steps[index](inputs)

    def _run(self, tensors: F32, first: int, stop: int) -> F32:
        """Layers first .. stop - 1 on a batch, cut into parts that threads compute side by side."""
        size = min(self._batch, math.ceil(len(tensors) / _WORKERS))
        parts = [tensors[begin : begin + size] for begin in range(0, len(tensors), size)]
        if len(parts) == 1:
            return self._run_part(tensors, first, stop)
        with blas.one_thread(), ThreadPoolExecutor(_WORKERS) as pool:
            return np.concatenate(list(pool.map(lambda part: self._run_part(part, first, stop), parts)))

    def _run_part(self, tensors: F32, first: int, stop: int) -> F32:
        output = tensors
        for output in forward.walk(self.model, tensors, self._apply, first, stop):  # noqa: B007
            pass
        return output


def prepare(layer: Layer) -> Step:
    """The layer as a function of a batch, its weights expanded to float32. Raises InputError for an unknown kind."""
    if isinstance(layer, Convolution):
        return _convolution(layer)
    if isinstance(layer, FullConnect):
        return _full_connect(layer)
    if isinstance(layer, Pool):
        return lambda inputs: _pool(layer, inputs[0])
    if isinstance(layer, GlobalPool):
        return lambda inputs: inputs[0].mean(axis=(1, 2), keepdims=True)
    if isinstance(layer, LocalResponseNorm):
        return lambda inputs: _normalise(layer, inputs[0])
    if isinstance(layer, Add):
        return lambda inputs: _activate(inputs[0] + inputs[1], layer.activation)
    if isinstance(layer, Concat):
        return lambda inputs: np.concatenate(inputs, axis=3)
    if isinstance(layer, Slice):
        return lambda inputs: np.ascontiguousarray(inputs[0][..., layer.begin : layer.begin + layer.channels])
    if isinstance(layer, Softmax):
        return lambda inputs: forward.softmax(inputs[0])
    if isinstance(layer, Activate):
        return lambda inputs: _activate(inputs[0].copy(), layer.activation)
    raise InputError(f"layer {layer.name!r} is of a kind that the fast engine does not know")


def _activate(x: F32, activation: Activation) -> F32:
    """In place."""
    if activation is Activation.RELU:
        np.maximum(x, 0, out=x)
    elif activation is Activation.RELU6:
        np.clip(x, 0, 6, out=x)
    return x


def _full_connect(layer: FullConnect) -> Step:
    weights, bias = layer.weights.effective().T, layer.weights.bias

    def run(inputs: Sequence[F32]) -> F32:
        batch = len(inputs[0])
        result: F32 = inputs[0].reshape(batch, -1) @ weights
        result += bias
        return _activate(result, layer.activation).reshape(batch, 1, 1, -1)

    return run


def _convolution(layer: Convolution) -> Step:
    count, _, _, group_inputs = layer.weights.values.shape
    if group_inputs == 1 and layer.groups == count:
        return _depthwise(layer)
    window, groups = layer.window, layer.groups
    weights = layer.weights.effective().reshape(groups, count // groups, -1).transpose(0, 2, 1).copy()
    bias = layer.weights.bias
    pointwise = groups == 1 and window == Window(1, 1)

    def run(inputs: Sequence[F32]) -> F32:
        x = inputs[0]
        if pointwise:
            result: F32 = (x.reshape(-1, x.shape[3]) @ weights[0]).reshape(*x.shape[:3], count)
        else:
            result = _unfolded_product(_padded(x, window, 0), window, weights)
        result += bias
        return _activate(result, layer.activation)

    return run


def _unfolded_product(padded: F32, window: Window, weights: F32) -> F32:
    """Convolution as matrix products over unfolded windows; weights (groups, kernel cells * inputs, outputs)."""
    batch, rows, cols = len(padded), *_window_counts(padded, window)
    groups, depth, outputs = weights.shape
    channels = depth // (window.rows * window.cols)
    result = np.empty((batch, rows, cols, groups * outputs), np.float32)
    step = max(1, _COLUMN_BYTES // (4 * cols * depth))
    for index in range(batch):
        for begin in range(0, rows, step):
            end = min(rows, begin + step)
            strip = padded[index : index + 1, begin * window.stride_rows :]
            for group in range(groups):
                part = strip[..., group * channels : (group + 1) * channels]
                columns = np.empty((end - begin, cols, window.rows, window.cols, channels), np.float32)
                for row in range(window.rows):
                    for col in range(window.cols):
                        columns[:, :, row, col] = _seen(part, window, row, col, end - begin, cols)[0]
                product = columns.reshape(-1, depth) @ weights[group]
                result[index, begin:end, :, group * outputs : (group + 1) * outputs] = product.reshape(
                    end - begin, cols, outputs
                )
    return result


def _depthwise(layer: Convolution) -> Step:
    window, bias = layer.window, layer.weights.bias
    weights = np.ascontiguousarray(layer.weights.effective()[..., 0].transpose(1, 2, 0))

    def run(inputs: Sequence[F32]) -> F32:
        padded = _padded(inputs[0], window, 0)
        batch, rows, cols = len(padded), *_window_counts(padded, window)
        channels = padded.shape[3]
        result = np.empty((batch, rows, cols, channels), np.float32)
        step = max(1, _BLOCK_BYTES // (4 * cols * channels))
        product = np.empty((step, cols, channels), np.float32)
        for index in range(batch):
            for begin in range(0, rows, step):
                total = result[index, begin : begin + step]
                total[:] = bias
                strip = padded[index : index + 1, begin * window.stride_rows :]
                for row in range(window.rows):
                    for col in range(window.cols):
                        seen = _seen(strip, window, row, col, len(total), cols)[0]
                        np.multiply(seen, weights[row, col], out=product[: len(total)])
                        total += product[: len(total)]
                _activate(total, layer.activation)
        return result

    return run


def _pool(layer: Pool, x: F32) -> F32:
    window = layer.window
    padded = _padded(x, window, -np.inf if layer.kind == "max" else 0)
    rows, cols = _window_counts(padded, window)
    inside = _padded(np.ones((1, *x.shape[1:3], 1), np.float32), window, 0)
    result = np.full((len(x), rows, cols, x.shape[3]), -np.inf if layer.kind == "max" else 0, np.float32)
    cells = np.zeros((1, rows, cols, 1), np.float32)
    for row in range(window.rows):
        for col in range(window.cols):
            seen = _seen(padded, window, row, col, rows, cols)
            if layer.kind == "max":
                np.maximum(result, seen, out=result)
            else:
                result += seen
                cells += _seen(inside, window, row, col, rows, cols)
    if layer.kind == "average":
        result /= cells
    return result


def _normalise(layer: LocalResponseNorm, x: F32) -> F32:
    width = x.shape[3] // layer.groups
    reach = layer.size // 2
    squares = (x * x).reshape(*x.shape[:3], layer.groups, width)
    sums = squares.copy()
    for step in range(1, min(reach, width - 1) + 1):
        sums[..., step:] += squares[..., :-step]
        sums[..., :-step] += squares[..., step:]
    base = np.float32(layer.kappa) + np.float32(layer.alpha) * sums.reshape(x.shape)
    if layer.beta == 0.75:  # as two square roots: several times faster than a power
        root = np.sqrt(base)
        root *= np.sqrt(root)
        quotient: F32 = x / root
        return quotient
    return x * base ** np.float32(-layer.beta)


def _padded(x: F32, window: Window, value: float) -> F32:
    top, left, bottom, right = window.pads
    if not any(window.pads):
        return x
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def _window_counts(padded: F32, window: Window) -> tuple[int, int]:
    return (
        (padded.shape[1] - window.rows) // window.stride_rows + 1,
        (padded.shape[2] - window.cols) // window.stride_cols + 1,
    )


def _seen(padded: F32, window: Window, row: int, col: int, rows: int, cols: int) -> F32:
    """What kernel cell (row, col) sees at every one of the rows x cols window positions."""
    return padded[
        :,
        row : row + (rows - 1) * window.stride_rows + 1 : window.stride_rows,
        col : col + (cols - 1) * window.stride_cols + 1 : window.stride_cols,
    ]
