"""Sets this computer up: system packages, then .venv from the hash-locked requirements.

`./inv` runs this module with the system's own python3 before anything is installed, so it and the little that it
imports use the standard library alone. Tasks call `require_system` and `require_extra`, from an environment that a
person made with `pip install -e .` too. Everything is said on stderr; stdout belongs to the task that follows.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolchains.errors import SetupError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
MARK = VENV / "klaus-made"  # ours: may be made anew when it is broken
PYTHON_SIZES = "about 165 MB to download, 700 MB on disk, most of it the pinned zig compiler"
DEVELOPER_TOOLS = ("clang-format", "lint-imports", "mypy", "pytest", "ruff")
Manager = Literal["apt", "dnf", "pacman", "zypper", "brew", "none"]


@dataclass(frozen=True, slots=True)
class Need:
    """A tool that no Python package brings."""

    name: str
    why: str
    commands: tuple[str, ...]  # any one of them will do
    packages: dict[Manager, str]
    platforms: tuple[str, ...] = ("linux",)
    files: tuple[str, ...] = ()  # patterns; where it has no command, any one of these will do


COMPILERS = (  # detect.py finds them in other versions too
    Need(
        "clang 19",
        "compiles for iOS",
        ("clang-19",),
        {"apt": "clang-19", "dnf": "clang", "pacman": "clang", "zypper": "clang19"},
    ),
    Need(
        "lld 19",
        "links for iOS",
        ("ld64.lld-19",),
        {"apt": "lld-19", "dnf": "lld", "pacman": "lld", "zypper": "lld19"},
    ),
    Need(
        "llvm 19",
        "makes iOS archives and reads Mach-O",
        ("llvm-ar-19",),
        {"apt": "llvm-19", "dnf": "llvm", "pacman": "llvm", "zypper": "llvm19"},
    ),
    Need("Xcode", "compiles and links for iOS", ("xcrun",), {"brew": "xcode-select --install"}, ("darwin",)),
)
EMULATORS = (
    Need(
        "qemu user mode, 64-bit ARM",
        "runs the device program here and counts its instructions",
        ("qemu-aarch64",),  # a statically linked one takes no plugins
        {"apt": "qemu-user", "dnf": "qemu-user", "pacman": "qemu-user", "zypper": "qemu-linux-user"},
    ),
    Need(
        "qemu user mode, 32-bit ARM",
        "runs the armv7 program here",
        ("qemu-arm", "qemu-arm-static"),
        {"apt": "qemu-user", "dnf": "qemu-user", "pacman": "qemu-user", "zypper": "qemu-linux-user"},
    ),
    Need(
        "qemu system emulator",
        "is the emulated ARM board",
        ("qemu-system-aarch64",),
        {
            "apt": "qemu-system-arm",
            "dnf": "qemu-system-aarch64",
            "pacman": "qemu-system-aarch64",
            "zypper": "qemu-arm",
            "brew": "qemu",
        },
        ("linux", "darwin"),
    ),
)
NEEDS = (*COMPILERS, *EMULATORS)
TEST_NEEDS = (  # ./inv test alone; tests that miss them say so
    Need(
        "SIMDe",
        "compiles NEON kernels for this computer, under sanitizers",
        (),
        {"apt": "libsimde-dev", "dnf": "simde-devel", "pacman": "simde", "zypper": "simde-devel"},
        files=("/usr/include/simde/arm/neon.h",),
    ),
    Need(
        "clang's sanitizers",
        "find what reads or writes where it must not",
        (),
        {"apt": "libclang-rt-19-dev", "dnf": "compiler-rt", "pacman": "compiler-rt", "zypper": "clang19"},
        files=("/usr/lib*/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-*.a", "/usr/lib*/clang/*/lib/*/*asan*.a"),
    ),
)
INSTALL: dict[Manager, str] = {
    "apt": "apt-get install -y --no-install-recommends",
    "dnf": "dnf install -y",
    "pacman": "pacman -S --needed --noconfirm",
    "zypper": "zypper install -y",
    "brew": "brew install",
}


def say(message: str = "") -> None:
    """One line for the person at the terminal."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def manager() -> Manager:
    """The package manager of this computer."""
    names: tuple[tuple[str, Manager], ...] = (
        ("apt-get", "apt"),
        ("dnf", "dnf"),
        ("pacman", "pacman"),
        ("zypper", "zypper"),
        ("brew", "brew"),
    )
    return next((name for command, name in names if shutil.which(command)), "none")


def missing(platform: str = sys.platform, *, tests: bool = False) -> list[Need]:
    """Needs of this platform that no command on PATH and no file meets; `tests`: those of ./inv test too."""
    wanted = (*NEEDS, *TEST_NEEDS) if tests else NEEDS
    return [n for n in wanted if platform in n.platforms and not _met(n)]


def _met(need: Need) -> bool:
    return any(shutil.which(command) for command in need.commands) or any(
        any(Path("/").glob(pattern.removeprefix("/"))) for pattern in need.files
    )


def mending_command(needs: Sequence[Need], how: Manager) -> str:
    """The one command line that installs `needs`, or "" where no package is known."""
    packages = sorted({n.packages[how] for n in needs if how in n.packages})
    special = [p for p in packages if " " in p]  # a command of its own, as Xcode's
    plain = [p for p in packages if " " not in p]
    parts = special + ([f"{INSTALL[how]} {' '.join(plain)}"] if plain else [])
    if how == "apt":
        return as_root(["apt-get update -qq", *parts]) if parts else ""
    return " && ".join(parts) if how == "brew" else as_root(parts) if parts else ""


def as_root(commands: Sequence[str]) -> str:
    """`commands` as one line that an administrator can paste."""
    joined = " && ".join(commands)
    if os.geteuid() == 0:
        return joined
    return f"sudo sh -c {shlex.quote(joined)}" if shutil.which("sudo") else f"su -c {shlex.quote(joined)}"


def someone_is_there() -> bool:
    """True where a person can answer: a terminal on both ends, and not CI."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI")


def root_prefix(*, ask: bool) -> list[str] | None:
    """What goes before a command that needs root: nothing, sudo, or None where there is no way."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        return None
    if ask:
        return ["sudo"]  # it may ask for the password
    silent = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n"] if silent.returncode == 0 else None


def apt_packages(needs: Sequence[Need], *, with_venv: bool) -> list[str]:
    """Debian packages that meet `needs`; python3-venv where a .venv has to be made and cannot."""
    packages = {n.packages["apt"] for n in needs if "apt" in n.packages}
    if with_venv and not can_make_venv():
        packages.add("python3-venv")
    return sorted(packages)


def can_make_venv() -> bool:
    """Debian splits venv's pip off into a package of its own."""
    probe = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return probe.returncode == 0


def quietly(argv: Sequence[str], what: str) -> str:
    """Runs argv, returns its stdout; on failure raises SetupError with the last lines it wrote."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    # Output goes through a pipe; only sudo's question for a password reaches the terminal, which sudo opens itself.
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, env=environment)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise SetupError(f"{what} failed ({shlex.join(argv)}, exit code {done.returncode}):\n{tail}")
    return done.stdout


def install_system(packages: Sequence[str], *, ask: bool) -> None:
    """Installs Debian packages with apt-get, having printed them with their sizes and asked."""
    prefix = root_prefix(ask=ask)
    if prefix is None:
        command = as_root(["apt-get update -qq", f"{INSTALL['apt']} {' '.join(packages)}"])
        raise SetupError(
            f"needs the system packages {', '.join(packages)}, and neither root nor a usable sudo is at hand. "
            f"Nothing was changed. Run this once, then the same command again:\n  {command}"
        )
    # sudo clears the environment: what apt-get needs of it goes along as arguments of env.
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get"]
    say("looking up system packages (apt-get update)")
    quietly([*apt, "update", "-qq"], "apt-get update")
    arguments = ["install", "--no-install-recommends", *packages]
    simulated = quietly([*apt, "-s", *arguments], "looking up the packages")
    count = len(re.findall(r"^Inst ", simulated, flags=re.MULTILINE))
    for line in package_lines(packages):
        say(f"  {line}")
    say(f"  {count} packages with what they depend on; {apt_sizes([*apt, *arguments])}")
    if ask and not agreed("Install these system packages?"):
        raise SetupError("nothing was installed: the system packages were declined")
    quietly([*apt, "-y", "-qq", "-o", "Dpkg::Use-Pty=0", *arguments], "installing system packages")


def package_lines(packages: Sequence[str]) -> Iterator[str]:
    """NAME, why it is needed."""
    for package in packages:
        reasons = dict.fromkeys(n.why for n in (*NEEDS, *TEST_NEEDS) if n.packages.get("apt") == package)
        yield f"{package}: {', '.join(reasons) or 'makes .venv'}"


def apt_sizes(argv: Sequence[str]) -> str:
    """What apt-get itself says about the sizes; it stops before it installs."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*argv, "--assume-no"], capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"Need to get (?:[\d.,]+ .?B/)?([\d.,]+ .?B)", done.stdout)
    disk = re.search(r"After this operation, ([\d.,]+ .?B) of additional", done.stdout)
    return f"{found[1] if found else 'nothing'} to download, {disk[1] if disk else 'nothing'} on disk"


def agreed(question: str, *, default: bool = True) -> bool:
    """Asks on the terminal; Return alone means `default`, the end of the input (Ctrl-D) means no."""
    say(f"{question} {'[Y/n]' if default else '[y/N]'}")
    line = sys.stdin.readline()
    answer = line.strip().lower()
    return default and bool(line) if not answer else answer in ("y", "yes")


def require_system(*, with_venv: bool = False, ask: bool = True, tests: bool = False) -> None:
    """Installs the system packages that are missing; SetupError with the one command where that cannot be done.

    It asks first where someone can answer, unless `ask` is false. `tests`: what ./inv test needs too.
    """
    needs = missing(tests=tests)
    how = manager()
    if how == "apt":
        packages = apt_packages(needs, with_venv=with_venv)
        if packages:
            install_system(packages, ask=ask and someone_is_there())
        return
    if with_venv and not can_make_venv():
        raise SetupError(f"{sys.executable} has no venv module: install Python 3.11 or newer with venv and pip")
    if needs:  # every task that uses one of them says so itself: Linux targets build without any
        say("these tools are missing; what needs them will stop and say so:")
        for need in needs:
            say(f"  {need.name} ({need.why})")
        say(f"  install them with:  {mending_command(needs, how) or 'the package manager of this system'}")


def make_venv() -> None:
    """.venv from the hash-locked requirements, with this project installed in editable form."""
    python = VENV / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-c", "import pip"], check=False, capture_output=True)
    if not works or works.returncode != 0:
        if VENV.exists() and not MARK.exists():
            raise SetupError(f"{VENV} is not a working environment and was not made by ./inv: move it away, run again")
        shutil.rmtree(VENV, ignore_errors=True)
        VENV.mkdir()
        MARK.write_text("made by ./inv; it may be deleted at any time\n")
        quietly([sys.executable, "-m", "venv", str(VENV)], "making .venv")
    say(f"installing Python packages into .venv ({PYTHON_SIZES})")
    pip_install(python, "--require-hashes", "-r", "requirements.txt")
    pip_install(python, "--no-deps", "--no-build-isolation", "-e", ".")


def pip_install(python: Path, *arguments: str) -> None:
    """`pip install` without questions, in the project's folder; the user's own index and settings hold."""
    argv = [str(python), "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, cwd=ROOT)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise SetupError(f"pip failed ({shlex.join(argv)}):\n{tail}\nIs the package index reachable?")


def require_extra(name: str, module: str) -> None:
    """Installs requirements-NAME.txt into the running environment unless `module` is there already."""
    probe = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False)
    if probe.returncode != 0:
        say(f"installing the optional packages of requirements-{name}.txt")
        pip_install(Path(sys.executable), "--require-hashes", "-r", f"requirements-{name}.txt")


def beside_python(tool: str) -> Path:
    """Where the running environment keeps its command `tool`."""
    return Path(sys.executable).parent / tool


def require_developer_tools() -> None:
    """SetupError where the tools of `check` and `test` are not in the running environment."""
    absent = [tool for tool in DEVELOPER_TOOLS if not beside_python(tool).exists()]
    if absent:
        raise SetupError(
            f"{', '.join(absent)} are not installed beside {sys.executable}: run ./inv instead of invoke, or "
            "pip install -e '.[dev]'"
        )


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time in one clone; the folder itself is the lock, so that waiting leaves nothing behind."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main(arguments: Sequence[str]) -> int:
    """`setup.py python` makes .venv, `system` installs system packages, `all` does both. Returns the exit code."""
    what = arguments[0] if arguments else "all"
    try:
        with alone():
            # First what may be refused, so that a refusal leaves nothing behind.
            if what != "python" or not ((VENV / "bin" / "python").exists() or can_make_venv()):
                require_system(with_venv=what != "system", ask=os.environ.get("KLAUS_YES") != "1")
            if what != "system":
                make_venv()
    except SetupError as error:
        say(f"inv: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("inv: interrupted; run the same command again to go on")
        return 130
    say("set up. To call invoke and klaus without ./inv:")
    say(". .venv/bin/activate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
