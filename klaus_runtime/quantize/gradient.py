"""Gradients of a network's logits, backwards through every kind of layer, in float32 and batches.

What quantizers need of them: how much an error of a layer's output costs at the end (importance.py), and which way to
move scales, biases and codebooks (tune.py). Activations are (n, rows, cols, channels); a slope is the gradient of the
loss, of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from klaus_runtime import evaluate
from klaus_runtime.model import (
    F32,
    NETWORK_INPUT,
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
    Weights,
    Window,
)

# (number, layer, its inputs, its output, slope of the output before the activation) of each layer with weights
Visit = Callable[[int, "Convolution | FullConnect", Sequence[F32], F32, F32], None]


class Graph:
    """A model whose gradient can be taken; float32 weights are expanded once."""

    def __init__(self, model: Model) -> None:
        """Raises InputError for a kind of layer that the fast engine does not know."""
        self.model = model
        self._steps = [evaluate.prepare(layer) for layer in model.layers]
        self._weights = {
            number: layer.weights.effective()
            for number, layer in enumerate(model.layers)
            if isinstance(layer, Convolution | FullConnect)
        }

    def forward(self, tensors: F32) -> list[F32]:
        """The outputs of all layers for a batch."""
        outputs: list[F32] = []
        for layer, step in zip(self.model.layers, self._steps, strict=True):
            outputs.append(step(self._inputs(layer, tensors, outputs)))
        return outputs

    def backward(self, tensors: F32, outputs: Sequence[F32], slope: F32, visit: Visit) -> None:
        """From the slope of the last output back to the first layer; `visit` sees every layer with weights."""
        slopes: dict[int, F32] = {len(outputs) - 1: slope.reshape(outputs[-1].shape)}
        for number in reversed(range(len(outputs))):
            layer, output = self.model.layers[number], outputs[number]
            own = slopes.pop(number, None)
            if own is None:
                continue
            inputs = self._inputs(layer, tensors, outputs)
            if isinstance(layer, Convolution | FullConnect | Add | Activate):
                own = _through_activation(own, output, layer.activation)
            if isinstance(layer, Convolution | FullConnect):
                visit(number, layer, inputs, output, own)
            if all(source == NETWORK_INPUT for source in layer.inputs):
                continue
            for source, found in zip(layer.inputs, self._slopes(number, layer, inputs, output, own), strict=True):
                if source != NETWORK_INPUT:
                    slopes[source] = slopes[source] + found if source in slopes else found

    def _inputs(self, layer: Layer, tensors: F32, outputs: Sequence[F32]) -> list[F32]:
        return [tensors if source == NETWORK_INPUT else outputs[source] for source in layer.inputs]

    def _slopes(self, number: int, layer: Layer, inputs: Sequence[F32], output: F32, slope: F32) -> list[F32]:
        x = inputs[0]
        if isinstance(layer, Convolution):
            return [_convolution(layer, self._weights[number], x, slope)]
        if isinstance(layer, FullConnect):
            return [(slope.reshape(len(x), -1) @ self._weights[number]).reshape(x.shape)]
        if isinstance(layer, Pool):
            return [_max_pool(layer, x, output, slope) if layer.kind == "max" else _average_pool(layer, x, slope)]
        if isinstance(layer, GlobalPool):
            return [np.broadcast_to(slope / np.float32(x.shape[1] * x.shape[2]), x.shape)]
        if isinstance(layer, LocalResponseNorm):
            return [_normalised(layer, x, slope)]
        if isinstance(layer, Add):
            return [slope for _ in inputs]
        if isinstance(layer, Concat):
            ends = np.cumsum([given.shape[3] for given in inputs])[:-1]
            return np.split(slope, ends, axis=3)
        if isinstance(layer, Slice):
            result = np.zeros_like(x)
            result[..., layer.begin : layer.begin + layer.channels] = slope
            return [result]
        if isinstance(layer, Softmax):
            return [output * (slope - (output * slope).sum(axis=3, keepdims=True))]
        return [slope]


def weight_slope(layer: Convolution | FullConnect, x: F32, slope: F32) -> F32:
    """Gradient of the effective weights, of their shape, summed over a batch."""
    shape = layer.weights.values.shape
    if isinstance(layer, FullConnect):
        return slope.reshape(len(x), -1).T @ x.reshape(len(x), -1)
    window, groups = layer.window, layer.groups
    outputs = slope.shape[3]
    if groups == 1 and window == Window(1, 1):
        return (slope.reshape(-1, outputs).T @ x.reshape(-1, x.shape[3])).reshape(shape)
    padded = _padded(x, window)
    result = np.empty(shape, np.float32)
    width = shape[3]
    for row in range(window.rows):
        for col in range(window.cols):
            seen = _seen(padded, window, row, col, slope)
            if width == 1 and groups == outputs:
                result[:, row, col, 0] = np.einsum("nrck,nrck->k", seen, slope)
                continue
            for group in range(groups):
                part = slice(group * (outputs // groups), (group + 1) * (outputs // groups))
                given = seen[..., group * width : (group + 1) * width].reshape(-1, width)
                result[part, row, col] = slope[..., part].reshape(-1, outputs // groups).T @ given
    return result


def _through_activation(slope: F32, output: F32, activation: Activation) -> F32:
    if activation is Activation.RELU:
        return slope * (output > 0)
    if activation is Activation.RELU6:
        return slope * ((output > 0) & (output < 6))
    return slope


def _convolution(layer: Convolution, weights: F32, x: F32, slope: F32) -> F32:
    window, groups = layer.window, layer.groups
    outputs, width = weights.shape[0], weights.shape[3]
    if groups == 1 and window == Window(1, 1):
        return (slope.reshape(-1, outputs) @ weights.reshape(outputs, width)).reshape(x.shape)
    if width == 1 and groups == outputs and window.stride_rows == window.stride_cols == 1:
        return _depthwise(layer, x, slope)
    result = _padded(np.zeros_like(x), window)
    for row in range(window.rows):
        for col in range(window.cols):
            target = _seen(result, window, row, col, slope)
            if width == 1 and groups == outputs:
                target += slope * weights[:, row, col, 0]
                continue
            for group in range(groups):
                part = slice(group * (outputs // groups), (group + 1) * (outputs // groups))
                target[..., group * width : (group + 1) * width] += slope[..., part] @ weights[part, row, col]
    return _cropped(result, window)


def _depthwise(layer: Convolution, x: F32, slope: F32) -> F32:
    """With stride 1 the gradient is a depthwise convolution too, by the kernel turned round."""
    window = layer.window
    top, left, bottom, right = window.pads
    down, across = window.rows - 1, window.cols - 1
    turned = np.ascontiguousarray(layer.weights.effective()[:, ::-1, ::-1])
    pads = (down - top, across - left, down - bottom, across - right)
    if min(pads) < 0:  # padding wider than the kernel: what only the padding saw falls away
        slope = slope[:, max(0, -pads[0]) : slope.shape[1] - max(0, -pads[2])]
        slope = slope[:, :, max(0, -pads[1]) : slope.shape[2] - max(0, -pads[3])]
        pads = (max(0, pads[0]), max(0, pads[1]), max(0, pads[2]), max(0, pads[3]))
    back = Convolution(
        layer.name,
        layer.inputs,
        Window(window.rows, window.cols, 1, 1, pads),
        Weights(turned, np.zeros(len(turned), np.float32)),
        layer.groups,
    )
    return evaluate.prepare(back)([slope]).reshape(x.shape)


def _max_pool(layer: Pool, x: F32, output: F32, slope: F32) -> F32:
    """To the first cell that has the maximum."""
    window = layer.window
    padded = np.pad(x, _pad_widths(window), constant_values=-np.inf)
    result = np.zeros_like(padded)
    rest = slope.copy()
    for row in range(window.rows):
        for col in range(window.cols):
            won = _seen(padded, window, row, col, slope) == output
            target = _seen(result, window, row, col, slope)
            target += np.where(won, rest, 0)
            rest[won] = 0
    return _cropped(result, window)


def _average_pool(layer: Pool, x: F32, slope: F32) -> F32:
    window = layer.window
    inside = _padded(np.ones((1, *x.shape[1:3], 1), np.float32), window)
    cells = sum(
        _seen(inside, window, row, col, slope).copy() for row in range(window.rows) for col in range(window.cols)
    )
    share = slope / cells
    result = _padded(np.zeros_like(x), window)
    for row in range(window.rows):
        for col in range(window.cols):
            target = _seen(result, window, row, col, slope)
            target += share
    return _cropped(result, window)


def _normalised(layer: LocalResponseNorm, x: F32, slope: F32) -> F32:
    """d/dx of x * base ** -beta, base = kappa + alpha * window sum of x * x."""
    width = x.shape[3] // layer.groups
    reach = min(layer.size // 2, width - 1)

    def window_sums(values: F32) -> F32:
        split = values.reshape(*values.shape[:3], layer.groups, width)
        sums = split.copy()
        for step in range(1, reach + 1):
            sums[..., step:] += split[..., :-step]
            sums[..., :-step] += split[..., step:]
        return sums.reshape(values.shape)

    base = np.float32(layer.kappa) + np.float32(layer.alpha) * window_sums(x * x)
    power = base ** np.float32(-layer.beta)
    back = window_sums(slope * x * power / base)
    result: F32 = slope * power - np.float32(2 * layer.alpha * layer.beta) * x * back
    return result


def _pad_widths(window: Window) -> tuple[tuple[int, int], ...]:
    top, left, bottom, right = window.pads
    return ((0, 0), (top, bottom), (left, right), (0, 0))


def _padded(x: F32, window: Window) -> F32:
    return np.pad(x, _pad_widths(window)) if any(window.pads) else x


def _cropped(padded: F32, window: Window) -> F32:
    top, left, bottom, right = window.pads
    return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]


def _seen(padded: F32, window: Window, row: int, col: int, like: F32) -> F32:
    """The cells (row, col) of all windows, as a view; like: of the output's shape."""
    rows, cols = like.shape[1:3]
    return padded[
        :,
        row : row + (rows - 1) * window.stride_rows + 1 : window.stride_rows,
        col : col + (cols - 1) * window.stride_cols + 1 : window.stride_cols,
    ]


def log_softmax(logits: F32) -> F32:
    """Over the last axis, in float64 inside."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    result: F32 = wide.astype(np.float32)
    return result


def kl_divergence(exact: F32, quantized: F32) -> F32:
    """KL(exact || quantized) of each row of logits, in nats."""
    a, b = log_softmax(exact).astype(np.float64), log_softmax(quantized).astype(np.float64)
    result: F32 = (np.exp(a) * (a - b)).sum(axis=-1).astype(np.float32)
    return result
