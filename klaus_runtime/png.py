"""Index pictures: gray PNG files whose *raw* samples are codebook indices.

Image libraries expand gray of 1, 2 or 4 bits to 0..255, which hides the index; so this reads and writes PNG itself
(ISO/IEC 15948), over zlib, and only what index pictures need: colour type 0, depth 1, 2, 4 or 8, not interlaced.
It trusts no byte: sizes are checked before memory is taken, every checksum is checked, nothing stands behind the end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oxipng

from klaus_runtime import deflate, files
from klaus_runtime.deflate import Effort
from klaus_runtime.errors import InputError
from klaus_runtime.model import U8

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SAMPLES = 1 << 27  # the largest full connect of the VGG nets has 102,760,448
MAX_FILE_BYTES = 1 << 28
_DEPTHS = (1, 2, 4, 8)
_COLOUR_NAMES = {0: "gray", 2: "colour", 3: "palette", 4: "gray with alpha", 6: "colour with alpha"}
_AVERAGE, _PAETH = 3, 4
_MAX_STEPS = 1 << 18  # rows or diagonals, which take some microseconds however short: no layer is that thin
_TRIED_FROM, _TRIAL_BYTES = 1 << 22, 1 << 18  # where zopfli takes long, a part says whether it is worth it
_FILTERS = (
    oxipng.RowFilter.NoOp,
    oxipng.RowFilter.Sub,
    oxipng.RowFilter.Up,
    oxipng.RowFilter.MinSum,
    oxipng.RowFilter.Entropy,
)


@dataclass(frozen=True, slots=True)
class IndexPicture:
    """A decoded index picture."""

    depth: int  # bits of a sample in the file: 1, 2, 4 or 8
    samples: U8  # (height, width), raw: 0 .. 2**depth - 1


def read_indices(path: Path, *, shape: tuple[int, int] | None = None) -> IndexPicture:
    """Reads an index picture.

    shape: (height, width) that it must have; checked against the header, before anything is decoded.
    Raises InputError naming path for what is malformed, oversized, coloured, 16-bit or interlaced.
    """
    return decode(files.read_bytes(path, MAX_FILE_BYTES), str(path), shape=shape)


def decode(data: bytes, name: str, *, shape: tuple[int, int] | None = None) -> IndexPicture:
    """read_indices on bytes; name is what errors call them."""
    width = height = depth = 0
    image_data: list[memoryview] = []
    previous = b""
    for kind, body in _chunks(data, name):
        if kind == b"IHDR":
            width, height, depth = _header(body, name, shape)
        elif kind == b"IDAT":
            if image_data and previous != b"IDAT":
                raise InputError(f"{name}: its IDAT chunks are not consecutive: the PNG file is malformed")
            image_data.append(body)
        elif kind == b"tRNS":
            raise InputError(f"{name}: has transparency: an index picture is plain gray, save it without")
        elif kind != b"IEND" and not kind[0] & 0x20:  # bit 5 clear = a decoder must understand it
            raise InputError(f"{name}: has a chunk {_printable(kind)} that no gray PNG has: the file is malformed")
        previous = kind
    row_bytes = (width * depth + 7) // 8
    raw = _inflate(image_data, height * (1 + row_bytes), name).reshape(height, 1 + row_bytes)
    return IndexPicture(depth, unpack_rows(_unfilter(raw, name), width, depth))


def _printable(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Every chunk with its checksum checked; IHDR is the first and IEND the last, exactly at the end."""
    if not data.startswith(SIGNATURE):
        raise InputError(f"{name}: is not a PNG file (it starts with {data[:8].hex() or 'nothing'})")
    view = memoryview(data)
    position = len(SIGNATURE)
    first = True
    while True:
        if position + 12 > len(data):
            raise InputError(f"{name}: ends at byte {len(data):,} before its end chunk: the PNG file is truncated")
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if length > len(data) - position - 12:
            raise InputError(
                f"{name}: chunk {_printable(kind)} at byte {position:,} says {length:,} bytes, "
                f"{len(data) - position - 12:,} are left: the PNG file is truncated or damaged"
            )
        body = view[position + 8 : position + 8 + length]
        (stated,) = struct.unpack_from(">I", data, position + 8 + length)
        if stated != zlib.crc32(view[position + 4 : position + 8 + length]):
            raise InputError(f"{name}: chunk {_printable(kind)} at byte {position:,} has a wrong checksum")
        if first != (kind == b"IHDR"):
            raise InputError(f"{name}: chunk {_printable(kind)} at byte {position:,} out of place: malformed")
        first = False
        yield kind, body
        position += 12 + length
        if kind == b"IEND":
            if length or position != len(data):
                raise InputError(f"{name}: has {len(data) - position + length:,} bytes behind its end: it is malformed")
            return


def _header(body: memoryview, name: str, shape: tuple[int, int] | None) -> tuple[int, int, int]:
    if len(body) != 13:
        raise InputError(f"{name}: its header chunk has {len(body)} bytes instead of 13: the PNG file is malformed")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if colour != 0:
        kind = _COLOUR_NAMES.get(colour, f"of colour type {colour}")
        raise InputError(f"{name}: is {kind}: an index picture is plain gray, keep PNG tools from reducing colours")
    if depth not in _DEPTHS:
        raise InputError(f"{name}: has {depth} bits a sample: an index picture has 1, 2, 4 or 8")
    if compression or filtering or interlace not in (0, 1):
        raise InputError(f"{name}: has an unknown compression, filter or interlace method: the PNG file is malformed")
    if interlace:
        raise InputError(f"{name}: is interlaced: save it without interlacing")
    if shape is not None and (height, width) != shape:
        raise InputError(
            f"{name}: is {width} wide and {height} high instead of {shape[1]} and {shape[0]}: "
            "is it the picture of another layer?"
        )
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31) or width * height > MAX_SAMPLES:
        raise InputError(f"{name}: says it is {width:,} x {height:,}: at most {MAX_SAMPLES:,} samples are read")
    return width, height, depth


def _inflate(parts: list[memoryview], expected: int, name: str) -> U8:
    """Decompresses to exactly `expected` bytes; never holds more than that, whatever the stream says."""
    inflater = zlib.decompressobj()
    data = np.zeros(expected, np.uint8)
    filled = 0
    trailing = False
    try:
        for part in parts:
            pending: bytes | memoryview = part
            trailing |= inflater.eof and len(part) > 0
            while len(pending) and not inflater.eof:
                piece = inflater.decompress(pending, max(1, min(expected - filled, 1 << 22)))
                if filled + len(piece) > expected:
                    raise InputError(f"{name}: unpacks to more than the {expected:,} bytes of its size: malformed")
                data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
                filled += len(piece)
                pending = inflater.unconsumed_tail
        piece = b"" if inflater.eof else inflater.decompress(b"", 1)
    except zlib.error as error:
        raise InputError(f"{name}: its compressed samples are damaged ({error})") from error
    if filled != expected or piece or not inflater.eof or inflater.unused_data or trailing:
        raise InputError(
            f"{name}: unpacks to {filled:,} bytes where its size asks for {expected:,}, or its data does not end "
            "there: the PNG file is truncated or malformed"
        )
    return data


def _unfilter(raw: U8, name: str) -> U8:
    """Undoes PNG's row filters; raw is (height, 1 + bytes of a row), the filter's number first in each row.

    With at most 8 bits a pixel "the pixel to the left" is always the byte before.
    """
    filters = raw[:, 0]
    if filters.max() > _PAETH:
        raise InputError(f"{name}: row {int(np.argmax(filters))} has filter {filters.max()}, PNG has 0 to 4")
    rows = raw[:, 1:]
    if not filters.any():
        return rows
    by_diagonals = bool((filters >= _AVERAGE).any())
    if (sum(rows.shape) if by_diagonals else len(rows)) > _MAX_STEPS:
        raise InputError(
            f"{name}: {rows.shape[1]:,} x {len(rows):,} bytes with row filters would take too long: save it without"
        )
    if by_diagonals:
        return _unfilter_wavefront(raw)
    result = rows.copy()
    for number, kind in enumerate(filters):
        if kind == 1:
            np.cumsum(rows[number], dtype=np.uint8, out=result[number])
        elif kind == 2 and number:
            result[number] += result[number - 1]
    return result


def _unfilter_wavefront(raw: U8) -> U8:
    """All five filters at once, one anti-diagonal after the other.

    Average and Paeth chain each byte to its left neighbour, so a row cannot be done as a whole; but all bytes of
    one anti-diagonal depend only on the two diagonals before it.
    """
    height, width = raw.shape[0], raw.shape[1] - 1
    result = np.zeros((height + 1, width + 1), np.uint8)  # a row above and a column to the left, both zero
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        col = diagonal - row
        kind = raw[row, 0]
        left = result[row + 1, col].astype(np.int16)
        above = result[row, col + 1].astype(np.int16)
        corner = result[row, col].astype(np.int16)
        to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
        paeth = np.where(
            (to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner)
        )
        predicted = np.choose(kind, (np.zeros_like(left), left, above, (left + above) >> 1, paeth))
        result[row + 1, col + 1] = (raw[row, col + 1] + predicted) & 0xFF
    return result[1:, 1:]


def unpack_rows(rows: U8, width: int, depth: int) -> U8:
    """What pack_rows made, back as samples (height, width)."""
    if depth == 8:
        return np.ascontiguousarray(rows)
    per_byte = 8 // depth
    samples = np.empty((rows.shape[0], rows.shape[1], per_byte), np.uint8)
    for place in range(per_byte):
        samples[:, :, place] = (rows >> (8 - depth * (place + 1))) & ((1 << depth) - 1)
    return np.ascontiguousarray(samples.reshape(rows.shape[0], -1)[:, :width])


def encode(samples: U8, depth: int, *, effort: Effort = "fast") -> bytes:
    """A gray PNG file of the given depth whose raw samples (height, width) are these.

    effort: fast leaves rows unfiltered, as neighbouring indices do not predict each other; best tries filters too,
    keeps what comes out smallest and reads it back. Raises ValueError if a sample needs more bits.
    """
    if depth not in _DEPTHS or samples.ndim != 2 or samples.dtype != np.uint8 or not samples.size:
        raise ValueError(f"not uint8 (height, width) with depth 1, 2, 4 or 8: {samples.shape}, {depth}")
    if int(samples.max()) >= 1 << depth:
        raise ValueError(f"sample {samples.max()} does not fit {depth} bits")
    height, width = samples.shape
    rows = np.zeros((height, 1 + (width * depth + 7) // 8), np.uint8)
    rows[:, 1:] = pack_rows(samples, depth)
    unfiltered = rows.tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    plain = _file(header, deflate.compress(unfiltered, "fast"))
    if effort == "fast":
        return plain
    packed = _by_oxipng(plain)
    streams = [
        deflate.compress(data, "best")
        for data in dict.fromkeys((unfiltered, zlib.decompress(packed)))
        if len(data) < _TRIED_FROM or _may_win(data[len(data) // 2 :][:_TRIAL_BYTES])
    ]
    made = min((plain, *(_file(header, stream) for stream in (packed, *streams))), key=len)
    if not np.array_equal(decode(made, "the picture just made").samples, samples):
        raise RuntimeError("a PNG tool has changed the samples of an index picture")
    return made


def _may_win(part: bytes) -> bool:
    """Whether zopfli, given time, may pack data like this part better than libdeflate.

    Of few different values, one a byte, it takes too many of the many short repetitions: 2 to 6 % worse, in minutes.
    """
    header = struct.pack(">IIBBBBB", len(part), 1, 8, 0, 0, 0, 0)
    other = _by_oxipng(_file(header, zlib.compress(b"\0" + part, 1)))
    return deflate.estimate(part, "best") <= 1.01 * len(other)


def pack_rows(samples: U8, depth: int) -> U8:
    """Samples (height, width) of 1, 2, 4 or 8 bits as bytes (height, ...): leftmost in the highest bits, ends zero."""
    if depth == 8:
        return samples
    height, width = samples.shape
    per_byte = 8 // depth
    padded = np.zeros((height, -(-width // per_byte) * per_byte), np.uint8)
    padded[:, :width] = samples
    packed = np.zeros((height, padded.shape[1] // per_byte), np.uint8)
    for place in range(per_byte):
        packed |= padded[:, place::per_byte] << (8 - depth * (place + 1))
    return packed


def _by_oxipng(data: bytes) -> bytes:
    """A picture's rows under the filters that suit them best, packed by libdeflate, both as oxipng finds them.

    Every reduction of oxipng's is off: a palette or another depth would be another picture to a reader of raw samples.
    """
    made = oxipng.optimize_from_memory(
        data,
        level=4,
        filter=list(_FILTERS),
        interlace=oxipng.Interlacing.Off,
        strip=oxipng.StripChunks.all(),
        deflate=oxipng.Deflaters.libdeflater(12),
        bit_depth_reduction=False,
        color_type_reduction=False,
        palette_reduction=False,
        grayscale_reduction=False,
    )
    return b"".join(body for kind, body in _chunks(made, "oxipng's picture") if kind == b"IDAT")


def _file(header: bytes, stream: bytes) -> bytes:
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_indices(path: Path, samples: U8, depth: int, *, effort: Effort = "fast") -> None:
    """Writes encode()'s file, whole or not at all. Raises InputError where path cannot be written."""
    files.write_bytes(path, encode(samples, depth, effort=effort))
