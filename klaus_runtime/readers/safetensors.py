"""safetensors files -> arrays by name: a JSON header that says what stands where, and raw numbers behind it.

The format as its documentation has it: a uint64 of the header's length, the header (one object: name -> dtype, shape,
data_offsets; "__metadata__": text by text), then the numbers, which the tensors must cover without gap or overlap.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError

MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 23
_MAX_TENSORS = 1 << 16
_LENGTH = struct.Struct("<Q")
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1",
    "BF16": "<u2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contents:
    """Tensors by name, bfloat16 widened to float32, and the texts of __metadata__."""

    tensors: dict[str, npt.NDArray[Any]]
    metadata: Mapping[str, str]


def is_safetensors(head: bytes, size_bytes: int) -> bool:
    """Whether a file of size_bytes that starts with `head` (9 bytes or more) looks like one."""
    if len(head) <= _LENGTH.size or head[_LENGTH.size] != ord("{"):
        return False
    return bool(2 <= _LENGTH.unpack_from(head)[0] <= size_bytes - _LENGTH.size)


def read(path: str | Path) -> Contents:
    """Reads a file; raises InputError, naming it, for anything malformed."""
    path = Path(path)
    return parse(files.read_bytes(path, MAX_FILE_BYTES), str(path))


def parse(data: bytes, name: str) -> Contents:
    """read() on bytes; `name` is what errors call them."""
    try:
        return _parse(data)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its header is not JSON ({ascii(str(error))[1:-1][:100]})") from error


def _parse(data: bytes) -> Contents:
    if not is_safetensors(data[: _LENGTH.size + 1], len(data)):
        raise InputError("is not a safetensors file, or cut short")
    (length,) = _LENGTH.unpack_from(data)
    if length > MAX_HEADER_BYTES:
        raise InputError(f"has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    body = _LENGTH.size + length
    header = json.loads(data[_LENGTH.size : body].decode(), object_pairs_hook=_unique)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InputError("has metadata that are not texts")
    if len(header) > _MAX_TENSORS:
        raise InputError(f"has {len(header):,} tensors; at most {_MAX_TENSORS:,} are read")
    places = {name: _place(name, entry, len(data) - body) for name, entry in header.items()}
    end = 0
    for name, (_, _, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise InputError(
                f"{name[:80]!a} starts at byte {begin:,} of the numbers, the tensor before ends at {end:,}"
            )
        end = stop
    if body + end != len(data):
        raise InputError(f"has {len(data) - body - end:,} bytes that belong to no tensor")
    tensors = {}
    for name, (kind, shape, begin, stop) in places.items():
        numbers = np.frombuffer(data, _DTYPES[kind], (stop - begin) // np.dtype(_DTYPES[kind]).itemsize, body + begin)
        if kind == "BF16":  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = numbers.reshape(shape)
    return Contents(tensors, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InputError("has a header that names something twice")
    return found


def _place(name: str, entry: object, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, first byte, byte behind) of a tensor, all checked but the neighbours."""
    what = f"{name[:80]!a}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{what} is not described by dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise InputError(f"{what} holds numbers of type {kind!r:.40}; {', '.join(_DTYPES)} are read")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_size(size) for size in shape):
        raise InputError(f"{what} has the shape {shape!r:.60}; up to 8 whole numbers from 1 are possible")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise InputError(f"{what} has the offsets {offsets!r:.60}; two whole numbers are needed")
    needed = np.dtype(_DTYPES[kind]).itemsize
    for dimension in shape:
        needed *= dimension
    begin, end = offsets
    if not 0 <= begin <= end <= size or end - begin != needed:
        raise InputError(f"{what} of shape {shape!r:.60} stands at bytes {begin} to {end} of {size}; it needs {needed}")
    return kind, tuple(shape), begin, end


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= shapes.MAX_ELEMENTS
