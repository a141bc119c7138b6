"""What the writer and the reader of packages share: tables, names of kinds and of label lists."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from klaus_runtime import labels
from klaus_runtime.model import (
    Activate,
    Add,
    Concat,
    Convolution,
    FullConnect,
    GlobalPool,
    Layer,
    LocalResponseNorm,
    Pool,
    Slice,
    Softmax,
)
from klaus_runtime.readers.database import has_table

CLASSIC, EXTENDED = 1, 2  # versions: with what Klaus' loader reads; with one stream for all layers
KINDS: Mapping[str, type[Layer]] = {
    "convolution": Convolution,
    "full-connect": FullConnect,
    "pool": Pool,
    "global-pool": GlobalPool,
    "local-response-norm": LocalResponseNorm,
    "add": Add,
    "concat": Concat,
    "slice": Slice,
    "softmax": Softmax,
    "activate": Activate,
}
KIND_NAMES = {kind: name for name, kind in KINDS.items()}
LABEL_LISTS = {"ilsvrc2012": labels.ilsvrc2012, "sorted-wnids": labels.sorted_wnids}
SCHEMA = {
    "klaus_package": "key TEXT PRIMARY KEY, value TEXT",
    "klaus_layer": (
        "layer INTEGER PRIMARY KEY, name TEXT, kind TEXT, inputs TEXT, settings TEXT, weight_shape TEXT, "
        "scale BLOB, bias BLOB, codebook BLOB, indices_sha256 BLOB, range TEXT"
    ),
    "klaus_label": "class INTEGER PRIMARY KEY, id TEXT, name TEXT",
}
# Only where a model has some: klaus_layer's columns stay what every package has.
CORRECTIONS = "klaus_correction"
CORRECTIONS_SCHEMA = {CORRECTIONS: "layer INTEGER PRIMARY KEY, correction BLOB"}
EXTENDED_SCHEMA = SCHEMA | {
    "klaus_layer": (
        "layer INTEGER PRIMARY KEY, name TEXT, kind TEXT, inputs TEXT, settings TEXT, weight_shape TEXT, "
        "entries INTEGER, indices_a_byte INTEGER, transposed INTEGER, codebook_bytes INTEGER, scale_bytes INTEGER, "
        "bias_bytes INTEGER, weight_bytes INTEGER, range TEXT"
    ),
}


def picture_path(path: Path, layer: int) -> Path:
    """Where the index picture of a layer stands for the sqlite3 file `path`."""
    return path.with_name(f"{path.stem}-layer-{layer}.png")


def stream_path(path: Path, number: int) -> Path:
    """Where picture `number` (from 0) of an extended package's stream stands for the sqlite3 file `path`."""
    return path.with_name(f"{path.stem}-layers{f'-{number + 1}' if number else ''}.png")


def is_package(db: sqlite3.Connection) -> bool:
    """Whether an open database is a package of ours."""
    return has_table(db, "klaus_package")
