"""Options that several commands share, and what they stand for: the model, its patches, who computes."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from klaus_runtime import native, pack, registry
from klaus_runtime.cli.words import clean
from klaus_runtime.engine import Engine
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Model
from klaus_runtime.reference import NumpyEngine

MODELS = ", ".join(registry.MODELS)
Run = Callable[[argparse.Namespace], int | None]  # reads options, says its answer; an exit code, or None for 0


# ------------------------------------------------------------------------------------------------------- parsers


class Commands:
    """The commands that a parser knows."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._all = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, run: Run, text: str, *, source: bool = True) -> argparse.ArgumentParser:
        """One more command; source: whether it takes a SOURCE."""
        sub: argparse.ArgumentParser = self._all.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run, layer=())
        sub.add_argument("--json", action="store_true", help="one JSON object instead of text")
        if source:
            sub.add_argument(
                "source", metavar="SOURCE", help=f"{MODELS}, or a ccv or Klaus sqlite3, package or .klaus file"
            )
            add_layer(sub)
        return sub


def add_layer(sub: argparse.ArgumentParser) -> None:
    """--layer N=FILE."""
    text = "index picture of layer N, where it is not beside the file as NAME-layer-N.png (repeatable)"
    sub.add_argument("--layer", type=layer_file, action="append", default=[], metavar="N=FILE", help=text)


def add_effort(sub: argparse.ArgumentParser) -> None:
    """--effort fast|best."""
    text = "how small the files get: fast = zlib, best = zopfli, some 5 s for each MB (default best)"
    sub.add_argument("--effort", choices=("fast", "best"), default="best", help=text)


def add_engine(sub: argparse.ArgumentParser) -> None:
    """--engine and --threads."""
    text = "who computes: numpy = the oracle, ref = C, fast = BLAS (default: C where it is built)"
    sub.add_argument("--engine", choices=("numpy", "ref", "fast"), help=text)
    sub.add_argument("--threads", type=count, metavar="N", help="threads of the C engine (default 1)")


def add_picture(sub: argparse.ArgumentParser) -> None:
    """How a picture becomes an answer: --crop, --patches, and who computes."""
    sub.add_argument("--crop", choices=("center", "none"), default="center", help="none: resize without a crop")
    sub.add_argument("--patches", type=int, choices=(1, 10), help="patches a picture (default: the model's own)")
    add_engine(sub)


# -------------------------------------------------------------------------------------------------- what they mean


def model_of(options: argparse.Namespace, source: str) -> Model:
    """The model of a SOURCE, with the pictures that --layer names."""
    return registry.load_model(source, layers=dict(options.layer))


def carried_by(source: str) -> pack.Carried:
    """What a SOURCE has of weights in kernels' layouts; none where it is a name."""
    return pack.Carried(0, 0) if source in registry.MODELS else pack.carried(Path(source))


def patches_of(options: argparse.Namespace, model: Model) -> Literal[1, 10]:
    """What --patches says, else the model's own number."""
    wanted = options.patches or model.patches
    return 10 if wanted == 10 else 1


@contextmanager
def engine_of(options: argparse.Namespace, model: Model, source: str) -> Iterator[tuple[Engine, str]]:
    """The engine and the name of who computes: numpy, fast, ref, or c: the C library with all this CPU has.

    By default that is c where it is built, else fast, and it says so.
    """
    wanted = options.engine
    if wanted in ("numpy", "fast") and options.threads is not None:
        raise InputError(f"--threads is for the C engine, not for --engine {wanted}: leave one of the two out")
    library = native.find_library() if wanted in (None, "ref") else None
    if wanted in (None, "ref") and library is None:
        fallback = "fast" if wanted is None else "numpy"
        sys.stderr.write(
            f"klaus: no C build in {native.HOST_BUILD} (`invoke build --target host` makes it): "
            f"using numpy ({fallback})" + (", which takes no --threads\n" if options.threads else "\n")
        )
        wanted = fallback
    if library is None:
        yield (NumpyEngine(model), "numpy") if wanted == "numpy" else (FastEngine(model), "fast")
        return
    with ExitStack() as stack:
        path = Path(source)
        if source in registry.MODELS or path.suffix != ".klaus":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="klaus-"))
            path = pack.pack(model, Path(folder) / "model.klaus")
        engine = native.NativeEngine(path, library, isa=wanted or "auto", threads=options.threads or 1)
        stack.callback(engine.close)
        yield engine, wanted or "c"


# -------------------------------------------------------------------------------------------------------- values


def layer_file(text: str) -> tuple[int, Path]:
    """N=FILE."""
    number, found, path = text.partition("=")
    if not found or not number.isdecimal() or not path:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not N=FILE, as in 11=layer-11.png")
    return int(number), Path(path)


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a whole number of 1 or more")
    return int(text)


def shard(text: str) -> tuple[int, int]:
    """K/N, as in 2/4."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 10_000):
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not K/N, as in 2/4: the second of four")
    return int(number), int(count)


def size(text: str) -> int:
    """A number of bytes."""
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 40:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a number of bytes")
    return int(text)


def points_of_100(text: str) -> float:
    """A number from 0 to 100."""
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{clean(text)!r} is not a number from 0 to 100")
    return points
