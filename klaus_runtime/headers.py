"""The C headers of kernels/include/klaus as cffi wants them: the only way C's structs come to Python."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from klaus_runtime.errors import SetupError

FOLDER = Path(__file__).resolve().parent.parent / "kernels" / "include" / "klaus"
_DEFINE = re.compile(r"^#define[ \t]+(KLAUS_\w+)[ \t]+(-?\d+)\b", re.MULTILINE)
_CPLUSPLUS = re.compile(r"^#ifdef __cplusplus\n.*?^#endif\n", re.MULTILINE | re.DOTALL)


@cache
def _text(name: str) -> str:
    path = FOLDER / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{path}: not found: klaus works from a checkout, install it there with `pip install -e .`"
        ) from error


def declarations(name: str) -> str:
    """The header without its preprocessor lines, ready for cdef(). Raises SetupError where there is no checkout."""
    text = _CPLUSPLUS.sub("", _text(name))
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


@cache
def constants(name: str) -> dict[str, int]:
    """The header's integer #defines by name. Raises SetupError where there is no checkout."""
    return {found[1]: int(found[2]) for found in _DEFINE.finditer(_text(name))}
