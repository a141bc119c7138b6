"""What we compile for (Target, one TOML file each) and what we compile with (Toolchain, found by detect.py)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from toolchains.errors import InputError

TARGETS = Path(__file__).parent / "targets"

Family = Literal["zig", "apple", "host"]  # how a target's compiler is looked for
Platform = Literal["linux", "apple", "host"]
Arch = Literal["aarch64", "armv7", "host"]
Isa = Literal["neon_fp16", "neon_dotprod", "neon_i8mm"]  # what only some CPUs of an architecture have
ISAS: tuple[Isa, ...] = get_args(Isa)
Dialect = Literal["zig", "gcc", "clang", "lld", "xcode"]

_CHOICES = {"toolchain": get_args(Family), "platform": get_args(Platform), "arch": get_args(Arch)}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # becomes part of a command line: no spaces, no leading dash


@dataclass(frozen=True, slots=True)
class Target:
    """One thing we compile for. `name` is the name of its file in toolchains/targets."""

    name: str
    description: str
    toolchain: Family
    platform: Platform
    arch: Arch
    triple: str = ""  # empty: the compiler's own
    shared_triple: str = ""  # of the shared library, where its C library is another than the program's
    cpu: str = ""  # -mcpu of everything but the files of an isa; empty: the compiler's own
    minimum_os: str = ""  # Apple: the oldest system that loads the program
    isa: Mapping[Isa, str] = field(default_factory=lambda: MappingProxyType({}))  # -mcpu of files *_ISA.c

    def __post_init__(self) -> None:
        """Raises InputError where fields contradict each other."""
        if self.toolchain == "host":
            given = [name for name in ("triple", "shared_triple", "cpu", "minimum_os", "isa") if getattr(self, name)]
            if given:
                raise InputError(f"target {self.name}: a host target takes no {given[0]}; remove the line")
            return
        if not self.triple or not self.cpu or "host" in (self.platform, self.arch):
            raise InputError(f"target {self.name}: a cross target needs platform, arch, triple and cpu; add them")
        if self.arch == "aarch64" and set(self.isa) != set(ISAS):
            raise InputError(
                f"target {self.name}: [isa] has {', '.join(self.isa) or 'nothing'}; give {', '.join(ISAS)}"
            )
        if (self.toolchain == "apple") != bool(self.minimum_os):
            raise InputError(f"target {self.name}: minimum_os belongs to Apple's targets, and only there")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Compiler, archiver and linker as found on one computer; `symbolic` gives them without its paths."""

    dialect: Dialect  # whose command line it speaks
    name: str
    version: str
    platform: Literal["linux", "apple"]
    arch: str  # aarch64, armv7, x86_64, ...
    compiler: tuple[str, ...]  # first words of a command
    archiver: tuple[str, ...]
    linker: tuple[str, ...] = ()  # where the compiler does not link itself
    headers: str = ""  # system headers, where the compiler has none of its own

    def symbolic(self) -> Toolchain:
        """The same with names in the place of paths: equal on every computer with the same versions."""
        return Toolchain(
            dialect=self.dialect,
            name=self.name,
            version=self.version,
            platform=self.platform,
            arch=self.arch,
            compiler=(Path(self.compiler[0]).name, *self.compiler[1:]),
            archiver=(Path(self.archiver[0]).name, *self.archiver[1:]),
            linker=tuple(Path(word).name if i == 0 else word for i, word in enumerate(self.linker)),
            headers="HEADERS" if self.headers else "",
        )


def parse_target(name: str, text: str) -> Target:
    """A Target from its TOML text; raises InputError naming the line's key and what may stand there."""
    where = f"target {name}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(f"{where}: a target's name is lower-case words joined by dashes; rename its file")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML: {error}") from error
    known = [f.name for f in fields(Target) if f.name != "name"]
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
        if key != "isa" and not isinstance(value, str):
            raise InputError(f"{where}: {key} = {value!r} should be a string")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InputError(f"{where}: {key} = {value!r}; choose one of {', '.join(_CHOICES[key])}")
        if key not in ("description", "isa") and not _WORD.fullmatch(value):
            raise InputError(f"{where}: {key} = {value!r} should be one word of letters, digits and _ . + -")
    missing = [key for key in ("description", "toolchain", "platform", "arch") if key not in table]
    if missing:
        raise InputError(f"{where}: no {missing[0]}; add the line {missing[0]} = ...")
    isa = table.pop("isa", {})
    if not isinstance(isa, dict):
        raise InputError(f"{where}: isa should be a table [isa]")
    for key, value in isa.items():
        if key not in ISAS or not isinstance(value, str) or not _WORD.fullmatch(value):
            raise InputError(f"{where}: [isa] {key} = {value!r}; known are {', '.join(ISAS)}, each with one -mcpu word")
    return Target(name=name, isa=MappingProxyType(isa), **table)


def load_targets(folder: Path = TARGETS) -> dict[str, Target]:
    """All targets by name, sorted; raises InputError for a malformed file or an empty folder."""
    targets: dict[str, Target] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"target {path.stem}: {path} cannot be read: {error}") from error
        targets[path.stem] = parse_target(path.stem, text)
    if not targets:
        raise InputError(f"no targets in {folder}; this copy of the project is incomplete")
    return targets


def select_targets(names: list[str] | tuple[str, ...], targets: Mapping[str, Target]) -> list[Target]:
    """The named targets in the order given, each once; raises InputError for an unknown name."""
    for name in names:
        if name not in targets:
            raise InputError(f"no target {name!r}; known are {', '.join(targets)}")
    return [targets[name] for name in dict.fromkeys(names)]
