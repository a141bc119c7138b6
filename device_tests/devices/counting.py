"""Executed instructions by class: the plugin for qemu's user mode that counts them, and what it wrote.

The plugin's C source is in devices/count/; the host's compiler makes it once, without any header of qemu's. A program
marks points (docs/device-program.md, `bench --mark`); between two of them every instruction is counted, so the same
program gives the same numbers on every computer, to the instruction.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from device_tests.devices.text import printable
from device_tests.errors import DeviceError, SetupError
from toolchains import detect
from toolchains.target import load_targets

SOURCE = Path(__file__).parent / "count"
CLASSES = (
    "fmla32",
    "fmla16",
    "fmlal",
    "fmadd",
    "dot",
    "mmla",
    "imac",
    "vector",
    "permute",
    "scalar",
    "vload",
    "vstore",
    "gload",
    "gstore",
    "prefetch",
    "branch",
    "alu",
    "sve",
    "other",
)
COLUMNS = (*CLASSES, "vload_bytes", "vstore_bytes", "accesses")
MULTIPLY_ADDS = ("fmla32", "fmla16", "fmlal", "dot", "mmla", "imac")
# One number at a time is no vector arithmetic: `fmadd` is left out on both sides of every comparison.
VECTOR_ARITHMETIC = (*MULTIPLY_ADDS, "vector", "permute", "scalar")
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
_INTERFACES = range(4, 9)  # versions of qemu whose plugin interface is the one that the plugin speaks
_PACKAGE = "sudo apt-get install qemu-user"


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each class was executed, the bytes of vector loads and stores, and accesses of 64 bits to memory."""

    of: Mapping[str, int]

    @staticmethod
    def none() -> Counts:
        """Nothing executed."""
        return Counts(dict.fromkeys(COLUMNS, 0))

    @staticmethod
    def total(parts: Iterable[Counts]) -> Counts:
        """All parts together."""
        sums = dict.fromkeys(COLUMNS, 0)
        for part in parts:
            for name in COLUMNS:
                sums[name] += part.of[name]
        return Counts(sums)

    @property
    def instructions(self) -> int:
        """All but prefetches."""
        return sum(self.of[name] for name in CLASSES) - self.of["prefetch"]

    @property
    def vector_arithmetic(self) -> int:
        """What an in-order core's vector unit executes one by one."""
        return sum(self.of[name] for name in VECTOR_ARITHMETIC)

    @property
    def multiply_adds(self) -> int:
        """Vector instructions that multiply and add."""
        return sum(self.of[name] for name in MULTIPLY_ADDS)

    @property
    def slots(self) -> int:
        """Issue slots that an in-order core of Cortex-A53's kind cannot do without.

        It issues two instructions a cycle, of which one may be vector arithmetic and one may move 64 bits to or from
        memory (a 128-bit access takes two such slots).
        """
        return max(self.vector_arithmetic, self.of["accesses"], self.instructions // 2)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that the program marked (None: its end), and what was executed since the one before."""

    tag: int | None
    counts: Counts


def find_emulator() -> Path | None:
    """The emulator that takes plugins; Debian's qemu-aarch64-static does not."""
    found = shutil.which("qemu-aarch64")
    return Path(found) if found else None


def why_not() -> str:
    """Why instructions cannot be counted on this computer and what mends it; "" where they can."""
    emulator = find_emulator()
    if emulator is None:
        return f"no qemu-aarch64 (dynamically linked) on this computer; install it: {_PACKAGE}"
    if shutil.which("setarch") is None:
        return "no setarch on this computer; install util-linux"
    return _emulator_problem(str(emulator))


@cache
def _emulator_problem(emulator: str) -> str:
    told = _output([emulator, "--version"])
    version = re.search(r"version (\d+)\.", told)
    if version is None or int(version[1]) not in _INTERFACES:
        found = printable(told.partition("\n")[0], 80)
        return f"{emulator} is {found!r}; counting needs qemu {_INTERFACES[0]} to {_INTERFACES[-1]}, as Debian 12 has"
    if "-plugin" not in _output([emulator, "-h"]):
        return f"{emulator} takes no plugins, as statically linked ones do; {_PACKAGE}"
    fixed = subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False)
    return "" if fixed.returncode == 0 else "`setarch -R true` is refused here (a container's rules?)"


def plugin_path(cache_folder: Path) -> Path:
    """Where the plugin of these sources is, or will be."""
    digest = hashlib.sha256("\0".join(_FLAGS).encode())
    for source in sorted(SOURCE.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return cache_folder / "count" / f"instructions-{digest.hexdigest()[:16]}.so"


def build_plugin(cache_folder: Path) -> Path:
    """The plugin, compiled unless it is there already. Raises as compile_shared."""
    path = plugin_path(cache_folder)
    if not path.exists():
        compile_shared(sorted(SOURCE.glob("*.c")), path)
    return path


def compile_shared(sources: Iterable[Path], path: Path) -> None:
    """A shared library for this computer from C sources, whole or absent.

    Raises SetupError where they do not compile, and toolchains' where there is no compiler.
    """
    compiler = detect.toolchain_for(load_targets()["host"]).compiler
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".count-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        argv = [*compiler, *_FLAGS, *map(str, sources), "-o", str(made)]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise SetupError(f"the instruction counter does not compile ({shlex.join(argv)}):\n{done.stderr[-2000:]}")
        made.replace(path)


def read_marks(path: Path) -> tuple[Mark, ...]:
    """What the plugin wrote, in order. Raises DeviceError for a file that is missing, torn or another's."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeviceError(f"{path}: no instruction counts ({error}); did the program run under the counter?") from error
    if not lines or tuple(lines[0].split("\t")) != ("tag", *COLUMNS):
        raise DeviceError(f"{path}: columns are not those of this version; remove it and count again")
    marks = [_mark(path, line) for line in lines[1:]]
    if not marks or marks[-1].tag is not None:
        raise DeviceError(f"{path}: the program did not come to its end under the counter; count again")
    return tuple(marks)


def _mark(path: Path, line: str) -> Mark:
    tag, *numbers = line.split("\t")
    if len(numbers) != len(COLUMNS) or not all(re.fullmatch(r"[0-9]{1,19}", number) for number in numbers):
        raise DeviceError(f"{path}: {printable(line, 120)!r} is no line of counts; remove it and count again")
    if tag != "exit" and not re.fullmatch(r"[0-9]{1,10}", tag):
        raise DeviceError(f"{path}: {printable(tag, 40)!r} is no mark; remove it and count again")
    return Mark(None if tag == "exit" else int(tag), Counts(dict(zip(COLUMNS, map(int, numbers), strict=True))))


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr
