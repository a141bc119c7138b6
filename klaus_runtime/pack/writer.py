"""Model -> packed model. Knows no kernel's geometry: it writes canonical sections alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    Activate,
    Activation,
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
    Range,
    Slice,
    Softmax,
    Weights,
    Window,
)
from klaus_runtime.pack.structs import (
    ACTIVATIONS,
    INDEX_DTYPES,
    MAGIC,
    METHODS,
    const,
    encode,
    float_name,
    pack_rows,
    size_of,
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Section:
    kind: str
    data: bytes | Array
    layer: int = -1
    dtype: str | None = None

    @property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.nbytes


def pack(model: Model, path: Path) -> Path:
    """Writes model as a packed model, whole or not at all, and returns path.

    Raises InputError where the model is not valid or path cannot be written.
    """
    shapes.validate(model)
    sections = list(_sections(model))
    header_bytes = size_of("file_header")
    position = header_bytes + len(sections) * size_of("section")
    table = []
    for section in sections:
        position = _aligned(position)
        fields = {
            "kind": const(f"SECTION_{section.kind}"),
            "layer": section.layer,
            "layout": const("CANONICAL_LAYOUT"),
            "dtype": const(section.dtype) if section.dtype else 0,
            "offset": position,
            "bytes": section.size,
        }
        table.append((position, encode("section", fields)))
        position += section.size

    header = {
        "magic": MAGIC,
        "version": const("FORMAT_VERSION"),
        "header_bytes": header_bytes,
        "file_bytes": position,
        "section_count": len(sections),
        "layer_count": len(model.layers),
    }
    with files.staged((path,)) as (temporary,), temporary.open("w+b") as file:
        digest = hashlib.sha256()
        _put(file, digest, bytes(header_bytes), hashed=False)
        _put(file, digest, b"".join(entry for _, entry in table))
        for section, (offset, _) in zip(sections, table, strict=True):
            _put(file, digest, bytes(offset - file.tell()))
            _put(file, digest, section.data)
        file.seek(0)
        file.write(encode("file_header", header | {"digest": digest.digest()}))
    return path


def _put(file: BinaryIO, digest: Any, data: bytes | Array, *, hashed: bool = True) -> None:
    view = data if isinstance(data, bytes) else np.ascontiguousarray(data).data.cast("B")
    file.write(view)
    if hashed:
        digest.update(view)


def _aligned(position: int) -> int:
    alignment = const("ALIGNMENT")
    return -(-position // alignment) * alignment


def _sections(model: Model) -> Iterator[_Section]:
    outputs = shapes.infer(model)
    yield _Section("NETWORK", encode("network", _network_fields(model, math.prod(outputs[-1]))))
    rows = (
        encode("layer", _common_fields(layer, shape) | _own_fields(layer))
        for layer, shape in zip(model.layers, outputs, strict=True)
    )
    yield _Section("LAYERS", b"".join(rows))
    yield _Section("META", json.dumps(_meta(model), ensure_ascii=False, sort_keys=True).encode())
    if model.labels:
        yield _Section("LABELS", _label_lines(model.labels))
    if isinstance(model.formation, CcvFormation):
        yield _Section("MEAN", model.formation.mean.astype("<f4", copy=False), dtype="F32")
    if model.ranges:
        yield _Section("RANGES", b"".join(encode("range", _range_fields(item)) for item in model.ranges))
    for number, layer in enumerate(model.layers):
        if isinstance(layer, Convolution | FullConnect):
            yield from _weight_sections(number, layer.weights)


def _meta(model: Model) -> dict[str, object]:
    origin = model.provenance
    return {
        "name": model.name,
        "source": origin.source,
        "licence": origin.licence,
        "attribution": origin.attribution,
        "seeded": origin.seeded,
        "scheme": origin.scheme,
    }


def _label_lines(labels: Sequence[Label]) -> bytes:
    return "".join(f"{label.id}\t{label.name}\n" for label in labels).encode()


def _network_fields(model: Model, outputs: int) -> dict[str, object]:
    rows, cols, channels = model.input_shape
    fields: dict[str, object] = {
        "rows": rows,
        "cols": cols,
        "channels": channels,
        "outputs": outputs,
        "flags": const("FLAG_SEEDED") if model.provenance.seeded else 0,
        "scan_layer": const("NO_LAYER"),
        "default_patches": model.patches,
        "formation": const("FORMATION_TENSOR"),
    }
    formation = model.formation
    if isinstance(formation, CcvFormation):
        scan = formation.scan_layer
        fields |= {
            "formation": const("FORMATION_CCV"),
            "picture_rows": formation.rows,
            "picture_cols": formation.cols,
            "scan_layer": const("NO_LAYER") if scan is None else scan,
        }
    elif isinstance(formation, CropFormation):
        fields |= {
            "formation": const("FORMATION_CROP"),
            "crop_padding": formation.padding,
            "channel_order": const(formation.order.upper()),
            "channel_mean": list(formation.mean),
            "channel_scale": list(formation.scale),
        }
    return fields


def _common_fields(layer: Layer, shape: tuple[int, int, int]) -> dict[str, object]:
    fields: dict[str, object] = {
        "input_count": len(layer.inputs),
        "inputs": list(layer.inputs),
        "rows": shape[0],
        "cols": shape[1],
        "channels": shape[2],
        "name": layer.name.encode(),
    }
    activation = getattr(layer, "activation", Activation.LINEAR)
    return fields | {"activation": const(ACTIVATIONS[activation])}


def _own_fields(layer: Layer) -> dict[str, object]:
    """The fields that depend on the kind of layer."""
    match layer:
        case Convolution():
            fields = {"op": const("OP_CONV"), "groups": layer.groups}
            return fields | _window_fields(layer.window) | _weight_fields(layer.weights)
        case FullConnect():
            return {"op": const("OP_FULL_CONNECT")} | _weight_fields(layer.weights)
        case Pool():
            return {"op": const(f"OP_{layer.kind.upper()}_POOL")} | _window_fields(layer.window)
        case GlobalPool():
            return {"op": const("OP_GLOBAL_POOL")}
        case LocalResponseNorm():
            fields = {"op": const("OP_LRN"), "groups": layer.groups, "size": layer.size}
            return fields | {"kappa": layer.kappa, "alpha": layer.alpha, "beta": layer.beta}
        case Add():
            return {"op": const("OP_ADD")}
        case Concat():
            return {"op": const("OP_CONCAT")}
        case Slice():
            return {"op": const("OP_SLICE"), "begin": layer.begin}
        case Softmax():
            return {"op": const("OP_SOFTMAX")}
        case Activate():
            return {"op": const("OP_ACTIVATION")}
    raise InputError(f"layer {layer.name!r}: a packed model has no {type(layer).__name__} layers")


def _window_fields(window: Window) -> dict[str, object]:
    names = ("pad_top", "pad_left", "pad_bottom", "pad_right")
    return {
        "kernel_rows": window.rows,
        "kernel_cols": window.cols,
        "stride_rows": window.stride_rows,
        "stride_cols": window.stride_cols,
        **dict(zip(names, window.pads, strict=True)),
    }


def _weight_fields(weights: Weights) -> dict[str, object]:
    if weights.codebook is None:
        return {"weight_dtype": const(float_name(weights.values.dtype))}
    return {
        "weight_dtype": const(INDEX_DTYPES[weights.codebook.index_bits]),
        "codebook_dtype": const(float_name(weights.codebook.values.dtype)),
        "codebook_entries": len(weights.codebook.values),
    }


def _weight_sections(number: int, weights: Weights) -> Iterator[_Section]:
    rows = weights.values.reshape(len(weights.bias), -1)
    book = weights.codebook
    if book is None:
        yield _Section("WEIGHTS", rows, number, float_name(rows.dtype))
    else:
        yield _Section("CODEBOOK", book.values, number, float_name(book.values.dtype))
        packed = pack_rows(rows.astype(np.uint8, copy=False), book.index_bits)
        yield _Section("WEIGHTS", packed, number, INDEX_DTYPES[book.index_bits])
    if weights.scale is not None:
        yield _Section("SCALE", weights.scale, number, "F32")
    yield _Section("BIAS", weights.bias, number, "F32")
    if weights.correction is not None:
        yield _Section("CORRECTION", weights.correction, number, "F32")


def _range_fields(item: Range | None) -> dict[str, object]:
    return {} if item is None else {"low": item.low, "high": item.high, "method": METHODS[item.method]}
