"""Opening somebody's sqlite3 file: nothing is created, written or executed, and no query runs without end."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from klaus_runtime import files
from klaus_runtime.errors import InputError

_MAGIC = b"SQLite format 3\0"
_STEPS = 20_000  # callbacks of 1,000 sqlite instructions: many times what an honest file takes


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a sqlite3 file for reading only; errors of sqlite inside the block become InputErrors naming the file."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{path} is not a file; give a sqlite3 file")
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read {path}: {files.reason(error)}; check the path") from error
    if magic != _MAGIC:
        raise InputError(f"{path} is not a sqlite3 file; give one that ccv or Klaus wrote")
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if beside.exists() and beside.stat().st_size:
            raise InputError(
                f"{path} has an unfinished transaction in {beside.name}; open and close it with sqlite3 first"
            )
    steps = 0

    def out_of_steps() -> int:
        nonlocal steps
        steps += 1
        return int(steps > _STEPS)

    # immutable: no lock, no journal and no shared memory file appear beside the file.
    db = sqlite3.connect(f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1", uri=True)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(max(size, 1 << 16), 1_000_000_000))
        db.set_progress_handler(out_of_steps, 1000)
        db.text_factory = bytes
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        yield db
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:  # its own messages quote damaged names
        raise InputError(f"{path} is damaged or not a network: sqlite says {ascii(str(error))[1:-1]}") from error
    except InputError as error:
        raise InputError(_named(path, str(error))) from error
    finally:
        db.close()


def has_table(db: sqlite3.Connection, name: str) -> bool:
    """Whether a plain table of this name exists; a view or virtual table of the name is an error."""
    found = db.execute("SELECT type, sql FROM sqlite_master WHERE name = ? COLLATE NOCASE", (name,)).fetchall()
    for kind, sql in found:
        if kind != b"table" or not isinstance(sql, bytes) or not sql.upper().startswith(b"CREATE TABLE"):
            raise InputError(f"{name} is not a plain table")
    return bool(found)


def _named(path: Path, message: str) -> str:
    return message if message.startswith(str(path)) else f"{path}: {message}"
