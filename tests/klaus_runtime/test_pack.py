"""Packed models: the bytes stand where format.h says, everything comes back, and no damaged byte gets through."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaus_runtime.errors import InputError
from klaus_runtime.model import Codebook, FullConnect, Model, Provenance, Weights
from klaus_runtime.pack import pack, read_packed, write_batch
from klaus_runtime.pack.reader import decode_packed
from klaus_runtime.pack.structs import pack_rows, size_of, unpack_rows
from klaus_runtime.quantize import quantize
from klaus_runtime.quantize.schemes import SCHEMES
from klaus_runtime.readers import ccv, klaus

from .golden import TINY, TINY_QUANT
from .zoo import assert_same, everything

HEADER, SECTION = 64, 32


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(everything(), tmp_path_factory.mktemp("packed") / "x.klaus").read_bytes()


def _sections(data: bytes) -> list[tuple[int, int, int, int, int, int]]:
    (count,) = struct.unpack_from("<I", data, 24)
    return [struct.unpack_from("<IiIIQQ", data, HEADER + SECTION * n) for n in range(count)]


def _resealed(data: bytearray) -> bytes:
    """With the digest made right again, so that what lies behind it is tested."""
    data[32:64] = hashlib.sha256(data[64:]).digest()
    return bytes(data)


def test_sizes_are_those_that_the_header_states() -> None:
    kinds = {"file_header": 64, "section": 32, "network": 128, "layer": 256, "range": 16}
    assert {kind: size_of(kind) for kind in kinds} == kinds
    assert (size_of("batch_header"), size_of("batch_picture")) == (16, 12)


def test_everything_comes_back(packed: bytes) -> None:
    assert_same(decode_packed(packed, "x"), everything())


@pytest.mark.parametrize("scheme", [None, *SCHEMES])
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_ccv_networks_come_back(kind: str, scheme: str | None, tmp_path: Path) -> None:
    model = ccv.read(TINY / f"model-{kind}.sqlite3")
    model = model if scheme is None else quantize(model, scheme)
    assert_same(read_packed(pack(model, tmp_path / "x.klaus")), model)


def test_codebooks_are_worth_what_the_equivalent_half_precision_file_is(tmp_path: Path) -> None:
    quantized = klaus.read(TINY_QUANT / "a-depth8-index" / "model.sqlite3")
    equivalent = ccv.read(TINY_QUANT / "equivalent-fp16.sqlite3")
    read = read_packed(pack(quantized, tmp_path / "x.klaus"))
    bits = []
    for one, other in zip(read.layers, equivalent.layers, strict=True):
        if isinstance(one, FullConnect) and isinstance(other, FullConnect):
            assert np.array_equal(one.weights.effective(), other.weights.effective())
            bits.append(one.weights.codebook.index_bits if one.weights.codebook else None)
    assert bits == [4, 8, 2, 8]


def test_bytes_stand_where_the_format_says(packed: bytes) -> None:
    assert packed[:8] == b"KLAUSPM\x1a"
    version, header_bytes, file_bytes, sections, layers = struct.unpack_from("<IIQII", packed, 8)
    assert (version, header_bytes, file_bytes, layers) == (1, 64, len(packed), 13)
    assert packed[32:64] == hashlib.sha256(packed[64:]).digest()
    end = HEADER + SECTION * sections
    for _, _, _, _, offset, size in _sections(packed):
        assert offset % 64 == 0
        assert not any(packed[end:offset])
        end = offset + size
    assert end == len(packed)
    by_kind = {(kind, layer): packed[offset : offset + size] for kind, layer, _, _, offset, size in _sections(packed)}
    meta = json.loads(by_kind[3, -1])
    assert (meta["name"], meta["licence"], meta["scheme"]) == ("everything", "BSD-3-Clause", "by hand")
    assert by_kind[4, -1].decode().splitlines()[2] == "n00000002\tthing, 2 é"
    layer = everything().layers[10]
    assert isinstance(layer, FullConnect)
    row = layer.weights.values[0].tolist()
    wanted = [sum(index << (2 * place) for place, index in enumerate(row[at : at + 4])) for at in (0, 4, 8)]
    assert list(by_kind[6, 10][:3]) == wanted  # 11 indices of 2 bits take 3 bytes, the earliest lowest


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_rows_of_indices(bits: int, count: int) -> None:
    rows = np.random.default_rng(0).integers(0, 1 << bits, (5, count)).astype(np.uint8)
    packed = pack_rows(rows, bits)
    assert packed.shape == (5, -(-count * bits // 8))
    assert np.array_equal(unpack_rows(packed, count, bits), rows)


def test_malformed_models_are_not_packed(tmp_path: Path) -> None:
    model = everything()
    broken = replace(model, layers=(*model.layers[:-1], replace(model.layers[-1], inputs=(99,))))
    with pytest.raises(InputError, match="layer 12"):
        pack(broken, tmp_path / "x.klaus")
    hostile = replace(model, provenance=Provenance("a\x1b[2J", "", ""))
    with pytest.raises(InputError, match="cannot be printed"):
        pack(hostile, tmp_path / "x.klaus")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "x.klaus"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    with pytest.raises(InputError, match="cannot be written"):
        pack(everything(), folder)
    assert (folder / "kept").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["x.klaus"]
    with pytest.raises(InputError, match="cannot write here"):
        pack(everything(), folder / "kept" / "y.klaus")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_cut_or_damaged_files_are_refused(packed: bytes, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        damaged = packed[: data.draw(st.integers(0, len(packed) - 1))]
    else:
        changed = bytearray(packed)
        changed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
        damaged = bytes(changed)
    with pytest.raises(InputError, match=r"^x\.klaus: "):
        decode_packed(damaged, "x.klaus")


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_damage_behind_a_right_digest_is_refused_or_a_valid_model(packed: bytes, data: st.DataObject) -> None:
    changed = bytearray(packed)
    # Mostly into the structs, where a wrong number would lead astray.
    span = st.one_of(st.integers(8, 1200), st.integers(1200, 5200), st.integers(0, len(packed) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(span)] = data.draw(st.integers(0, 255))
    try:
        model = decode_packed(_resealed(changed), "x.klaus")
    except InputError as error:
        assert str(error).startswith("x.klaus: ")  # noqa: PT017
    else:
        assert isinstance(model, Model)


def _patched(packed: bytes, offset: int, form: str, value: float) -> bytes:
    changed = bytearray(packed)
    struct.pack_into(form, changed, offset, value)
    return _resealed(changed)


# message, kind and layer of the section (0: the file), offset there, form, value
WRONG = [
    ("format version 2", 0, -1, 8, "<I", 2),
    ("says it has 5000 layers", 0, -1, 28, "<I", 5000),
    ("sections, more than fit", 0, -1, 24, "<I", 1 << 31),
    ("is not zero", 0, -1, HEADER + 16, "<Q", 1 << 63),
    ("overlaps, is askew or outside", 0, -1, HEADER + 24, "<Q", 1 << 63),
    ("kind 77", 0, -1, HEADER, "<I", 77),
    ("its input is 0 x 9", 1, -1, 0, "<i", 0),
    ("operator 99", 2, -1, 0, "<I", 99),
    ("activation 9", 2, -1, 4, "<I", 9),
    ("has 9 inputs", 2, -1, 8, "<i", 9),
    ("not earlier layers", 2, -1, 12, "<i", 5),
    ("says it puts out 7 x 9 x 6", 2, -1, 44, "<i", 7),
    ("bytes of type", 2, -1, 52, "<i", 7),
    ("window of", 2, -1, 64, "<i", -1),
    ("into 0 groups", 2, -1, 88, "<i", 0),
    ("300 codebook entries", 2, -1, 120, "<I", 300),
    ("not finite", 9, 0, 0, "<f", float("nan")),
    ("index 15 in a codebook of 5", 6, 0, 0, "<B", 255),
    ("not the JSON object", 3, -1, 0, "<B", 0),
    ("id<TAB>name", 4, -1, 0, "<B", 255),
    ("its range 0 is", 10, -1, 0, "<f", float("inf")),
]


@pytest.mark.parametrize(("message", "kind", "layer", "offset", "form", "value"), WRONG)
def test_what_is_wrong_is_said(
    packed: bytes, message: str, kind: int, layer: int, offset: int, form: str, value: float
) -> None:
    start = next((at for k, n, _, _, at, _ in _sections(packed) if (k, n) == (kind, layer)), 0)
    changed = bytearray(packed)
    struct.pack_into(form, changed, start + offset, value)
    with pytest.raises(InputError, match=rf"^x\.klaus: is a packed model, but .*{message}"):
        decode_packed(_resealed(changed), "x.klaus")


def test_codebook_of_one_entry_and_wide_codebook(tmp_path: Path) -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    last = model.layers[-1]
    assert isinstance(last, FullConnect)
    for entries in (1, 4, 5, 16, 17, 256):
        values = (np.arange(last.weights.values.size) % entries).astype(np.uint8).reshape(last.weights.values.shape)
        book = Codebook(np.arange(entries).astype(np.float16))
        changed = replace(last, weights=Weights(values, last.weights.bias, None, book))
        made = replace(model, layers=(*model.layers[:-1], changed))
        assert_same(read_packed(pack(made, tmp_path / "x.klaus")), made)


def test_batches(tmp_path: Path) -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    path = write_batch(tmp_path / "x.batch", [("né", picture), ("b", picture[:1, :1])])
    data = path.read_bytes()
    assert data[:16] == b"KLAUSBT\x1a" + struct.pack("<II", 1, 2)
    assert data[16:31] == struct.pack("<III", 3, 2, 3) + "né".encode()
    assert data[31:49] == bytes(range(18))
    assert data[49:] == struct.pack("<III", 1, 1, 1) + b"b" + bytes(range(3))
    for name, bad, message in (("", picture, "1 to 255"), ("a" * 256, picture, "1 to 255"), ("a", picture[0], "uint8")):
        with pytest.raises(InputError, match=message):
            write_batch(tmp_path / "y.batch", [(name, bad)])
    assert [path.name for path in tmp_path.iterdir()] == ["x.batch"]
