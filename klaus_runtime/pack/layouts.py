"""Weights in the layouts of a CPU's kernels, carried by the packed model: the device program itself makes them.

Only a kernel knows its layout (docs/kernels.md), so this runs `klaus-run pack` on the core that the layout
is for, under qemu's user mode.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from klaus_runtime import files
from klaus_runtime.errors import InputError, KlausError, SetupError
from klaus_runtime.pack.structs import MAGIC, const, decode, size_of

BUILDS = Path(__file__).resolve().parent.parent.parent / "build"
PRECISIONS = ("fp32", "fp16", "int8")
TIMEOUT_S = 900.0  # a large model takes some seconds

# Cores as this command names them -> (target whose program runs there, qemu's name of the core).
_CORES = {
    "a7": ("linux-armv7", "cortex-a7"),
    "a15": ("linux-armv7", "cortex-a15"),
    "a35": ("linux-aarch64", "cortex-a35"),
    "a53": ("linux-aarch64", "cortex-a53"),
    "a57": ("linux-aarch64", "cortex-a57"),
    "a72": ("linux-aarch64", "cortex-a72"),
    "a76": ("linux-aarch64", "cortex-a76"),
    "n1": ("linux-aarch64", "neoverse-n1"),
    "max": ("linux-aarch64", "max"),
}
_EMULATORS = {"linux-aarch64": "qemu-aarch64", "linux-armv7": "qemu-arm"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Weights as the kernels of one core want them for one precision."""

    core: str  # a key of _CORES
    precision: str  # of PRECISIONS

    @classmethod
    def named(cls, text: str) -> Layout:
        """CORE-PRECISION, as in a76-fp32; a core may have its whole name. Raises InputError for others."""
        core, _, precision = text.lower().rpartition("-")
        core = core.removeprefix("cortex-").removeprefix("neoverse-")
        if core not in _CORES or precision not in PRECISIONS:
            raise InputError(
                f"layout {text!r} is unknown: it is CORE-PRECISION, as in a76-fp32; cores are {', '.join(_CORES)}, "
                f"precisions {', '.join(PRECISIONS)}"
            )
        return cls(core, precision)

    def __str__(self) -> str:
        return f"{self.core}-{self.precision}"


def add_layouts(packed: Path, layouts: Sequence[Layout], out: Path, *, builds: Path = BUILDS) -> tuple[int, ...]:
    """Writes `packed` with its weights in `layouts` besides to `out` (may be the same file), whole or not at all.

    Returns how many sections each layout added; kernels of one core share some, so a later one may add fewer or none.
    builds: where build/TARGET/klaus-run stands. Raises SetupError where program or emulator are missing, InputError
    where the core cannot run that precision or the model has no activation ranges for int8.
    """
    emulators = [_emulated(layout, builds) for layout in layouts]
    added = []
    with files.staged((out,)) as (stage,):
        before = packed
        for number, (layout, command) in enumerate(zip(layouts, emulators, strict=True)):
            after = stage.with_name(str(number))  # beside it: not renamed with the rest
            added.append(_pack(command, layout, before, after))
            if before != packed:
                before.unlink()
            before = after
        if before == packed:
            shutil.copyfile(packed, stage)
        else:
            before.replace(stage)
    return tuple(added)


@dataclass(frozen=True, slots=True)
class Carried:
    """What a packed model has of weights in kernels' layouts."""

    sections: int
    size_bytes: int


def carried(packed: Path) -> Carried:
    """The sections of a file's table that hold weights in kernels' layouts; none of what is no packed model.

    Raises InputError where the file cannot be read.
    """
    sizes: list[int] = []
    try:
        with packed.open("rb") as stream:
            head = stream.read(size_of("file_header"))
            if len(head) == size_of("file_header") and head.startswith(MAGIC):
                count, step = decode("file_header", head).section_count, size_of("section")
                while len(sizes) < count and len(row := stream.read(step)) == step:
                    section = decode("section", row)
                    sizes.append(int(section.bytes) if section.kind == const("SECTION_PACKED") else 0)
    except OSError as error:
        raise InputError(f"{packed}: cannot be read ({files.reason(error)})") from error
    held = [size for size in sizes if size]
    return Carried(len(held), sum(held))


def _emulated(layout: Layout, builds: Path) -> list[str]:
    """The command line that begins a run of the device program on a layout's core."""
    target, cpu = _CORES[layout.core]
    name = _EMULATORS[target]
    emulator = shutil.which(name) or shutil.which(f"{name}-static")
    if emulator is None:
        raise SetupError(
            f"layout {layout}: its kernels run under {name} here, which is not installed: "
            "`sudo apt-get install qemu-user`, or run `klaus-run pack` on the device itself"
        )
    program = builds / target / "klaus-run"
    if not program.is_file():
        raise SetupError(f"layout {layout}: {program} is not built: `./inv build --target {target}` makes it")
    return [emulator, "-cpu", cpu, str(program)]


def _pack(command: list[str], layout: Layout, source: Path, target: Path) -> int:
    """Runs `klaus-run pack`; the number of sections it added."""
    options = ["pack", "--model", str(source), "--out", str(target), "--precision", layout.precision]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise KlausError(f"layout {layout}: klaus-run did not end within {TIMEOUT_S:g} s") from error
    except OSError as error:
        raise SetupError(f"{command[0]}: cannot be run ({files.reason(error)})") from error
    message = done.stderr.strip().removeprefix("klaus-run: pack: ")[:500]
    if done.returncode in (1, 2):
        raise InputError(f"layout {layout}: {message.replace(str(source), source.name)}")
    if done.returncode:
        raise KlausError(f"layout {layout}: klaus-run ended with {done.returncode}: {message}")
    try:
        return int(json.loads(done.stdout)["sections"])
    except (ValueError, LookupError, TypeError) as error:
        raise KlausError(f"layout {layout}: klaus-run said {done.stdout[:200]!r}, which is no record of it") from error
