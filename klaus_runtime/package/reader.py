"""Package -> Model. Trusts nothing: types, sizes and sums are checked before they are used."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
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
from klaus_runtime.package.tables import KINDS, LABEL_LISTS, VERSION, picture_path
from klaus_runtime.readers.database import has_table, open_database


def read_package(path: Path) -> Model:
    """Reads and checks a package; the index pictures stand beside path as NAME-layer-N.png.

    Raises InputError naming the file and what is wrong with it: malformed, incomplete, or parts of two packages mixed.
    """
    with open_database(path) as db:
        facts = _read_facts(db)
        ranges: list[Range | None] = []
        layers = []
        columns = "layer, name, kind, inputs, settings, weight_shape, scale, bias, codebook, indices_sha256, range"
        query = f"SELECT {columns} FROM klaus_layer ORDER BY layer LIMIT {shapes.MAX_LAYERS + 1}"  # noqa: S608
        for number, row in enumerate(db.execute(query).fetchall()):
            values = dict(zip(columns.split(", "), row, strict=True))
            if values["layer"] != number:
                raise InputError(f"klaus_layer has layer {values['layer']!r} where {number} should stand")
            layers.append(_read_layer(db, path, number, values))
            ranges.append(_range(values["range"], f"layer {number}"))
        model = Model(
            name=_text(facts, "name"),
            input_shape=_shape3(facts.get("input_shape")),
            layers=tuple(layers),
            formation=_read_formation(db, facts.get("formation")),
            labels=_read_labels(db, facts.get("labels")),
            provenance=_read_provenance(facts.get("provenance")),
            patches=_patches(facts.get("patches")),
            ranges=(_range(facts["input_range"], "the input"), *ranges) if "input_range" in facts else (),
        )
        shapes.validate(model)
    return model


def _json(text: object, what: str) -> Any:
    if isinstance(text, bytes):
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what} is not the JSON it should be") from error
    raise InputError(f"{what} is missing or of the wrong type")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number here")


def _read_facts(db: sqlite3.Connection) -> dict[str, Any]:
    facts = {}
    for table in ("klaus_package", "klaus_layer", "klaus_label", "layer_data"):
        if not has_table(db, table):
            raise InputError(f"it has no table {table}: the package is incomplete")
    for key, value in db.execute("SELECT key, value FROM klaus_package LIMIT 1000"):
        if isinstance(key, bytes):
            facts[key.decode("utf-8", "replace")] = _json(value, "a value in klaus_package")
    if facts.get("version") != VERSION:
        raise InputError(f"it is a package of version {facts.get('version')!r:.40}, this is for version {VERSION}")
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


def _read_formation(db: sqlite3.Connection, value: object) -> Formation:
    if value is None:
        return None
    found = _object(value, "its formation")
    if found.get("kind") == "crop":
        order = found.get("order")
        if order not in ("rgb", "bgr"):
            raise InputError(f"its formation has channel order {order!r:.40}: rgb and bgr are known")
        mean, scale = _numbers(found.get("mean"), "its mean"), _numbers(found.get("scale"), "its scale")
        return CropFormation(_whole(found.get("padding"), "its crop padding"), mean, scale, order)
    if found.get("kind") != "ccv":
        raise InputError(f"its formation is of kind {found.get('kind')!r:.40}: ccv and crop are known")
    rows, cols = _whole(found.get("rows"), "its picture rows", 1), _whole(found.get("cols"), "its picture cols", 1)
    scan = found.get("scan_layer")
    row = None
    if has_table(db, "convnet_params"):
        row = db.execute("SELECT mean_activity FROM convnet_params WHERE convnet = 0").fetchone()
    mean_picture = _floats(row[0] if row else None, "its mean picture", rows * cols * 3)
    return CcvFormation(
        rows, cols, mean_picture.reshape(rows, cols, 3), None if scan is None else _whole(scan, "its scan layer")
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


def _read_layer(db: sqlite3.Connection, path: Path, number: int, row: Mapping[str, Any]) -> Layer:
    what = f"layer {number}"
    kind = KINDS.get(_utf8(row["kind"], f"{what}: its kind"))
    if kind is None:
        raise InputError(f"{what}: is of the kind {row['kind']!r:.40}: {', '.join(KINDS)} are known")
    sources = _json(row["inputs"], f"{what}: its inputs")
    if not isinstance(sources, list):
        raise InputError(f"{what}: its inputs are not a list")
    own = _object(_json(row["settings"], f"{what}: its settings"), f"{what}: its settings")
    wanted = {field.name for field in fields(kind)} - {"name", "inputs", "weights"}
    if set(own) != wanted:
        raise InputError(f"{what}: has settings {sorted(own)}, its kind needs {sorted(wanted)}"[:400])
    values: dict[str, Any] = {key: _setting(key, value, what) for key, value in own.items()}
    if kind in (Convolution, FullConnect):
        values["weights"] = _read_weights(db, path, number, row)
    name = _utf8(row["name"], f"{what}: its name")
    return kind(name=name, inputs=tuple(_whole(item, f"{what}: an input", -1) for item in sources), **values)


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
            found = _object(value, what)
            if set(found) != {field.name for field in fields(Window)} or not isinstance(found["pads"], list):
                raise InputError(f"{what} is not a window")
            pads = tuple(_whole(pad, what) for pad in found.pop("pads"))
            if len(pads) != 4:
                raise InputError(f"{what} has {len(pads)} pads instead of 4")
            return Window(**{name: _whole(size, what, 1) for name, size in found.items()}, pads=pads)
        case "kappa" | "alpha" | "beta":
            return _number(value, what)
    return _whole(value, what)


def _read_weights(db: sqlite3.Connection, path: Path, number: int, row: Mapping[str, Any]) -> Weights:
    what = f"layer {number}"
    sizes = _json(row["weight_shape"], f"{what}: its weight_shape")
    if not isinstance(sizes, list) or len(sizes) not in (2, 4):
        raise InputError(f"{what}: its weight_shape is {sizes!r:.60}: 2 or 4 numbers are needed")
    shape = tuple(_whole(size, f"{what}: its weight_shape", 1, shapes.MAX_ELEMENTS) for size in sizes)
    count = 1
    for size in shape:
        count *= size
    if count > shapes.MAX_ELEMENTS:
        raise InputError(f"{what}: has {count:,} weights, at most {shapes.MAX_ELEMENTS:,} are possible")
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
