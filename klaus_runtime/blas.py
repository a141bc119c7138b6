"""One thread a matrix product: what a program needs that computes several products at once.

OpenBLAS, which numpy's wheels for Linux carry, splits each product over all cores and makes them wait for each other;
beside a busy program (an emulator) that waiting took most of the time: lite0 ran 4 times slower. numpy has no call for
it and the environment is read before we are, so the loaded library is told directly. Where there is no such library
nothing happens.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

_lock = threading.Lock()
_inside = 0
_former = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block numpy's matrix products use the thread that calls them; may be nested and shared by threads."""
    global _inside, _former  # noqa: PLW0603
    library = _openblas()
    if library is None:
        yield
        return
    with _lock:
        if _inside == 0:
            _former = library.scipy_openblas_get_num_threads64_()
            library.scipy_openblas_set_num_threads64_(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                library.scipy_openblas_set_num_threads64_(_former)


@cache
def _openblas() -> ctypes.CDLL | None:
    """The library that numpy has loaded already, by the file that its wheel carries."""
    folder = Path(np.__file__).resolve().parent.parent / "numpy.libs"
    for path in sorted(folder.glob("libscipy_openblas64_*.so")):
        try:
            library = ctypes.CDLL(str(path))
            if library.scipy_openblas_get_num_threads64_() >= 1:
                return library
        except (OSError, AttributeError):
            continue
    return None
