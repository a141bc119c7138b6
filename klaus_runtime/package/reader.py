"""Package -> Model. Trusts nothing: types, sizes and sums are checked before they are used."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from klaus_runtime import png, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    Activation,
    CcvFormation,
    Codebook,
    Convolution,
    CropFormation,
    Formation,
    FullConnect,
    Label,
    Layer,
    Model,
    Provenance,
    Range,
    Weights,
    Window,
)
from klaus_runtime.package import stream
from klaus_runtime.package.tables import (
    CLASSIC,
    CORRECTIONS,
    EXTENDED,
    EXTENDED_SCHEMA,
    KINDS,
    LABEL_LISTS,
    SCHEMA,
    picture_path,
    stream_path,
)
from klaus_runtime.readers.database import has_table, open_database

_MAX_STREAM_BYTES = 1 << 29


def read_package(path: Path) -> Model:
    """Reads and checks a package; its pictures stand beside path as NAME-layer-N.png or NAME-layers.png.

    Raises InputError naming the file and what is wrong with it: malformed, incomplete, or parts of two packages mixed.
    """
    with open_database(path) as db:
        facts = _read_facts(db)
        rows = _read_rows(db, EXTENDED_SCHEMA if facts["version"] == EXTENDED else SCHEMA)
        formation = facts.get("formation")
        if facts["version"] == EXTENDED:
            weights, mean = _read_stream(path, rows, facts)
        else:
            weights = {n: _read_weights(db, path, n, row) for n, row in enumerate(rows) if _has_weights(row, n)}
            mean = _read_mean(db) if isinstance(formation, dict) and formation.get("kind") == "ccv" else None
        weights = _corrected(db, weights)
        layers = tuple(_read_layer(number, row, weights.get(number)) for number, row in enumerate(rows))
        ranges = (_range(row["range"], f"layer {number}") for number, row in enumerate(rows))
        model = Model(
            name=_text(facts, "name"),
            input_shape=_shape3(facts.get("input_shape")),
            layers=layers,
            formation=_read_formation(formation, mean),
            labels=_read_labels(db, facts.get("labels")),
            provenance=_read_provenance(facts.get("provenance")),
            patches=_patches(facts.get("patches")),
            ranges=(_range(facts["input_range"], "the input"), *ranges) if "input_range" in facts else (),
        )
        shapes.validate(model)
    return model


def _read_rows(db: sqlite3.Connection, schema: Mapping[str, str]) -> list[dict[str, Any]]:
    """klaus_layer's rows in order; how many there are is bounded, what stands in them not yet checked."""
    columns = [column.split()[0] for column in schema["klaus_layer"].split(", ")]
    query = f"SELECT {', '.join(columns)} FROM klaus_layer ORDER BY layer LIMIT {shapes.MAX_LAYERS + 1}"  # noqa: S608
    rows = [dict(zip(columns, row, strict=True)) for row in db.execute(query)]
    for number, row in enumerate(rows):
        if row["layer"] != number:
            raise InputError(f"klaus_layer has layer {row['layer']!r} where {number} should stand")
    return rows


def _kind(row: Mapping[str, Any], number: int) -> type[Layer]:
    kind = KINDS.get(_utf8(row["kind"], f"layer {number}: its kind"))
    if kind is None:
        raise InputError(f"layer {number}: is of the kind {row['kind']!r:.40}: {', '.join(KINDS)} are known")
    return kind


def _has_weights(row: Mapping[str, Any], number: int) -> bool:
    return _kind(row, number) in (Convolution, FullConnect)


def _json(text: object, what: str) -> Any:
    if isinstance(text, bytes):
        try:
            return json.loads(text.decode(), parse_constant=_no_constant)  # not the UTF-16 and 32 that bytes may be
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what} is not the JSON it should be") from error
    raise InputError(f"{what} is missing or of the wrong type")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number here")


def _read_facts(db: sqlite3.Connection) -> dict[str, Any]:
    facts = {}
    for table in SCHEMA:
        if not has_table(db, table):
            raise InputError(f"it has no table {table}: the package is incomplete")
    for key, value in db.execute("SELECT key, value FROM klaus_package LIMIT 1000"):
        if isinstance(key, bytes):
            facts[key.decode("utf-8", "replace")] = _json(value, "a value in klaus_package")
    if facts.get("version") not in (CLASSIC, EXTENDED):
        raise InputError(f"it is a package of version {facts.get('version')!r:.40}, this is for versions 1 and 2")
    if facts["version"] == CLASSIC and not has_table(db, "layer_data"):
        raise InputError("it has no table layer_data: the package is incomplete")
    return facts


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise InputError(f"its {key} is not a text")
    return value


def _whole(value: object, what: str, low: int = 0, high: int = shapes.MAX_DIMENSION) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{what} is {value!r:.40}: a whole number from {low} to {high} is needed")
    return value


def _number(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e38:
        raise InputError(f"{what} is {value!r:.40}: a number is needed")
    return float(value)


def _numbers(value: object, what: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{what} is {value!r:.40}: three numbers are needed")
    return _number(value[0], what), _number(value[1], what), _number(value[2], what)


def _shape3(value: object) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"its input_shape is {value!r:.40}: three numbers are needed")
    rows, cols, channels = (_whole(item, "its input_shape", 1) for item in value)
    return rows, cols, channels


def _patches(value: object) -> Literal[1, 10]:
    return 10 if _whole(value, "its number of patches", 1) == 10 else 1


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object")
    return value


def _read_provenance(value: object) -> Provenance:
    found = _object(value, "its provenance")
    seeded = found.get("seeded")
    if not isinstance(seeded, bool):
        raise InputError("its provenance does not say whether the weights are seeded")
    source, licence, attribution = (_text(found, key) for key in ("source", "licence", "attribution"))
    return Provenance(source, licence, attribution, seeded, _text(found, "scheme"))


def _read_mean(db: sqlite3.Connection) -> F32 | None:
    row = None
    if has_table(db, "convnet_params"):
        row = db.execute("SELECT mean_activity FROM convnet_params WHERE convnet = 0").fetchone()
    size = len(row[0]) // 4 if row and isinstance(row[0], bytes) else 0
    return _floats(row[0], "its mean picture", size).astype(np.float32) if row and size else None


def _read_formation(value: object, mean: F32 | None) -> Formation:
    if value is None:
        return None
    found = _object(value, "its formation")
    if found.get("kind") == "crop":
        order = found.get("order")
        if order not in ("rgb", "bgr"):
            raise InputError(f"its formation has channel order {order!r:.40}: rgb and bgr are known")
        means, scale = _numbers(found.get("mean"), "its mean"), _numbers(found.get("scale"), "its scale")
        return CropFormation(_whole(found.get("padding"), "its crop padding"), means, scale, order)
    if found.get("kind") != "ccv":
        raise InputError(f"its formation is of kind {found.get('kind')!r:.40}: ccv and crop are known")
    rows, cols = _whole(found.get("rows"), "its picture rows", 1), _whole(found.get("cols"), "its picture cols", 1)
    scan = found.get("scan_layer")
    if mean is None or mean.size != rows * cols * 3:
        has = 0 if mean is None else mean.size
        raise InputError(f"its mean picture has {has:,} numbers: {rows * cols * 3:,} are needed")
    return CcvFormation(
        rows, cols, mean.reshape(rows, cols, 3), None if scan is None else _whole(scan, "its scan layer")
    )


def _read_labels(db: sqlite3.Connection, value: object) -> tuple[Label, ...]:
    if value == "none":
        return ()
    if value is not None:
        if not isinstance(value, str) or value not in LABEL_LISTS:
            raise InputError(f"its labels are the list {value!r:.40}: {', '.join(LABEL_LISTS)} are known")
        return LABEL_LISTS[value]()
    found = []
    for number, row in enumerate(db.execute("SELECT class, id, name FROM klaus_label ORDER BY class LIMIT 65537")):
        if row[0] != number or not all(isinstance(item, bytes) for item in row[1:]):
            raise InputError(f"klaus_label has no proper row for class {number}")
        found.append(Label(_utf8(row[1], "a label"), _utf8(row[2], "a label")))
    return tuple(found)


def _utf8(value: object, what: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(_json(None, what))
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8") from error


def _range(text: object, what: str) -> Range | None:
    if text is None:
        return None
    found = _object(_json(text.encode() if isinstance(text, str) else text, f"the range of {what}"), "a range")
    method = found.get("method")
    if method not in ("minmax", "percentile"):
        raise InputError(f"the range of {what} was measured by {method!r:.40}: minmax and percentile are known")
    return Range(_number(found.get("low"), "a range"), _number(found.get("high"), "a range"), method)


def _floats(blob: object, what: str, count: int, form: str = "<f4") -> Any:
    size = np.dtype(form).itemsize
    if not isinstance(blob, bytes) or len(blob) != count * size:
        found = f"{len(blob):,} bytes" if isinstance(blob, bytes) else "nothing"
        raise InputError(f"{what} has {found}: {count:,} numbers of {size} bytes are needed")
    return np.frombuffer(blob, form)


def _read_layer(number: int, row: Mapping[str, Any], weights: Weights | None) -> Layer:
    what = f"layer {number}"
    kind = _kind(row, number)
    sources = [number - 1] if row["inputs"] is None else _json(row["inputs"], f"{what}: its inputs")
    if not isinstance(sources, list):
        raise InputError(f"{what}: its inputs are not a list")
    own = {} if row["settings"] is None else _json(row["settings"], f"{what}: its settings")
    own = _complete(_object(own, f"{what}: its settings"), kind, {"name", "inputs", "weights"}, what)
    values: dict[str, Any] = {key: _setting(key, value, what) for key, value in own.items()}
    if weights is not None:
        values["weights"] = weights
    name = _utf8(row["name"], f"{what}: its name")
    return kind(name=name, inputs=tuple(_whole(item, f"{what}: an input", -1) for item in sources), **values)


def _complete(own: dict[str, Any], kind: type[Any], apart: set[str], what: str) -> dict[str, Any]:
    """Settings with the defaults of those left out; raises InputError where one is unknown or has no default."""
    wanted = {field.name: field.default for field in fields(kind) if field.name not in apart}
    needed = {key for key, default in wanted.items() if default is MISSING}
    if not needed <= set(own) <= set(wanted):
        raise InputError(f"{what}: has settings {sorted(own)}, its kind needs {sorted(wanted)}"[:400])
    return {key: default for key, default in wanted.items() if key not in own and default is not MISSING} | own


def _setting(key: str, value: object, layer: str) -> object:
    what = f"{layer}: {key}"
    match key:
        case "activation":
            if not isinstance(value, str) or value not in list(Activation):
                raise InputError(f"{what} is {value!r:.40}: {', '.join(Activation)} are known")
            return Activation(value)
        case "kind":
            return value  # shape validation knows the kinds of pool
        case "window":
            found = _complete(_object(value, what), Window, set(), what)
            if not isinstance(found["pads"], list | tuple):
                raise InputError(f"{what} is not a window")
            pads = tuple(_whole(pad, what) for pad in found.pop("pads"))
            if len(pads) != 4:
                raise InputError(f"{what} has {len(pads)} pads instead of 4")
            return Window(**{name: _whole(size, what, 1) for name, size in found.items()}, pads=pads)
        case "kappa" | "alpha" | "beta":
            return _number(value, what)
    return _whole(value, what)


def _weight_shape(row: Mapping[str, Any], what: str) -> tuple[int, ...]:
    sizes = _json(row["weight_shape"], f"{what}: its weight_shape")
    if not isinstance(sizes, list) or len(sizes) not in (2, 4):
        raise InputError(f"{what}: its weight_shape is {sizes!r:.60}: 2 or 4 numbers are needed")
    shape = tuple(_whole(size, f"{what}: its weight_shape", 1, shapes.MAX_ELEMENTS) for size in sizes)
    if math.prod(shape) > shapes.MAX_ELEMENTS:
        raise InputError(f"{what}: has {math.prod(shape):,} weights, at most {shapes.MAX_ELEMENTS:,} are possible")
    return shape


def _read_stream(
    path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> tuple[dict[int, Weights], F32 | None]:
    """The weights of every layer that has some, by layer, and the mean picture's numbers."""
    numbers = [number for number, row in enumerate(rows) if _has_weights(row, number)]
    parts = [_read_part(rows[number], f"layer {number}") for number in numbers]
    formation = facts.get("formation")
    mean = (0, 0)
    if isinstance(formation, dict) and formation.get("kind") == "ccv":
        sides = [_whole(formation.get(key), f"its picture {key}", 1) for key in ("rows", "cols")]
        size = _one_of(formation.get("mean_bytes"), (stream.HALF, stream.FLOAT), "its mean_bytes")
        mean = (3 * math.prod(sides), size)
    total = stream.length(parts, mean)
    if not 0 < total <= _MAX_STREAM_BYTES:
        raise InputError(f"its stream has {total:,} bytes, 1 to {_MAX_STREAM_BYTES:,} are possible")
    data = np.empty(total, np.uint8)
    for number, (piece, shape) in enumerate(stream.pictures(total)):
        pixels = png.read_indices(stream_path(path, number), shape=shape).samples.ravel()
        data[piece] = pixels[: piece.stop - piece.start]
    if hashlib.sha256(data.tobytes()).hexdigest() != facts.get("stream_sha256"):
        raise InputError(f"{stream_path(path, 0).name} is the picture of another package: write it anew")
    weights, found = stream.decode(parts, data, mean)
    return dict(zip(numbers, weights, strict=True)), found if mean[0] else None


def _corrected(db: sqlite3.Connection, weights: Mapping[int, Weights]) -> dict[int, Weights]:
    """The weights by layer with the corrections that klaus_correction holds."""
    result = dict(weights)
    if not has_table(db, CORRECTIONS):
        return result
    query = f"SELECT layer, correction FROM {CORRECTIONS} ORDER BY layer LIMIT {shapes.MAX_LAYERS + 1}"  # noqa: S608
    for number, blob in db.execute(query):
        if number not in result:
            raise InputError(f"klaus_correction has a row for layer {number!r:.40}, which has no weights")
        outputs = len(result[number].bias)
        what = f"layer {number}: its correction"
        if isinstance(blob, bytes) and len(blob) == outputs:
            halves = np.frombuffer(blob, np.uint8).astype(np.uint16) << 8
            correction: F32 = halves.view(np.float16).astype(np.float32)
        else:
            form = "<f2" if isinstance(blob, bytes) and len(blob) == 2 * outputs else "<f4"
            correction = _floats(blob, what, outputs, form).astype(np.float32, copy=False)
        result[number] = replace(result[number], correction=correction)
    return result


def _read_part(row: Mapping[str, Any], what: str) -> stream.Part:
    def column(name: str, known: tuple[int, ...]) -> int:
        return _one_of(0 if row[name] is None else row[name], known, f"{what}: its {name}")

    entries = _whole(0 if row["entries"] is None else row["entries"], f"{what}: its entries", 0, 256)
    coded = entries > 0
    number = (stream.HALF, stream.FLOAT)
    per_byte = column("indices_a_byte", (1, 2, 4) if coded else (0,))
    if coded and entries > 1 << (8 // per_byte):
        raise InputError(f"{what}: has {per_byte} indices a byte and a codebook of {entries} entries: they do not fit")
    return stream.Part(
        shape=_weight_shape(row, what),
        entries=entries,
        per_byte=per_byte,
        transposed=bool(column("transposed", (0, 1))),
        codebook_bytes=column("codebook_bytes", number if coded else (0,)),
        scale_bytes=column("scale_bytes", (0, *number)),
        bias_bytes=column("bias_bytes", (0, *number)),
        weight_bytes=column("weight_bytes", (0,) if coded else number),
    )


def _one_of(value: object, known: tuple[int, ...], what: str) -> int:
    if not isinstance(value, int) or value not in known:
        raise InputError(f"{what} is {value!r:.40}: {' or '.join(map(str, known))} is possible")
    return value


def _read_weights(db: sqlite3.Connection, path: Path, number: int, row: Mapping[str, Any]) -> Weights:
    what = f"layer {number}"
    shape = _weight_shape(row, what)
    count = math.prod(shape)
    outputs = shape[0]
    query = "SELECT weight, bias, half_precision FROM layer_data WHERE layer = ?"
    data = db.execute(query, (number,)).fetchone() or (None, None, 0)
    form = "<f2" if data[2] else "<f4"
    if row["bias"] is not None:
        bias: F32 = _floats(row["bias"], f"{what}: its bias", outputs)
    else:
        bias = _floats(data[1], f"{what}: its bias", outputs, form).astype(np.float32)
    scale = None if row["scale"] is None else _floats(row["scale"], f"{what}: its scale", outputs)
    if row["indices_sha256"] is None:
        return Weights(_floats(data[0], f"{what}: its weights", count, form).reshape(shape), bias, scale)
    picture = png.read_indices(picture_path(path, number), shape=(outputs, count // outputs))
    if hashlib.sha256(picture.samples.tobytes()).digest() != row["indices_sha256"]:
        raise InputError(f"{what}: {picture_path(path, number).name} is the picture of another package: write it anew")
    return Weights(picture.samples.reshape(shape), bias, scale, Codebook(_read_codebook(db, number, row["codebook"])))


def _read_codebook(db: sqlite3.Connection, number: int, own: object) -> npt.NDArray[np.float16] | F32:
    blob, form = own, "<f4"
    if own is None:
        found = None
        if has_table(db, "layer_quant"):
            found = db.execute("SELECT quant FROM layer_quant WHERE layer = ?", (number,)).fetchone()
        blob, form = found[0] if found else None, "<f2"
    count = len(blob) // np.dtype(form).itemsize if isinstance(blob, bytes) else 0
    if not 1 <= count <= 256:
        raise InputError(f"layer {number}: its codebook has {count} entries: 1 to 256 are needed")
    values: npt.NDArray[np.float16] | F32 = _floats(blob, f"layer {number}: its codebook", count, form)
    return values
