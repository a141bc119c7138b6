"""One string of bytes for several files, so that a fuzzer can treat a database and its pictures as one input."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def join(files: Sequence[bytes]) -> bytes:
    """Each file behind its length."""
    return b"".join(struct.pack("<I", len(data)) + data for data in files)


def split(data: bytes, count: int) -> list[bytes]:
    """`count` files out of any bytes: lengths that do not fit are cut, what is missing is empty."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack("<I", data[:4].ljust(4, b"\0"))
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found
