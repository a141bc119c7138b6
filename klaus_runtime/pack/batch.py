"""The batch of pictures that `klaus-run classify` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from klaus_runtime import files
from klaus_runtime.errors import InputError
from klaus_runtime.model import U8
from klaus_runtime.pack.structs import BATCH_MAGIC, const, encode


def write_batch(path: Path, pictures: Sequence[tuple[str, U8]]) -> Path:
    """Writes pictures (rows, cols, 3) uint8 RGB with their ids as one batch, whole or not at all; returns path.

    Raises InputError where an id or a picture does not fit the format.
    """
    limit = const("MAX_DIMENSION")
    with files.staged((path,)) as (temporary,), temporary.open("wb") as file:
        file.write(encode("batch_header", {"magic": BATCH_MAGIC, "version": 1, "count": len(pictures)}))
        for name, picture in pictures:
            label = name.encode("utf-8", "replace")
            if not 1 <= len(label) <= 255:
                raise InputError(
                    f"picture {name[:80]!r}: its id has {len(label)} bytes, a batch takes 1 to 255: shorten"
                )
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                raise InputError(f"picture {name!r}: is {picture.shape} {picture.dtype}, not (rows, cols, 3) uint8")
            rows, cols = picture.shape[:2]
            if max(rows, cols) > limit:
                raise InputError(f"picture {name!r}: is {cols} x {rows}: at most {limit} a side fit a batch")
            file.write(encode("batch_picture", {"id_bytes": len(label), "rows": rows, "cols": cols}))
            file.write(label)
            file.write(np.ascontiguousarray(picture).data.cast("B"))
    return path
