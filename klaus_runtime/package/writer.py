"""Model -> package."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from klaus_runtime import ccv_tables, files, png, shapes
from klaus_runtime.deflate import Effort
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
    F32,
    CcvFormation,
    Convolution,
    CropFormation,
    Formation,
    FullConnect,
    Label,
    Layer,
    Model,
    Range,
    Weights,
    Window,
)
from klaus_runtime.package import stream
from klaus_runtime.package.tables import (
    CLASSIC,
    CORRECTIONS,
    CORRECTIONS_SCHEMA,
    EXTENDED,
    EXTENDED_SCHEMA,
    KIND_NAMES,
    LABEL_LISTS,
    SCHEMA,
    picture_path,
    stream_path,
)

Compat = Literal["klaus-2014"]


@dataclass(frozen=True, slots=True)
class Package:
    """The files of a package, the sqlite3 file first, and every byte that ships."""

    files: tuple[Path, ...]
    total_bytes: int

    @property
    def path(self) -> Path:
        """The sqlite3 file, which read_package takes."""
        return self.files[0]


def default_name(model: Model) -> str:
    """A file name (without ending) for a model's package: its name and scheme, in harmless characters."""
    scheme = model.provenance.scheme.split(" ")[0]
    name = model.name if scheme == "float" else f"{model.name}-{scheme}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:100].rstrip("_") or "model"


def write_package(
    model: Model, folder: Path, *, name: str | None = None, compat: Compat | None = None, effort: Effort = "fast"
) -> Package:
    """Writes the package of a model into folder: all of its files or none.

    name: of the files without ending; by default the model's name and scheme. compat: "klaus-2014" insists on what
    Klaus' own loader reads, else that form is taken where it fits and all weights go into one stream where not.
    effort: "best" takes seconds for every MB and saves a few percent; the same model gives the same bytes.
    Raises InputError for a malformed model, one that compat does not fit, a name that is no plain file name, or a
    folder that cannot be written.
    """
    shapes.validate(model)
    stem = default_name(model) if name is None else name
    if Path(stem).name != stem or stem in ("", ".", "..") or "\0" in stem:
        raise InputError(f"{stem!r}: is no name for a package: give a file name without folder")
    obstacle = why_not_klaus(model)
    if compat and obstacle:
        raise InputError(f"model {model.name}: Klaus' own loader cannot read it, {obstacle}: leave compat out")
    path = folder / f"{stem}.sqlite3"
    quantized = any(layer.weights.codebook is not None for _, layer in ccv_tables.weighted(model))
    write = _write_extended if obstacle and quantized else _write_classic
    targets = write(model, path, effort)
    return Package(targets, sum(target.stat().st_size for target in targets))


def why_not_klaus(model: Model) -> str | None:
    """What keeps Klaus' own loader from reading a model's package, None where nothing does."""
    for number, layer in ccv_tables.weighted(model):
        book = layer.weights.codebook
        if book is not None and (isinstance(layer, Convolution) or book.values.dtype != np.float16):
            return f"layer {number} ({layer.name}) has a codebook that is not of a full connect or not half precision"
    return ccv_tables.why_not(model)


def _write_classic(model: Model, path: Path, effort: Effort) -> tuple[Path, ...]:
    """Version 1: a picture for each layer with a codebook, the rest in ccv's tables and ours."""
    pictured = {n: layer.weights for n, layer in ccv_tables.weighted(model) if layer.weights.codebook is not None}
    targets = (path, *(picture_path(path, number) for number in pictured))
    with files.staged(targets) as (database, *pictures):
        for weights, picture in zip(pictured.values(), pictures, strict=True):
            # Depth 8 and value = index is what Klaus' own loader takes.
            picture.write_bytes(png.encode(_index_rows(weights), 8, effort=effort))
        with ccv_tables.new_database(database) as db:
            _write_tables(db, model)
        ccv_tables.shrink(database)
    return targets


def _write_extended(model: Model, path: Path, effort: Effort) -> tuple[Path, ...]:
    """Version 2: all weights in one stream, shown as a picture; tables of our own say what stands where."""
    numbers = [number for number, _ in ccv_tables.weighted(model)]
    weights = [layer.weights for _, layer in ccv_tables.weighted(model)]
    parts = stream.smallest(weights, effort)
    mean = model.formation.mean if isinstance(model.formation, CcvFormation) else None
    mean_bytes = 0 if mean is None else stream.bytes_of(mean)
    data = stream.encode(parts, weights, mean, mean_bytes)
    shown = stream.pictures(len(data))
    targets = (path, *(stream_path(path, number) for number in range(len(shown))))
    facts = _facts(model) | {"version": EXTENDED, "stream_sha256": hashlib.sha256(data.tobytes()).hexdigest()}
    if mean is not None:
        facts["formation"] = (_formation_facts(model.formation) or {}) | {"mean_bytes": mean_bytes}
    with files.staged(targets) as (database, *pictures):
        for (piece, size), picture in zip(shown, pictures, strict=True):
            pixels = np.zeros(size, np.uint8)
            pixels.ravel()[: piece.stop - piece.start] = data[piece]
            picture.write_bytes(png.encode(pixels, 8, effort=effort))
        with ccv_tables.new_database(database) as db:
            _create(db, EXTENDED_SCHEMA)
            _write_facts(db, model, facts)
            for number, layer in enumerate(model.layers):
                own = _part_columns(parts[numbers.index(number)]) if number in numbers else {}
                _write_layer(db, model, number, _given(_settings(layer), layer), own)
            _write_corrections(db, model)
        ccv_tables.shrink(database)
    return targets


def _part_columns(part: stream.Part) -> dict[str, object]:
    return {
        "weight_shape": _compact(part.shape),
        "entries": part.entries or None,
        "indices_a_byte": part.per_byte or None,
        "transposed": int(part.transposed) or None,
        "codebook_bytes": part.codebook_bytes or None,
        "scale_bytes": part.scale_bytes or None,
        "bias_bytes": part.bias_bytes or None,
        "weight_bytes": part.weight_bytes or None,
    }


def _given(settings: dict[str, object], layer: Layer) -> dict[str, object]:
    """Settings without those that are as by default; a window's too."""
    standard = {field.name: field.default for field in (*fields(layer), *fields(Window))}
    kept = {key: value for key, value in settings.items() if value != standard[key]}
    window = kept.get("window")
    if isinstance(window, dict):
        kept["window"] = {key: value for key, value in window.items() if value != standard[key]}
    return kept


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index_rows(weights: Weights) -> npt.NDArray[np.uint8]:
    """(outputs, weights of an output): height and width of the picture."""
    return np.ascontiguousarray(weights.values, np.uint8).reshape(len(weights.bias), -1)


def _write_tables(db: sqlite3.Connection, model: Model) -> None:
    _create(db, SCHEMA)
    _write_facts(db, model, _facts(model))
    if ccv_tables.why_not(model) is None:
        ccv_tables.write_geometry(db, model)
    if isinstance(model.formation, CcvFormation):
        ccv_tables.write_mean(db, model.formation)
    ccv_tables.create(db, "layer_data")
    if any(layer.weights.codebook is not None for _, layer in ccv_tables.weighted(model)):
        ccv_tables.create(db, "layer_quant")
    for number, layer in enumerate(model.layers):
        own: dict[str, object] = {}
        if isinstance(layer, Convolution | FullConnect):
            own = _write_weights(db, number, layer.weights)
        _write_layer(db, model, number, _settings(layer), own)
    _write_corrections(db, model)


def _write_corrections(db: sqlite3.Connection, model: Model) -> None:
    found = {number: layer.weights.correction for number, layer in ccv_tables.weighted(model)}
    if any(correction is not None for correction in found.values()):
        _create(db, CORRECTIONS_SCHEMA)
    for number, correction in found.items():
        if correction is not None:
            ccv_tables.insert(db, CORRECTIONS, layer=number, correction=_fewest_bytes(correction))


def _fewest_bytes(numbers: F32) -> bytes:
    """float32, or where they are as exact so binary16, or the upper byte of each binary16."""
    if stream.bytes_of(numbers) == stream.FLOAT:
        return numbers.astype("<f4").tobytes()
    halves = numbers.astype(np.float16).view(np.uint16)
    return halves.astype("<u2").tobytes() if (halves & 0xFF).any() else (halves >> 8).astype(np.uint8).tobytes()


def _create(db: sqlite3.Connection, schema: Mapping[str, str]) -> None:
    for table, columns in schema.items():
        db.execute(f"CREATE TABLE {table} ({columns})")


def _write_facts(db: sqlite3.Connection, model: Model, facts: Mapping[str, object]) -> None:
    for key, value in facts.items():
        ccv_tables.insert(db, "klaus_package", key=key, value=_compact(value))
    if _label_list(model.labels) is None:
        for number, label in enumerate(model.labels):
            ccv_tables.insert(db, "klaus_label", **{"class": number, "id": label.id, "name": label.name})


def _write_layer(
    db: sqlite3.Connection, model: Model, number: int, settings: Mapping[str, object], own: dict[str, object]
) -> None:
    layer = model.layers[number]
    if model.ranges:
        own["range"] = _range_text(model.ranges[number + 1])
    # NULL for what most layers have: nothing to set, the layer before as the only input.
    inputs = None if layer.inputs == (number - 1,) else _compact(layer.inputs)
    kind = KIND_NAMES[type(layer)]
    text = _compact(settings) if settings else None
    ccv_tables.insert(db, "klaus_layer", layer=number, name=layer.name, kind=kind, inputs=inputs, settings=text, **own)


def _facts(model: Model) -> dict[str, object]:
    facts: dict[str, object] = {
        "version": CLASSIC,
        "name": model.name,
        "input_shape": model.input_shape,
        "patches": model.patches,
        "formation": _formation_facts(model.formation),
        "provenance": asdict(model.provenance),
        "labels": _label_list(model.labels),
    }
    if model.ranges:
        facts["input_range"] = _range_text(model.ranges[0])
    return facts


def _formation_facts(formation: Formation) -> dict[str, object] | None:
    match formation:
        case CcvFormation(rows=rows, cols=cols, scan_layer=scan):
            return {"kind": "ccv", "rows": rows, "cols": cols, "scan_layer": scan}
        case CropFormation():
            return {"kind": "crop", **asdict(formation)}
    return None


def _label_list(given: tuple[Label, ...]) -> str | None:
    """The name of a list that ships with the project, so that 1,000 class names cost no bytes."""
    return "none" if not given else next((name for name, known in LABEL_LISTS.items() if known() == given), None)


def _range_text(item: Range | None) -> str | None:
    return None if item is None else _compact(asdict(item))


def _settings(layer: Layer) -> dict[str, object]:
    """Every field that only this kind of layer has, its weights apart."""
    own = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return {
        key: asdict(value) if isinstance(value, Window) else value
        for key, value in own.items()
        if key not in ("name", "inputs", "weights")
    }


def _write_weights(db: sqlite3.Connection, number: int, weights: Weights) -> dict[str, object]:
    """Writes layer_data and layer_quant; returns the columns of klaus_layer for what does not fit there exactly."""
    half = weights.values.dtype == np.float16
    values = None if weights.codebook is not None else weights.values
    ccv_tables.write_data(db, number, values, weights.bias, half=half)
    own: dict[str, object] = {"weight_shape": json.dumps(weights.values.shape)}
    if half and not np.array_equal(ccv_tables.truncate_to_half(weights.bias).astype(np.float32), weights.bias):
        own["bias"] = weights.bias.astype("<f4").tobytes()
    if weights.scale is not None:
        own["scale"] = weights.scale.astype("<f4").tobytes()
    if weights.codebook is not None:
        entries = weights.codebook.values
        own["indices_sha256"] = hashlib.sha256(_index_rows(weights).tobytes()).digest()
        if entries.dtype == np.float16:
            ccv_tables.insert(db, "layer_quant", layer=number, quant=entries.astype("<f2").tobytes())
        else:
            own["codebook"] = entries.astype("<f4").tobytes()
    return own
