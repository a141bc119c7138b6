"""What each ONNX operator becomes: one function an operator, from a node to the values of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from klaus_runtime import shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    Activation,
    Add,
    Concat,
    Convolution,
    FullConnect,
    GlobalPool,
    LocalResponseNorm,
    Pool,
    Slice,
    Softmax,
    Weights,
    Window,
)
from klaus_runtime.readers.onnx_graph import Array, Graph, Node, Value, f32
from klaus_runtime.readers.windows import ceil_pad, same_pads

_LARGEST = 3e38  # Clip's way to say that there is no limit

Handler = Callable[[Graph, Node], Sequence[Value | Array | None]]


def _same(_graph: Graph, node: Node) -> Sequence[Value | Array]:
    found = node.inputs[0] if node.inputs else None
    if found is None:
        raise InputError("has no input")
    return [found]


def _dropout(graph: Graph, node: Node) -> Sequence[Value | Array]:
    node.take("ratio", 0.5)
    node.take("seed", 0)
    if node.given(2) and node.constant(2).any():
        raise InputError("drops at random (training_mode): export the network for inference")
    return _same(graph, node)


def _constant(_graph: Graph, node: Node) -> Sequence[Array]:
    if len(node.attributes) != 1:
        raise InputError(f"has {len(node.attributes)} values; a constant has one")
    name, value = node.attributes.popitem()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name == "value" and isinstance(value, np.ndarray):
        return [value]
    if name not in kinds or isinstance(value, np.ndarray | str):
        raise InputError(f"its attribute {name[:60]!a} is not supported")
    return [np.array(value, kinds[name])]


# ------------------------------------------------------------------------------------------ layers with weights


def _conv(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.picture(padded=True)
    raw = node.floats(1)
    if raw.ndim != 4:
        raise InputError(f"has weights of {raw.ndim} dimensions; only two-dimensional convolutions are supported")
    groups = node.take("group", 1)
    kernel = node.pair("kernel_shape", (raw.shape[2], raw.shape[3]))
    if kernel != raw.shape[2:]:
        raise InputError(f"says its kernel is {kernel}, but its weights are {raw.shape}")
    window, _ = _window(node, value, kernel)
    values = graph.weights(node, 1, ("conv",), lambda array: array.transpose(0, 2, 3, 1))
    bias = _bias(node, 2, raw.shape[0])
    return [graph.add(Convolution(node.name, (value.layer,), window, Weights(values, bias), groups))]


def _bias(node: Node, index: int, outputs: int) -> F32:
    if not node.given(index):
        return np.zeros(outputs, np.float32)
    bias = node.floats(index)
    if bias.shape != (outputs,):
        raise InputError(f"has a bias {bias.shape}; ({outputs},) is needed")
    return f32(bias)


def _gemm(graph: Graph, node: Node) -> Sequence[Value]:
    if node.take("transA", 0):
        raise InputError("transposes its input (transA), which is not supported")
    turned = bool(node.take("transB", 0))
    alpha, beta = float(node.take("alpha", 1.0)), float(node.take("beta", 1.0))
    value = _full_connect(graph, node, turned=turned)
    layer = graph.layers[value.layer]
    outputs = value.channels
    bias: Array = np.zeros(outputs)
    if node.given(2):
        given = node.floats(2).astype(np.float64)
        if given.ndim > 2 or given.shape not in ((), (1,), (outputs,), (1, 1), (1, outputs)):
            raise InputError(f"has a bias {given.shape}; ({outputs},) is needed")
        bias = np.broadcast_to(given.reshape(-1), (outputs,)) * beta
    scale = None if alpha == 1 else np.full(outputs, alpha)
    if isinstance(layer, FullConnect):
        weights = replace(layer.weights, bias=f32(bias), scale=None if scale is None else f32(scale))
        graph.layers[value.layer] = replace(layer, weights=weights)
    return [value]


def _matmul(graph: Graph, node: Node) -> Sequence[Value]:
    return [_full_connect(graph, node, turned=False)]


def _full_connect(graph: Graph, node: Node, *, turned: bool) -> Value:
    """W x; `turned`: the constant is (outputs, inputs) already."""
    value = node.value()
    raw = node.floats(1)
    if not value.flat or raw.ndim != 2:
        raise InputError("multiplies by a matrix of more than 2 dimensions, or what was not flattened: not supported")
    rows, cols, channels = value.rows, value.cols, value.channels
    inputs = raw.shape[1 if turned else 0]
    if inputs != rows * cols * channels:
        raise InputError(f"takes {inputs} inputs, but gets {rows * cols * channels}")

    def reorder(array: Array) -> Array:
        ours = array if turned else array.T
        return ours.reshape(-1, channels, rows, cols).transpose(0, 2, 3, 1).reshape(len(ours), -1)

    values = graph.weights(node, 1, ("full", turned, channels, rows, cols), reorder)
    weights = Weights(values, np.zeros(len(values), np.float32))
    return graph.add(FullConnect(node.name, (value.layer,), weights), flat=True)


def _batch_norm(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.value()
    epsilon = float(node.take("epsilon", 1e-5))
    node.take("momentum", 0.9)
    if node.take("training_mode", 0) or node.take("spatial", 1) != 1:
        raise InputError("is in training mode, or not one of channels: not supported")
    channels = value.channels
    gamma, beta, mean, variance = (node.floats(index).astype(np.float64) for index in range(1, 5))
    if any(array.shape != (channels,) for array in (gamma, beta, mean, variance)):
        raise InputError(f"has constants that are not ({channels},)")
    if value.flat and value.rows * value.cols != 1:
        raise InputError("normalises a flattened picture, which is not supported")
    if not (variance + epsilon > 0).all():
        raise InputError("has a variance below 0")
    scale = gamma / np.sqrt(variance + epsilon)
    return [graph.scaled(node, value, scale, beta - mean * scale)]


def _add(graph: Graph, node: Node) -> Sequence[Value]:
    """Add, and Sum, which takes any number."""
    if not node.inputs or len(node.inputs) > shapes.MAX_LAYERS:
        raise InputError(f"has {len(node.inputs)} inputs")
    constants = [found for found in node.inputs if isinstance(found, np.ndarray)]
    values = [node.value(index) for index, found in enumerate(node.inputs) if not isinstance(found, np.ndarray)]
    if not values or (constants and len(node.inputs) != 2):
        raise InputError("adds constants alone, or more than two inputs of which some are constants: not supported")
    if constants:
        constant = _per_channel(constants[0], values[0])
        return [graph.scaled(node, values[0], None, constant)]
    total = values[0]
    for value in values[1:]:
        if total.sizes != value.sizes or (total.rows, total.cols) != (value.rows, value.cols):
            raise InputError(f"adds {total.sizes} and {value.sizes}: only equal shapes are supported")
        total = graph.add(Add(node.name, (total.layer, value.layer)), flat=total.flat)
    return [total]


def _mul(graph: Graph, node: Node) -> Sequence[Value]:
    """By a constant a channel, as a batch norm may be written."""
    constants = [found for found in node.inputs if isinstance(found, np.ndarray)]
    if len(node.inputs) != 2 or len(constants) != 1:
        raise InputError("multiplies two inputs; only one number a channel is supported")
    value = node.value(0 if constants[0] is node.inputs[1] else 1)
    return [graph.scaled(node, value, _per_channel(constants[0], value), np.zeros(value.channels))]


def _unsqueeze(graph: Graph, node: Node) -> Sequence[Array]:
    """Of constants, as exporters write those that are broadcast."""
    constant = node.constant(0)
    axes = node.take("axes", []) if graph.opset < 13 else node.whole_numbers(1)
    if not axes or len(axes) + constant.ndim > 8 or len(set(axes)) != len(axes):
        raise InputError(f"adds axes {axes[:9]} to a constant {constant.shape}")
    try:
        return [np.expand_dims(constant, tuple(axes))]
    except ValueError as error:
        raise InputError(f"adds axes {axes} to a constant {constant.shape}") from error


def _per_channel(constant: Array, value: Value) -> Array:
    if constant.dtype not in (np.float32, np.float16):
        raise InputError(f"takes a constant of {constant.dtype}; float32 and float16 are supported")
    return _channels(constant, value)


def _channels(constant: Array, value: Value) -> Array:
    """A constant that is broadcast over rows and columns, as float64 (channels,)."""
    sizes = value.sizes
    if constant.size == 1:
        return np.full(value.channels, float(constant.reshape(())))
    shape = (1,) * (len(sizes) + 1 - constant.ndim) + constant.shape
    if len(shape) != len(sizes) + 1 or shape[1] != value.channels or math.prod(shape) != value.channels:
        raise InputError(f"takes a constant {constant.shape} for {sizes}: only one number a channel is supported")
    return constant.reshape(-1).astype(np.float64)


# ---------------------------------------------------------------------------------------------- windows and pads


_Pads = tuple[int, int, int, int]


def _sums(one: _Pads, other: _Pads) -> _Pads:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _window(node: Node, value: Value, kernel: tuple[int, int], *, pool: bool = False) -> tuple[Window, _Pads]:
    """Kernel, strides and the four pads that auto_pad, pads, ceil_mode and a Pad before it make together.

    Also the pads that the node itself names, by number or rule.
    """
    strides = node.pair("strides")
    if node.pair("dilations") != (1, 1):
        raise InputError("is dilated, which is not supported")
    if not all(1 <= size <= shapes.MAX_DIMENSION for size in (*kernel, *strides)):
        raise InputError(f"has a window of {kernel} at strides {strides}")
    rule = node.take("auto_pad", "NOTSET") or "NOTSET"
    listed = node.take("pads", [0] * 4)
    ceil = pool and bool(node.take("ceil_mode", 0))
    sizes = (value.rows + value.pads[0] + value.pads[2], value.cols + value.pads[1] + value.pads[3])
    if len(listed) != 4 or not all(isinstance(pad, int) and 0 <= pad <= shapes.MAX_DIMENSION for pad in listed):
        raise InputError(f"has pads {listed[:9]}; four numbers from 0 are supported")
    if rule in ("SAME_UPPER", "SAME_LOWER"):
        behind = rule == "SAME_UPPER"
        (top, bottom), (left, right) = (
            same_pads(size, window, stride, odd_behind=behind)
            for size, window, stride in zip(sizes, kernel, strides, strict=True)
        )
    elif rule in ("NOTSET", "VALID"):
        top, left, bottom, right = listed if rule == "NOTSET" else (0, 0, 0, 0)
    else:
        raise InputError(f"pads by the rule {rule[:40]!a}, which is not known")
    own = (top, left, bottom, right)
    pads = own
    if ceil:
        if rule != "NOTSET":
            raise InputError("rounds up (ceil_mode) and pads by a rule, which is not supported together")
        bottom = ceil_pad(sizes[0], kernel[0], strides[0], top, bottom)
        right = ceil_pad(sizes[1], kernel[1], strides[1], left, right)
        pads = (top, left, bottom, right)
    return Window(*kernel, *strides, _sums(pads, value.pads)), own


def _pad(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.picture(padded=True)
    if node.take("mode", "constant") != "constant":
        raise InputError("pads by something else than a constant, which is not supported")
    filler = node.constant(2).reshape(-1).tolist() if node.given(2) else [node.take("value", 0.0)]
    pads = node.take("pads", []) if graph.opset < 11 else node.whole_numbers(1)
    if node.given(3) or filler not in ([0], []):
        raise InputError("pads some axes only, or by something else than 0: not supported")
    if len(pads) != 8 or any(pads[axis] for axis in (0, 1, 4, 5)) or min(pads) < 0:
        raise InputError(f"has pads {pads[:16]}; zeros around rows and columns are supported")
    added = (pads[2], pads[3], pads[6], pads[7])
    top, left, bottom, right = (old + new for old, new in zip(value.pads, added, strict=True))
    if max(top, left, bottom, right) > shapes.MAX_DIMENSION:
        raise InputError(f"has pads {pads}, which are too large")
    return [replace(value, pads=(top, left, bottom, right))]


def _max_pool(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.picture()
    node.take("storage_order", 0)
    window, _ = _window(node, value, node.pair("kernel_shape", None), pool=True)
    return [graph.add(Pool(node.name, (value.layer,), window, "max"))]


def _average_pool(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.picture(padded=True)
    kernel = node.pair("kernel_shape", None)
    window, own = _window(node, value, kernel, pool=True)
    own_count = bool(node.take("count_include_pad", 0))
    if not any(value.pads) and not (own_count and any(own)):
        return [graph.add(Pool(node.name, (value.layer,), window, "average"))]
    if any(own) and not own_count:
        raise InputError("pads what a Pad made, and counts only one of both: not supported")
    if window.pads != _sums(own, value.pads):
        raise InputError("rounds up (ceil_mode) and counts its padding, which is not supported together")
    # Zeros that count: a convolution of each channel with equal weights.
    scale = np.full(value.channels, 1 / math.prod(kernel), np.float32)
    weights = Weights(graph.equal_weights(value.channels, kernel), np.zeros(value.channels, np.float32), scale)
    return [graph.add(Convolution(node.name, (value.layer,), window, weights, groups=value.channels))]


def _global_average(graph: Graph, node: Node) -> Sequence[Value]:
    return [graph.add(GlobalPool(node.name, (node.picture().layer,)))]


# ------------------------------------------------------------------------------------------------- all the others


def _relu(graph: Graph, node: Node) -> Sequence[Value]:
    return [graph.activated(node, node.value(), Activation.RELU)]


def _clip(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.value()
    low, high = float(node.take("min", -math.inf)), float(node.take("max", math.inf))
    if graph.opset >= 11:
        low, high = (
            float(node.constant(index).reshape(-1)[0]) if node.given(index) and node.constant(index).size == 1 else rest
            for index, rest in ((1, -math.inf), (2, math.inf))
        )
    if low <= -_LARGEST and high >= _LARGEST:
        return [value]
    if low == 0 and high >= _LARGEST:
        return [graph.activated(node, value, Activation.RELU)]
    if low == 0 and high == 6:
        return [graph.activated(node, value, Activation.RELU6)]
    raise InputError(f"limits to {low:g} .. {high:g}; 0 .. 6 (ReLU6) and 0 .. infinity (ReLU) are supported")


def _lrn(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.picture()
    size = node.take("size", 0)
    alpha, beta, bias = node.take("alpha", 1e-4), node.take("beta", 0.75), node.take("bias", 1.0)
    if size % 2 == 0 or not 1 <= size <= shapes.MAX_DIMENSION:
        raise InputError(f"has a window of {size} channels; odd ones are supported")
    kappa, mean_alpha, power = (float(np.float32(number)) for number in (bias, alpha / size, beta))
    return [graph.add(LocalResponseNorm(node.name, (value.layer,), size, kappa, mean_alpha, power))]


def _concat(graph: Graph, node: Node) -> Sequence[Value]:
    values = [node.value(index) for index in range(len(node.inputs))]
    if not values:
        raise InputError("has no inputs")
    _check_axis(values[0], node.take("axis", 1))
    if any(value.flat != values[0].flat or (value.flat and value.rows * value.cols != 1) for value in values):
        raise InputError("joins flattened pictures, which is not supported")
    joined = values[0]
    for begin in range(1, len(values), shapes.MAX_INPUTS - 1):
        part = values[begin : begin + shapes.MAX_INPUTS - 1]
        layer = Concat(node.name, (joined.layer, *(value.layer for value in part)))
        joined = graph.add(layer, flat=joined.flat)
    return [joined]


def _check_axis(value: Value, axis: int) -> None:
    rank = 1 + len(value.sizes)
    if axis not in (1, 1 - rank):
        raise InputError(f"works along axis {axis}; only that of channels is supported")
    if value.flat and value.rows * value.cols != 1:
        raise InputError("works on a flattened picture, which is not supported")


def _cut(graph: Graph, node: Node, value: Value, begin: int, end: int) -> Value:
    if (begin, end) == (0, value.channels):
        return value
    return graph.add(Slice(node.name, (value.layer,), begin, end - begin), flat=value.flat)


def _split(graph: Graph, node: Node) -> Sequence[Value | None]:
    value = node.value()
    _check_axis(value, node.take("axis", 0))
    count = len(node.outputs)
    wanted = node.take("num_outputs", count)
    sizes = node.whole_numbers(1) if node.given(1) else node.take("split", [])
    if not sizes:
        each = -(-value.channels // count) if count else 0
        if graph.opset < 18 and value.channels % max(count, 1):
            raise InputError(f"splits {value.channels} channels into {count} equal parts")
        sizes = [each] * (count - 1) + [value.channels - each * (count - 1)]
    if len(sizes) != count or wanted != count or min(sizes) < 1 or sum(sizes) != value.channels:
        raise InputError(f"splits {value.channels} channels into {sizes[:16]}, {count} outputs")
    made: list[Value | None] = []
    begin = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        made.append(_cut(graph, node, value, begin, begin + size) if graph.uses[name] else None)
        begin += size
    return made


def _slice(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.value()
    rank = 1 + len(value.sizes)
    if graph.opset < 10:
        starts, ends = node.take("starts", []), node.take("ends", [])
        axes, steps = node.take("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = node.whole_numbers(1), node.whole_numbers(2)
        axes = node.whole_numbers(3) if node.given(3) else list(range(len(starts)))
        steps = node.whole_numbers(4) if node.given(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or any(step != 1 for step in steps):
        raise InputError("has starts, ends, axes and steps that do not fit, or steps other than 1")
    begin, end = 0, value.channels
    seen = set()
    for start, stop, axis in zip(starts, ends, axes, strict=True):
        place = axis + rank if axis < 0 else axis
        if place in seen or not 0 <= place < rank:
            raise InputError(f"slices axis {axis} of {rank}, or one twice")
        seen.add(place)
        if place == 1:
            _check_axis(value, 1)
            begin, end = slice(start, stop).indices(value.channels)[:2]
        elif place == 0:
            if start != 0 or stop < (graph.batch or (1 << 31) - 1):
                raise InputError("slices the batch, which is not supported")
        elif slice(start, stop).indices(value.sizes[place - 1])[:2] != (0, value.sizes[place - 1]):
            raise InputError("slices rows or columns; only channels are supported")
    if begin >= end:
        raise InputError(f"slices channels {begin} to {end} of {value.channels}: nothing is left")
    return [_cut(graph, node, value, begin, end)]


def _flatten(_graph: Graph, node: Node) -> Sequence[Value]:
    value = node.value()
    axis = node.take("axis", 1)
    if axis not in (1, -len(value.sizes)):
        raise InputError(f"flattens from axis {axis}; 1 is supported")
    return [replace(value, flat=True)]


def _reshape(graph: Graph, node: Node) -> Sequence[Value | Array]:
    sizes = node.whole_numbers(1)
    zero_copies = not node.take("allowzero", 0)
    found = node.inputs[0]
    if isinstance(found, np.ndarray):
        try:
            return [found.reshape([found.shape[i] if s == 0 and zero_copies else s for i, s in enumerate(sizes)])]
        except (ValueError, IndexError) as error:
            raise InputError(f"brings a constant {found.shape} to {sizes}, which does not fit") from error
    value = node.value()
    old = (graph.batch or 1, *value.sizes)
    if any(size == 0 and (not zero_copies or place >= len(old)) for place, size in enumerate(sizes)):
        raise InputError(f"brings {value.sizes} to {sizes}, which does not fit")
    wanted = [old[place] if size == 0 else size for place, size in enumerate(sizes)]
    features = math.prod(value.sizes)
    if wanted[1:].count(-1) == 1 and wanted[:1] != [-1]:
        rest = math.prod(size for size in wanted[1:] if size != -1)
        wanted = [features // rest if rest > 0 and size == -1 and features % rest == 0 else size for size in wanted]
    if wanted[:1] in ([graph.batch or 1], [-1]):
        if wanted[1:] == [features]:
            return [replace(value, flat=True)]
        if wanted[1:] == [value.channels, value.rows, value.cols]:
            return [replace(value, flat=False)]
    raise InputError(f"brings {value.sizes} to {sizes}; only flattening is supported")


def _softmax(graph: Graph, node: Node) -> Sequence[Value]:
    value = node.value()
    axis = node.take("axis", -1 if graph.opset >= 13 else 1)
    rank = 1 + len(value.sizes)
    # Before operator set 13 it runs over all axes from this one on, which is the same for one row and column.
    alone = value.rows * value.cols == 1
    if axis not in (1, 1 - rank) or ((value.flat or graph.opset < 13) and not alone):
        raise InputError(f"works along axis {axis} of {value.sizes}; only that of channels is supported")
    return [graph.add(Softmax(node.name, (value.layer,)), flat=value.flat)]


HANDLERS: Mapping[str, Handler] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _same,
    "LRN": _lrn,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Pad": _pad,
    "Relu": _relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sum": _add,
    "Unsqueeze": _unsqueeze,
}
