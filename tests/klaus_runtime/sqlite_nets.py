"""Small ccv networks for tests of readers: copies of the golden ones with one thing changed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from .golden import TINY, TINY_QUANT


def changed(folder: Path, *statements: str | tuple[str, tuple[object, ...]], source: Path | None = None) -> Path:
    """A copy of the tiny half precision network on which the statements were executed."""
    path = folder / "net.sqlite3"
    shutil.copy(source or TINY / "model-fp16.sqlite3", path)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(*((statement,) if isinstance(statement, str) else statement))
    return path


def quantized(folder: Path, form: str = "a-depth8-index") -> Path:
    """A copy of a tiny quantized network with its pictures; the path of its database."""
    copy = folder / form
    shutil.copytree(TINY_QUANT / form, copy)
    return copy / "model.sqlite3"
