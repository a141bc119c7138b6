"""What a program that computes with large arrays asks of the C library's allocator."""

from __future__ import annotations

import ctypes

# malloc.h of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_PAD_BYTES = 1 << 28


def keep_freed() -> bool:
    """Freed memory stays with this process and serves its next arrays; False where the C library has no such setting.

    glibc gives every large array pages of its own, which the system clears first and takes back after: half of a
    quantization's time went there. For programs' entry points: it holds for the whole process, which then keeps its
    largest size.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _PAD_BYTES))
    return all(set_option(ctypes.c_int(option), ctypes.c_int(value)) == 1 for option, value in settings)
