"""The structs and constants of kernels/include/klaus/format.h, through cffi, and the packing of indices into bytes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import cffi
import numpy as np

from klaus_runtime import headers
from klaus_runtime.errors import SetupError
from klaus_runtime.model import U8, Activation

MAGIC = b"KLAUSPM\x1a"
BATCH_MAGIC = b"KLAUSBT\x1a"
ACTIVATIONS = {Activation.LINEAR: "LINEAR", Activation.RELU: "RELU", Activation.RELU6: "RELU6"}
METHODS = {"minmax": 1, "percentile": 2}
INDEX_DTYPES = {2: "Q2", 4: "Q4", 8: "Q8"}
FLOAT_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_ENUMS = ("section_kind", "dtype", "op", "activation", "formation", "channel_order")


@cache
def _ffi() -> cffi.FFI:
    if sys.byteorder != "little":
        raise SetupError("packed models are little-endian, as is every computer that klaus works on; this one is not")
    ffi = cffi.FFI()
    ffi.cdef(headers.declarations("format.h"))
    return ffi


@cache
def _constants() -> Mapping[str, int]:
    values = dict(headers.constants("format.h"))
    for name in _ENUMS:
        values |= _ffi().typeof(f"enum klaus_{name}").relements
    return values


def const(name: str) -> int:
    """The value of format.h's enumerator or #define KLAUS_name."""
    return _constants()[f"KLAUS_{name}"]


def name_of(value: int, prefix: str) -> str | None:
    """The enumerator KLAUS_prefix... that has this value, without KLAUS_; None where there is none."""
    return next((key[6:] for key, known in _constants().items() if known == value and key[6:].startswith(prefix)), None)


def float_name(dtype: np.dtype[Any]) -> str:
    """F32 or F16, the names of format.h, for a numpy dtype."""
    return next(name for name, known in FLOAT_DTYPES.items() if known == dtype)


def size_of(kind: str) -> int:
    """Bytes of struct klaus_kind."""
    return _ffi().sizeof(f"struct klaus_{kind}")


def encode(kind: str, fields: Mapping[str, object]) -> bytes:
    """struct klaus_kind with these fields, the others zero."""
    return bytes(_ffi().buffer(_ffi().new(f"struct klaus_{kind} *", dict(fields))))


def decode(kind: str, data: bytes | memoryview) -> Any:
    """struct klaus_kind from exactly its bytes; fields are attributes."""
    struct = _ffi().new(f"struct klaus_{kind} *")
    _ffi().buffer(struct)[:] = data
    return struct


def pack_rows(indices: U8, bits: int) -> U8:
    """Rows (outputs, n) of indices to (outputs, bytes of a row), 2, 4 or 8 bits each, the earlier one lower."""
    per_byte = 8 // bits
    if per_byte == 1:
        return indices
    padded = np.zeros((indices.shape[0], -(-indices.shape[1] // per_byte) * per_byte), np.uint8)
    padded[:, : indices.shape[1]] = indices
    packed = np.zeros((indices.shape[0], padded.shape[1] // per_byte), np.uint8)
    for place in range(per_byte):
        packed |= padded[:, place::per_byte] << (bits * place)
    return packed


def unpack_rows(packed: U8, count: int, bits: int) -> U8:
    """The inverse of pack_rows: (outputs, count) from (outputs, bytes of a row)."""
    if bits == 8:
        return packed
    parts = [(packed >> (bits * place)) & ((1 << bits) - 1) for place in range(8 // bits)]
    return np.ascontiguousarray(np.stack(parts, axis=2).reshape(packed.shape[0], -1)[:, :count])
