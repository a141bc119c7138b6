"""ccv's convnet sqlite3 files (float32 and half precision) -> Model.

The format is described by what ccv at c6ce5b12 reads and writes. Where ccv is lax (missing or odd data become
zeros, out-of-range numbers reach memory) this reader raises an InputError. Sizes are checked before anything is read
into memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime import labels as class_names
from klaus_runtime import shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    U8,
    Activation,
    CcvFormation,
    Codebook,
    Convolution,
    FullConnect,
    Label,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Provenance,
    Weights,
    Window,
)
from klaus_runtime.readers.database import has_table, open_database
from klaus_runtime.readers.origin import model_name

CONVOLUTION, FULL_CONNECT, MAX_POOL, AVERAGE_POOL, NORM = 1, 2, 3, 4, 5  # layer_params.type

_INTEGERS = (
    "type", "input_matrix_rows", "input_matrix_cols", "input_matrix_channels", "input_matrix_partition",
    "input_node_count", "output_rows", "output_cols", "output_channels", "output_partition", "output_count",
    "output_strides", "output_border", "output_size", "output_relu",
)  # fmt: skip
_REALS = ("output_kappa", "output_alpha", "output_beta")

F16 = npt.NDArray[np.float16]
# What a quantized layer's weights are: indices (outputs, inputs) and the entries they choose from.
Quantized = tuple[U8, Codebook]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of layer_params, `index` being its position (the number stored in `layer` means nothing)."""

    index: int
    integers: Mapping[str, int | None]
    reals: Mapping[str, float | None]

    def integer(self, column: str, low: int, high: int = shapes.MAX_DIMENSION) -> int:
        """A column that this layer's type uses, between low and high."""
        value = self.integers[column]
        if value is None or not low <= value <= high:
            raise InputError(f"layer {self.index}: {column} is {value}; {low} to {high} are possible")
        return value

    def real(self, column: str) -> float:
        """A real column, rounded to float32 as ccv's own numbers are."""
        value = self.reals[column]
        if value is None or not abs(value) <= float(np.finfo(np.float32).max):
            raise InputError(f"layer {self.index}: {column} is {value}; a finite number is needed")
        return float(np.float32(value))

    @property
    def type(self) -> int:
        """Kind of layer, 1 to 5."""
        return self.integer("type", CONVOLUTION, NORM)


def read(path: str | Path, *, labels: tuple[Label, ...] | None = None, provenance: Provenance | None = None) -> Model:
    """Reads a plain ccv network. Raises InputError for anything malformed, and for Klaus' quantized networks.

    labels: by default ILSVRC2012's for 1,000 classes, none for other numbers. provenance: by default the file's
    name, licence unknown. Half precision weights stay float16.
    """
    path = Path(path)
    with open_database(path) as db:
        if codebooks := codebook_layers(db):
            raise InputError(
                f"{path} holds codebooks for layers {', '.join(map(str, codebooks))}, whose weights are in PNG files: "
                "read it as a Klaus network"
            )
        return assemble(db, path, {}, labels=labels, provenance=provenance)


def codebook_layers(db: sqlite3.Connection) -> list[int]:
    """Layers that have a row in Klaus' layer_quant table; empty where there is no such table."""
    if not has_table(db, "layer_quant"):
        return []
    layers = [layer for (layer,) in db.execute("SELECT layer FROM layer_quant LIMIT ?", (shapes.MAX_LAYERS + 1,))]
    if not all(isinstance(layer, int) for layer in layers) or len(set(layers)) != len(layers):
        raise InputError("layer_quant has rows without a layer number, or two for one layer")
    return sorted(layers)


def read_rows(db: sqlite3.Connection) -> list[Row]:
    """The rows of layer_params in the order of their numbers."""
    if not has_table(db, "layer_params"):
        raise InputError("it has no table layer_params: it is not a ccv network")
    columns = ", ".join((*_INTEGERS, *_REALS))
    query = f"SELECT {columns} FROM layer_params ORDER BY layer LIMIT {shapes.MAX_LAYERS + 1}"  # noqa: S608
    rows = []
    for index, values in enumerate(db.execute(query)):
        integers = dict(zip(_INTEGERS, values[: len(_INTEGERS)], strict=True))
        reals = dict(zip(_REALS, values[len(_INTEGERS) :], strict=True))
        for column, value in integers.items():
            if not isinstance(value, int | None):
                raise InputError(f"layer {index}: {column} is not an integer")
        for column, value in reals.items():
            if not isinstance(value, float | int | None):
                raise InputError(f"layer {index}: {column} is not a number")
        rows.append(Row(index, integers, reals))
    if not 1 <= len(rows) <= shapes.MAX_LAYERS:
        raise InputError(f"layer_params has {len(rows)} layers; 1 to {shapes.MAX_LAYERS} are possible")
    return rows


def full_connect_shape(row: Row) -> tuple[int, int]:
    """(outputs, inputs) of a full connect layer."""
    inputs = row.integer("input_node_count", 1, shapes.MAX_ELEMENTS)
    outputs = row.integer("output_count", 1)
    if inputs * outputs > shapes.MAX_ELEMENTS:
        raise InputError(f"layer {row.index}: {outputs} x {inputs} weights are more than {shapes.MAX_ELEMENTS}")
    return outputs, inputs


def assemble(
    db: sqlite3.Connection,
    path: Path,
    quantized: Mapping[int, Quantized],
    *,
    labels: tuple[Label, ...] | None = None,
    provenance: Provenance | None = None,
) -> Model:
    """Makes the model of an open database, taking the weights of the layers in `quantized` from there."""
    rows = read_rows(db)
    _check_data_rows(db, rows)
    height, width, mean = _read_mean(db, rows[0])
    shape: shapes.Shape = (
        rows[0].integer("input_matrix_rows", 1),
        rows[0].integer("input_matrix_cols", 1),
        rows[0].integer("input_matrix_channels", 1),
    )
    nominal = shape
    layers: list[Layer] = []
    flat = False
    for row in rows:
        if flat and row.type != FULL_CONNECT:
            raise InputError(f"layer {row.index}: only full connect layers may follow a full connect layer")
        _check_chain(row, shape, flat=flat)
        flat = flat or row.type == FULL_CONNECT
        layer, shape = _layer(db, row, shape, quantized.get(row.index))
        layers.append(layer)
    convolutions = [row.index for row in rows if row.type == CONVOLUTION]
    scan = convolutions[-1] if convolutions else None
    # ccv itself cannot cut patches right before a full connect layer or behind the last layer.
    if scan is not None and (not flat or rows[scan + 1].type == FULL_CONNECT):
        scan = None
    model = Model(
        name=model_name(path),
        input_shape=nominal,
        layers=tuple(layers),
        formation=CcvFormation(height, width, mean, scan) if nominal[2] == 3 else None,
        labels=class_names.for_classes(shape[2]) if labels is None else labels,
        provenance=provenance or Provenance(f"file {path.name}", "unknown", "unknown"),
        patches=10 if scan is not None and nominal[2] == 3 else 1,
    )
    shapes.validate(model)
    return model


def _layer(
    db: sqlite3.Connection, row: Row, shape: shapes.Shape, quantized: Quantized | None
) -> tuple[Layer, shapes.Shape]:
    """The layer of a row and its output shape, given its input's."""
    rows, cols, channels = shape
    inputs = (row.index - 1,)
    if quantized is not None and row.type != FULL_CONNECT:
        raise InputError(f"layer {row.index}: only full connect layers can have a codebook")
    if row.type == FULL_CONNECT:
        wanted = full_connect_shape(row)
        relu = row.integer("output_relu", -(1 << 31), (1 << 31) - 1) != 0
        full = FullConnect(
            f"full-{row.index}",
            inputs,
            _read_weights(db, row.index, wanted, quantized),
            Activation.RELU if relu else Activation.LINEAR,
        )
        return full, (1, 1, wanted[0])
    if row.type == NORM:
        norm = LocalResponseNorm(
            f"norm-{row.index}",
            inputs,
            row.integer("output_size", 1),
            row.real("output_kappa"),
            row.real("output_alpha"),
            row.real("output_beta"),
            row.integer("input_matrix_partition", 1),
        )
        return norm, shape
    stride = row.integer("output_strides", 1)
    border = row.integer("output_border", 0)
    if row.type in (MAX_POOL, AVERAGE_POOL):
        size = row.integer("output_size", 1)
        window = Window(size, size, stride, stride, (border,) * 4)
        kind, name = ("max", "max-pool") if row.type == MAX_POOL else ("average", "average-pool")
        pool = Pool(f"{name}-{row.index}", inputs, window, "max" if kind == "max" else "average")
        return pool, (*_strided(row.index, window, rows, cols), channels)
    window = Window(row.integer("output_rows", 1), row.integer("output_cols", 1), stride, stride, (border,) * 4)
    if window.rows % 2 == 0 or window.cols % 2 == 0:
        raise InputError(f"layer {row.index}: a {window.rows} x {window.cols} kernel; ccv takes odd sizes only")
    groups = row.integer("input_matrix_partition", 1)
    partition = row.integer("output_partition", 1)
    count = row.integer("output_count", 1)
    if channels % groups or count % groups or partition % groups or count % partition:
        raise InputError(
            f"layer {row.index}: {groups} input and {partition} output partitions do not fit "
            f"{channels} channels and {count} filters"
        )
    wanted_weights = (count, window.rows, window.cols, channels // groups)
    convolution = Convolution(
        f"conv-{row.index}", inputs, window, _read_weights(db, row.index, wanted_weights), groups, Activation.RELU
    )
    return convolution, (*_strided(row.index, window, rows, cols), count)


def _strided(index: int, window: Window, rows: int, cols: int) -> tuple[int, int]:
    """Output rows and columns; ccv wants strides that end exactly at the border."""
    padded = rows + 2 * window.pads[0] - window.rows, cols + 2 * window.pads[1] - window.cols
    if min(padded) < 0 or padded[0] % window.stride_rows or padded[1] % window.stride_cols:
        raise InputError(
            f"layer {index}: windows of {window.rows} x {window.cols} at stride {window.stride_rows} and border "
            f"{window.pads[0]} do not fill {rows} x {cols} exactly"
        )
    return padded[0] // window.stride_rows + 1, padded[1] // window.stride_cols + 1


def _check_chain(row: Row, shape: shapes.Shape, *, flat: bool) -> None:
    """What a row says of its input must be what the layers before it make."""
    said = [row.integers[f"input_matrix_{name}"] for name in ("rows", "cols", "channels")]
    if not flat and said != list(shape):
        raise InputError(f"layer {row.index}: says it reads {_times(said)}, but gets {_times(shape)}")
    if row.type == FULL_CONNECT:
        got = shape[0] * shape[1] * shape[2]
        if row.integers["input_node_count"] != got:
            raise InputError(
                f"layer {row.index}: input_node_count is {row.integers['input_node_count']}, but gets {got}"
            )
    elif row.type == CONVOLUTION and row.integers["output_channels"] != shape[2]:
        raise InputError(
            f"layer {row.index}: output_channels is {row.integers['output_channels']}, but gets {shape[2]}"
        )


def _check_data_rows(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    if not has_table(db, "layer_data"):
        raise InputError("it has no table layer_data: it holds no weights")
    seen = set()
    for (layer,) in db.execute("SELECT layer FROM layer_data LIMIT ?", (shapes.MAX_LAYERS + 1,)):
        if not isinstance(layer, int) or not 0 <= layer < len(rows):
            raise InputError(f"layer_data has weights for layer {layer!r:.40}, but the network has {len(rows)} layers")
        if layer in seen:
            raise InputError(f"layer_data has two rows for layer {layer}")
        if rows[layer].type not in (CONVOLUTION, FULL_CONNECT):
            raise InputError(f"layer_data has weights for layer {layer}, which is of type {rows[layer].type}")
        seen.add(layer)


def _read_weights(
    db: sqlite3.Connection, index: int, shape: tuple[int, ...], quantized: Quantized | None = None
) -> Weights:
    """Weights and bias of a layer; sizes are compared before a blob is read."""
    columns = "half_precision, typeof(weight), length(weight), typeof(bias), length(bias)"
    found = db.execute(f"SELECT {columns} FROM layer_data WHERE layer = ?", (index,)).fetchone()  # noqa: S608
    if found is None:
        raise InputError(f"layer {index}: layer_data has no row, so it has neither weights nor bias")
    half, weight_type, weight_bytes, bias_type, bias_bytes = found
    if not isinstance(half, int):
        raise InputError(f"layer {index}: half_precision is not an integer")
    dtype = np.dtype("<f2") if half else np.dtype("<f4")
    count = int(np.prod(shape, dtype=object))
    if count > shapes.MAX_ELEMENTS:
        raise InputError(f"layer {index}: {_times(shape)} weights are more than {shapes.MAX_ELEMENTS}")
    _check_blob(index, "bias", bias_type, bias_bytes, shape[0] * dtype.itemsize)
    bias = np.frombuffer(_blob(db, "bias", index), dtype).astype(np.float32)
    if quantized is not None:
        if weight_bytes:
            raise InputError(f"layer {index}: has a codebook and {weight_bytes} bytes of plain weights; one must go")
        indices, codebook = quantized
        return Weights(indices, bias, codebook=codebook)
    _check_blob(index, "weight", weight_type, weight_bytes, count * dtype.itemsize)
    values = np.frombuffer(_blob(db, "weight", index), dtype).reshape(shape)
    if half:
        return Weights(values.astype(np.float16, copy=False), bias)
    return Weights(values.astype(np.float32, copy=False), bias)


def _read_mean(db: sqlite3.Connection, first: Row) -> tuple[int, int, F32]:
    """Picture size and mean activity; the mean is float32 in half precision files too."""
    if not has_table(db, "convnet_params"):
        raise InputError("it has no table convnet_params: it is not a ccv network")
    columns = "input_height, input_width, typeof(mean_activity), length(mean_activity)"
    found = db.execute(f"SELECT {columns} FROM convnet_params WHERE convnet = 0").fetchone()  # noqa: S608
    if found is None:
        raise InputError("convnet_params has no row 0, which holds the picture size and the mean")
    height, width, kind, size = found
    if not all(isinstance(value, int) and 1 <= value <= shapes.MAX_DIMENSION for value in (height, width)):
        raise InputError(f"convnet_params: picture size {height!r:.20} x {width!r:.20} is not possible")
    channels = first.integer("input_matrix_channels", 1)
    wanted = height * width * channels * 4
    if kind != b"blob" or size != wanted:
        raise InputError(
            f"convnet_params: mean_activity has {size} bytes; {height} x {width} x {channels} need {wanted}"
        )
    (blob,) = db.execute("SELECT mean_activity FROM convnet_params WHERE convnet = 0").fetchone()
    return height, width, np.frombuffer(blob, "<f4").reshape(height, width, channels).astype(np.float32, copy=False)


def _check_blob(index: int, column: str, kind: bytes, size: int | None, wanted: int) -> None:
    if kind != b"blob" or size != wanted:
        found = "nothing" if kind == b"null" else f"{size} bytes of type {kind.decode('ascii', 'replace')}"
        raise InputError(f"layer {index}: {column} holds {found}; its geometry needs {wanted} bytes")


def _blob(db: sqlite3.Connection, column: str, index: int) -> bytes:
    (blob,) = db.execute(f"SELECT {column} FROM layer_data WHERE layer = ?", (index,)).fetchone()  # noqa: S608
    if not isinstance(blob, bytes):
        raise InputError(f"layer {index}: {column} is not a blob")
    return blob


def _times(sizes: Sequence[int | None]) -> str:
    return " x ".join(map(str, sizes))


def half_values(blob: bytes) -> F16:
    """A blob of little-endian binary16 numbers."""
    return np.frombuffer(blob, "<f2").astype(np.float16, copy=False)
