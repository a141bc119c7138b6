"""PyTorch's weight files, legacy and zip -> arrays by name, without torch and without unpickling.

A legacy file (torch.save before 1.6) is a row of pickles (a magic number, a protocol number, facts about the writer,
the state dict, the keys of the storages) and then, a storage at a time, an int64 count and the raw numbers. The later
format is a zip file, nothing compressed: FOLDER/data.pkl is the state dict, FOLDER/data/KEY the numbers of a storage.
A pickle is a program; this module does not run it. It steps through the instructions that pickletools decodes and
knows only those that build plain values, dicts, and the two constructions below; all else is an InputError naming it.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from klaus_runtime import files, shapes
from klaus_runtime.errors import InputError

MAX_FILE_BYTES = 1 << 30
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_INSTRUCTIONS = 1 << 20
_MAX_PICKLE_BYTES = 1 << 24
_MAX_ZIP_ENTRIES = 1 << 16
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\n" + _MAGIC.to_bytes(10, "little") + b"."

# The storage classes that may be named, and the numbers they hold.
_STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
}
_ORDERED_DICT = ("collections", "OrderedDict")
_REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")


@dataclass(frozen=True, slots=True)
class _Named:
    """A class or function that the pickle names; never looked up."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def is_legacy(head: bytes) -> bool:
    """Whether a file that starts with `head` (15 bytes or more) is one that torch.save wrote before 1.6."""
    return head.startswith(_LEGACY_START)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip file with a data.pkl, which torch.save writes since 1.6."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, RuntimeError):
        return False


def read(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a torch file by name, each with the shape and number type it was saved with.

    Raises InputError for another format, anything but tensors, sizes that do not fit the file, or a pickle that asks
    for anything else to be made.
    """
    path = Path(path)
    return parse(files.read_bytes(path, MAX_FILE_BYTES), str(path))


def parse(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """read() on bytes; `name` is what errors call them."""
    try:
        return _parse_zip(data) if data[:4] == _ZIP_MAGIC else _parse_legacy(io.BytesIO(data), len(data))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (
        ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError, RecursionError, AttributeError,
        zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError,
    ) as error:  # fmt: skip
        raise InputError(f"{name}: is no torch file or damaged ({ascii(str(error))[1:-1][:100]})") from error


def _parse_legacy(stream: io.BytesIO, size: int) -> dict[str, npt.NDArray[Any]]:
    if _load(stream) != _MAGIC:
        raise InputError("does not start with torch's magic number; give a file that torch.save wrote")
    if _load(stream) != _PROTOCOL:
        raise InputError(f"is of another protocol than {_PROTOCOL}")
    facts = _load(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise InputError("was not written on a little-endian machine")
    state = _state(_load(stream))
    keys = _load(stream)
    return _tensors(state, _read_storages(stream, size, keys, _storages(state)))


def _parse_zip(data: bytes) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        by_name = {entry.filename: entry for entry in entries}
        if len(entries) > _MAX_ZIP_ENTRIES or len(by_name) != len(entries):
            raise InputError(f"has {len(entries)} parts, more than {_MAX_ZIP_ENTRIES} or two of one name")
        # Nothing is compressed: so no part can be larger than the file.
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > len(data):
            raise InputError(f"has compressed or overlapping parts ({packed[:1]!a}), which torch.save never makes")
        found = [name for name in by_name if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise InputError(f"holds {len(found)} state dicts (data.pkl); a saved one holds one")
        folder = found[0].removesuffix("data.pkl")
        order = by_name.get(f"{folder}byteorder")
        if order is not None and archive.read(order).strip() != b"little":
            raise InputError("was not written on a little-endian machine")
        if by_name[found[0]].file_size > _MAX_PICKLE_BYTES:
            raise InputError(f"has a data.pkl of more than {_MAX_PICKLE_BYTES:,} bytes")
        stream = io.BytesIO(archive.read(by_name[found[0]]))
        state = _state(_load(stream))
        numbers = {}
        for key, storage in _storages(state).items():
            entry = by_name.get(f"{folder}data/{key}")
            if entry is None or entry.file_size != storage.count * storage.dtype.itemsize:
                size = "absent" if entry is None else f"{entry.file_size:,} bytes long"
                raise InputError(f"storage {key!r:.40} of {storage.count:,} numbers ({storage.dtype}) is {size}")
            numbers[key] = np.frombuffer(archive.read(entry), storage.dtype)
    return _tensors(state, numbers)


def _state(value: Any) -> dict[str, _Tensor]:
    """The named tensors of a pickle; of a training checkpoint those under 'state_dict'."""
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(tensor, _Tensor) for tensor in value.values()):
        raise InputError("holds something else than named tensors; give a saved state dict")
    return value


def _storages(state: Mapping[str, _Tensor]) -> dict[str, _Storage]:
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    if any(storages[tensor.storage.key] != tensor.storage for tensor in state.values()):
        raise InputError("two storages share a key")
    return storages


def _tensors(state: Mapping[str, _Tensor], numbers: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    # Tensors that share a storage are copied: together they may take no more than what the file could hold.
    if sum(math.prod(tensor.size) * tensor.storage.dtype.itemsize for tensor in state.values()) > MAX_FILE_BYTES:
        raise InputError(f"has tensors of more than {MAX_FILE_BYTES:,} bytes together")
    return {name: _tensor(tensor, numbers[tensor.storage.key], name) for name, tensor in state.items()}


def _read_storages(
    stream: io.BytesIO, size: int, keys: Any, storages: Mapping[str, _Storage]
) -> dict[str, npt.NDArray[Any]]:
    # Nothing is turned into text that is not text: a small pickle can describe a value of exponential size.
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise InputError("the list of storages does not name those that the tensors use")
    numbers = {}
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.count or count * storage.dtype.itemsize > size - stream.tell():
            raise InputError(
                f"storage {key!r:.40} has {count} numbers; {storage.count} were announced, or it is cut short"
            )
        numbers[key] = np.frombuffer(stream.read(count * storage.dtype.itemsize), storage.dtype)
    if stream.tell() != size:
        raise InputError(f"{size - stream.tell()} bytes stand behind the last storage")
    return numbers


def _tensor(tensor: _Tensor, numbers: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True))
    elements = math.prod(tensor.size)
    # Overlapping views would let a small file ask for much memory.
    if min(tensor.size, default=1) < 1 or elements > len(numbers) or last >= len(numbers):
        raise InputError(
            f"{what[:80]!a} is a tensor {tensor.size} that does not fit its storage of {len(numbers)} numbers"
        )
    strides = [stride * numbers.itemsize for stride in tensor.stride]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides).copy()


def _load(stream: io.BytesIO) -> Any:
    """The value that one pickle makes, by a stack machine of plain values; leaves the stream behind its STOP."""
    machine = _Machine()
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MAX_INSTRUCTIONS:
            raise InputError(f"a pickle has more than {_MAX_INSTRUCTIONS} instructions")
        if code.name == "STOP":
            return machine.pop()
        machine.step(code.name, argument)
    raise InputError("a pickle has no end")


_MARK = object()


class _Machine:
    """Values, a memo, and one method a group of instructions."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "MARK": lambda _: self.stack.append(_MARK),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "TUPLE": lambda _: self.stack.append(tuple(self.pop_to_mark())),
            "TUPLE1": lambda _: self.tuple_of(1),
            "TUPLE2": lambda _: self.tuple_of(2),
            "TUPLE3": lambda _: self.tuple_of(3),
            "APPEND": lambda _: self.append([self.pop()]),
            "APPENDS": lambda _: self.append(self.pop_to_mark()),
            "SETITEM": lambda _: self.set_items([self.pop(), self.pop()][::-1]),
            "SETITEMS": lambda _: self.set_items(self.pop_to_mark()),
            "GLOBAL": self.name,
            "REDUCE": lambda _: self.construct(),
            "BINPERSID": lambda _: self.stack.append(_storage(self.pop())),
            "BUILD": lambda _: self.build(),
        }
        self.actions |= dict.fromkeys(
            ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
            self.stack.append,
        )
        self.actions |= dict.fromkeys(("BINPUT", "LONG_BINPUT"), self.remember)
        self.actions |= dict.fromkeys(("BINGET", "LONG_BINGET"), lambda key: self.stack.append(self.memo[key]))

    def step(self, instruction: str, argument: Any) -> None:
        action = self.actions.get(instruction)
        if action is None:
            raise InputError(f"a pickle has the instruction {instruction}, which no saved weights need: refused")
        action(argument)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise InputError("a pickle takes a value where there is none")
        return value

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def tuple_of(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise InputError("a pickle appends to something that is no list")
        target.extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise InputError("a pickle sets items of something that is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise InputError("a pickle has a dict whose keys are not text")
            if key in target:
                raise InputError(f"a pickle names {key[:40]!a} twice")
            target[key] = value

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        allowed = (module, name) in (_ORDERED_DICT, _REBUILD_TENSOR) or (module == "torch" and name in _STORAGES)
        if not allowed:
            raise InputError(
                f"a pickle asks for {argument[:80]!a}, which no saved weights need: refused, nothing was run"
            )
        self.stack.append(_Named(module, name))

    def construct(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, _Named) or not isinstance(arguments, tuple):
            raise InputError("a pickle calls something that is not a known name")
        named = (target.module, target.name)
        if named == _ORDERED_DICT and not arguments:
            self.stack.append({})
        elif named == _REBUILD_TENSOR and len(arguments) >= 4:
            self.stack.append(_tensor_facts(*arguments[:4]))
        else:
            raise InputError(f"a pickle calls {target.module}.{target.name} with {len(arguments)} arguments: refused")

    def build(self) -> None:
        """A state dict carries attributes (_metadata); they are read over."""
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise InputError("a pickle gives a state to something that is no dict")


def _storage(value: Any) -> _Storage:
    if (
        not isinstance(value, tuple)
        or len(value) not in (5, 6)
        or value[0] != "storage"
        or value[5:] not in ((), (None,))
    ):
        raise InputError("a pickle has a persistent value that is no storage")
    kind, key, count = value[1], value[2], value[4]
    if not isinstance(kind, _Named) or kind.name not in _STORAGES or not isinstance(key, str):
        raise InputError("a pickle has a storage of an unknown kind")
    if type(count) is not int or not 0 <= count <= shapes.MAX_ELEMENTS:
        raise InputError(f"a pickle has a storage whose size is none, or over {shapes.MAX_ELEMENTS:,} numbers")
    return _Storage(key, np.dtype(_STORAGES[kind.name]), count)


def _tensor_facts(storage: Any, offset: Any, size: Any, stride: Any) -> _Tensor:
    numbers = [offset, *size, *stride] if isinstance(size, tuple) and isinstance(stride, tuple) else [None]
    if (
        not isinstance(storage, _Storage)
        or any(type(number) is not int or not 0 <= number <= shapes.MAX_ELEMENTS for number in numbers)
        or len(size) != len(stride)
        or len(size) > 8
    ):
        raise InputError("a pickle has a tensor without a storage, or with an impossible shape")
    return _Tensor(storage, offset, size, stride)
