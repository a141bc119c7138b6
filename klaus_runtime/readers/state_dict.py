"""A state dict (tensors by name, from torch or safetensors files) -> Model, by a geometry that its names give away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from klaus_runtime.errors import InputError
from klaus_runtime.model import Model, Provenance
from klaus_runtime.readers import lite0, origin, safetensors, torch_pickle

Build = Callable[[Mapping[str, npt.NDArray[Any]], str, Provenance], Model]

# A tensor that only this geometry has, and what makes a model of it.
GEOMETRIES: Mapping[str, tuple[str, Build]] = {
    "EfficientNet-Lite0": ("_conv_stem.weight", lite0.from_tensors),
}


def read_torch(path: str | Path) -> Model:
    """Reads a torch file, legacy or zip. Raises InputError for a malformed one or a network not known here."""
    path = Path(path)
    return _build(torch_pickle.read(path), path, {})


def read_safetensors(path: str | Path) -> Model:
    """Reads a safetensors file; its metadata may name licence, source and author. Errors as read_torch."""
    path = Path(path)
    contents = safetensors.read(path)
    return _build(contents.tensors, path, contents.metadata)


def _build(tensors: Mapping[str, npt.NDArray[Any]], path: Path, facts: Mapping[str, str]) -> Model:
    for marker, build in GEOMETRIES.values():
        if marker in tensors:
            return build(tensors, str(path), origin.provenance(path, facts))
    raise InputError(
        f"{path}: holds weights, but says nothing of the network they belong to, and their names are not those of "
        f"{', '.join(GEOMETRIES)}: export the network as ONNX"
    )
