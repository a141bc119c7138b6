"""The library's sources for builds of the tests' own, such as those with sanitizers."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from toolchains import commands
from toolchains.target import Toolchain

FLAGS = ("-std=c11", "-O1", "-g", "-D_GNU_SOURCE", "-ffp-contract=off", "-Ikernels/include", "-Ikernels")
LIBRARIES = ("-lm", "-lpthread")


def library_sources(root: Path, toolchain: Toolchain) -> list[Path]:
    """All of libklaus that fits a toolchain: neither the program nor the checker."""
    return [
        path
        for path in sorted((root / "kernels").rglob("*.c"))
        if path.parent.name not in ("program", "check")
        and not path.stem.startswith("check_")
        and commands.classify(PurePosixPath(path)).fits(toolchain)
    ]
