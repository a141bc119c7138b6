"""(Target, Toolchain, sources) -> the steps of a build, each one command line. Pure: looks at no file and runs nothing.

What a source file's name decides:
    *_neon.c                                  every ARM target
    *_neon64.c                                64-bit ARM only
    *_neon_fp16.c *_neon_dotprod.c *_neon_i8mm.c   64-bit ARM only, with the instructions they are named after
    os_linux.c os_apple.c cpu_linux.c ...     that platform only
Only NEON files may fuse a multiplication with an addition (they say so themselves, by intrinsics): everything else
is compiled with -ffp-contract=off, so that all targets give the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolchains.target import ISAS, Isa, Target, Toolchain

INCLUDES = ("kernels/include", "kernels")
PROGRAM_FOLDER = PurePosixPath("kernels/program")
PROGRAM = "klaus-run"
ARCHIVE = "libklaus.a"
INSTALL_NAME = "@rpath/libklaus.dylib"
LANGUAGE = ("-std=c11", "-O3", "-g0", "-DNDEBUG", "-Wall", "-Wextra", "-Werror")
# klaus.h makes its own functions visible; nothing else leaves the shared library.
CODE = ("-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections")
LINUX = ("-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64")
# Own stub of libSystem: plain names instead of the headers' __*_chk and $DARWIN_EXTSN forms.
APPLE = ("-D_FORTIFY_SOURCE=0", "-fno-stack-protector")
STUB = Path(__file__).parent / "apple" / "libSystem.tbd"
_ARM = ("aarch64", "armv7")
_PLATFORM_FILE = re.compile(r".*_(linux|apple)")
_ZIG_FEATURE: dict[Isa, str] = {"neon_fp16": "fullfp16", "neon_dotprod": "dotprod", "neon_i8mm": "i8mm"}
_MARCH_FEATURE: dict[Isa, str] = {"neon_fp16": "fp16", "neon_dotprod": "dotprod", "neon_i8mm": "i8mm"}


@dataclass(frozen=True, slots=True)
class Source:
    """A C file, relative to the project's folder, and what its name says."""

    path: PurePosixPath
    isa: Isa | None
    neon: bool
    arm64_only: bool
    platform: str  # "" = all

    @property
    def in_program(self) -> bool:
        """True for the device program's own files, which stay out of the library."""
        return PROGRAM_FOLDER in self.path.parents

    def fits(self, toolchain: Toolchain) -> bool:
        """Whether this file is compiled for the architecture and platform of `toolchain`."""
        if self.platform not in ("", toolchain.platform):
            return False
        if self.arm64_only:
            return toolchain.arch == "aarch64"
        return toolchain.arch in _ARM or not self.neon


def classify(path: PurePosixPath) -> Source:
    """Reads a source's name; see the module's text."""
    stem = path.stem
    isa = next((word for word in ISAS if stem.endswith(f"_{word}")), None)
    arm64_only = isa is not None or stem.endswith("_neon64")
    match = _PLATFORM_FILE.fullmatch(stem)
    return Source(path, isa, arm64_only or stem.endswith("_neon"), arm64_only, match[1] if match else "")


@dataclass(frozen=True, slots=True)
class Step:
    """One command: what it makes from what. `depfile` is where the compiler lists the headers it read."""

    label: str
    output: Path
    inputs: tuple[Path, ...]
    argv: tuple[str, ...]
    depfile: Path | None = None
    sign_as: str = ""  # Apple: the identifier of the ad-hoc signature that the result needs


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of one target; the four parts run in this order, the compilations in any."""

    folder: Path
    compilations: tuple[Step, ...]
    archive: Step
    program: Step
    shared: Step

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them, in an order that works."""
        return (*self.compilations, self.archive, self.program, self.shared)


def shared_name(toolchain: Toolchain) -> str:
    """File name of the shared library."""
    return "libklaus.dylib" if toolchain.platform == "apple" else "libklaus.so"


def machine_flags(target: Target, toolchain: Toolchain, isa: Isa | None, *, shared: bool = False) -> list[str]:
    """Which system and CPU to make code for; `shared`: as the shared library needs it."""
    triple = (target.shared_triple if shared else "") or target.triple
    flags = ["-target", triple] if triple else []
    cpu = target.cpu if isa is None else target.isa.get(isa, "")
    if cpu:
        return [*flags, f"-mcpu={cpu}"]
    if toolchain.dialect == "zig":  # without a word, zig compiles for the very CPU it runs on
        return [*flags, "-mcpu=baseline" if isa is None else f"-mcpu=generic+v8_2a+{_ZIG_FEATURE[isa]}"]
    return flags if isa is None else [*flags, f"-march=armv8.2-a+{_MARCH_FEATURE[isa]}"]


def source_flags(target: Target, toolchain: Toolchain, source: Source, *, shared: bool = False) -> list[str]:
    """All flags of a compilation but the files it reads and writes."""
    flags = machine_flags(target, toolchain, source.isa, shared=shared)
    flags += LANGUAGE
    if toolchain.dialect == "zig":  # zig turns -O3 into -O2
        flags += ["-Xclang", "-O3"]
    if not source.neon:
        flags.append("-ffp-contract=off")
    flags += CODE
    flags += LINUX if toolchain.platform == "linux" else APPLE
    if toolchain.headers:
        flags += ["-nostdlibinc", "-isystem", toolchain.headers]
    return flags + [f"-I{folder}" for folder in INCLUDES]


def compile_step(target: Target, toolchain: Toolchain, source: Source, output: Path, *, shared: bool = False) -> Step:
    """One source to one object; paths of sources are relative, so a build does not depend on where the project is."""
    depfile = output.with_suffix(".d")
    argv = [*toolchain.compiler, *source_flags(target, toolchain, source, shared=shared)]
    argv += ["-MMD", "-MF", str(depfile), "-c", str(source.path), "-o", str(output)]
    return Step(f"{target.name}: {source.path}", output, (Path(source.path),), tuple(argv), depfile)


def archive_step(target: Target, toolchain: Toolchain, objects: Sequence[Path], output: Path) -> Step:
    """The static library, without dates and owners."""
    words = {"xcode": ["-static", "-D", "-o"], "lld": ["--format=darwin", "rcsD"]}.get(toolchain.dialect, ["rcsD"])
    if toolchain.dialect == "clang" and toolchain.platform == "apple":
        words = ["rcs"]  # the Mac's own ar has no D; ZERO_AR_DATE does it
    argv = (*toolchain.archiver, *words, str(output), *map(str, objects))
    return Step(f"{target.name}: {output.name}", output, tuple(objects), argv)


def link_step(target: Target, toolchain: Toolchain, inputs: Sequence[Path], output: Path, *, shared: bool) -> Step:
    """The device program, or with `shared` the shared library."""
    paths = [str(path) for path in inputs]
    if toolchain.dialect == "lld":
        argv = [*toolchain.linker, "-arch", "arm64", "-platform_version", "ios", target.minimum_os, target.minimum_os]
        argv += ["-dead_strip", "-no_adhoc_codesign", "-x"]
        argv += (
            ["-dylib", "-install_name", INSTALL_NAME] if shared else ["-pie", "-exported_symbol", "__mh_execute_header"]
        )
        argv += ["-o", str(output), *paths, str(STUB)]
    elif toolchain.platform == "apple":
        argv = [*toolchain.compiler, *machine_flags(target, toolchain, None), "-Wl,-dead_strip", "-Wl,-x"]
        argv += ["-dynamiclib", "-install_name", INSTALL_NAME] if shared else []
        argv += ["-o", str(output), *paths]
    else:
        argv = [*toolchain.compiler, *machine_flags(target, toolchain, None, shared=shared), "-s", "-Wl,--gc-sections"]
        if shared:
            argv += ["-shared", f"-Wl,-soname,{shared_name(toolchain)}", "-Wl,-z,defs"]
        elif target.toolchain == "zig":
            argv += ["-static"]
        argv += ["-o", str(output), *paths, "-lm", "-lpthread"]
    return Step(
        f"{target.name}: {output.name}",
        output,
        (*inputs, *([STUB] if toolchain.dialect == "lld" else [])),
        tuple(argv),
        sign_as=output.name if target.toolchain == "apple" else "",
    )


def object_name(source: Source) -> str:
    """kernels/ops/conv/conv_ref.c -> ops.conv.conv_ref.o: unique in one archive."""
    return ".".join(source.path.with_suffix(".o").parts[1:])


def plan(target: Target, toolchain: Toolchain, sources: Sequence[PurePosixPath], folder: Path) -> Plan:
    """Everything that makes `folder`/{klaus-run, libklaus.a, libklaus.so or .dylib} from those sources that fit."""
    fitting = [s for s in (classify(path) for path in sorted(sources)) if s.fits(toolchain)]
    library = [s for s in fitting if not s.in_program]
    program = [s for s in fitting if s.in_program]

    def compilations(chosen: Sequence[Source], where: str, *, shared: bool = False) -> list[Step]:
        return [
            compile_step(target, toolchain, source, folder / where / object_name(source), shared=shared)
            for source in chosen
        ]

    library_steps = compilations(library, "objects")
    program_steps = compilations(program, "objects")
    shared_steps = compilations(library, "objects-shared", shared=True) if target.shared_triple else library_steps
    archive = archive_step(target, toolchain, [s.output for s in library_steps], folder / ARCHIVE)
    program_inputs = [*(s.output for s in program_steps), archive.output]
    return Plan(
        folder=folder,
        compilations=(*library_steps, *program_steps, *(shared_steps if target.shared_triple else ())),
        archive=archive,
        program=link_step(target, toolchain, program_inputs, folder / PROGRAM, shared=False),
        shared=link_step(
            target, toolchain, [s.output for s in shared_steps], folder / shared_name(toolchain), shared=True
        ),
    )


def example_command(
    target: Target, toolchain: Toolchain, source: Path, include: Path, archive: Path, output: Path
) -> list[str]:
    """How a user's own C program is compiled and linked with libklaus.a (not for Apple targets built with lld)."""
    argv = [*toolchain.compiler, *machine_flags(target, toolchain, None), "-std=c11", "-O2", f"-I{include}"]
    argv += ["-static"] if target.toolchain == "zig" else []
    libraries = [] if toolchain.platform == "apple" else ["-lm", "-lpthread"]
    return [*argv, str(source), str(archive), *libraries, "-o", str(output)]
