"""Finished parts of a long quantization, so that one that was ended goes on where it was.

A folder a task, named by everything that decides its result; the file of a part appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files
from klaus_runtime.model import Convolution, FullConnect, Model

Arrays = Mapping[str, npt.NDArray[Any]]
_LIMIT_BYTES = 1 << 31


class Checkpoints:
    """Parts of one task by name. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, *facts: object) -> None:
        """facts: all that decides the result: models, arrays, and what has a repr that says it all."""
        self.folder = None if folder is None else folder / _key(facts)

    def load(self, part: str) -> Arrays | None:
        """The arrays of a part that was saved, None where it was not or its file is damaged."""
        if self.folder is None or not (path := self.folder / f"{part}.npz").is_file():
            return None
        try:
            with np.load(io.BytesIO(files.read_bytes(path, _LIMIT_BYTES)), allow_pickle=False) as found:
                return dict(found)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError):
            return None

    def save(self, part: str, **arrays: npt.NDArray[Any]) -> None:
        """Keeps a part. Raises InputError where the folder cannot be written."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        files.write_bytes(self.folder / f"{part}.npz", buffer.getbuffer())


def _key(facts: tuple[object, ...]) -> str:
    digest = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, Model):
            for layer in fact.layers:
                digest.update(repr(type(layer)).encode())
                if isinstance(layer, Convolution | FullConnect):
                    weights = layer.weights
                    for array in (weights.values, weights.bias, weights.scale):
                        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        elif isinstance(fact, np.ndarray):
            digest.update(repr((fact.dtype, fact.shape)).encode())
            digest.update(np.ascontiguousarray(fact).data)
        else:
            digest.update(repr(fact).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]
