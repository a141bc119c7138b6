"""What is fuzzed: each reader as a function of bytes, and the rules that it must keep whatever they are.

The first byte of an input chooses: odd = checksums and lengths are made right again before the reader sees the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from klaus_runtime import labels, png, registry, shapes
from klaus_runtime.errors import InputError
from klaus_runtime.model import Model
from klaus_runtime.package import read_package
from klaus_runtime.readers import ccv, klaus, onnx, safetensors, state_dict, torch_pickle

from . import graphs, parts, repair, seeds
from .guard import FindingError, watched

MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class Target:
    """A reader, the names its files get, and what is made right again in the first of them."""

    run: Callable[[Path], object]
    names: tuple[str, ...]
    mend: Callable[[bytes], bytes] = repair.same
    build: Callable[[bytes], bytes] = repair.same  # bytes -> the file, where the bytes are only choices


def _klaus(path: Path) -> Model:
    return klaus.read(path, {2: path.with_name("picture.png")})


def _any_name(path: Path) -> Model:
    return registry.load_model(str(path))


TARGETS: Mapping[str, Target] = {
    "ccv": Target(ccv.read, ("x.sqlite3",)),
    "klaus": Target(_klaus, ("x.sqlite3", "picture.png")),
    "package": Target(read_package, seeds.PACKAGE_NAMES),
    "packed": Target(_any_name, ("x.klaus",), repair.packed),
    "png": Target(png.read_indices, ("x.png",), repair.png),
    "torch-legacy": Target(torch_pickle.read, ("x.pth",)),
    "torch-zip": Target(torch_pickle.read, ("x.pt",), repair.zipped),
    "safetensors": Target(safetensors.read, ("x.safetensors",), repair.safetensors),
    "onnx": Target(onnx.read, ("x.onnx",)),
    "onnx-graph": Target(onnx.read, ("x.onnx",), build=graphs.build),
    "net": Target(_any_name, ("x.net",)),
    "any": Target(_any_name, ("x",)),
    "state-dict": Target(state_dict.read_torch, ("x.pt",), repair.zipped),
}


class Fuzzed:
    """One target with a folder of its own; call it with an input."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.target = name, folder, TARGETS[name]
        self.accepted = self.refused = 0
        self.messages: set[str] = set()

    def __call__(self, data: bytes) -> str:
        """'' where the input was accepted, else the refusal; raises FindingError where a rule was broken."""
        mend, body = data[:1] and data[0] & 1, data[1:]
        files = parts.split(body, len(self.target.names)) if len(self.target.names) > 1 else [body]
        files[0] = self.target.build(files[0])
        if mend:
            files[0] = self.target.mend(files[0])
            files[1:] = [repair.png(picture) for picture in files[1:]]
        self.write(files)
        return self._read(self.folder / self.target.names[0])

    def write(self, files: Sequence[bytes]) -> None:
        """The target's files; one that is empty does not exist."""
        for name, content in zip(self.target.names, files, strict=True):
            if content or name == self.target.names[0]:
                (self.folder / name).write_bytes(content)
            else:
                (self.folder / name).unlink(missing_ok=True)

    def _read(self, path: Path) -> str:
        try:
            with watched(self.folder):
                found = self.target.run(path)
        except InputError as error:
            self.refused += 1
            return _checked(str(error), self.folder)
        except (FindingError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise FindingError(f"{type(error).__name__} instead of InputError: {str(error)[:300]!a}") from error
        if isinstance(found, Model):
            shapes.validate(found)
        self.accepted += 1
        return ""


def _checked(message: str, folder: Path) -> str:
    if not message or len(message) > MAX_MESSAGE or not message.isprintable():
        raise FindingError(f"its message is empty, long or not printable: {message[:300]!a}")
    return message.replace(str(folder), "")


@contextmanager
def opened(name: str) -> Iterator[Fuzzed]:
    """A target, warmed up: what Python loads on first use is not the reader's doing."""
    labels.sorted_wnids()
    with tempfile.TemporaryDirectory(prefix="klaus-fuzz-") as folder:
        fuzzed = Fuzzed(name, Path(folder))
        for data in corpus(name):
            _warm(fuzzed, data)
        fuzzed.accepted = fuzzed.refused = 0
        yield fuzzed


def _warm(fuzzed: Fuzzed, data: bytes) -> None:
    body = data[1:]
    files = parts.split(body, len(fuzzed.target.names)) if len(fuzzed.target.names) > 1 else [body]
    files[0] = fuzzed.target.build(files[0])
    fuzzed.write(files)
    with suppress(InputError):
        fuzzed.target.run(fuzzed.folder / fuzzed.target.names[0])


def corpus(name: str) -> list[bytes]:
    """The committed inputs of a target, those made now, and for "any" those of all targets."""
    names = TARGETS if name == "any" else {"state-dict": ("torch-zip", "torch-legacy")}.get(name, (name,))
    found = []
    for one in names:
        folder = seeds.CORPUS / one
        found += [path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()]
    if name == "package":  # its format is young: what is committed may be of an older version
        found += [b"\0" + data for data in seeds.all_seeds()["package"]]
    return found
