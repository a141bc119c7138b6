"""Klaus' networks: ccv's sqlite3 with codebooks in a table layer_quant and index pictures (PNG) beside it -> Model.

A pixel of a picture (height = outputs, width = inputs, row 0 on top) is the index of a weight in its layer's
codebook of at most 256 half precision entries. Klaus' own loader draws the picture into 8-bit gray; what that means
for pictures of fewer bits is read here in every way that can be meant:

1. depth 8, all samples below the number of entries: the sample is the index (the only form that Klaus' own files have);
2. depth 1, 2 or 4 and at most 2**depth entries: the raw sample is the index;
3. depth 1, 2 or 4 and more entries: the index is the sample stretched to 0..255, as decoders do it;
4. on demand only (`resaved`): depth 8, 16 entries, all samples multiples of 17: form 2 saved again by such a decoder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from klaus_runtime import png
from klaus_runtime.errors import InputError
from klaus_runtime.model import U8, Codebook, Label, Model, Provenance
from klaus_runtime.readers import ccv
from klaus_runtime.readers.database import open_database

MAX_ENTRIES = 256


def read(
    path: str | Path,
    layers: Mapping[int, Path] | None = None,
    *,
    resaved: bool = False,
    labels: tuple[Label, ...] | None = None,
    provenance: Provenance | None = None,
) -> Model:
    """Reads a Klaus network (or a plain ccv network, which is one without codebooks).

    layers: the picture of each layer; those not named are looked for beside the database as NAME-layer-N.png, then
    under Klaus' own names layer-N.png, layer-N-4bit.png and layer-N-2bit.png. labels, provenance: as ccv.read.
    Quantized layers keep indices and codebook; codebook entries that nothing uses and that are not finite become 0.
    Raises InputError naming layer, depth, largest sample and codebook size where a picture does not fit.
    """
    path = Path(path)
    given = dict(layers or {})
    with open_database(path) as db:
        rows = ccv.read_rows(db)
        coded = ccv.codebook_layers(db)
        for layer in coded:
            if not 0 <= layer < len(rows):
                raise InputError(
                    f"layer_quant has a codebook for layer {layer}, but the network has {len(rows)} layers"
                )
            if rows[layer].type != ccv.FULL_CONNECT:
                raise InputError(f"layer {layer}: only full connect layers can have a codebook")
        for layer in given:
            if layer not in coded:
                raise InputError(f"a picture was given for layer {layer}, which has no codebook; those with: {coded}")
        quantized = {}
        for layer in coded:
            picture = given.get(layer) or find_picture(path, layer)
            samples = png.read_indices(picture, shape=ccv.full_connect_shape(rows[layer]))
            quantized[layer] = decode(_entries(db, layer), samples, layer, resaved=resaved)
        return ccv.assemble(db, path, quantized, labels=labels, provenance=provenance)


def find_picture(path: Path, layer: int) -> Path:
    """The index picture of a layer beside the database `path`; NAME-layer-N.png goes before Klaus' own names."""
    own = path.with_name(f"{path.stem}-layer-{layer}.png")
    if own.is_file():
        return own
    names = [f"layer-{layer}{ending}.png" for ending in ("", "-4bit", "-2bit")]
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not found:
        raise InputError(f"layer {layer}: no picture beside the file: {own.name} or one of {', '.join(names)}")
    if len(found) > 1:
        raise InputError(
            f"layer {layer}: {' and '.join(file.name for file in found)} both exist; say which one to take"
        )
    return found[0]


def decode(entries: ccv.F16, picture: png.IndexPicture, layer: int, *, resaved: bool = False) -> tuple[U8, Codebook]:
    """Indices (height, width) and the codebook they choose from, by the forms above."""
    depth, samples, count = picture.depth, picture.samples, len(entries)
    largest = int(samples.max())
    if depth == 8 and largest < count:
        return samples, _codebook(entries, samples, layer)
    if depth < 8 and largest < count <= 1 << depth:
        return samples, _codebook(entries, samples, layer)
    stretch = 255 // ((1 << depth) - 1)
    if depth < 8 and count > 1 << depth and largest * stretch < count:
        return samples, _codebook(entries[::stretch][: 1 << depth], samples, layer)
    if depth == 8 and count == 16 and not (samples % 17).any():
        if resaved:
            indices: U8 = samples // np.uint8(17)
            return indices, _codebook(entries, indices, layer)
        raise InputError(
            f"layer {layer}: picture of depth 8 with samples 0, 17, .. {largest} and a codebook of 16: it looks like a "
            "4-bit picture that was saved again; use the original, or ask for resaved pictures to be read"
        )
    raise InputError(
        f"layer {layer}: picture of depth {depth} with samples up to {largest} does not fit {count} codebook entries"
    )


def _entries(db: sqlite3.Connection, layer: int) -> ccv.F16:
    query = "SELECT typeof(quant), length(quant) FROM layer_quant WHERE layer = ?"
    kind, size = db.execute(query, (layer,)).fetchone()
    if kind != b"blob" or size % 2 or not 1 <= size // 2 <= MAX_ENTRIES:
        raise InputError(
            f"layer {layer}: its codebook has {size or 0} bytes; 1 to {MAX_ENTRIES} entries of 2 bytes are possible"
        )
    (blob,) = db.execute("SELECT quant FROM layer_quant WHERE layer = ?", (layer,)).fetchone()
    return ccv.half_values(blob)


def _codebook(entries: ccv.F16, indices: U8, layer: int) -> Codebook:
    used = np.zeros(len(entries), bool)
    used[np.unique(indices)] = True
    finite = np.isfinite(entries)
    if (used & ~finite).any():
        entry = int(np.flatnonzero(used & ~finite)[0])
        raise InputError(f"layer {layer}: codebook entry {entry} is used, but infinite or not a number")
    return Codebook(np.where(finite, entries, np.float16(0)))
