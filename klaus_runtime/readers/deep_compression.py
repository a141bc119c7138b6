"""SqueezeNet v1.0 as Deep Compression ships it (`compressed_SqueezeNet.net`) -> Model, codebooks and indices as stored.

Geometry: Iandola et al., "SqueezeNet" (2016), version 1.0; compression: Han, Mao, Dally, "Deep Compression" (2015).
The file has no magic number: a uint32 count of entries for each of the 26 convolutions, then, a convolution at a time,
256 float32 codebook values (the first is 0), float32 biases, one byte of code an entry, and four bits an entry of the
distance to the entry before, less one (low half first). What is not named is weight 0; an entry of code 0 only bridges
a long distance. All counts together fix the size of the file to the byte, which is how it is recognised.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klaus_runtime import files, labels, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    NETWORK_INPUT,
    U8,
    Activation,
    Codebook,
    Concat,
    Convolution,
    CropFormation,
    GlobalPool,
    Layer,
    Model,
    Pool,
    Provenance,
    Softmax,
    Weights,
    Window,
)
from klaus_runtime.readers.windows import ceil_pad

SIZE = 227
PROVENANCE = Provenance(
    source="Deep Compression's compressed_SqueezeNet.net",
    licence="BSD",
    attribution="SqueezeNet v1.0 by Forrest Iandola et al., compressed by Song Han et al. (Deep Compression), 2016",
    scheme="deep-compression: 256 float32 values a layer",
)

_ENTRIES = 256
_CLASSES = 1000
# Caffe's way: pictures brought to 256 x 256, the middle 227 x 227 in BGR, the mean of each channel subtracted.
_FORMATION = CropFormation(padding=256 - SIZE, mean=(104.0, 117.0, 123.0), scale=(1.0,) * 3, order="bgr")
# Fire modules 2 to 9: squeezed channels, channels of each of the two expansions, whether a pool follows.
_FIRES = (
    (16, 64, False), (16, 64, False), (32, 128, True), (32, 128, False),
    (48, 192, False), (48, 192, False), (64, 256, True), (64, 256, False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Geometry:
    """A convolution, in the order of the file."""

    name: str
    outputs: int
    inputs: int
    kernel: int
    stride: int = 1
    pad: int = 0

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs * self.kernel**2


def _convolutions() -> tuple[_Geometry, ...]:
    found = [_Geometry("conv1", 96, 3, 7, stride=2)]
    channels = 96
    for number, (squeezed, expanded, _) in enumerate(_FIRES, 2):
        found += [
            _Geometry(f"fire{number}-squeeze1x1", squeezed, channels, 1),
            _Geometry(f"fire{number}-expand1x1", expanded, squeezed, 1),
            _Geometry(f"fire{number}-expand3x3", expanded, squeezed, 3, pad=1),
        ]
        channels = 2 * expanded
    # The padding of the last one is the authors': it lets zeros into the average and belongs to the trained net.
    return (*found, _Geometry("conv-final", _CLASSES, channels, 1, pad=1))


_GEOMETRY = _convolutions()
_HEADER = struct.Struct(f"<{len(_GEOMETRY)}I")
_LARGEST_BYTES = _HEADER.size + sum(4 * _ENTRIES + 4 * part.outputs + 2 * part.weights for part in _GEOMETRY)


def is_net(head: bytes, size_bytes: int) -> bool:
    """Whether a file of size_bytes that starts with `head` (104 bytes or more) is such a file: its counts must fit."""
    return len(head) >= _HEADER.size and _needed_bytes(_HEADER.unpack_from(head)) == size_bytes


def read(path: str | Path) -> Model:
    """Reads the file; raises InputError for another one, or one whose entries leave their layer."""
    path = Path(path)
    data = files.read_bytes(path, _LARGEST_BYTES)
    if not is_net(data, len(data)):
        raise InputError(f"{path}: has {len(data):,} bytes, which do not fit a SqueezeNet of Deep Compression")
    try:
        model = _build(_read_weights(data))
        shapes.validate(model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return model


def _needed_bytes(counts: tuple[int, ...]) -> int:
    each = (4 * _ENTRIES + 4 * part.outputs + n + (n + 1) // 2 for part, n in zip(_GEOMETRY, counts, strict=True))
    return _HEADER.size + sum(each)


def _read_weights(data: bytes) -> list[Weights]:
    position = _HEADER.size

    def numbers(count: int) -> F32:
        nonlocal position
        position += 4 * count
        return np.frombuffer(data, "<f4", count, position - 4 * count).astype(np.float32)

    def octets(count: int) -> U8:
        nonlocal position
        position += count
        return np.frombuffer(data, np.uint8, count, position - count)

    weights = []
    for part, count in zip(_GEOMETRY, _HEADER.unpack_from(data), strict=True):
        codebook, bias = numbers(_ENTRIES), numbers(part.outputs)
        codes, packed = octets(count), octets((count + 1) // 2)
        if codebook[0] != 0:
            raise InputError(f"{part.name}: codebook entry 0 is {codebook[0]}; it stands for what is absent, 0")
        distances = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int64) + 1
        places = np.cumsum(distances) - 1
        if count and places[-1] >= part.weights:
            raise InputError(f"{part.name}: an entry stands at weight {places[-1]:,}, it has {part.weights:,}")
        indices = np.zeros(part.weights, np.uint8)
        indices[places] = codes
        ordered = indices.reshape(part.outputs, part.inputs, part.kernel, part.kernel).transpose(0, 2, 3, 1)
        weights.append(Weights(np.ascontiguousarray(ordered), bias, codebook=Codebook(codebook)))
    return weights


def _build(weights: list[Weights]) -> Model:
    layers: list[Layer] = []
    rest = list(zip(_GEOMETRY, weights, strict=True))[::-1]
    size = SIZE

    def convolve(before: int) -> int:
        part, values = rest.pop()
        window = Window(part.kernel, part.kernel, part.stride, part.stride, (part.pad,) * 4)
        layers.append(Convolution(part.name, (before,), window, values, activation=Activation.RELU))
        return len(layers) - 1

    def pool(name: str) -> None:
        nonlocal size
        behind = ceil_pad(size, 3, 2, 0, 0)
        layers.append(Pool(name, (len(layers) - 1,), Window(3, 3, 2, 2, (0, 0, behind, behind)), "max"))
        size = (size + behind - 3) // 2 + 1

    convolve(NETWORK_INPUT)
    size = (size - 7) // 2 + 1
    pool("pool1")
    for number, (_, _, pooled) in enumerate(_FIRES, 2):
        squeezed = convolve(len(layers) - 1)
        layers.append(Concat(f"fire{number}-concat", (convolve(squeezed), convolve(squeezed))))
        if pooled:
            pool(f"pool{number}")
    convolve(len(layers) - 1)
    layers.append(GlobalPool("pool-final", (len(layers) - 1,)))
    layers.append(Softmax("prob", (len(layers) - 1,)))
    return Model(
        name="squeezenet",
        input_shape=(SIZE, SIZE, 3),
        layers=tuple(layers),
        formation=_FORMATION,
        labels=labels.sorted_wnids(),
        provenance=PROVENANCE,
    )
