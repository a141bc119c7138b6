"""`doctor`: what this computer lacks and the command that mends it, on Debian, other Linuxes and macOS."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from toolchains import detect, setup
from toolchains.errors import SetupError

SPACE_BYTES = 4 << 30  # .venv, compilers' caches, the board's image and one build


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    required: bool = True  # False: only some tasks need it, and they say so themselves


def findings() -> Iterator[Finding]:
    """Looks at Python, its packages, compilers, emulators and free space."""
    version = platform.python_version()
    yield Finding("Python 3.11 or newer", sys.version_info >= (3, 11), version, "install a newer python3")
    for name in ("ziglang", "numpy", "paramiko", "cffi", "pytest"):
        yield _package(name, "./inv  (or: pip install -e .)", required=True)
    absent = [tool for tool in setup.DEVELOPER_TOOLS if not setup.beside_python(tool).exists()]
    mend = "./inv  (or: pip install -e '.[dev]')"
    yield Finding("tools of `check` and `test`", not absent, f"missing: {', '.join(absent)}" if absent else "all", mend)
    yield _package("unicorn", "pip install -r requirements-ios-emulator.txt  (./inv test does it)", required=False)
    for probe in detect.probes():
        name = f"{probe.found.name} (compiles {', '.join(probe.needed_for)})"
        if isinstance(probe.found, detect.Tool):
            yield Finding(name, ok=True, found=f"{probe.found.version}, {probe.found.argv[0]}")
        else:
            yield Finding(name, ok=False, found=probe.found.reason, mend=probe.found.remedy)
    for need in setup.EMULATORS:
        if sys.platform in need.platforms:
            path = next(filter(None, map(shutil.which, need.commands)), "")
            mend = setup.mending_command([need], setup.manager()) or f"install {' or '.join(need.commands)}"
            yield Finding(f"{need.name} ({need.why})", bool(path), path or "missing", mend)
    free = shutil.disk_usage(setup.ROOT).free
    yield Finding("free disk space", free >= SPACE_BYTES, f"{free / 2**30:.1f} GiB", "free 4 GiB", required=False)


def _package(name: str, mend: str, *, required: bool) -> Finding:
    try:
        return Finding(name, ok=True, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, ok=False, found="missing", mend=mend, required=required)


def examine() -> int:
    """Prints every finding on stdout; 0 where nothing required is missing, else 3."""
    everything = list(findings())
    width = max(len(f.name) for f in everything)
    lines = []
    for finding in everything:
        state = "ok     " if finding.ok else "MISSING" if finding.required else "absent "
        lines.append(f"{state}  {finding.name:<{width}}  {finding.found}")
        if not finding.ok:
            lines.append(f"         {'mend it with':>{width}}: {finding.mend}")
    lacking = [f for f in everything if f.required and not f.ok]
    together = setup.mending_command(setup.missing(), setup.manager())
    if together:
        lines.append(f"\nAll missing system packages at once:  {together}")
    lines.append("\nNothing is missing." if not lacking else f"\n{len(lacking)} things are missing.")
    sys.stdout.write("\n".join(lines) + "\n")
    return SetupError.exit_code if lacking else 0
