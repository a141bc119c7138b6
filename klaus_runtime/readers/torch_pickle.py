"""PyTorch's legacy weight files (torch.save before 1.6) -> arrays by name, without torch and without unpickling.

Such a file is a row of pickles (a magic number, a protocol number, facts about the writer, the state dict, the keys
of the storages) and then, a storage at a time, an int64 count and the raw numbers. A pickle is a program; this module
does not run it. It steps through the instructions that pickletools decodes and knows only those that build plain
values, dicts, and the two constructions below; all else is an InputError naming it.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable
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


def read(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a legacy torch file by name, each with the shape and number type it was saved with.

    Raises InputError for another format, anything but tensors, sizes that do not fit the file, or a pickle that asks
    for anything else to be made.
    """
    path = Path(path)
    return parse(files.read_bytes(path, MAX_FILE_BYTES), str(path))


def parse(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """read() on bytes; `name` is what errors call them."""
    if data[:4] == b"PK\x03\x04":
        raise InputError(f"{name}: is a zip file, torch's format since 1.6; only the legacy format is read")
    try:
        return _parse(io.BytesIO(data), len(data))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError, RecursionError) as error:
        raise InputError(f"{name}: is not a legacy torch file or damaged ({ascii(str(error))[1:-1][:100]})") from error


def _parse(stream: io.BytesIO, size: int) -> dict[str, npt.NDArray[Any]]:
    if _load(stream) != _MAGIC:
        raise InputError("does not start with torch's magic number; give a file that torch.save wrote")
    if _load(stream) != _PROTOCOL:
        raise InputError(f"is of another protocol than {_PROTOCOL}")
    facts = _load(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise InputError("was not written on a little-endian machine")
    state = _load(stream)
    keys = _load(stream)
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise InputError("holds something else than named tensors; give a saved state dict")
    numbers = _read_storages(stream, size, keys, state)
    return {name: _tensor(tensor, numbers[tensor.storage.key], name) for name, tensor in state.items()}


def _read_storages(stream: io.BytesIO, size: int, keys: Any, state: dict[str, _Tensor]) -> dict[str, npt.NDArray[Any]]:
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    if any(storages[tensor.storage.key] != tensor.storage for tensor in state.values()):
        raise InputError("two storages share a key")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
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
        raise InputError(f"a pickle has a storage of {count!r:.40} numbers")
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
