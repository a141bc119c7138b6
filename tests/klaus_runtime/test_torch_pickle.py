"""Torch files, legacy and zip: read right, and never executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaus_runtime.errors import InputError
from klaus_runtime.readers import torch_pickle

from . import torch_files as files
from .attempt import attempt

TENSORS: dict[str, npt.NDArray[Any]] = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.half": np.arange(5, dtype=np.float16),
    "a.count": np.array(7, dtype=np.int64),
}
FOUR = files.storage("FloatStorage", "0", 4)
FOUR_NUMBERS = {"0": files.numbers(np.arange(4, dtype=np.float32))}


class Evil:
    """What a hostile pickle is made of: unpickling it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(files.saved(TENSORS))
    got = torch_pickle.read(path)
    assert list(got) == list(TENSORS)
    for key, wanted in TENSORS.items():
        assert got[key].dtype == wanted.dtype
        np.testing.assert_array_equal(got[key], wanted)


def test_views_share_a_storage() -> None:
    pickled = files.state(
        {"whole": files.tensor(FOUR, 0, (2, 2), (2, 1)), "turned": files.tensor(FOUR, 0, (2, 2), (1, 2)),
         "end": files.tensor(FOUR, 3, (1,), (1,))}
    )  # fmt: skip
    got = torch_pickle.parse(files.file(pickled, FOUR_NUMBERS), "x")
    assert got["turned"].tolist() == [[0, 2], [1, 3]]
    assert got["end"].tolist() == [3]


@pytest.mark.parametrize("place", range(5))
def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, place: int) -> None:
    target = tmp_path / "made-by-a-pickle"
    evil = pickle.dumps(Evil(target), 2)
    before = [pickle.dumps(value, 2) for value in (files.MAGIC, 1001, files.FACTS)] + [files.state({})]
    data = b"".join(before[:place]) + evil
    with pytest.raises(InputError, match="posix mkdir"):
        torch_pickle.parse(data, "evil.pth")
    assert not target.exists()
    pickle.loads(evil)  # the same pickle does harm where it is executed
    assert target.is_dir()


@pytest.mark.parametrize(
    "value",
    [
        files.name("os", "system") + b"(" + files.text("true") + b"tR",
        files.name("torch", "save") + b")R",
        files.name("torch", "FloatStorage") + b")R",
        files.name("collections", "OrderedDict") + files.text("x") + b"R",
        files.name("torch._utils", "_rebuild_tensor_v2") + b")R",
        b"(" + files.text("os") + files.text("system") + b"\x93",  # STACK_GLOBAL
        b"(i__builtin__\neval\n",  # INST
        b"\x82\x01",  # EXT1
        files.name("collections", "OrderedDict") + b")\x81",  # NEWOBJ
        files.tensor(b"N", 0, (1,), (1,)),
        files.tensor(files.storage("NoStorage", "0", 4), 0, (1,), (1,)),
        files.tensor(files.storage("FloatStorage", "0", -1), 0, (1,), (1,)),
        files.tensor(files.storage("FloatStorage", "0", 2**40), 0, (1,), (1,)),
        files.tensor(FOUR, -1, (1,), (1,)),
        files.tensor(FOUR, 0, (5,), (1,)),
        files.tensor(FOUR, 4, (1,), (1,)),
        files.tensor(FOUR, 0, (2, 2), (3, 1)),
        files.tensor(FOUR, 0, (1 << 14, 1 << 14), (0, 0)),
        files.tensor(FOUR, 0, (2,), (1, 1)),
        files.tensor(FOUR, 0, (0,), (1,)),
        files.integer(3),
    ],
)
def test_values_that_are_no_tensor_are_refused(value: bytes) -> None:
    with pytest.raises(InputError, match=r"bad\.pth"):
        torch_pickle.parse(files.file(files.state({"t": value}), FOUR_NUMBERS), "bad.pth")


def test_files_that_are_something_else() -> None:
    good = files.state({"t": files.tensor(FOUR, 0, (4,), (1,))})
    big_endian = {**files.FACTS, "little_endian": False}
    for data, says in (
        (b"", "bad.pth"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"\x89PNG" * 20, "bad.pth"),
        (pickle.dumps(5, 2), "magic"),
        (pickle.dumps(files.MAGIC, 2) + pickle.dumps(1000, 2), "protocol"),
        (files.file(good, FOUR_NUMBERS, facts=big_endian), "little-endian"),
        (files.file(good, FOUR_NUMBERS, keys=["1"]), "does not name"),
        (files.file(good, FOUR_NUMBERS, keys="0"), "does not name"),
        (files.file(good, {"0": struct.pack("<q", 5) + bytes(20)}), "5 numbers; 4 were announced"),
        (files.file(good, FOUR_NUMBERS)[:-1], "cut short"),
        (files.file(good, FOUR_NUMBERS) + b"x", "stand behind"),
        (files.file(files.state({}) + b"", {}) + b"x", "stand behind"),
    ):
        with pytest.raises(InputError, match=says):
            torch_pickle.parse(data, "bad.pth")


def test_a_name_twice_is_refused() -> None:
    one = files.text("t") + files.tensor(FOUR, 0, (1,), (1,))
    pickled = b"\x80\x02" + files.name("collections", "OrderedDict") + b")R(" + one + one + b"u."
    with pytest.raises(InputError, match="twice"):
        torch_pickle.parse(files.file(pickled, FOUR_NUMBERS), "bad.pth")


def test_an_absent_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth"):
        torch_pickle.read(tmp_path / "absent.pth")


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        torch_pickle.parse(pickle.dumps(files.MAGIC, 2) + data, "x")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damage_is_an_input_error_or_another_number(data: st.DataObject) -> None:
    whole = bytearray(files.saved(TENSORS))
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=10)
    ):
        whole[position] = byte
    got, _ = attempt(lambda: torch_pickle.parse(bytes(whole), "x"))
    assert got is None or sum(array.nbytes for array in got.values()) < 10_000


def test_zip_files_hold_the_same_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(files.saved_zip(TENSORS))
    assert torch_pickle.is_zip(path)
    got = torch_pickle.read(path)
    assert list(got) == list(TENSORS)
    for key, wanted in TENSORS.items():
        assert got[key].dtype == wanted.dtype
        np.testing.assert_array_equal(got[key], wanted)


def test_the_state_dict_of_a_checkpoint_is_taken() -> None:
    inner = files.state({"t": files.tensor(FOUR, 0, (4,), (1,))})[2:-1]
    pickled = b"\x80\x02}(" + files.text("epoch") + files.integer(3) + files.text("state_dict") + inner + b"u."
    got = torch_pickle.parse(files.zipped(pickled, {"0": bytes(16)}), "x")
    assert list(got) == ["t"]


def test_hostile_zip_files(tmp_path: Path) -> None:
    good = files.state({"t": files.tensor(FOUR, 0, (2, 2), (2, 1))})
    made = tmp_path / "made"
    compressed = io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", good)
        archive.writestr("weights/data/0", bytes(16))
    for data, says in (
        (files.zipped(pickle.dumps(Evil(made), 2), {}), "asks for"),
        (files.zipped(pickle.dumps({"t": 1}, 2), {}), "something else than named tensors"),
        (files.zipped(good, {}), "is absent"),
        (files.zipped(good, {"0": bytes(15)}), "is 15 bytes long"),
        (files.zipped(good, {"0": bytes(16)}, byteorder=b"big"), "little-endian"),
        (files.zipped(good, {"0": bytes(16)}, **{"x/data.pkl": good}), "holds 2 state dicts"),
        (compressed.getvalue(), "compressed or overlapping"),
        (files.zipped(good, {"0": bytes(16)})[:-30], "no torch file or damaged"),
    ):
        with pytest.raises(InputError, match=says):
            torch_pickle.parse(data, "bad.pt")
    assert not made.exists()


def test_values_of_exponential_size_are_not_written_out() -> None:
    doubled = b"(" + files.text("x") + b"t" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60))
    state = b"\x80\x02" + b"(" + files.text("storage") + files.name("torch", "FloatStorage") + files.text("0")
    state += files.text("cpu") + doubled + b"NtQ."
    with pytest.raises(InputError, match="storage whose size"):
        torch_pickle.parse(files.zipped(state, {}), "x")
    keys = b"\x80\x02]" + doubled + b"a."
    head = b"".join(pickle.dumps(value, 2) for value in (files.MAGIC, 1001, files.FACTS))
    with pytest.raises(InputError, match="does not name"):
        torch_pickle.parse(head + files.state({}) + keys, "x")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_zip_files_are_an_input_error_or_another_number(data: st.DataObject) -> None:
    whole = bytearray(files.saved_zip(TENSORS))
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=10)
    ):
        whole[position] = byte
    got, _ = attempt(lambda: torch_pickle.parse(bytes(whole), "x"))
    assert got is None or sum(array.nbytes for array in got.values()) < 10_000
