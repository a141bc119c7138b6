"""Klaus' networks: the forms of index pictures, where they are looked for, and what does not fit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaus_runtime import png, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.readers import ccv, klaus

from .attempt import attempt
from .golden import TINY
from .sqlite_nets import quantized


def _execute(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


def _picture(depth: int, *samples: int) -> png.IndexPicture:
    return png.IndexPicture(depth, np.array([samples], np.uint8))


def _entries(count: int) -> ccv.F16:
    return np.arange(count).astype(np.float16)


@pytest.mark.parametrize(
    ("depth", "samples", "count", "indices", "entries"),
    [
        (8, (0, 254), 255, (0, 254), 255),  # form 1
        (8, (0, 15), 16, (0, 15), 16),
        (8, (3, 3), 256, (3, 3), 256),
        (4, (0, 15), 16, (0, 15), 16),  # form 2
        (4, (0, 10), 11, (0, 10), 11),
        (2, (0, 3), 4, (0, 3), 4),
        (1, (0, 1), 2, (0, 1), 2),
        (4, (0, 15), 256, (0, 15), 16),  # form 3
        (4, (0, 13), 222, (0, 13), 14),
        (2, (0, 3), 256, (0, 3), 4),
        (1, (0, 1), 256, (0, 1), 2),
    ],
)
def test_forms_of_pictures(
    depth: int, samples: tuple[int, ...], count: int, indices: tuple[int, ...], entries: int
) -> None:
    got, codebook = klaus.decode(_entries(count), _picture(depth, *samples), 3)
    assert got.tolist() == [list(indices)]
    assert len(codebook.values) == entries
    stretch = 255 // (2**depth - 1) if count > 2**depth else 1
    assert codebook.values[got].tolist() == [[index * stretch for index in indices]]


@pytest.mark.parametrize(
    ("depth", "samples", "count"),
    [(8, (0, 16), 16), (8, (0, 255), 255), (4, (0, 12), 11), (4, (0, 15), 255), (2, (0, 3), 100), (1, (0, 1), 1)],
)
def test_pictures_that_do_not_fit_name_everything(depth: int, samples: tuple[int, ...], count: int) -> None:
    with pytest.raises(InputError) as caught:
        klaus.decode(_entries(count), _picture(depth, *samples), 7)
    message = str(caught.value)
    assert all(part in message for part in ("layer 7", f"depth {depth}", f"up to {max(samples)}", f"{count} codebook"))


def test_resaved_pictures_only_on_demand() -> None:
    picture = _picture(8, 0, 17, 255)
    with pytest.raises(InputError, match="saved again"):
        klaus.decode(_entries(16), picture, 0)
    indices, _ = klaus.decode(_entries(16), picture, 0, resaved=True)
    assert indices.tolist() == [[0, 1, 15]]


def test_unused_entries_may_be_anything_and_become_zero() -> None:
    entries = _entries(4)
    entries[2] = np.nan
    _, codebook = klaus.decode(entries, _picture(8, 0, 3), 0)
    assert codebook.values.tolist() == [0, 1, 0, 3]
    with pytest.raises(InputError, match="entry 2 is used"):
        klaus.decode(entries, _picture(8, 0, 2), 0)


def test_plain_networks_are_read_too() -> None:
    assert len(klaus.read(TINY / "model-fp16.sqlite3").layers) == 12


def test_pictures_named_after_the_network_go_first(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    own = path.with_name("model-layer-9.png")
    path.with_name("layer-9.png").rename(own)
    path.with_name("layer-9.png").write_bytes(b"another network's")
    assert klaus.find_picture(path, 9) == own
    klaus.read(path)


def test_two_candidates_must_be_told_apart(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    copy = path.with_name("layer-9-4bit.png")
    copy.write_bytes(path.with_name("layer-9.png").read_bytes())
    with pytest.raises(InputError, match="both exist"):
        klaus.read(path)
    klaus.read(path, {9: copy})


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    path.with_name("layer-11.png").unlink()
    with pytest.raises(InputError, match=r"layer 11: no picture beside the file: model-layer-11\.png"):
        klaus.read(path)
    with pytest.raises(InputError, match=r"elsewhere\.png"):
        klaus.read(path, {11: tmp_path / "elsewhere.png"})


def test_a_picture_for_a_plain_layer_is_refused(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    with pytest.raises(InputError, match="layer 3, which has no codebook"):
        klaus.read(path, {3: path.with_name("layer-9.png")})


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE layer_quant SET quant = NULL WHERE layer = 9", "its codebook has 0 bytes"),
        ("UPDATE layer_quant SET quant = zeroblob(513) WHERE layer = 9", "its codebook has 513 bytes"),
        ("UPDATE layer_quant SET quant = zeroblob(514) WHERE layer = 9", "its codebook has 514 bytes"),
        ("UPDATE layer_quant SET quant = 'text' WHERE layer = 9", "its codebook has 4 bytes"),
        ("UPDATE layer_quant SET quant = zeroblob(100) WHERE layer = 9", "does not fit 50 codebook entries"),
        ("UPDATE layer_quant SET layer = 12 WHERE layer = 9", "codebook for layer 12"),
        ("UPDATE layer_quant SET layer = 3 WHERE layer = 9", "only full connect layers"),
        ("DELETE FROM layer_quant WHERE layer = 9", "layer 9: weight holds nothing"),
        ("UPDATE layer_data SET weight = zeroblob(480) WHERE layer = 9", "one must go"),
        ("UPDATE layer_data SET bias = NULL WHERE layer = 9", "layer 9: bias holds nothing"),
        ("DELETE FROM layer_data WHERE layer = 9", "layer 9: layer_data has no row"),
    ],
)
def test_codebooks_that_do_not_fit(tmp_path: Path, statement: str, says: str) -> None:
    path = quantized(tmp_path)
    _execute(path, statement)
    with pytest.raises(InputError) as caught:
        klaus.read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_empty_weight_counts_as_none(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    _execute(path, "UPDATE layer_data SET weight = zeroblob(0) WHERE layer = 9")
    klaus.read(path)


@pytest.mark.parametrize("size", [(20, 12), (12, 21), (24, 10)])
def test_pictures_of_another_size_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = quantized(tmp_path)
    png.write_indices(path.with_name("layer-9.png"), np.zeros(size, np.uint8), 8)
    with pytest.raises(InputError, match=r"layer-9\.png"):
        klaus.read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pictures_do_no_harm(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "net"
    path = folder / "b-depth4-index" / "model.sqlite3" if folder.exists() else quantized(folder, "b-depth4-index")
    whole = (path.parent / "layer-8-4bit.png").read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for position, bit in data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 7)), max_size=8)):
        if damaged:
            damaged[position % len(damaged)] ^= 1 << bit
    given_picture = tmp_path / "damaged.png"
    given_picture.write_bytes(damaged)
    _, message = attempt(lambda: shapes.validate(klaus.read(path, {8: given_picture})))
    assert not message or "damaged.png" in message
