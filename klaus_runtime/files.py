"""Files that appear whole or not at all, and reading with a limit: shared by every reader and writer here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from klaus_runtime.errors import InputError


def reason(error: OSError) -> str:
    """What the operating system says, without the path that our messages name themselves."""
    return error.strerror or type(error).__name__


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Yields one temporary path a target, in a hidden folder beside them; after a good end all become the targets.

    The targets must share one folder, which is made if absent. Should the block or one of the renames fail, what stood
    there before stands there again. Raises InputError where the folder cannot be written.
    """
    folder = targets[0].parent
    for target in targets:
        if not target.name or target.is_dir():
            raise InputError(f"{target}: cannot be written (it is a folder): name a file")
    if any(target.parent != folder for target in targets):
        raise ValueError("targets of one staging must share a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = tempfile.TemporaryDirectory(prefix=".klaus-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot write here ({reason(error)}): choose another output") from error
    with stage as name:
        fresh = Path(name) / "new"
        former = Path(name) / "old"
        fresh.mkdir()
        former.mkdir()
        try:
            yield tuple(fresh / target.name for target in targets)
            _exchange(targets, fresh, former)
        except OSError as error:
            raise InputError(f"{targets[0]}: cannot be written ({reason(error)}): nothing was changed") from error


def _exchange(targets: Sequence[Path], fresh: Path, former: Path) -> None:
    kept: list[Path] = []
    placed: list[Path] = []
    try:
        for target in targets:
            _settle(fresh / target.name)
        for target in targets:
            if target.exists() or target.is_symlink():
                # A hard link keeps the old file while the name is replaced in one step.
                try:
                    os.link(target, former / target.name, follow_symlinks=False)
                    kept.append(target)
                except OSError:  # a filesystem without links: the replacement itself is still one step
                    pass
            (fresh / target.name).replace(target)
            placed.append(target)
    except BaseException:
        for target in placed:
            if target in kept:
                (former / target.name).replace(target)
            else:
                target.unlink(missing_ok=True)
        raise


def _settle(path: Path) -> None:
    """Brings a file to disk before its name changes, so that a power cut cannot leave an empty file under that name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Writes a file whole or not at all. Raises InputError where that is impossible."""
    with staged((path,)) as (temporary,):
        temporary.write_bytes(data)


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The whole of a regular file of at most limit_bytes. Raises InputError, naming path, for anything else."""
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{path}: {what}: give the path of a file")
        size = path.stat().st_size
        if size > limit_bytes:
            raise InputError(f"{path}: has {size:,} bytes, at most {limit_bytes:,} are read: is it the right file?")
        with path.open("rb") as file:
            return file.read(limit_bytes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    except ValueError as error:  # a zero byte in the path
        raise InputError(f"{str(path)!r}: no file can have this name") from error
