"""safetensors files: read right; every lie in a header is an InputError."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaus_runtime.errors import InputError
from klaus_runtime.readers import safetensors, state_dict

from .attempt import attempt


def file(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(kind: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
GOOD = file(
    {
        "__metadata__": {"licence": "MIT"},
        "b": entry("F16", [2], 24, 28),
        "a": entry("F32", [2, 3], 0, 24),
        "c": entry("BF16", [1, 1], 28, 30),
        "d": entry("I64", [], 30, 38),
    },
    NUMBERS.tobytes() + np.array([1, -2], "<f2").tobytes() + b"\xc0\x3f" + struct.pack("<q", 9),
)


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    got = safetensors.read(path)
    np.testing.assert_array_equal(got.tensors["a"], NUMBERS)
    assert got.tensors["b"].tolist() == [1, -2]
    assert got.tensors["c"].tolist() == [[1.5]]
    assert got.tensors["d"].shape == ()
    assert got.metadata == {"licence": "MIT"}


HUGE = 1 << 28


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a safetensors file"),
        (struct.pack("<Q", 1 << 60) + b"{}", "cut short"),
        (file(b"{" + b" " * (safetensors.MAX_HEADER_BYTES + 1) + b"}"), "has a header of"),
        (file(b"{]"), "not JSON"),
        (file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not JSON"),
        (file(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
        (file(b'{"\xff":1}'), "not JSON"),
        (file(b'{"a":1,"a":1}'), "twice"),
        (file({"__metadata__": {"a": 1}}), "metadata that are not texts"),
        (file({"a": 1}), "not described by"),
        (file({"a": entry("F8", [1], 0, 1)}, b"x"), "of type 'F8'"),
        (file({"a": entry("F32", [0], 0, 0)}), "whole numbers from 1"),
        (file({"a": entry("U8", [1] * 9, 0, 1)}, b"x"), "up to 8"),
        (file({"a": entry("F32", [HUGE] * 8, 0, 0)}), "it needs"),
        (file({"a": {**entry("U8", [1], 0, 1), "data_offsets": [0, True]}}, b"x"), "two whole numbers"),
        (file({"a": entry("U8", [2], -1, 1)}, b"x"), "stands at bytes -1"),
        (file({"a": entry("U8", [2], 0, 2)}, b"x"), "of 1; it needs 2"),
        (file({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"xyz"), "the tensor before ends at 2"),
        (file({"a": entry("U8", [1], 1, 2)}, b"xy"), "the tensor before ends at 0"),
        (file({"a": entry("U8", [1], 0, 1)}, b"xy"), "belong to no tensor"),
    ],
)
def test_lies(data: bytes, says: str) -> None:
    got, message = attempt(lambda: safetensors.parse(data, "bad.safetensors"))
    assert got is None
    assert message.startswith("bad.safetensors: ")
    assert says in message


def test_weights_of_an_unknown_network(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    with pytest.raises(InputError, match="says nothing of the network they belong to"):
        state_dict.read_safetensors(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_an_input_error_or_another_number(data: st.DataObject) -> None:
    whole = bytearray(GOOD)
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        whole[position] = byte
    got, _ = attempt(lambda: safetensors.parse(bytes(whole), "x"))
    assert got is None or sum(array.nbytes for array in got.tensors.values()) < 1000
