"""Index pictures: raw samples in, raw samples out, and nothing malformed gets through."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from klaus_runtime import png
from klaus_runtime.errors import InputError


def _samples(height: int, width: int, depth: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    drawn = np.random.default_rng(0).integers(0, 1 << depth, (height, width))
    return drawn.astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _file(*chunks: tuple[bytes, bytes]) -> bytes:
    return png.SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def _header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


END = (b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (64, 33)])
def test_round_trip_and_pillow_agree(depth: int, height: int, width: int, tmp_path: Path) -> None:
    samples = _samples(height, width, depth)
    path = tmp_path / "x.png"
    png.write_indices(path, samples, depth)
    found = png.read_indices(path, shape=(height, width))
    assert found.depth == depth
    assert np.array_equal(found.samples, samples)
    seen = np.asarray(Image.open(path).convert("L"))  # Pillow spreads samples over 0..255
    assert np.array_equal(seen, samples * (255 // ((1 << depth) - 1)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("filters", ["0", "1", "2", "3", "4", "34012"])
def test_every_filter_decodes_as_in_pillow(filters: str) -> None:
    height, width = 40, 23
    rows = [bytes([int(filters[n % len(filters)])]) + bytes(row) for n, row in enumerate(_samples(height, width, 8))]
    data = _file(_header(width, height), (b"IDAT", zlib.compress(b"".join(rows))), END)
    seen = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(png.decode(data, "x").samples, seen)


def test_split_data_and_ancillary_chunks_are_read() -> None:
    data = zlib.compress(b"\0\1\2")
    parts = [(b"IDAT", data[:3]), (b"IDAT", b""), (b"IDAT", data[3:])]
    made = _file(_header(2, 1), (b"tEXt", b"a\0b"), *parts, (b"tIME", b"1234567"), END)
    assert png.decode(made, "x").samples.tolist() == [[1, 2]]


GOOD = (b"IDAT", zlib.compress(b"\0\1\2"))
BAD = {
    "is not a PNG": b"GIF89a",
    "wrong checksum": _file(_header(2, 1), GOOD, END)[:-13] + b"\0" + _file(END)[8:],
    "truncated": _file(_header(2, 1), GOOD),
    "says 4,294,967,295 bytes": png.SIGNATURE + b"\xff\xff\xff\xff" + b"IHDR" + bytes(20),
    "behind its end": _file(_header(2, 1), GOOD, END) + b"x",
    "is palette": _file(_header(2, 1, 8, 3), GOOD, END),
    "is colour:": _file(_header(2, 1, 8, 2), GOOD, END),
    "gray with alpha": _file(_header(2, 1, 8, 4), GOOD, END),
    "has 16 bits": _file(_header(2, 1, 16), GOOD, END),
    "has 3 bits": _file(_header(2, 1, 3), GOOD, END),
    "interlaced": _file(_header(2, 1, 8, 0, 1), GOOD, END),
    "transparency": _file(_header(2, 1), (b"tRNS", b"\0\0"), GOOD, END),
    "no gray PNG has": _file(_header(2, 1), (b"PLTE", b"\0\0\0"), GOOD, END),
    "not consecutive": _file(_header(2, 1), GOOD, (b"tEXt", b"a\0b"), (b"IDAT", b""), END),
    "out of place": _file(GOOD, _header(2, 1), END),
    "IHDR' at byte 33 out of place": _file(_header(2, 1), _header(2, 1), GOOD, END),
    "header chunk has 12": _file((b"IHDR", bytes(12)), GOOD, END),
    "unknown compression": _file((b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 1, 0, 0)), GOOD, END),
    "says it is 100,000 x 100,000": _file(_header(100_000, 100_000), GOOD, END),
    "says it is 0 x 1": _file(_header(0, 1), GOOD, END),
    "unpacks to more": _file(_header(2, 1), (b"IDAT", zlib.compress(bytes(1 << 24))), END),
    "asks for 9": _file(_header(2, 3), GOOD, END),
    "has filter 5": _file(_header(2, 1), (b"IDAT", zlib.compress(b"\5\1\2")), END),
    "are damaged": _file(_header(2, 1), (b"IDAT", b"rubbish"), END),
    "does not end": _file(_header(2, 1), GOOD, (b"IDAT", b"more"), END),
    "unpacks to 0 bytes": _file(_header(2, 1), END),
}


@pytest.mark.parametrize("message", BAD)
def test_malformed_files_are_refused_with_a_reason(message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        png.decode(BAD[message], "x.png")
    assert str(error.value).startswith("x.png: ")
    assert "\n" not in str(error.value)


def test_size_is_compared_before_anything_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(_file(_header(2000, 3000), (b"IDAT", b"rubbish that is never looked at"), END))
    with pytest.raises(InputError, match="2000 wide and 3000 high instead of 3000 and 2000"):
        png.read_indices(path, shape=(2000, 3000))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    good = png.encode(_samples(9, 13, 4), 4)
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[at] ^= data.draw(st.integers(1, 255))
    kept = bytes(damaged[: data.draw(st.integers(0, len(good)))]) if data.draw(st.booleans()) else bytes(damaged)
    with pytest.raises(InputError):  # a checksum covers every byte, so no damage at all gets through
        png.decode(kept, "x")


@pytest.mark.parametrize(("depth", "value"), [(1, 2), (4, 16), (3, 0)])
def test_samples_that_do_not_fit_are_a_bug_of_the_caller(depth: int, value: int) -> None:
    with pytest.raises(ValueError, match=r"does not fit|depth 1, 2, 4 or 8"):
        png.encode(np.full((1, 1), value, np.uint8), depth)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_smallest_file_has_the_same_samples(depth: int) -> None:
    rows = np.tile(np.arange(64, dtype=np.uint8) & ((1 << depth) - 1), (40, 1))  # filters make nearly nothing of it
    noise = _samples(40, 64, depth)
    for samples in (rows, noise, rows[:, :1], np.zeros((3, 5), np.uint8)):
        fast, best = (png.encode(samples, depth, effort=effort) for effort in ("fast", "best"))
        assert len(best) <= len(fast)
        found = png.decode(best, "x")
        assert found.depth == depth
        assert np.array_equal(found.samples, samples)


def test_filters_are_used_where_they_help() -> None:
    ramp = (np.arange(200)[:, None] * 3 + np.random.default_rng(0).integers(0, 99, 300)).astype(np.uint8)
    assert len(png.encode(ramp, 8, effort="best")) < 0.2 * len(png.encode(ramp, 8))


# The best of pngcrush, optipng, oxipng and zopflipng on the pictures that Klaus ships.
PEERS = {"layer-11.png": 3_988_651, "layer-12.png": 1_920_315}


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_klaus_own_pictures_become_as_small_as_the_best_tool_makes_them(name: str, shared: Path) -> None:
    samples = png.read_indices(shared / "data" / "klaus-2014" / name).samples
    best = png.encode(samples, 8, effort="best")
    assert len(best) <= PEERS[name]
    found = png.decode(best, name)
    assert found.depth == 8
    assert np.array_equal(found.samples, samples)


def test_the_real_pictures_of_klaus(shared: Path) -> None:
    for name, levels in (("layer-11.png", 255), ("layer-12.png", 243)):
        found = png.read_indices(shared / "data" / "klaus-2014" / name)
        assert found.depth == 8
        assert len(np.unique(found.samples)) == levels
        seen = np.asarray(Image.open(shared / "data" / "klaus-2014" / name))
        assert np.array_equal(found.samples, seen)


@pytest.mark.parametrize("filters", ["\1", "\2", "\3", "\4", "\0\0\0\4"])
def test_thin_pictures_that_would_take_hours_are_refused(filters: str) -> None:
    """A file of some KiB may hold millions of rows of one sample, or one row of millions, each a step of its own."""
    for width, height in ((1, 1 << 22), (1 << 22, 1)):
        rows = np.zeros((height, 1 + width), np.uint8)
        rows[-1, 0] = ord(filters[-1])
        rows[: len(filters), 0] = np.frombuffer(filters.encode(), np.uint8)[:height]
        data = _file(_header(width, height), (b"IDAT", zlib.compress(rows.tobytes())), END)
        if width == 1 or (ord(filters[-1]) > 2 and len(filters) == 1):
            with pytest.raises(InputError, match="would take too long"):
                png.decode(data, "x")
        else:
            png.decode(data, "x")
