"""Model -> package."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klaus_runtime import ccv_tables, files, png, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import (
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
from klaus_runtime.package.tables import KIND_NAMES, LABEL_LISTS, SCHEMA, VERSION, picture_path


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
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:100] or "model"


def write_package(model: Model, folder: Path, *, name: str | None = None) -> Package:
    """Writes the package of a model into folder: all of its files or none.

    name: of the files without ending; by default the model's name and scheme.
    Raises InputError for a malformed model, a name that is no plain file name, or a folder that cannot be written.
    """
    shapes.validate(model)
    stem = default_name(model) if name is None else name
    if Path(stem).name != stem or stem in ("", ".", "..") or "\0" in stem:
        raise InputError(f"{stem!r}: is no name for a package: give a file name without folder")
    path = folder / f"{stem}.sqlite3"
    pictured = [n for n, layer in ccv_tables.weighted(model) if layer.weights.codebook is not None]
    targets = (path, *(picture_path(path, number) for number in pictured))
    with files.staged(targets) as (database, *pictures):
        for number, picture in zip(pictured, pictures, strict=True):
            layer = model.layers[number]
            assert isinstance(layer, Convolution | FullConnect)
            # Depth 8 and value = index is what Klaus' own loader takes.
            picture.write_bytes(png.encode(_index_rows(layer.weights), 8))
        with ccv_tables.new_database(database) as db:
            _write_tables(db, model)
    return Package(targets, sum(target.stat().st_size for target in targets))


def _index_rows(weights: Weights) -> npt.NDArray[np.uint8]:
    """(outputs, weights of an output): height and width of the picture."""
    return np.ascontiguousarray(weights.values, np.uint8).reshape(len(weights.bias), -1)


def _write_tables(db: sqlite3.Connection, model: Model) -> None:
    for table, columns in SCHEMA.items():
        db.execute(f"CREATE TABLE {table} ({columns})")
    for key, value in _facts(model).items():
        ccv_tables.insert(db, "klaus_package", key=key, value=json.dumps(value, ensure_ascii=False))
    if _label_list(model.labels) is None:
        for number, label in enumerate(model.labels):
            ccv_tables.insert(db, "klaus_label", **{"class": number, "id": label.id, "name": label.name})
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
        if model.ranges:
            own["range"] = _range_text(model.ranges[number + 1])
        settings = json.dumps(_settings(layer))
        inputs = json.dumps(layer.inputs)
        kind = KIND_NAMES[type(layer)]
        ccv_tables.insert(
            db, "klaus_layer", layer=number, name=layer.name, kind=kind, inputs=inputs, settings=settings, **own
        )


def _facts(model: Model) -> dict[str, object]:
    facts: dict[str, object] = {
        "version": VERSION,
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
    return None if item is None else json.dumps(asdict(item))


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
