"""The C library on this computer, through cffi's ABI mode; declarations come from klaus.h itself."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cffi
import numpy as np

from klaus_runtime import headers
from klaus_runtime.engine import Crop
from klaus_runtime.errors import CheckError, InputError, KlausError, SetupError
from klaus_runtime.model import F32, U8

HOST_BUILD = Path(__file__).resolve().parent.parent / "build" / "host"
LIBRARY_NAMES = ("libklaus.so", "libklaus.dylib")
_BUILD_IT = "build it with `./inv build --target host`"


@cache
def _ffi() -> Any:  # the stubs know no struct of ours
    ffi = cffi.FFI()
    ffi.cdef(headers.declarations("klaus.h"))
    return ffi


@cache
def _open_library(path: str) -> Any:
    ffi = _ffi()
    try:
        library = ffi.dlopen(path)
        library.klaus_version  # noqa: B018 - the lookup is the check
    except (OSError, AttributeError) as error:
        raise SetupError(f"{path}: is not a libklaus for this computer ({str(error)[:200]}): {_BUILD_IT}") from error
    return library


def find_library(folder: Path = HOST_BUILD) -> Path | None:
    """The shared library in a build folder, None where it was not built."""
    return next((folder / name for name in LIBRARY_NAMES if (folder / name).is_file()), None)


def require_library(folder: Path = HOST_BUILD) -> Path:
    """find_library, or SetupError saying how to build it."""
    found = find_library(folder)
    if found is None:
        raise SetupError(f"{folder}: holds no {' or '.join(LIBRARY_NAMES)}: {_BUILD_IT}")
    return found


class NativeEngine:
    """A packed model run by libklaus; implements engine.Engine. Not for use by several threads at once."""

    def __init__(
        self,
        packed_path: Path,
        library_path: Path,
        *,
        isa: str = "auto",
        threads: int = 1,
        variant: str | None = None,
    ) -> None:
        """isa: auto, ref, neon, ...: the highest instruction set to use; variant: a kernel to prefer where it can run.

        Raises InputError for a malformed model or an unknown isa, SetupError where the library cannot be loaded.
        """
        ffi = _ffi()
        self._library = _open_library(str(library_path))
        self._variant = None if variant is None else ffi.new("char[]", variant.encode())
        self._isa = _enumerator("klaus_isa", "KLAUS_ISA_", isa)
        self._threads = threads
        slot = ffi.new("klaus_model **")
        self._call("klaus_open", os.fsencode(packed_path), slot)
        self._model = slot[0]
        self._sessions: dict[bool, Any] = {}
        self._closer = weakref.finalize(self, _close, self._library, self._model, self._sessions)
        description = ffi.new("klaus_description *")
        self._check(self._library.klaus_describe(self._model, description), None)
        self._input_shape = (description.rows, description.cols, description.channels)
        self._outputs = int(description.outputs)

    def close(self) -> None:
        """Frees the model and its sessions; the engine is of no use after it."""
        self._closer()

    def verify(self) -> None:
        """Reads every byte of the model. Raises CheckError or InputError where it is damaged."""
        self._call("klaus_verify", self._model, _ffi().NULL)

    def activations(self, tensor: F32) -> Iterator[F32]:
        """Yields every layer's output (rows, cols, channels), from the unfused plan."""
        outputs: list[F32] = []
        ffi = _ffi()

        def keep(_user: Any, _layer: int, values: Any, rows: int, cols: int, channels: int) -> int:
            raw = ffi.buffer(values, 4 * rows * cols * channels)
            outputs.append(np.frombuffer(raw, np.float32).reshape(rows, cols, channels).copy())
            return 0

        prepared = self._prepared(tensor)
        source = ffi.from_buffer("float[]", prepared)
        sink = ffi.callback("klaus_layer_sink", keep, error=1)
        self._call("klaus_run_layers", self._session(fused=False), source, sink, ffi.NULL)
        yield from outputs

    def logits(self, tensors: F32) -> F32:
        """The last layer's output (n, outputs) for tensors (n, rows, cols, channels)."""
        ffi = _ffi()
        results = np.empty((len(tensors), self._outputs), np.float32)
        for number, tensor in enumerate(tensors):
            prepared = self._prepared(tensor)
            target = ffi.from_buffer("float[]", results[number], require_writable=True)
            source = ffi.from_buffer("float[]", prepared)
            self._call("klaus_run", self._session(fused=True), source, target, ffi.NULL)
        return results

    def probabilities(self, picture: U8, *, patches: Literal[1, 10], crop: Crop = "center") -> F32:
        """Class probabilities (outputs,) of a picture (rows, cols, 3)."""
        ffi = _ffi()
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            raise InputError(f"a picture is (rows, cols, 3) uint8, not {picture.shape} {picture.dtype}")
        dense = np.ascontiguousarray(picture)
        fields = {"rgb": ffi.from_buffer("uint8_t[]", dense), "rows": dense.shape[0], "cols": dense.shape[1]}
        described = ffi.new("klaus_picture *", fields)
        result = np.empty(self._outputs, np.float32)
        target = ffi.from_buffer("float[]", result, require_writable=True)
        session = self._session(fused=True)
        self._call("klaus_classify", session, described, patches, int(crop == "center"), target, ffi.NULL)
        return result

    def _prepared(self, tensor: F32) -> F32:
        if tensor.shape != self._input_shape:
            raise InputError(f"an input tensor has shape {tensor.shape}, this network reads {self._input_shape}")
        return np.ascontiguousarray(tensor, np.float32)

    def _session(self, *, fused: bool) -> Any:
        if fused not in self._sessions:
            ffi = _ffi()
            options = ffi.new("klaus_options *")
            self._library.klaus_default_options(options)
            options.threads = self._threads
            options.isa = self._isa
            options.fused = int(fused)
            if self._variant is not None:
                options.variant = self._variant
            slot = ffi.new("klaus_session **")
            self._call("klaus_session_open", self._model, options, slot)
            self._sessions[fused] = slot[0]
        return self._sessions[fused]

    def _call(self, name: str, *arguments: object) -> None:
        """Calls a function whose last parameter is klaus_error and raises what it says."""
        error = _ffi().new("klaus_error *")
        self._check(getattr(self._library, name)(*arguments, error), error)

    def _check(self, status: int, error: Any) -> None:
        if status == self._library.KLAUS_OK:
            return
        message = _ffi().string(error.message).decode("utf-8", "replace") if error else f"libklaus status {status}"
        kinds = {1: CheckError, 2: InputError, 4: SetupError}
        raise kinds.get(int(status), KlausError)(message)


def _enumerator(enum: str, prefix: str, word: str) -> int:
    known: dict[str, int] = _ffi().typeof(enum).relements
    found = known.get(prefix + word.upper())
    if found is None:
        words = ", ".join(name.removeprefix(prefix).lower() for name in sorted(known, key=known.__getitem__))
        raise InputError(f"instruction set {word!r} is unknown: there are {words}")
    return found


def _close(library: Any, model: Any, sessions: dict[bool, Any]) -> None:
    for session in sessions.values():
        library.klaus_session_close(session)
    sessions.clear()
    library.klaus_close(model)
