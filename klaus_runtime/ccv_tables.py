"""ccv's own sqlite3 tables, written: plain ccv files, and the part of a package that Klaus' loader reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    Activation,
    CcvFormation,
    Convolution,
    FullConnect,
    Layer,
    LocalResponseNorm,
    Model,
    Pool,
    Weights,
)
from klaus_runtime.readers.ccv import AVERAGE_POOL, CONVOLUTION, FULL_CONNECT, MAX_POOL, NORM

# Table names, columns and types are the file format of ccv (layer_quant: of Klaus); readers ask for them by name.
_SCHEMA = {
    "layer_params": (
        "layer INTEGER PRIMARY KEY ASC, type INTEGER, input_matrix_rows INTEGER, input_matrix_cols INTEGER, "
        "input_matrix_channels INTEGER, input_matrix_partition INTEGER, input_node_count INTEGER, output_rows INTEGER, "
        "output_cols INTEGER, output_channels INTEGER, output_partition INTEGER, output_count INTEGER, "
        "output_strides INTEGER, output_border INTEGER, output_size INTEGER, output_kappa REAL, output_alpha REAL, "
        "output_beta REAL, output_relu INTEGER"
    ),
    "layer_data": "layer INTEGER PRIMARY KEY ASC, weight BLOB, bias BLOB, half_precision INTEGER",
    "convnet_params": (
        "convnet INTEGER PRIMARY KEY ASC, input_height INTEGER, input_width INTEGER, mean_activity BLOB"
    ),
    "layer_quant": "layer INTEGER PRIMARY KEY ASC, quant BLOB",
}

_SMALL_PAGES, _LARGE_PAGES = (512, 1024, 2048, 4096), (4096, 16384, 65536)
# sqlite's file header: change counter, the counter that the version after it belongs to, version of the last writer.
_HEADER = ((24, 1), (92, 1), (96, 3_040_001))


def create(db: sqlite3.Connection, table: str) -> None:
    """Makes one of ccv's tables."""
    db.execute(f"CREATE TABLE {table} ({_SCHEMA[table]})")


def insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    """One row; names come from this code, values go through placeholders."""
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608


@contextmanager
def new_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A fresh database; committed when the block ends well. The caller stages path, so it needs no journal."""
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()
    except sqlite3.Error as error:
        raise InputError(f"{path.name}: cannot be written (sqlite: {error}): is the disk full?") from error


def shrink(path: Path) -> None:
    """Makes a closed database as small as any page size lets it be, and independent of sqlite's version.

    Small pages waste less behind each blob and table, large ones hold long blobs with fewer pointers.
    """
    sizes = {}
    for page in _SMALL_PAGES if path.stat().st_size < 1 << 20 else _LARGE_PAGES:
        _rewrite(path, page)
        sizes[page] = path.stat().st_size
    best = min(sizes, key=lambda page: sizes[page])
    if page != best:
        _rewrite(path, best)
    with path.open("r+b") as file:
        for offset, value in _HEADER:
            file.seek(offset)
            file.write(value.to_bytes(4, "big"))


def _rewrite(path: Path, page_bytes: int) -> None:
    try:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute(f"PRAGMA page_size = {page_bytes}")
            db.execute("VACUUM")
        finally:
            db.close()
    except sqlite3.Error as error:
        raise InputError(f"{path.name}: cannot be written (sqlite: {error}): is the disk full?") from error


def why_not(model: Model) -> str | None:
    """What keeps a network out of ccv's schema, None where it fits: a chain of ccv's five layers in ccv's order."""
    if not isinstance(model.formation, CcvFormation):
        return "its pictures are not brought to size as ccv does"
    flat = False
    outputs = [model.input_shape, *shapes.infer(model)]
    for number, layer in enumerate(model.layers):
        if layer.inputs != (number - 1,):
            return f"layer {number} ({layer.name}) does not simply follow the one before"
        if flat and not isinstance(layer, FullConnect):
            return f"layer {number} ({layer.name}) stands behind a full connect layer"
        flat = flat or isinstance(layer, FullConnect)
        reason = _why_not_layer(layer, outputs[number])
        if reason:
            return f"layer {number} ({layer.name}) {reason}"
    last = model.layers[-1]
    if not isinstance(last, FullConnect) or last.activation is not Activation.LINEAR:
        return "its last layer is no full connect layer without activation"
    convolutions = [number for number, layer in enumerate(model.layers) if isinstance(layer, Convolution)]
    if model.formation.scan_layer not in (None, *convolutions[-1:]):
        return "patches are not cut behind its last convolution"
    return None


def _why_not_layer(layer: Layer, source: tuple[int, int, int]) -> str | None:
    if isinstance(layer, FullConnect):
        if layer.activation is Activation.RELU6:
            return "ends in ReLU6"
        return "has a scale beside its weights" if layer.weights.scale is not None else None
    if isinstance(layer, LocalResponseNorm):
        return None
    if not isinstance(layer, Convolution | Pool):
        return f"is a {type(layer).__name__}, which ccv has not"
    window = layer.window
    if window.stride_rows != window.stride_cols or len(set(window.pads)) != 1:
        return "has different strides or paddings on its sides"
    border = 2 * window.pads[0]
    if (source[0] + border - window.rows) % window.stride_rows or (
        source[1] + border - window.cols
    ) % window.stride_cols:
        return "has windows that do not end exactly at its border"
    if isinstance(layer, Pool):
        return "has a window that is not square" if window.rows != window.cols else None
    if layer.weights.scale is not None:
        return "has a scale beside its weights"
    if layer.activation is not Activation.RELU:
        return "does not end in ReLU"
    if not (window.rows % 2 and window.cols % 2):
        return "has a kernel of even size"
    # ccv's forward pass asserts it, in its scalar form too.
    return "has groups whose outputs are no multiple of 4" if len(layer.weights.bias) // layer.groups % 4 else None


def write_geometry(db: sqlite3.Connection, model: Model) -> None:
    """layer_params of a network that fits (why_not is None)."""
    create(db, "layer_params")
    sources = [model.input_shape, *shapes.infer(model)]
    for number, layer in enumerate(model.layers):
        rows, cols, channels = sources[number]
        if number and isinstance(model.layers[number - 1], FullConnect):
            rows, channels = channels, rows  # ccv calls the outputs of a full connect layer rows
        common: dict[str, object] = {
            "layer": number,
            "input_matrix_rows": rows,
            "input_matrix_cols": cols,
            "input_matrix_channels": channels,
            "input_matrix_partition": getattr(layer, "groups", 1),
            "input_node_count": rows * cols * channels if isinstance(layer, FullConnect) else 0,
        }
        insert(db, "layer_params", **common, **_columns(layer, channels))


def _columns(layer: Layer, channels: int) -> dict[str, object]:
    """The columns that a layer's type uses; the others stay NULL."""
    match layer:
        case Convolution(window=window, weights=weights, groups=groups):
            return {
                "type": CONVOLUTION,
                "output_rows": window.rows,
                "output_cols": window.cols,
                "output_channels": channels,
                "output_partition": groups,
                "output_count": len(weights.bias),
                "output_strides": window.stride_rows,
                "output_border": window.pads[0],
            }
        case FullConnect(weights=weights, activation=activation):
            relu = int(activation is Activation.RELU)
            return {"type": FULL_CONNECT, "output_count": len(weights.bias), "output_relu": relu}
        case Pool(window=window, kind=kind):
            return {
                "type": MAX_POOL if kind == "max" else AVERAGE_POOL,
                "output_size": window.rows,
                "output_strides": window.stride_rows,
                "output_border": window.pads[0],
            }
        case LocalResponseNorm():
            return {
                "type": NORM,
                "output_size": layer.size,
                "output_kappa": layer.kappa,
                "output_alpha": layer.alpha,
                "output_beta": layer.beta,
            }
    raise ValueError(f"{type(layer).__name__} does not fit ccv's schema")


def write_mean(db: sqlite3.Connection, formation: CcvFormation) -> None:
    """convnet_params: the size pictures are brought to, and the mean, always float32."""
    create(db, "convnet_params")
    mean = _blob(formation.mean, "<f4")
    insert(db, "convnet_params", convnet=0, input_height=formation.rows, input_width=formation.cols, mean_activity=mean)


def write_data(db: sqlite3.Connection, number: int, values: npt.NDArray[Any] | None, bias: F32, *, half: bool) -> None:
    """A row of layer_data: values (None where a picture has them) and bias, both half precision or both float32."""
    form = "<f2" if half else "<f4"
    weight = None if values is None else _blob(_converted(values, number, half=half), form)
    bias_blob = _blob(_converted(bias, number, half=half), form)
    insert(db, "layer_data", layer=number, weight=weight, bias=bias_blob, half_precision=int(half))


def _converted(values: npt.NDArray[Any], number: int, *, half: bool) -> npt.NDArray[Any]:
    if not half or values.dtype == np.float16:
        return values
    if float(np.abs(values).max()) >= 65536:
        raise InputError(f"layer {number}: has a number of 65536 or more, half precision cannot hold it: write float32")
    return truncate_to_half(values)


def truncate_to_half(values: F32) -> npt.NDArray[np.float16]:
    """float32 (magnitudes below 65536) to binary16 toward zero, as ccv does it; numpy alone would round to nearest."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float16)
    farther = np.abs(nearest.astype(np.float32)) > np.abs(values)
    return (nearest.view(np.uint16) - farther).astype(np.uint16).view(np.float16)


def _blob(values: npt.NDArray[Any], form: str) -> bytes:
    return values.astype(form, copy=False).tobytes()


def _plain(weights: Weights) -> npt.NDArray[Any]:
    """Weights as ccv must get them: no codebook, no scale."""
    if weights.codebook is None and weights.scale is None:
        return weights.values
    return weights.effective()


def write_ccv(model: Model, path: Path, *, half: bool = False) -> Path:
    """Writes a plain file that ccv itself reads, codebooks and scales multiplied out, and returns path.

    half: binary16 weights and biases, truncated as ccv does; else float32. Labels, licence and names are lost: ccv's
    schema has no place for them. Raises InputError where the network does not fit it or path cannot be written.
    """
    shapes.validate(model)
    folded = _folded(model)
    reason = why_not(folded)
    if reason is not None or not isinstance(folded.formation, CcvFormation):
        raise InputError(f"model {model.name}: cannot be a ccv file, as {reason}: write a package instead")
    with files.staged((path,)) as (temporary,), new_database(temporary) as db:
        write_geometry(db, folded)
        create(db, "layer_data")
        for number, layer in weighted(folded):
            write_data(db, number, _plain(layer.weights), layer.weights.bias, half=half)
        write_mean(db, folded.formation)
    return path


def weighted(model: Model) -> Sequence[tuple[int, Convolution | FullConnect]]:
    """The layers that have weights, numbered."""
    return [(n, layer) for n, layer in enumerate(model.layers) if isinstance(layer, Convolution | FullConnect)]


def _folded(model: Model) -> Model:
    """The network with plain weights everywhere."""
    layers = tuple(
        replace(layer, weights=Weights(_plain(layer.weights), layer.weights.bias))
        if isinstance(layer, Convolution | FullConnect)
        else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)
