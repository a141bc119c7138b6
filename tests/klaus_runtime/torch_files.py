"""Torch files made without torch: pickles put together by hand, so that good and hostile ones can be had."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = 0x1950A86A20F9469CFC6C
FACTS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}

STORAGES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def name(module: str, word: str) -> bytes:
    return f"c{module}\n{word}\n".encode()


def storage(kind: str, key: str, count: int) -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + integer(count) + b"NtQ"


def tensor(source: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = b"(" + source + integer(offset) + integers(size) + integers(stride) + b"\x89" + hooks + b"t"
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state(items: Mapping[str, bytes]) -> bytes:
    """The pickle of an OrderedDict of the given values, with a state behind it as torch writes one."""
    pairs = b"".join(text(key) + value for key, value in items.items())
    metadata = b"}" + text("_metadata") + name("collections", "OrderedDict") + b")Rsb"
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + pairs + b"u" + metadata + b"."


def file(pickled_state: bytes, storages: Mapping[str, bytes], keys: Any = None, facts: Any = None) -> bytes:
    """A whole file: the five pickles and the storages' counts and numbers."""
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, FACTS if facts is None else facts))
    listed = pickle.dumps(sorted(storages) if keys is None else keys, 2)
    return head + pickled_state + listed + b"".join(storages[key] for key in sorted(storages))


def numbers(array: npt.NDArray[Any]) -> bytes:
    return struct.pack("<q", array.size) + array.tobytes()


def saved(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """What torch.save before 1.6 would make of a state dict with these tensors."""
    items, storages = _stored(tensors)
    return file(state(items), storages)


def _stored(tensors: Mapping[str, npt.NDArray[Any]]) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
    items: OrderedDict[str, bytes] = OrderedDict()
    storages = {}
    for index, (key, array) in enumerate(tensors.items()):
        kind = STORAGES[np.dtype(array.dtype).newbyteorder("<").str]
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        items[key] = tensor(storage(kind, str(index), array.size), 0, array.shape, strides if array.ndim else ())
        storages[str(index)] = numbers(np.ascontiguousarray(array))
    return items, storages


def zipped(pickled_state: bytes, storages: Mapping[str, bytes], **more: bytes) -> bytes:
    """A file as torch.save writes it since 1.6: a zip file without compression."""
    buffer = io.BytesIO()
    parts = {"data.pkl": pickled_state, "byteorder": b"little"}
    parts |= {f"data/{key}": data for key, data in storages.items()} | {"version": b"3\n"} | more
    with zipfile.ZipFile(buffer, "w") as archive:
        for part, data in parts.items():
            archive.writestr(zipfile.ZipInfo(f"weights/{part}"), data)
    return buffer.getvalue()


def saved_zip(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """What torch.save makes of a state dict since 1.6."""
    items, storages = _stored(tensors)
    return zipped(state(items), {key: data[8:] for key, data in storages.items()})
