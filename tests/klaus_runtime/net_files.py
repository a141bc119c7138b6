"""Files in the form of Deep Compression's SqueezeNet with few weights, so that they are small."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

# outputs and weights of SqueezeNet v1.0's convolutions, in order
FIRES = ((96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128), (256, 48, 192), (384, 48, 192), (384, 64, 256),
         (512, 64, 256))  # fmt: skip
SIZES = [(96, 96 * 3 * 49)]
for _inputs, _squeezed, _expanded in FIRES:
    SIZES += [
        (_squeezed, _squeezed * _inputs),
        (_expanded, _expanded * _squeezed),
        (_expanded, 9 * _expanded * _squeezed),
    ]
SIZES.append((1000, 512_000))

Entries = list[tuple[int, int]]  # (code, distance to the entry before, less one)


def entries(indices: Sequence[tuple[int, int]]) -> Entries:
    """What stands in the file for (place, code), with entries of code 0 where more than 16 places lie between."""
    made, position = [], -1
    for place, code in indices:
        while place - position > 16:
            made.append((0, 15))
            position += 16
        made.append((code, place - position - 1))
        position = place
    return made


def file(layers: Sequence[Entries], *, zero: float = 0.0, seed: int = 0) -> bytes:
    """A whole file; codebooks and biases are drawn."""
    draw = np.random.default_rng(seed)
    parts = [struct.pack("<26I", *map(len, layers))]
    for (outputs, _), made in zip(SIZES, layers, strict=True):
        codebook = draw.standard_normal(256).astype("<f4")
        codebook[0] = zero
        gaps = [gap for _, gap in made] + [0] * (len(made) % 2)
        parts += [
            codebook.tobytes(),
            draw.standard_normal(outputs).astype("<f4").tobytes(),
            bytes(code for code, _ in made),
            bytes(low | high << 4 for low, high in zip(gaps[::2], gaps[1::2], strict=True)),
        ]
    return b"".join(parts)


def sparse(seed: int = 0, count: int = 20) -> tuple[bytes, list[dict[int, int]]]:
    """A file with `count` weights a layer, and what they are: code by place, in the order (output, input, row, col)."""
    draw = np.random.default_rng(seed)
    wanted = []
    for _, weights in SIZES:
        places = sorted({0, *map(int, draw.integers(0, min(weights, 2000), count)), min(weights, 2000) - 1})
        wanted.append({place: int(draw.integers(1, 256)) for place in places})
    return file([entries(sorted(layer.items())) for layer in wanted], seed=seed), wanted
