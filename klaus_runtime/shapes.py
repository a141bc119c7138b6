"""Shape inference, validation and cost of a Model: the one place that says what a well-formed network is.

Every reader returns a model that `validate` passed; writers and engines may rely on it. The limits are those of the
packed model (kernels/include/klaus/format.h), so that what is valid here can be packed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    NETWORK_INPUT,
    Activate,
    Add,
    CcvFormation,
    Concat,
    Convolution,
    CropFormation,
    FullConnect,
    GlobalPool,
    Label,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Slice,
    Softmax,
    Weights,
    Window,
)

Shape = tuple[int, int, int]  # rows, cols, channels

MAX_LAYERS = 4096
MAX_INPUTS = 8
MAX_DIMENSION = 65536
MAX_ELEMENTS = 1 << 28  # of one activation or one layer's weights: 1 GiB of float32
MAX_TEXT_BYTES = 1 << 16
NAME_BYTES = 63


def infer(model: Model, rows: int | None = None, cols: int | None = None, *, until: int | None = None) -> list[Shape]:
    """Output shapes (rows, cols, channels) of layers 0 .. until (default: all).

    rows, cols: of the input tensor, by default the model's own. Raises InputError, naming the layer, where something
    does not fit; a full connect layer fits one input size only, so other sizes need an `until` before it.
    """
    source: Shape = (
        model.input_shape[0] if rows is None else rows,
        model.input_shape[1] if cols is None else cols,
        model.input_shape[2],
    )
    _check_shape(source, f"the input of model {model.name!r}")
    last = len(model.layers) - 1 if until is None else until
    if not -1 <= last < len(model.layers):
        raise InputError(f"shapes up to layer {last} were asked for, but {model.name!r} has {len(model.layers)} layers")
    shapes: list[Shape] = []
    for index, layer in enumerate(model.layers[: last + 1]):
        what = describe(index, layer)
        if not 1 <= len(layer.inputs) <= MAX_INPUTS:
            raise InputError(f"{what} reads {len(layer.inputs)} layers; 1 to {MAX_INPUTS} are possible")
        for read in layer.inputs:
            if not NETWORK_INPUT <= read < index:
                raise InputError(f"{what} reads layer {read}; only the network input (-1) and earlier layers can be")
        inputs = [source if read == NETWORK_INPUT else shapes[read] for read in layer.inputs]
        shapes.append(output_shape(layer, inputs, what))
    return shapes


def output_shape(layer: Layer, inputs: list[Shape], what: str) -> Shape:
    """Shape of a layer's output for its inputs' shapes; `what` is how errors call the layer. Raises InputError."""
    shape = _output(layer, inputs, what)
    _check_shape(shape, f"the output of {what}")
    return shape


def validate(model: Model) -> None:
    """Raises InputError with the first thing that makes `model` malformed; returns for a well-formed one."""
    _check_text(model.name, "the model's name", NAME_BYTES)
    if not 1 <= len(model.layers) <= MAX_LAYERS:
        raise InputError(f"model {model.name!r} has {len(model.layers)} layers; 1 to {MAX_LAYERS} are possible")
    for index, layer in enumerate(model.layers):
        _check_text(layer.name, f"the name of layer {index}", NAME_BYTES)
    shapes = infer(model)
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Convolution | FullConnect):
            _check_weights(layer.weights, describe(index, layer))
    if shapes[-1][:2] != (1, 1):
        raise InputError(
            f"model {model.name!r} ends in a layer of {shapes[-1][0]} x {shapes[-1][1]} positions; "
            "a classifier ends in 1 x 1 x classes"
        )
    _check_labels(model.labels, shapes[-1][2], model.name)
    _check_formation(model)
    if model.patches not in (1, 10):
        raise InputError(f"model {model.name!r} asks for {model.patches} patches; 1 and 10 are possible")
    if model.ranges and len(model.ranges) != len(model.layers) + 1:
        raise InputError(
            f"model {model.name!r} has {len(model.ranges)} ranges; it needs none or {len(model.layers) + 1}"
        )
    for measured in model.ranges:
        if measured is not None and not (
            math.isfinite(measured.low) and math.isfinite(measured.high) and measured.low <= measured.high
        ):
            raise InputError(f"model {model.name!r} has an activation range {measured.low} .. {measured.high}")
    for text, what in (
        (model.provenance.source, "source"),
        (model.provenance.licence, "licence"),
        (model.provenance.attribution, "attribution"),
        (model.provenance.scheme, "scheme"),
    ):
        _check_text(text, f"the {what} of model {model.name!r}", MAX_TEXT_BYTES, empty=True)


def multiplies(model: Model, shapes: Sequence[Shape] | None = None) -> list[int]:
    """Multiply-adds of each layer's weights for the given shapes (default: the nominal ones); 0 without weights."""
    shapes = infer(model) if shapes is None else shapes
    counts = []
    for layer, (rows, cols, _) in zip(model.layers, shapes, strict=True):
        counts.append(layer.weights.values.size * rows * cols if isinstance(layer, Convolution | FullConnect) else 0)
    return counts


def weight_count(model: Model) -> int:
    """Number of weights of all layers, biases and scales not counted."""
    return sum(layer.weights.values.size for layer in model.layers if isinstance(layer, Convolution | FullConnect))


def outputs(model: Model) -> int:
    """Number of classes: channels of the last layer."""
    return infer(model)[-1][2]


def scan_strides(model: Model) -> tuple[int, int]:
    """How many rows and columns of the input one step of the scan layer's output covers; 1, 1 without one."""
    rows = cols = 1
    scan = model.formation.scan_layer if isinstance(model.formation, CcvFormation) else None
    for layer in model.layers[: 0 if scan is None else scan + 1]:
        if isinstance(layer, Convolution | Pool):
            rows *= layer.window.stride_rows
            cols *= layer.window.stride_cols
    return rows, cols


def describe(index: int, layer: Layer) -> str:
    """How messages name a layer."""
    return f"layer {index} ({layer.name}, {type(layer).__name__})"


def _output(layer: Layer, inputs: list[Shape], what: str) -> Shape:
    rows, cols, channels = inputs[0]
    many = isinstance(layer, Add | Concat)
    if not many and len(inputs) != 1:
        raise InputError(f"{what} reads {len(inputs)} layers; it takes one")
    if isinstance(layer, Convolution):
        _check_groups(layer.groups, channels, what)
        values = layer.weights.values
        if values.ndim != 4:
            raise InputError(f"{what} has weights of {values.ndim} dimensions; a convolution has 4")
        count = values.shape[0]
        needed = (layer.window.rows, layer.window.cols, channels // layer.groups)
        if values.shape[1:] != needed:
            raise InputError(f"{what} has weights {values.shape}; its input needs (outputs, {_commas(needed)})")
        if count % layer.groups:
            raise InputError(f"{what} has {count} outputs, which {layer.groups} groups do not divide")
        return (*_windowed(layer.window, rows, cols, what, least=0), count)
    if isinstance(layer, FullConnect):
        values = layer.weights.values
        if values.ndim != 2:
            raise InputError(f"{what} has weights of {values.ndim} dimensions; a full connect layer has 2")
        if values.shape[1] != rows * cols * channels:
            raise InputError(
                f"{what} takes {values.shape[1]} inputs, but gets {rows} x {cols} x {channels} = "
                f"{rows * cols * channels}"
            )
        return (1, 1, values.shape[0])
    if isinstance(layer, Pool):
        if layer.kind not in ("max", "average"):
            raise InputError(f"{what} is of kind {layer.kind!r}; max and average are known")
        return (*_windowed(layer.window, rows, cols, what, least=1), channels)
    if isinstance(layer, GlobalPool):
        return (1, 1, channels)
    if isinstance(layer, LocalResponseNorm):
        _check_groups(layer.groups, channels, what)
        if not 1 <= layer.size <= MAX_DIMENSION:
            raise InputError(f"{what} has a window of {layer.size} channels")
        if not all(math.isfinite(value) for value in (layer.kappa, layer.alpha, layer.beta)):
            raise InputError(f"{what} has constants that are not finite")
        if layer.kappa <= 0 or layer.alpha < 0:
            raise InputError(f"{what} has kappa {layer.kappa} and alpha {layer.alpha}: its base could become 0")
        return inputs[0]
    if isinstance(layer, Add):
        if len(inputs) != 2 or inputs[0] != inputs[1]:
            raise InputError(f"{what} adds {', '.join(map(_times, inputs))}; it takes two of one shape")
        return inputs[0]
    if isinstance(layer, Concat):
        if any(shape[:2] != inputs[0][:2] for shape in inputs):
            raise InputError(f"{what} joins {', '.join(map(_times, inputs))}; rows and columns must be equal")
        return (rows, cols, sum(shape[2] for shape in inputs))
    if isinstance(layer, Slice):
        if layer.begin < 0 or layer.channels < 1 or layer.begin + layer.channels > channels:
            end = layer.begin + layer.channels
            raise InputError(f"{what} takes channels {layer.begin} .. {end - 1} of {channels}")
        return (rows, cols, layer.channels)
    if isinstance(layer, Softmax | Activate):
        return inputs[0]
    raise InputError(f"{what} is of a kind that shape inference does not know")


def _windowed(window: Window, rows: int, cols: int, what: str, *, least: int) -> tuple[int, int]:
    """Output rows and columns; `least` cells of the picture must be in every window, which bounds the padding."""
    top, left, bottom, right = window.pads
    result = []
    for size, kernel, stride, before, after, axis in (
        (rows, window.rows, window.stride_rows, top, bottom, "rows"),
        (cols, window.cols, window.stride_cols, left, right, "columns"),
    ):
        if not (1 <= kernel <= MAX_DIMENSION and 1 <= stride <= MAX_DIMENSION):
            raise InputError(f"{what} has a window of {kernel} {axis} at a stride of {stride}")
        if not (0 <= before <= kernel - least and 0 <= after <= kernel - least):
            raise InputError(f"{what} pads {axis} by {before} and {after}; 0 to {kernel - least} fit its window")
        if size + before + after < kernel:
            raise InputError(
                f"{what} has a window of {kernel} {axis}, but its padded input has {size + before + after}"
            )
        result.append((size + before + after - kernel) // stride + 1)
    return result[0], result[1]


def _check_groups(groups: int, channels: int, what: str) -> None:
    if groups < 1 or channels % groups:
        raise InputError(f"{what} has {groups} groups, which do not divide its {channels} input channels")


def _check_shape(shape: Shape, what: str) -> None:
    if any(not 1 <= size <= MAX_DIMENSION for size in shape):
        raise InputError(f"{what} is {_times(shape)}; every dimension must be 1 to {MAX_DIMENSION}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise InputError(f"{what} is {_times(shape)}: more than {MAX_ELEMENTS} elements")


def _check_weights(weights: Weights, what: str) -> None:
    values = weights.values
    if values.size > MAX_ELEMENTS or values.size == 0:
        raise InputError(f"{what} has {values.size} weights; 1 to {MAX_ELEMENTS} are possible")
    if values.shape[0] > MAX_DIMENSION:
        raise InputError(f"{what} has {values.shape[0]} outputs; at most {MAX_DIMENSION} are possible")
    if weights.codebook is None:
        if values.dtype not in (np.float32, np.float16):
            raise InputError(f"{what} has weights of type {values.dtype}; float32 and float16 are known")
        if not np.isfinite(values).all():
            raise InputError(f"{what} has weights that are infinite or not a number")
    else:
        entries = weights.codebook.values
        if entries.dtype not in (np.float32, np.float16) or entries.ndim != 1 or not 1 <= len(entries) <= 256:
            raise InputError(f"{what} has a codebook {entries.dtype}{entries.shape}; it holds 1 to 256 float numbers")
        if not np.isfinite(entries).all():
            raise InputError(f"{what} has codebook entries that are infinite or not a number")
        if values.dtype != np.uint8:
            raise InputError(f"{what} has codebook indices of type {values.dtype}; uint8 is needed")
        if int(values.max()) >= len(entries):
            raise InputError(f"{what} has codebook index {int(values.max())}, but {len(entries)} entries")
    for array, name in ((weights.bias, "bias"), (weights.scale, "scale"), (weights.correction, "correction")):
        if array is None:
            continue
        if array.dtype != np.float32 or array.shape != values.shape[:1]:
            raise InputError(f"{what} has a {name} {array.dtype}{array.shape}; it needs float32({values.shape[0]},)")
        if not np.isfinite(array).all():
            raise InputError(f"{what} has a {name} that is infinite or not a number")


def _check_labels(labels: tuple[Label, ...], classes: int, name: str) -> None:
    if labels and len(labels) != classes:
        raise InputError(f"model {name!r} has {classes} outputs, but {len(labels)} labels; give one a class or none")
    for index, label in enumerate(labels):
        _check_text(label.id, f"the id of class {index}", MAX_TEXT_BYTES)
        _check_text(label.name, f"the name of class {index}", MAX_TEXT_BYTES)
    if len({label.id for label in labels}) != len(labels):
        raise InputError(f"model {name!r} has labels that share an id")


def _check_formation(model: Model) -> None:
    formation = model.formation
    rows, cols, channels = model.input_shape
    if formation is not None and channels != 3:
        raise InputError(f"model {model.name!r} takes pictures, but its input has {channels} channels; 3 are needed")
    scan = formation.scan_layer if isinstance(formation, CcvFormation) else None
    if model.patches == 10 and scan is None:
        raise InputError(f"model {model.name!r} asks for 10 patches, which need ccv's formation and a scan layer")
    if isinstance(formation, CropFormation):
        if not 0 <= formation.padding <= MAX_DIMENSION:
            raise InputError(f"model {model.name!r} has a crop padding of {formation.padding}")
        if not all(math.isfinite(value) for value in (*formation.mean, *formation.scale)):
            raise InputError(f"model {model.name!r} has a mean or scale that is not finite")
        if formation.order not in ("rgb", "bgr"):
            raise InputError(f"model {model.name!r} has channel order {formation.order!r}; rgb and bgr are known")
    if isinstance(formation, CcvFormation):
        if not (rows <= formation.rows <= MAX_DIMENSION and cols <= formation.cols <= MAX_DIMENSION):
            raise InputError(
                f"model {model.name!r} brings pictures to {formation.rows} x {formation.cols}, "
                f"which does not hold its {rows} x {cols} input"
            )
        if formation.mean.shape != (formation.rows, formation.cols, channels) or formation.mean.dtype != np.float32:
            raise InputError(
                f"model {model.name!r} has a mean {formation.mean.dtype}{formation.mean.shape}; it needs "
                f"float32({formation.rows}, {formation.cols}, {channels})"
            )
        if not np.isfinite(formation.mean).all():
            raise InputError(f"model {model.name!r} has a mean that is infinite or not a number")
    if scan is not None and isinstance(formation, CcvFormation):
        _check_scan(model, scan)
        strides = scan_strides(model)
        if (formation.rows - rows) % strides[0] or (formation.cols - cols) % strides[1]:
            raise InputError(
                f"model {model.name!r} brings pictures to {formation.rows} x {formation.cols}, which exceeds its "
                f"{rows} x {cols} input by no multiple of its strides {strides[0]} x {strides[1]}"
            )


def _check_scan(model: Model, scan: int) -> None:
    """Patches are cut from one layer's output and become a batch: the layers must be a chain that allows it."""
    if not 0 <= scan < len(model.layers) - 1:
        raise InputError(f"model {model.name!r} has scan layer {scan}; it must be a layer before the last")
    flat = False
    for index, layer in enumerate(model.layers):
        what = describe(index, layer)
        if layer.inputs != (index - 1,):
            raise InputError(f"{what} must read the layer before it, as the network cuts patches")
        if index <= scan and not isinstance(layer, Convolution | Pool | LocalResponseNorm | Activate):
            raise InputError(f"{what} stands before scan layer {scan}, where pictures of all sizes pass")
        flat = flat or isinstance(layer, FullConnect)
        if flat and not isinstance(layer, FullConnect | Softmax | Activate):
            raise InputError(
                f"{what} stands behind a full connect layer; only such layers, softmax and activations can"
            )
    if not flat:
        raise InputError(f"model {model.name!r} has a scan layer, but no full connect layer behind it")


def _check_text(text: str, what: str, limit: int, *, empty: bool = False) -> None:
    if not empty and not text:
        raise InputError(f"{what} is empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid text") from error
    if size > limit:
        raise InputError(f"{what} has {size} bytes; at most {limit} are possible")
    if not text.isprintable():
        raise InputError(f"{what} has characters that cannot be printed: {text[:40]!a}")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _commas(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
