"""The numbers of an ONNX file -> arrays; and limits that hold before the file is decoded.

Numbers may stand in the file or, as "external data", in another one of the same folder: never outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError

if TYPE_CHECKING:
    from onnx import TensorProto

MAX_NUMBER_BYTES = 1 << 30  # of all tensors together
MAX_OTHER_BYTES = 1 << 23  # of a file without its numbers: names, shapes, attributes
_MAX_FIELDS = 1 << 20

Array = npt.NDArray[Any]

# onnx.TensorProto.DataType -> numbers; where they stand if not in raw_data, and as what.
_KINDS: Mapping[int, tuple[str, str, str]] = {
    1: ("<f4", "float_data", "<f4"),
    6: ("<i4", "int32_data", "<i4"),
    7: ("<i8", "int64_data", "<i8"),
    9: ("?", "int32_data", "<i4"),
    10: ("<f2", "int32_data", "<u2"),
    11: ("<f8", "double_data", "<f8"),
}
_EXTERNAL = 1  # onnx.TensorProto.DataLocation

# What stands in which field: a message by its own fields, numbers, or text that must be UTF-8 (protocol buffers do not
# insist). The names are those of onnx.proto.
_NUMBERS, _TEXT = "numbers", "text"
_Schema = Mapping[int, Any]
_ENTRY: _Schema = {1: _TEXT, 2: _TEXT}
_TENSOR: _Schema = {4: _NUMBERS, 8: _TEXT, 9: _NUMBERS, 13: _ENTRY}
_ATTRIBUTE: _Schema = {1: _TEXT, 5: _TENSOR, 21: _TEXT}
_NODE: _Schema = {1: _TEXT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _ATTRIBUTE, 7: _TEXT}
_GRAPH: _Schema = {1: _NODE, 5: _TENSOR, 11: {1: _TEXT}, 12: {1: _TEXT}}
_MODEL: _Schema = {7: _GRAPH, 8: {1: _TEXT}, 14: _ENTRY}


def check_encoding(data: bytes) -> None:
    """Raises InputError for what is no protocol buffer, or would take much more memory decoded than it has bytes."""
    view = memoryview(data)
    fields = numbers = 0

    def varint(position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = view[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
        raise InputError("is no ONNX file or cut short")

    def text(position: int, end: int) -> None:
        try:
            str(view[position:end], "utf-8")
        except UnicodeDecodeError as error:
            raise InputError("has names that are not UTF-8") from error

    def walk(position: int, end: int, schema: _Schema) -> None:
        nonlocal fields, numbers
        while position < end:
            fields += 1
            if fields > _MAX_FIELDS:
                raise InputError(f"has more than {_MAX_FIELDS:,} fields")
            tag, position = varint(position, end)
            wire, field = tag & 7, tag >> 3
            if wire == 0:
                _, position = varint(position, end)
                continue
            if wire not in (1, 2, 5):
                raise InputError("is no ONNX file, or damaged")
            length = 8 if wire == 1 else 4
            if wire == 2:
                length, position = varint(position, end)
            if length > end - position:
                raise InputError("is no ONNX file, or cut short")
            found = schema.get(field) if wire == 2 else None
            if found == _NUMBERS:
                numbers += length
            elif found == _TEXT:
                text(position, position + length)
            elif found is not None:
                walk(position, position + length, found)
            position += length

    walk(0, len(view), _MODEL)
    if len(view) - numbers > MAX_OTHER_BYTES:
        raise InputError(f"has {len(view) - numbers:,} bytes besides numbers; at most {MAX_OTHER_BYTES:,} are read")


class Tensors:
    """Decodes tensors, from `folder` where they are external, up to a budget."""

    def __init__(self, folder: Path | None) -> None:
        """folder: None where no file may be opened."""
        self._folder = folder
        self._left = MAX_NUMBER_BYTES

    def decode(self, tensor: TensorProto) -> Array:
        """The tensor as an array; raises InputError, naming it, where its shape, type and bytes do not fit."""
        what = f"tensor {tensor.name[:80]!a}"
        if tensor.data_type not in _KINDS:
            raise InputError(f"{what} holds numbers of ONNX type {tensor.data_type}; {sorted(_KINDS)} are read")
        kind, field, stored = _KINDS[tensor.data_type]
        count = 1
        for size in tensor.dims:
            if not 0 <= size <= shapes.MAX_ELEMENTS:
                raise InputError(f"{what} has a dimension of {size}")
            count *= size
        if len(tensor.dims) > 8 or count > shapes.MAX_ELEMENTS:
            raise InputError(f"{what} has the shape {list(tensor.dims)[:9]}: more than {shapes.MAX_ELEMENTS:,} numbers")
        needed = count * np.dtype(kind).itemsize
        self._left -= needed
        if self._left < 0:
            raise InputError(f"{what}: the tensors take more than {MAX_NUMBER_BYTES:,} bytes together")
        if tensor.data_location == _EXTERNAL:
            data = self._external(tensor, needed, what)
        elif tensor.raw_data or not count:
            data = tensor.raw_data
        else:
            listed = getattr(tensor, field)
            if len(listed) != count:
                raise InputError(f"{what} has {len(listed)} numbers; its shape {list(tensor.dims)} needs {count}")
            try:
                return np.array(listed, stored).astype(kind if kind == "?" else stored).view(kind).reshape(tensor.dims)
            except (OverflowError, ValueError) as error:
                raise InputError(f"{what} has numbers that its type cannot hold") from error
        if len(data) != needed:
            raise InputError(f"{what} has {len(data):,} bytes; its shape {list(tensor.dims)} needs {needed:,}")
        return np.frombuffer(data, "u1" if kind == "?" else kind).astype(kind, copy=False).reshape(tensor.dims)

    def _external(self, tensor: TensorProto, needed: int, what: str) -> bytes:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        location = facts.get("location", "")
        path = self._inside(location, what)
        try:
            offset, length = int(facts.get("offset", "0")), int(facts.get("length", str(needed)))
        except ValueError as error:
            raise InputError(f"{what} has external data at an offset or length that is no number") from error
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if length != needed or not 0 <= offset <= size - needed:
                    raise InputError(
                        f"{what} needs {needed:,} bytes; its external data are {length:,} from byte {offset:,} of "
                        f"{path.name}, which has {size:,}"
                    )
                file.seek(offset)
                return file.read(needed)
        except OSError as error:
            raise InputError(f"{what}: its external data cannot be read from {path} ({files.reason(error)})") from error

    def _inside(self, location: str, what: str) -> Path:
        """The external file, proven to be a plain file of the folder or one below."""
        shown = f"{location[:120]!a}"
        if self._folder is None:
            raise InputError(f"{what} has external data ({shown}), but there is no folder to read them from")
        relative = Path(location)
        climbs = relative.is_absolute() or ".." in relative.parts or "\\" in location or not location.isprintable()
        if not location or climbs:
            raise InputError(f"{what} has external data at {shown}: outside the model's folder, refused")
        try:
            folder, path = self._folder.resolve(strict=True), (self._folder / relative).resolve(strict=True)
            inside = path.is_relative_to(folder) and path.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{what} has external data at {shown}, which cannot be found beside the model") from error
        if not inside:
            raise InputError(f"{what} has external data at {shown}: no plain file inside the model's folder, refused")
        return path
