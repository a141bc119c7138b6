"""Makes checksums and lengths of damaged files right again, so that the damage gets past them."""

from __future__ import annotations

import hashlib
import struct
import zlib


def same(data: bytes) -> bytes:
    """For formats that have nothing to repair."""
    return data


def png(data: bytes) -> bytes:
    """Checksums of all chunks."""
    made = bytearray(data)
    position = 8
    while position + 12 <= len(made):
        (length,) = struct.unpack_from(">I", made, position)
        end = position + 8 + length
        if end + 4 > len(made):
            break
        struct.pack_into(">I", made, end, zlib.crc32(made[position + 4 : end]))
        position = end + 4
    return bytes(made)


def packed(data: bytes) -> bytes:
    """The digest and the length in a packed model's header."""
    if len(data) < 64:
        return data
    made = bytearray(data)
    struct.pack_into("<Q", made, 16, len(made))
    made[32:64] = hashlib.sha256(made[64:]).digest()
    return bytes(made)


def zipped(data: bytes) -> bytes:
    """Checksums of stored members, where the directory at the end can still be followed."""
    made = bytearray(data)
    end = made.rfind(b"PK\5\6")
    if end < 0 or end + 22 > len(made):
        return data
    count, _, start = struct.unpack_from("<HII", made, end + 10)
    for _ in range(min(count, 64)):
        if start + 46 > len(made) or made[start : start + 4] != b"PK\1\2":
            break
        size = struct.unpack_from("<I", made, start + 24)[0]
        name, extra, comment = struct.unpack_from("<3H", made, start + 28)
        header = struct.unpack_from("<I", made, start + 42)[0]
        if header + 30 <= len(made):
            inner = struct.unpack_from("<2H", made, header + 26)
            begin = header + 30 + sum(inner)
            checksum = zlib.crc32(made[begin : begin + size])
            struct.pack_into("<I", made, start + 16, checksum)
            struct.pack_into("<I", made, header + 14, checksum)
        start += 46 + name + extra + comment
    return bytes(made)


def safetensors(data: bytes) -> bytes:
    """The length of the header: up to the last brace before the numbers."""
    end = data.rfind(b"}}")
    return struct.pack("<Q", end - 6) + data[8:] if end > 8 else data
