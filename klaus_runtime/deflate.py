"""zlib streams (RFC 1950) as small as the time allows: zlib itself, or zopfli for what is released.

Indices hardly repeat, so nearly all of the gain over a plain stream comes from good Huffman codes and from cutting the
data into blocks with codes of their own. zopfli (Google, 2013) searches for both.
"""

from __future__ import annotations

import zlib
from typing import Literal

import zopfli.zlib  # type: ignore[import-untyped]

Effort = Literal["fast", "best"]

_TRIAL_BYTES = 1 << 19
_WAYS = ((9, zlib.Z_HUFFMAN_ONLY), (6, zlib.Z_FILTERED), (9, zlib.Z_DEFAULT_STRATEGY))
# A round over 1 MB takes about 0.3 s. 15 are what zopflipng takes; 60 saved 1 byte of 1.9 MB.
_ROUNDS = ((1 << 18, 60), (1 << 23, 15), (1 << 30, 5))


def compress(data: bytes, effort: Effort) -> bytes:
    """A zlib stream of data. fast: by zlib, about a second for 4 MB; best: by zopfli, about 15 s for 4 MB."""
    if effort == "fast":
        return _by_zlib(data)
    rounds = next(count for limit, count in _ROUNDS if len(data) <= limit)
    # No limit on the number of blocks: the 15 that zopfli defaults to are few for layers one after the other.
    found: bytes = zopfli.zlib.compress(data, numiterations=rounds, blocksplitting=1, blocksplittingmax=0)
    return found


def estimate(data: bytes, effort: Effort) -> int:
    """About how many bytes compress() makes of data, in a fraction of its time."""
    if effort == "fast":
        return len(_deflated(data, 9, zlib.Z_HUFFMAN_ONLY))
    return len(zopfli.zlib.compress(data, numiterations=2, blocksplitting=1, blocksplittingmax=0))


def _by_zlib(data: bytes) -> bytes:
    """By what does best on a part of the data: indices repeat little, so coding symbols alone often wins."""
    middle = max(0, len(data) - _TRIAL_BYTES) // 2
    trial = data[middle : middle + _TRIAL_BYTES]
    return _deflated(data, *min(_WAYS, key=lambda way: len(_deflated(trial, *way))))


def _deflated(data: bytes, level: int, strategy: int) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    return deflater.compress(data) + deflater.flush()
