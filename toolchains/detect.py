"""Looks at this computer: which compilers it has, in which version, and what to do where one is missing.

The only module of the project that does so; everything else is told by a Toolchain.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from toolchains import setup
from toolchains.errors import SetupError
from toolchains.target import Target, Toolchain, load_targets

OLDEST_LLVM = 15  # the first ld64.lld that signs nothing unasked and knows iOS well
LLVM_VERSIONS = (19, *range(25, 19, -1), *range(18, OLDEST_LLVM - 1, -1))  # 19 first: what CI has
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that was found: the first words of its command line (or a folder) and its version."""

    name: str
    argv: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that was not found, or does not work: why, and the command that mends it."""

    name: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of `doctor`: a tool, found or missing, and the targets that need it."""

    found: Tool | Missing
    needed_for: tuple[str, ...]


def _output(argv: Iterable[str]) -> str | None:
    """stdout and stderr of a command that ends well, else None."""
    try:
        done = subprocess.run(
            [*argv],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout + done.stderr if done.returncode == 0 else None


def _version(text: str) -> str:
    match = re.search(r"\d+\.\d+(\.\d+)*", text)
    return match[0] if match else ""


def _remedy(*names: str) -> str:
    """The command of this system's package manager that installs the named tools of setup.NEEDS."""
    needs = [need for need in setup.NEEDS if need.name in names]
    return setup.mending_command(needs, setup.manager()) or f"install {', '.join(names)}"


@cache
def zig() -> Tool | Missing:
    """The zig compiler of the PyPI package ziglang, in this Python's environment."""
    spec = importlib.util.find_spec("ziglang")
    remedy = "./inv (or: pip install ziglang==0.17.1)"
    if spec is None or spec.origin is None:
        return Missing("zig", "the Python package ziglang is not installed", remedy)
    program = Path(spec.origin).with_name("zig")
    version = _output([str(program), "version"])
    clang = _output([str(program), "cc", "--version"])
    if version is None or clang is None:
        return Missing("zig", f"{program} does not run", f"pip install --force-reinstall {remedy.rpartition(' ')[2]}")
    return Tool("zig", (str(program),), f"{version.strip()} (clang {_version(clang)})")


@cache
def darwin_headers() -> Tool | Missing:
    """The headers of Apple's C library that come with zig: nothing of Apple's SDK is needed."""
    found = zig()
    if isinstance(found, Missing):
        return Missing("darwin headers", found.reason, found.remedy)
    folder = Path(found.argv[0]).parent / "lib" / "libc" / "include" / "any-darwin-any"
    if not (folder / "stdio.h").is_file():
        return Missing("darwin headers", f"{folder} is incomplete", "pip install --force-reinstall ziglang==0.17.1")
    return Tool("darwin headers", (str(folder),), f"of zig {importlib.metadata.version('ziglang')}")


def _llvm(name: str, command: str, need: str) -> Tool | Missing:
    """The first of command-19, command-25 ... command-15, and `command` itself where it is new enough."""
    for candidate in (*(f"{command}-{version}" for version in LLVM_VERSIONS), command):
        path = shutil.which(candidate)
        text = _output([path, "--version"]) if path else None
        version = _version(text) if text else ""
        if path and version and int(version.split(".")[0]) >= OLDEST_LLVM:
            return Tool(name, (path,), version)
    return Missing(name, f"no {command} of LLVM {OLDEST_LLVM} or later on PATH", _remedy(need))


@cache
def clang() -> Tool | Missing:
    """LLVM's C compiler."""
    return _llvm("clang", "clang", "clang 19")


@cache
def ld64() -> Tool | Missing:
    """LLVM's linker for Apple's systems."""
    return _llvm("ld64.lld", "ld64.lld", "lld 19")


@cache
def llvm_ar() -> Tool | Missing:
    """LLVM's archiver, which also writes Apple's kind of archive."""
    return _llvm("llvm-ar", "llvm-ar", "llvm 19")


@cache
def llvm_tool(command: str) -> Tool | Missing:
    """Another tool of LLVM's, such as llvm-mca."""
    return _llvm(command, command, "llvm 19")


@cache
def xcode() -> Tool | Missing:
    """Xcode's compiler for iPhones, on a Mac."""
    path = _output(["xcrun", "--sdk", "iphoneos", "--show-sdk-path"])
    text = _output(["xcrun", "--sdk", "iphoneos", "clang", "--version"])
    if not path or not text:
        remedy = "xcode-select --install, or install Xcode with its iOS platform"
        return Missing("xcode", "xcrun finds no SDK iphoneos", remedy)
    sdk = (_output(["xcrun", "--sdk", "iphoneos", "--show-sdk-version"]) or "").strip()
    return Tool("xcode", ("xcrun", "--sdk", "iphoneos"), f"clang {_version(text)}, iOS SDK {sdk}")


@cache
def host_compiler() -> Tool | Missing:
    """$CC, cc, gcc or clang where it finds a C library's headers."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]):
        path = shutil.which(words[0]) if words else None
        if path is None:
            continue
        argv = (path, *words[1:])
        headers = ["-include", "stdio.h", "-include", "math.h", "-include", "pthread.h"]
        text = _output([*argv, "--version"])
        if text is None or _output([*argv, *headers, "-E", "-x", "c", os.devnull]) is None:
            continue
        name = "clang" if "clang" in text else "gcc"
        version = _output([*argv, "-dumpfullversion"]) if name == "gcc" else _version(text)
        return Tool(name, argv, (version or _version(text)).strip())
    how: dict[str, str] = {"apt": "apt-get install -y gcc libc6-dev", "brew": "xcode-select --install"}
    reason = "no cc, gcc or clang that finds the C library's headers"
    return Missing("host compiler", reason, how.get(setup.manager(), "install gcc"))


def _need(target: Target, *probes: Callable[[], Tool | Missing]) -> list[Tool]:
    """What the probes found; raises SetupError naming everything that is missing."""
    found = [probe() for probe in probes]
    missing = [one for one in found if isinstance(one, Missing)]
    if missing:
        what = "; ".join(f"{one.name}: {one.reason}" for one in missing)
        remedy = " ; ".join(dict.fromkeys(one.remedy for one in missing))
        raise SetupError(f"target {target.name} cannot be built here: {what}. Mend it with: {remedy}")
    return [one for one in found if isinstance(one, Tool)]


def _this_platform() -> Literal["linux", "apple"]:
    if sys.platform not in ("linux", "darwin"):
        raise SetupError(f"this computer runs {sys.platform}; the project builds on Linux and macOS only")
    return "apple" if sys.platform == "darwin" else "linux"


def _machine(text: str) -> str:
    """aarch64 for all its names; other words as they are."""
    word = text.strip().split("-")[0]
    return "aarch64" if word in ("arm64", "aarch64") else word


def toolchain_for(target: Target) -> Toolchain:
    """What compiles `target` on this computer; raises SetupError naming what is missing and how to install it."""
    if target.toolchain == "zig":
        (tool,) = _need(target, zig)
        return _zig_toolchain(tool, "linux" if target.platform == "linux" else "apple", target.arch)
    if target.toolchain == "apple":
        return _apple_toolchain(target)
    found = host_compiler()
    system = _this_platform()
    if isinstance(found, Missing):
        other = zig()
        if isinstance(other, Missing):
            _need(target, host_compiler)
        (tool,) = _need(target, zig)
        return _zig_toolchain(tool, system, _machine(platform.machine()))
    machine = _output([*found.argv, "-dumpmachine"]) or platform.machine()
    return Toolchain(
        dialect="clang" if found.name == "clang" else "gcc",
        name=found.name,
        version=found.version,
        platform=system,
        arch=_machine(machine),
        compiler=found.argv,
        archiver=(shutil.which("ar") or "ar",),
    )


def _zig_toolchain(tool: Tool, system: Literal["linux", "apple"], arch: str) -> Toolchain:
    zig_program = tool.argv[0]
    return Toolchain("zig", "zig", tool.version, system, arch, (zig_program, "cc"), (zig_program, "ar"))


def _apple_toolchain(target: Target) -> Toolchain:
    if sys.platform == "darwin":
        (tool,) = _need(target, xcode)
        compiler, archiver = (*tool.argv, "clang"), (*tool.argv, "libtool")
        return Toolchain("xcode", "xcode", tool.version, "apple", target.arch, compiler, archiver)
    compiler_tool, linker, archiver_tool, headers = _need(target, clang, ld64, llvm_ar, darwin_headers)
    return Toolchain(
        dialect="lld",
        name="clang",
        version=f"{compiler_tool.version}, lld {linker.version}, llvm-ar {archiver_tool.version}, "
        f"headers {headers.version}",
        platform="apple",
        arch=target.arch,
        compiler=compiler_tool.argv,
        archiver=archiver_tool.argv,
        linker=linker.argv,
        headers=headers.argv[0],
    )


def why_not(target: Target) -> str:
    """Why `target` cannot be built on this computer, and what mends it; "" where it can."""
    try:
        toolchain_for(target)
    except SetupError as error:
        return str(error)
    return ""


def buildable(target: Target) -> bool:
    """Whether this computer has all that building `target` takes."""
    return not why_not(target)


def probes() -> list[Probe]:
    """Every tool that some target needs on this computer, found or missing."""
    targets = load_targets().values()
    by_family = {family: tuple(t.name for t in targets if t.toolchain == family) for family in ("zig", "apple", "host")}
    apple: tuple[Callable[[], Tool | Missing], ...]
    apple = (xcode,) if sys.platform == "darwin" else (clang, ld64, llvm_ar, darwin_headers)
    host = host_compiler()
    if isinstance(host, Missing) and isinstance(zig(), Tool):
        host = zig()  # compiles for the host too
    return [
        Probe(zig(), by_family["zig"]),
        *(Probe(probe(), by_family["apple"]) for probe in apple),
        Probe(host, by_family["host"]),
    ]
