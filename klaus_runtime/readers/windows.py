"""Padding rules of other formats, written out as the four explicit pads that a Model has."""

from __future__ import annotations

import math


def same_pads(size: int, kernel: int, stride: int, *, odd_behind: bool = True) -> tuple[int, int]:
    """(before, after) of the SAME rule: ceil(size / stride) windows; an odd cell goes behind, or else before."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if odd_behind else (more, less)


def ceil_pad(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """The padding behind that makes a pool which rounds its output size up one that rounds down.

    Caffe's rule, which torch and ONNX share: windows that would start in the padding behind do not exist.
    """
    windows = math.ceil((size + before + after - kernel) / stride) + 1
    if (windows - 1) * stride >= size + before:
        windows -= 1
    return max(0, (windows - 1) * stride + kernel - size - before)
