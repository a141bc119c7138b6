"""Packed model -> Model. Trusts no byte: every offset, size, product and number is checked before it is used."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    Activate,
    Activation,
    Add,
    CcvFormation,
    Codebook,
    Concat,
    Convolution,
    CropFormation,
    Formation,
    FullConnect,
    GlobalPool,
    Label,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Range,
    Slice,
    Softmax,
    Weights,
    Window,
)
from klaus_runtime.pack.structs import (
    ACTIVATIONS,
    FLOAT_DTYPES,
    INDEX_DTYPES,
    MAGIC,
    METHODS,
    const,
    decode,
    name_of,
    size_of,
    unpack_rows,
)

MAX_FILE_BYTES = 1 << 32


def read_packed(path: Path) -> Model:
    """Reads and checks a whole packed model: digest, structure, every number finite, every index inside its codebook.

    Arrays are read-only views of one buffer where their form allows. Raises InputError naming path and what is wrong.
    """
    return decode_packed(files.read_bytes(path, MAX_FILE_BYTES), str(path))


def decode_packed(data: bytes, name: str) -> Model:
    """read_packed on bytes; name is what errors call them."""
    packed = _open(data, name)
    network = decode("network", packed.exactly("NETWORK", size_of("network")))
    shape = (network.rows, network.cols, network.channels)
    if not all(1 <= side <= const("MAX_DIMENSION") for side in shape):
        raise packed.bad(f"its input is {shape[0]} x {shape[1]} x {shape[2]}")
    table = packed.exactly("LAYERS", packed.layer_count * size_of("layer"))
    step = size_of("layer")
    rows = [decode("layer", table[start : start + step]) for start in range(0, len(table), step)]
    meta = _meta(packed)
    seeded = bool(network.flags & const("FLAG_SEEDED"))
    if network.flags & ~const("FLAG_SEEDED") or network.default_patches not in (1, 10):
        raise packed.bad(f"it has flags {network.flags:#x} and {network.default_patches} patches")
    model = Model(
        name=meta["name"],
        input_shape=shape,
        layers=_layers(packed, rows, shape),
        formation=_formation(packed, network),
        labels=_labels(packed),
        provenance=Provenance(meta["source"], meta["licence"], meta["attribution"], seeded, meta["scheme"]),
        patches=10 if network.default_patches == 10 else 1,
        ranges=_ranges(packed),
    )
    packed.none_left()
    try:
        shapes.validate(model)
        outputs = shapes.infer(model)
    except InputError as error:
        raise packed.bad(str(error)) from error
    for number, (row, found) in enumerate(zip(rows, outputs, strict=True)):
        if (row.rows, row.cols, row.channels) != found:
            raise packed.bad(f"layer {number} says it puts out {row.rows} x {row.cols} x {row.channels}, not {found}")
    if network.outputs != math.prod(outputs[-1]):
        raise packed.bad(f"it says {network.outputs} outputs, its last layer has {math.prod(outputs[-1])}")
    return model


@dataclass(frozen=True, slots=True)
class _Packed:
    """The sections of an opened file by kind and layer; take() hands each out once."""

    name: str
    layer_count: int
    sections: dict[tuple[str, int], tuple[int, memoryview]]

    def bad(self, what: str) -> InputError:
        return InputError(f"{self.name}: is a packed model, but {what}: pack it anew")

    def take(self, kind: str, layer: int = -1) -> tuple[int, memoryview] | None:
        return self.sections.pop((kind, layer), None)

    def exactly(self, kind: str, size: int, layer: int = -1, dtype: int = 0) -> memoryview:
        found = self.take(kind, layer)
        where = kind.lower() if layer < 0 else f"layer {layer} {kind.lower()}"
        if found is None:
            raise self.bad(f"its {where} section is missing")
        if found[0] != dtype or len(found[1]) != size:
            raise self.bad(
                f"its {where} section has {len(found[1])} bytes of type {found[0]}, not {size} of type {dtype}"
            )
        return found[1]

    def floats(self, kind: str, count: int, layer: int = -1, dtype: str = "F32") -> F32 | Any:
        form = FLOAT_DTYPES[dtype]
        values = np.frombuffer(self.exactly(kind, count * form.itemsize, layer, const(dtype)), form)
        if not np.isfinite(values).all():
            where = kind.lower() if layer < 0 else f"layer {layer} {kind.lower()}"
            raise self.bad(f"its {where} section holds a number that is not finite")
        return values

    def none_left(self) -> None:
        for kind, layer in self.sections:
            raise self.bad(f"it has a {kind.lower()} section for layer {layer} that nothing asks for")


def _open(data: bytes, name: str) -> _Packed:
    size = size_of("file_header")
    if len(data) < size or data[: len(MAGIC)] != MAGIC:
        raise InputError(f"{name}: is not a packed model ({len(data):,} bytes, it starts with {data[:8].hex()})")
    header = decode("file_header", data[:size])
    packed = _Packed(name, header.layer_count, {})
    if header.version != const("FORMAT_VERSION"):
        raise packed.bad(f"it is of format version {header.version}, this is for version {const('FORMAT_VERSION')}")
    if header.header_bytes != size or header.file_bytes != len(data):
        raise packed.bad(
            f"it says it has {header.file_bytes:,} bytes, and {len(data):,} are there: it is cut or damaged"
        )
    if not 1 <= header.layer_count <= const("MAX_LAYERS"):
        raise packed.bad(f"it says it has {header.layer_count} layers, 1 to {const('MAX_LAYERS')} can be")
    table_end = size + header.section_count * size_of("section")
    if table_end > len(data):
        raise packed.bad(f"it says it has {header.section_count} sections, more than fit the file")
    if bytes(header.digest) != hashlib.sha256(memoryview(data)[size:]).digest():
        raise packed.bad("its SHA-256 is not the one it states: it is damaged")
    end = table_end
    for section in sorted(
        (decode("section", data[at : at + size_of("section")]) for at in range(size, table_end, size_of("section"))),
        key=lambda item: int(item.offset),
    ):
        kind = name_of(section.kind, "SECTION_")
        if kind is None or not -1 <= section.layer < header.layer_count:
            raise packed.bad(f"it has a section of kind {section.kind} for layer {section.layer}, which is unknown")
        if section.offset < end or section.offset % const("ALIGNMENT") or section.bytes > len(data) - section.offset:
            raise packed.bad(f"its section at {section.offset} of {section.bytes} bytes overlaps, is askew or outside")
        if section.offset > len(data) or any(data[end : section.offset]):
            raise packed.bad(f"the gap before its section at {section.offset} is not zero")
        end = section.offset + section.bytes
        key = (kind.removeprefix("SECTION_"), int(section.layer))
        if key[0] == "PACKED":  # a kernel's own form of weights that stand in canonical form too
            continue
        if key in packed.sections or section.layout != const("CANONICAL_LAYOUT"):
            raise packed.bad(f"it has two {key[0].lower()} sections for layer {key[1]}, or one of a strange layout")
        packed.sections[key] = (int(section.dtype), memoryview(data)[section.offset : end])
    if any(data[end:]):
        raise packed.bad("it has bytes behind its last section")
    return packed


def _meta(packed: _Packed) -> dict[str, str]:
    found = packed.take("META")
    try:
        meta: Any = json.loads(bytes(found[1]).decode()) if found else None
        fields = {key: meta[key] for key in ("name", "source", "licence", "attribution", "scheme")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise packed.bad("its description is not the JSON object it should be") from error
    if not all(isinstance(value, str) for value in fields.values()):
        raise packed.bad("its description has a field that is not a text")
    return fields


def _labels(packed: _Packed) -> tuple[Label, ...]:
    found = packed.take("LABELS")
    if found is None:
        return ()
    try:
        lines = bytes(found[1]).decode().removesuffix("\n").split("\n")
        parts = [line.split("\t") for line in lines]
        return tuple(Label(number, text) for number, text in parts)
    except ValueError as error:
        raise packed.bad("its labels are not lines of `id<TAB>name`") from error


def _ranges(packed: _Packed) -> tuple[Range | None, ...]:
    if ("RANGES", -1) not in packed.sections:
        return ()
    step = size_of("range")
    data = packed.exactly("RANGES", (1 + packed.layer_count) * step)
    methods: dict[int, Literal["minmax", "percentile"]] = {
        METHODS["minmax"]: "minmax",
        METHODS["percentile"]: "percentile",
    }
    ranges: list[Range | None] = []
    for start in range(0, len(data), step):
        row = decode("range", data[start : start + step])
        if row.method and (row.method not in methods or not -math.inf < row.low <= row.high < math.inf):
            raise packed.bad(f"its range {start // step} is {row.low} to {row.high} by method {row.method}")
        ranges.append(Range(row.low, row.high, methods[row.method]) if row.method else None)
    return tuple(ranges)


def _formation(packed: _Packed, network: Any) -> Formation:
    if network.formation == const("FORMATION_TENSOR"):
        return None
    if network.formation == const("FORMATION_CCV"):
        rows, cols = network.picture_rows, network.picture_cols
        if not (1 <= rows <= const("MAX_DIMENSION") and 1 <= cols <= const("MAX_DIMENSION")):
            raise packed.bad(f"its pictures are brought to {rows} x {cols}")
        mean = packed.floats("MEAN", rows * cols * network.channels).reshape(rows, cols, network.channels)
        scan = None if network.scan_layer == const("NO_LAYER") else network.scan_layer
        return CcvFormation(rows, cols, mean, scan)
    orders: dict[int, Literal["rgb", "bgr"]] = {const("RGB"): "rgb", const("BGR"): "bgr"}
    numbers = [float(value) for value in (*network.channel_mean, *network.channel_scale)]
    if network.formation != const("FORMATION_CROP") or network.channel_order not in orders:
        raise packed.bad(f"it forms pictures by method {network.formation}, order {network.channel_order}")
    if not all(math.isfinite(value) for value in numbers) or not 0 <= network.crop_padding <= const("MAX_DIMENSION"):
        raise packed.bad("its means, scales or padding of pictures are not finite or too large")
    mean3, scale3 = (numbers[0], numbers[1], numbers[2]), (numbers[4], numbers[5], numbers[6])
    return CropFormation(network.crop_padding, mean3, scale3, orders[network.channel_order])


def _layers(packed: _Packed, rows: list[Any], shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    channels = [shape[2]]
    sizes = [math.prod(shape)]
    layers = []
    for number, row in enumerate(rows):
        if not all(1 <= side <= const("MAX_DIMENSION") for side in (row.rows, row.cols, row.channels)):
            raise packed.bad(f"layer {number} puts out {row.rows} x {row.cols} x {row.channels}")
        if not 1 <= row.input_count <= const("MAX_INPUTS"):
            raise packed.bad(f"layer {number} has {row.input_count} inputs")
        inputs = tuple(int(item) for item in row.inputs)[: row.input_count]
        if not all(const("NETWORK_INPUT") <= item < number for item in inputs):
            raise packed.bad(f"layer {number} reads from {inputs}, which are not earlier layers")
        source = inputs[0] + 1  # the network's input stands first in both lists
        layers.append(_layer(packed, number, row, inputs, (channels[source], sizes[source])))
        channels.append(row.channels)
        sizes.append(row.rows * row.cols * row.channels)
    return tuple(layers)


def _layer(packed: _Packed, number: int, row: Any, inputs: tuple[int, ...], source: tuple[int, int]) -> Layer:
    """One layer; source: channels and elements of its first input, which say how many weights it has."""
    try:
        name = bytes(row.name).rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise packed.bad(f"the name of layer {number} is not UTF-8") from error
    activations = {const(text): kind for kind, text in ACTIVATIONS.items()}
    if row.activation not in activations:
        raise packed.bad(f"layer {number} has activation {row.activation}")
    activation = activations[row.activation]
    match name_of(row.op, "OP_"):
        case "OP_CONV":
            window = _window(packed, number, row)
            if row.groups < 1 or source[0] % row.groups:
                raise packed.bad(f"layer {number} splits {source[0]} channels into {row.groups} groups")
            shape: tuple[int, ...] = (row.channels, window.rows, window.cols, source[0] // row.groups)
            return Convolution(name, inputs, window, _weights(packed, number, row, shape), row.groups, activation)
        case "OP_FULL_CONNECT":
            return FullConnect(name, inputs, _weights(packed, number, row, (row.channels, source[1])), activation)
        case "OP_ADD":
            return Add(name, inputs, activation)
        case "OP_ACTIVATION":
            return Activate(name, inputs, activation)
        case _ if activation is not Activation.LINEAR:
            raise packed.bad(f"layer {number} has an activation, which its operator {row.op} has not")
        case "OP_MAX_POOL":
            return Pool(name, inputs, _window(packed, number, row), "max")
        case "OP_AVERAGE_POOL":
            return Pool(name, inputs, _window(packed, number, row), "average")
        case "OP_GLOBAL_POOL":
            return GlobalPool(name, inputs)
        case "OP_LRN":
            return LocalResponseNorm(name, inputs, row.size, row.kappa, row.alpha, row.beta, row.groups)
        case "OP_CONCAT":
            return Concat(name, inputs)
        case "OP_SLICE":
            return Slice(name, inputs, row.begin, row.channels)
        case "OP_SOFTMAX":
            return Softmax(name, inputs)
    raise packed.bad(f"layer {number} has the unknown operator {row.op}")


def _window(packed: _Packed, number: int, row: Any) -> Window:
    sizes = (row.kernel_rows, row.kernel_cols, row.stride_rows, row.stride_cols)
    pads = (row.pad_top, row.pad_left, row.pad_bottom, row.pad_right)
    limit = const("MAX_DIMENSION")
    if not all(1 <= size <= limit for size in sizes) or not all(0 <= pad <= limit for pad in pads):
        raise packed.bad(f"layer {number} has a window of {sizes} and padding {pads}")
    return Window(*sizes, pads)


def _weights(packed: _Packed, number: int, row: Any, shape: tuple[int, ...]) -> Weights:
    outputs, inputs = shape[0], math.prod(shape[1:])
    dtype = next((name for name in FLOAT_DTYPES if const(name) == row.weight_dtype), None)
    book = None
    values: Any
    if dtype is not None:
        values = packed.floats("WEIGHTS", outputs * inputs, number, dtype)
    else:
        bits = next((bits for bits, name in INDEX_DTYPES.items() if const(name) == row.weight_dtype), None)
        form = next((name for name in FLOAT_DTYPES if const(name) == row.codebook_dtype), None)
        if bits is None or form is None or not 1 <= row.codebook_entries <= 1 << bits:
            raise packed.bad(
                f"layer {number} has weights of type {row.weight_dtype} with {row.codebook_entries} codebook entries "
                f"of type {row.codebook_dtype}"
            )
        book = Codebook(packed.floats("CODEBOOK", row.codebook_entries, number, form))
        row_bytes = -(-inputs * bits // 8)
        packed_rows = np.frombuffer(packed.exactly("WEIGHTS", outputs * row_bytes, number, row.weight_dtype), np.uint8)
        values = unpack_rows(packed_rows.reshape(outputs, row_bytes), inputs, bits)
        if int(values.max()) >= row.codebook_entries:
            raise packed.bad(f"layer {number} has index {values.max()} in a codebook of {row.codebook_entries} entries")
    scale = packed.floats("SCALE", outputs, number) if ("SCALE", number) in packed.sections else None
    bias = packed.floats("BIAS", outputs, number)
    correction = packed.floats("CORRECTION", outputs, number) if ("CORRECTION", number) in packed.sections else None
    return Weights(values.reshape(shape), bias, scale, book, correction)
