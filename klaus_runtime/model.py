"""The float (or codebook) network in memory: layers, weights, labels, preprocessing, provenance.

Readers make a Model, quantizers turn one Model into another, writers and engines take one. Everything is frozen;
arrays are read-only by convention. Activations are HWC; `inputs` of a layer are indices of earlier layers or
NETWORK_INPUT. Geometry is explicit: readers turn SAME padding and ceil modes into four pads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
NETWORK_INPUT = -1


class Activation(StrEnum):
    """Applied to a layer's result."""

    LINEAR = "linear"
    RELU = "relu"
    RELU6 = "relu6"


@dataclass(frozen=True, slots=True)
class Codebook:
    """At most 256 values that weights are chosen from; float16 in packages, float32 where a source needs it."""

    values: npt.NDArray[np.float16] | F32  # (entries,)

    @property
    def index_bits(self) -> int:
        """Bits of an index in the packed model: 2 up to 4 entries, 4 up to 16, else 8."""
        entries = len(self.values)
        return 2 if entries <= 4 else 4 if entries <= 16 else 8


@dataclass(frozen=True, slots=True)
class Weights:
    """A layer's weights: effective weight = (codebook[values] or values) * scale of its output channel.

    values: conv (outputs, kernel rows, kernel cols, inputs of a group), full connect (outputs, inputs in HWC order);
    float32 or float16 without a codebook, uint8 indices with one. scale: (outputs,) float32 or None = all ones;
    kept apart from the weights because folding it in ruins codebooks. bias: (outputs,) float32.
    correction: (outputs,) float32 or None = all zeros; added to the bias in int8 arithmetic alone (calibrate.py).
    """

    values: F32 | npt.NDArray[np.float16] | U8
    bias: F32
    scale: F32 | None = None
    codebook: Codebook | None = None
    correction: F32 | None = None

    def stored(self) -> F32:
        """Weights before the scale, as float32."""
        if self.codebook is None:
            return self.values.astype(np.float32, copy=False)
        entries: F32 = self.codebook.values.astype(np.float32)
        return entries[self.values]

    def effective(self) -> F32:
        """Weights with the scale applied, as float32."""
        stored = self.stored()
        if self.scale is None:
            return stored
        return stored * self.scale.reshape((-1,) + (1,) * (stored.ndim - 1))


@dataclass(frozen=True, slots=True)
class Layer:
    """What all layers have: a name and where they read from."""

    name: str
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel or pool window: sizes, strides and zero padding (top, left, bottom, right)."""

    rows: int
    cols: int
    stride_rows: int = 1
    stride_cols: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """Cross-correlation; depthwise where groups equals the input channels."""

    window: Window
    weights: Weights
    groups: int = 1
    activation: Activation = Activation.LINEAR


@dataclass(frozen=True, slots=True)
class FullConnect(Layer):
    """W x + b on the input flattened in HWC order; output 1 x 1 x outputs."""

    weights: Weights
    activation: Activation = Activation.LINEAR


@dataclass(frozen=True, slots=True)
class Pool(Layer):
    """Maximum, or average over the cells inside the image."""

    window: Window
    kind: Literal["max", "average"]


@dataclass(frozen=True, slots=True)
class GlobalPool(Layer):
    """Average over rows and columns."""


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Layer):
    """x * (kappa + alpha * sum of squares) ** -beta over channels c-size//2 .. c+size//2 of c's group."""

    size: int
    kappa: float
    alpha: float
    beta: float
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Add(Layer):
    """Sum of two inputs of one shape."""

    activation: Activation = Activation.LINEAR


@dataclass(frozen=True, slots=True)
class Concat(Layer):
    """Inputs side by side along channels."""


@dataclass(frozen=True, slots=True)
class Slice(Layer):
    """Channels begin .. begin + channels - 1."""

    begin: int
    channels: int


@dataclass(frozen=True, slots=True)
class Softmax(Layer):
    """Over channels, maximum subtracted."""


@dataclass(frozen=True, slots=True)
class Activate(Layer):
    """An activation alone."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class CcvFormation:
    """ccv's way from picture to tensor: bring to rows x cols keeping the aspect (area or cubic), subtract the mean."""

    rows: int
    cols: int
    mean: F32  # (rows, cols, channels), 0..255 units
    scan_layer: int | None  # last layer run once on the whole picture before 5 (mirrored: 10) patches are cut


@dataclass(frozen=True, slots=True)
class CropFormation:
    """Central square of shorter * size / (size + padding), antialiased bicubic, (x - mean) * scale a channel."""

    padding: int
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    order: Literal["rgb", "bgr"] = "rgb"


Formation = CcvFormation | CropFormation | None


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its id (a WordNet id for ImageNet) and a name for people."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights come from; printed by `info` and every report."""

    source: str
    licence: str
    attribution: str
    seeded: bool = False  # weights from a seed: 'seeded: timing only' wherever the model appears
    scheme: str = "float"  # how the weights were quantized, and by which settings


@dataclass(frozen=True, slots=True)
class Range:
    """Values an activation took while calibrating."""

    low: float
    high: float
    method: Literal["minmax", "percentile"] = "minmax"


@dataclass(frozen=True, slots=True)
class Model:
    """A whole network. `validate()` in shapes.py checks it; readers return only validated models."""

    name: str
    input_shape: tuple[int, int, int]  # rows, cols, channels
    layers: tuple[Layer, ...]
    formation: Formation
    labels: tuple[Label, ...]  # empty, or one a class
    provenance: Provenance
    patches: Literal[1, 10] = 1  # what `classify` does by default
    ranges: tuple[Range | None, ...] = field(default=())  # empty, or network input first, then one a layer
