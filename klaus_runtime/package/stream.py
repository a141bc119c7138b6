"""The stream of an extended package: the weights of all layers as one row of bytes, shown as a gray picture.

A picture a layer would cost some 60 bytes of PNG, a Huffman code and a byte a row for each of 50 layers, and sqlite3
half a page for each of 100 arrays. In one stream they cost nothing, and the coder cuts blocks where statistics change:
EfficientNet-Lite0 at 4 bits takes 0.3 % more than the order-0 entropy of its indices (1.5 % in pictures of their own).

Order: indices of every layer that has a codebook, those with few indices a byte first, then by layer; then numbers:
codebooks, scales, biases, weights without a codebook and last the mean picture, each role as planes over all layers,
first those of 2 bytes a number, then those of 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klaus_runtime import deflate, png
from klaus_runtime.deflate import Effort
from klaus_runtime.model import F32, U8, Codebook, Weights

Halves = npt.NDArray[np.float16]
HALF, FLOAT = 2, 4
PICTURE_PIXELS = 1 << 26  # of one picture; a longer stream goes on in another
_WIDTH = 1 << 16
_ROLES = ("codebook", "scale", "bias", "weight")


@dataclass(frozen=True, slots=True)
class Part:
    """What the stream holds of one layer. Bytes of a number: 2 half precision, 4 float32, 0 none (bias: all zero)."""

    shape: tuple[int, ...]  # of the weights, outputs first
    entries: int  # of the codebook, 0 without one
    per_byte: int  # indices a byte: 1, 2 or 4; 0 without a codebook
    transposed: bool  # the indices of one input after the other instead of one output after the other
    codebook_bytes: int
    scale_bytes: int
    bias_bytes: int
    weight_bytes: int

    @property
    def outputs(self) -> int:
        """Rows of the weights."""
        return self.shape[0]

    @property
    def count(self) -> int:
        """Weights in all."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def index_bytes(self) -> int:
        """Of its indices."""
        return -(-self.count // self.per_byte) if self.per_byte else 0

    def numbers(self) -> dict[str, tuple[int, int]]:
        """(numbers, bytes of each) by role."""
        return {
            "codebook": (self.entries, self.codebook_bytes),
            "scale": (self.outputs, self.scale_bytes),
            "bias": (self.outputs, self.bias_bytes),
            "weight": (self.count, self.weight_bytes),
        }


def describe(weights: Weights) -> Part:
    """The part of a layer, its indices as dense as they go and not transposed."""
    book = weights.codebook
    entries = 0 if book is None else len(book.values)
    return Part(
        shape=tuple(weights.values.shape),
        entries=entries,
        per_byte=_densest(entries),
        transposed=False,
        codebook_bytes=0 if book is None else book.values.dtype.itemsize,
        scale_bytes=0 if weights.scale is None else bytes_of(weights.scale),
        bias_bytes=bytes_of(weights.bias) if weights.bias.view(np.uint32).any() else 0,
        weight_bytes=0 if book is not None else weights.values.dtype.itemsize,
    )


def _densest(entries: int) -> int:
    return 0 if not entries else 4 if entries <= 4 else 2 if entries <= 16 else 1


def bytes_of(numbers: F32) -> int:
    """2 where half precision holds all of these numbers exactly, else 4."""
    with np.errstate(over="ignore"):
        return HALF if np.array_equal(numbers.astype(np.float16).astype(np.float32), numbers) else FLOAT


def smallest(weights: Sequence[Weights], effort: Effort) -> list[Part]:
    """describe() for each layer, with what makes its indices smallest: one or more a byte, by output or by input.

    More than one a byte spares Huffman codes the fractions of bits; but long runs, as of pruned weights, may prefer
    one. By input wins where inputs differ more in spread than outputs, whose scale is mostly kept apart.
    """
    parts = [describe(item) for item in weights]
    trials = [(n, trial) for n, part in enumerate(parts) for trial in _alternatives(part, weights[n])]

    def cost(trial: tuple[int, Part]) -> int:
        number, part = trial
        return deflate.estimate(_indices(part, weights[number]), effort)

    with ThreadPoolExecutor() as pool:
        best: dict[int, int] = {}
        for (number, part), size in zip(trials, pool.map(cost, trials), strict=True):
            if size < best.get(number, 1 << 62):  # at a tie the first stays
                best[number] = size
                parts[number] = part
    return parts


def _alternatives(part: Part, weights: Weights) -> list[Part]:
    if not part.per_byte:
        return []
    dominated = 2 * int(np.bincount(weights.values.ravel()).max()) > part.count
    densities = [size for size in (4, 2, 1) if size == part.per_byte or (dominated and size < part.per_byte)]
    return [replace(part, per_byte=size, transposed=turned) for size in densities for turned in (False, True)]


def length(parts: Sequence[Part], mean: tuple[int, int] = (0, 0)) -> int:
    """Bytes of the stream. mean: numbers of the mean picture and bytes of each."""
    total = sum(part.index_bytes for part in parts) + mean[0] * mean[1]
    return total + sum(count * size for part in parts for count, size in part.numbers().values())


def pictures(total: int) -> list[tuple[slice, tuple[int, int]]]:
    """Which bytes of a stream of `total` each picture shows, and its (height, width); zeros fill the last row."""
    found = []
    for begin in range(0, total, PICTURE_PIXELS):
        end = min(begin + PICTURE_PIXELS, total)
        height = -(-(end - begin) // _WIDTH)
        found.append((slice(begin, end), (height, -(-(end - begin) // height))))
    return found


def encode(parts: Sequence[Part], weights: Sequence[Weights], mean: F32 | None, mean_bytes: int) -> U8:
    """The stream as bytes (length(),)."""
    pieces = [_indices(parts[n], weights[n]) for n in _index_order(parts)]
    arrays: dict[str, list[npt.NDArray[np.generic]]] = {
        "codebook": [np.empty(0) if item.codebook is None else item.codebook.values for item in weights],
        "scale": [np.empty(0) if item.scale is None else item.scale for item in weights],
        "bias": [item.bias for item in weights],
        "weight": [item.values for item in weights],
    }
    for role in _ROLES:
        for size in (HALF, FLOAT):
            chosen = [
                array.ravel()
                for part, array in zip(parts, arrays[role], strict=True)
                if part.numbers()[role][1] == size and array.size
            ]
            pieces.append(_planes(chosen, size))
    if mean is not None:
        pieces.append(_planes([mean.ravel()], mean_bytes))
    return np.frombuffer(b"".join(pieces), np.uint8)


def decode(parts: Sequence[Part], stream: U8, mean: tuple[int, int]) -> tuple[list[Weights], F32]:
    """What encode() put into a stream of length(parts, mean) bytes: weights of each part, the mean's numbers."""
    position = 0
    indices: dict[int, U8] = {}
    for number in _index_order(parts):
        part = parts[number]
        indices[number] = _read_indices(part, stream[position : position + part.index_bytes])
        position += part.index_bytes
    found: list[dict[str, npt.NDArray[np.generic]]] = [{} for _ in parts]
    for role in _ROLES:
        for size in (HALF, FLOAT):
            holders = [n for n, part in enumerate(parts) if part.numbers()[role][1] == size]
            counts = [parts[n].numbers()[role][0] for n in holders]
            numbers = _from_planes(stream[position : position + size * sum(counts)], size)
            position += size * sum(counts)
            cuts = np.cumsum(counts)[:-1]
            found_here = np.split(numbers, cuts) if holders else []
            for number, array in zip(holders, found_here, strict=True):
                found[number][role] = array
    numbers = _from_planes(stream[position : position + mean[0] * mean[1]], mean[1])
    return [_weights(part, found[n], indices.get(n)) for n, part in enumerate(parts)], numbers.astype(np.float32)


def _weights(part: Part, numbers: dict[str, npt.NDArray[np.generic]], indices: U8 | None) -> Weights:
    def single(role: str) -> F32 | None:
        return numbers[role].astype(np.float32) if role in numbers else None

    bias = single("bias")
    if bias is None:
        bias = np.zeros(part.outputs, np.float32)
    if indices is not None:
        codebook: Halves | F32 = numbers["codebook"]  # type: ignore[assignment]
        return Weights(indices.reshape(part.shape), bias, single("scale"), Codebook(codebook))
    values: Halves | F32 = numbers["weight"]  # type: ignore[assignment]
    return Weights(values.reshape(part.shape), bias, single("scale"))


def _index_order(parts: Sequence[Part]) -> list[int]:
    """Layers with a codebook; those of the same density together, as their bytes are alike."""
    return sorted((n for n, part in enumerate(parts) if part.per_byte), key=lambda n: parts[n].per_byte)


def _indices(part: Part, weights: Weights) -> bytes:
    table = weights.values.astype(np.uint8, copy=False).reshape(part.outputs, -1)
    ordered = (table.T if part.transposed else table).reshape(1, -1)
    return png.pack_rows(np.ascontiguousarray(ordered), 8 // part.per_byte).tobytes()


def _read_indices(part: Part, data: U8) -> U8:
    ordered = png.unpack_rows(data.reshape(1, -1), part.count, 8 // part.per_byte)
    if part.transposed:
        return np.ascontiguousarray(ordered.reshape(-1, part.outputs).T)
    return ordered.reshape(part.outputs, -1)


def _planes(arrays: Sequence[npt.NDArray[np.generic]], size: int) -> bytes:
    """The highest byte of every number, then the next one: bytes of one significance are alike, neighbours are not."""
    if not arrays:
        return b""
    numbers = np.concatenate(arrays).astype(f">f{size}")
    return numbers.view(np.uint8).reshape(-1, size).T.tobytes()


def _from_planes(data: U8, size: int) -> npt.NDArray[np.generic]:
    if not size:
        return np.empty(0, np.float32)
    form = np.float16 if size == HALF else np.float32
    rows = np.ascontiguousarray(data.reshape(size, -1).T)
    return rows.view(f">f{size}").ravel().astype(form)
