"""What stands for the tensors and nodes of an ONNX file while its network is built.

ONNX computes on (batch, channels, rows, columns) or, behind a Flatten, on (batch, features); a Value says which layer
of ours holds the same numbers as rows x columns x channels. Batch norm and added constants become scale and bias of
the layer before where that is theirs alone, else a depthwise 1 x 1 convolution; weights are never multiplied by them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    Convolution,
    FullConnect,
    Layer,
    Weights,
    Window,
)

Array = npt.NDArray[Any]
# Nodes may share a tensor: what all layers make of it must stay within what a large file could hold.
_MAX_WEIGHTS = 1 << 29
_MAX_REORDERED_BYTES = 1 << 30
MAX_EQUAL_WEIGHTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that a layer makes."""

    layer: int
    rows: int
    cols: int
    channels: int
    flat: bool = False  # (batch, features) in ONNX's order: channels, rows, columns
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros around it that a Pad asked for: top, left, bottom, right
    sole: bool = True  # only one node reads this layer, so that it may be changed

    @property
    def sizes(self) -> tuple[int, ...]:
        """As ONNX has them, without the batch."""
        if self.flat:
            return (self.rows * self.cols * self.channels,)
        return self.channels, self.rows, self.cols


@dataclass(slots=True)
class Node:
    """A node with its inputs looked up; handlers take the attributes they know out of it."""

    name: str
    inputs: list[Value | Array | None]
    input_names: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def value(self, index: int = 0, *, padded: bool = False) -> Value:
        """An input that a layer makes; `padded`: whether the caller takes care of its pads."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Value):
            raise InputError(f"its input {index} is a constant or missing; it must depend on the network's input")
        if any(found.pads) and not padded:
            raise InputError("reads what a Pad made, which only Conv and AveragePool can")
        return found

    def picture(self, index: int = 0, *, padded: bool = False) -> Value:
        """An input of four dimensions."""
        found = self.value(index, padded=padded)
        if found.flat:
            raise InputError(f"its input {index} has 2 dimensions; 4 are needed")
        return found

    def constant(self, index: int) -> Array:
        """An input that is a constant."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, np.ndarray):
            raise InputError(f"its input {index} is not a constant; only constant weights and sizes are supported")
        return found

    def floats(self, index: int) -> Array:
        """A constant of float numbers."""
        found = self.constant(index)
        if found.dtype not in (np.float32, np.float16):
            raise InputError(f"its input {index} holds {found.dtype}; float32 and float16 are supported")
        return found

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def whole_numbers(self, index: int) -> list[int]:
        """A constant list of whole numbers."""
        found = self.constant(index)
        if found.ndim != 1 or found.dtype.kind != "i" or found.size > 64:
            raise InputError(f"its input {index} is {found.dtype}{found.shape}; a list of whole numbers is needed")
        return [int(number) for number in found]

    def take(self, name: str, default: Any) -> Any:
        """An attribute, of the type that its default has."""
        value = self.attributes.pop(name, default)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if default is not None and not isinstance(value, wanted):
            raise InputError(f"its attribute {name} is of the wrong type")
        return value

    def pair(self, name: str, default: tuple[int, int] | None = (1, 1)) -> tuple[int, int]:
        """An attribute of two whole numbers, rows and columns."""
        value = self.attributes.pop(name, None)
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(number, int) for number in value):
            raise InputError(f"its attribute {name} is not two whole numbers: only two-dimensional pictures are read")
        return value[0], value[1]


@dataclass(slots=True)
class Graph:
    """The network so far."""

    shape: shapes.Shape
    batch: int | None
    opset: int
    uses: Counter[str]
    layers: list[Layer] = field(default_factory=list)
    shapes: list[shapes.Shape] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    weight_count: int = 0
    reordered: dict[tuple[Any, ...], Array] = field(default_factory=dict)  # weights that nodes share stay one array

    def add(self, layer: Layer, *, flat: bool = False) -> Value:
        """Appends a layer under a name of its own."""
        name, count = layer.name, 1
        while name in self.names:
            count += 1
            name = f"{layer.name}-{count}"[-shapes.NAME_BYTES :]
        self.names.add(name)
        if len(self.layers) >= shapes.MAX_LAYERS:
            raise InputError(f"makes more than {shapes.MAX_LAYERS} layers")
        if isinstance(layer, Convolution | FullConnect):
            self.weight_count += layer.weights.values.size
        if self.weight_count > _MAX_WEIGHTS:
            raise InputError(f"brings the network to {self.weight_count:,} weights; {_MAX_WEIGHTS:,} are possible")
        inputs = [self.shape if index < 0 else self.shapes[index] for index in layer.inputs]
        shape = shapes.output_shape(layer, inputs, f"layer {len(self.layers)}")
        self.layers.append(replace(layer, name=name))
        self.shapes.append(shape)
        return Value(len(self.layers) - 1, *shape, flat=flat)

    def weights(self, node: Node, index: int, key: tuple[Any, ...], reorder: Callable[[Array], Array]) -> Array:
        """A weight tensor in our order, made once for all nodes that use it alike."""
        key = (node.input_names[index], *key)
        if key not in self.reordered:
            raw = node.floats(index)
            if raw.nbytes + sum(array.nbytes for array in self.reordered.values()) > _MAX_REORDERED_BYTES:
                raise InputError(f"has weights that bring all together over {_MAX_REORDERED_BYTES:,} bytes")
            self.reordered[key] = np.ascontiguousarray(reorder(raw))
        return self.reordered[key]

    def equal_weights(self, channels: int, kernel: tuple[int, int]) -> F32:
        """Ones for a depthwise convolution."""
        key = ("", channels, kernel)
        if channels * math.prod(kernel) > MAX_EQUAL_WEIGHTS:
            raise InputError(f"has a window of {kernel}, too large for one that counts its padding")
        if key not in self.reordered:
            self.reordered[key] = np.ones((channels, *kernel, 1), np.float32)
        return self.reordered[key]

    def activated(self, node: Node, value: Value, activation: Activation) -> Value:
        """An activation: that of the layer before, where this is its only reader."""
        layer = self.layers[value.layer] if value.sole and value.layer >= 0 else None
        if isinstance(layer, Convolution | FullConnect | Add) and layer.activation in (
            Activation.LINEAR,
            Activation.RELU,
        ):
            # min(max(max(x, 0), 0), 6) is ReLU6, so that one may stand on a ReLU.
            self.layers[value.layer] = replace(layer, activation=activation)
            return value
        return self.add(Activate(node.name, (value.layer,), activation), flat=value.flat)

    def scaled(self, node: Node, value: Value, scale: Array | None, bias: Array) -> Value:
        """x * scale + bias a channel, float64 (channels,)."""
        layer = self.layers[value.layer] if value.sole and value.layer >= 0 else None
        if isinstance(layer, Convolution | FullConnect) and layer.activation is Activation.LINEAR:
            old = layer.weights
            new_scale = old.scale
            new_bias: Array = old.bias.astype(np.float64) + bias
            if scale is not None:
                new_scale = f32(scale if old.scale is None else scale * old.scale)
                new_bias = old.bias * scale + bias
            weights = replace(old, scale=new_scale, bias=f32(new_bias))
            self.layers[value.layer] = replace(layer, weights=weights)
            return value
        if value.flat and value.rows * value.cols != 1:
            raise InputError("changes channels of a flattened picture, which is not supported")
        ones = self.equal_weights(value.channels, (1, 1))
        weights = Weights(ones, f32(bias), None if scale is None else f32(scale))
        return self.add(
            Convolution(node.name, (value.layer,), Window(1, 1), weights, groups=value.channels), flat=value.flat
        )


def f32(numbers: Array) -> F32:
    """As float32; what overflows becomes infinite, and is refused as such."""
    return np.ascontiguousarray(numbers, np.float32)
