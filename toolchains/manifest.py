"""manifest.json beside every build: what was built, by which compiler, from which commit.

It holds no date, no path of this computer and nothing else that two builds of one commit could differ in.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from toolchains.errors import InputError

SCHEMA = 1
SOURCES = ("kernels", "toolchains")  # what a build is made from


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One product."""

    sha256: str
    bytes: int
    system: str  # triple whose C library it was made for; "" = the compiler's own


@dataclass(frozen=True, slots=True)
class Manifest:
    """What manifest.json says. Flags are those of each kind of file, paths left out."""

    target: str
    description: str
    commit: str  # "" outside a git checkout
    dirty: bool  # files of kernels/ or toolchains/ differ from the commit
    compiler: str
    compiler_version: str
    flags: Mapping[str, list[str]]
    sources_sha256: str  # over names and contents of all C files and headers
    files: Mapping[str, BuiltFile]
    schema: int = SCHEMA


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def built_file(path: Path, system: str) -> BuiltFile:
    """Describes a file that stands."""
    return BuiltFile(sha256_of(path), path.stat().st_size, system)


def sources_digest(root: Path, paths: Iterable[PurePosixPath]) -> str:
    """One SHA-256 over the names and contents of `paths`, which are relative to `root`."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path}\0{sha256_of(root / path)}\n".encode())
    return digest.hexdigest()


def git_state(root: Path) -> tuple[str, bool]:
    """(commit, whether kernels/ or toolchains/ differ from it); ("", False) where there is no git or no checkout."""

    def git(*words: str) -> str | None:
        argv = ["git", "-C", str(root), *words]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():  # a copy inside some other checkout
        return "", False
    commit = git("rev-parse", "HEAD") or ""
    return commit, bool(git("status", "--porcelain", "--", *SOURCES))


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; leaves one alone that already says the same."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes manifest.json, sorted."""
    write_text(path, json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")


def read_manifest(path: Path) -> Manifest:
    """The Manifest in a file; raises InputError where it is absent, malformed or of another schema."""
    try:
        table: Any = json.loads(path.read_text("utf-8"))
        if table["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {table['schema']!r}, this version reads {SCHEMA}; build again")
        files = {str(name): BuiltFile(**entry) for name, entry in table.pop("files").items()}
        return Manifest(files=files, **table)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no manifest of a build ({type(error).__name__}: {error}); build again") from error
