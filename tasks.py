"""The tasks: each one reads its options and calls one function of a room.

`./inv --list` shows them, `./inv TASK --help` shows one's options. Exit codes: 0 pass, 1 a check failed, 2 usage or
bad input, 3 set-up, 4 a device is out of reach, 5 an error inside the project.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.tasks import Task, task

ROOT = Path(__file__).resolve().parent
USAGE_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 5, 130
CLEANED = (
    "build",
    ".cache/prepared",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
)

HELP = {
    "target": "compile for linux-aarch64, linux-armv7, ios or host (repeatable; default: all this machine can)",
    "device": "a device of devices.toml, or board (repeatable; default: all)",
    "model": "lite0, klaus-mobile or a model file (repeatable; default: both)",
    "scheme": "quantize as float, q8, q4 (lite0), klaus-8, -4, -2 or -mixed (default: q4, klaus-mobile klaus-mixed)",
    "suite": "conformance, agreement, timing or accuracy (repeatable; default: all)",
    "profile": "quick or normal: how often things are measured (default: quick where the device is emulated)",
    "photos": "folder WNID/*.jpg to measure accuracy on (default: seven freely licensed demo photos)",
    "crop": "center or none: how a photo becomes the network's input (default: center)",
    "inventory": "another file than devices.toml",
    "dry-run": "print the compiler and SSH commands, run none",
    "yes": "never ask",
    "jobs": "commands that run at once (default: one for each core)",
    "cpu": "cortex-a53, cortex-a76, max ...: the core to emulate (repeatable; default: these three)",
    "precision": "fp32, fp16 or int8: of the arithmetic; each is a row of the report (repeatable; default: fp32)",
    "memory": "default or lean",
    "job": "pass or 10-patch (repeatable; default: both)",
}
REPEATABLE = ("target", "device", "model", "suite", "cpu", "precision", "job")
NUMBERS = ("jobs", "layers")
MAIN_JOB = ("target", "device", "model", "scheme", "inventory", "dry-run", "yes")


def _expected_errors() -> tuple[type[Exception], ...]:
    """The exception roots of the rooms: each carries its exit code and one clear message."""
    from device_tests.errors import HarnessError
    from klaus_runtime.errors import KlausError
    from reports.record import ReportError
    from toolchains.errors import ToolchainError

    return (HarnessError, KlausError, ReportError, ToolchainError)


def _shown(message: str) -> str:
    """A message as it may go to a terminal: paths and files may hold escapes, and name them."""
    from device_tests.devices.text import shown

    return shown(message)


def _command(*options: str, more: dict[str, str] | None = None, **settings: Any) -> Callable[..., Task[Any]]:
    """A task whose result or exception becomes an exit code; a traceback means a bug of ours, and code 5."""

    def decorate(function: Callable[..., int | None]) -> Task[Any]:
        @functools.wraps(function)
        def body(*arguments: Any, **chosen: Any) -> None:
            try:
                code = function(*arguments, **chosen)
            except Exit:
                raise
            except KeyboardInterrupt:
                raise Exit("interrupted", code=INTERRUPTED) from None
            except Exception as error:
                if isinstance(error, _expected_errors()):
                    raise Exit(_shown(f"error: {error}"), code=getattr(error, "exit_code", INTERNAL_ERROR)) from None
                sys.stderr.write(_shown(traceback.format_exc()))
                raise Exit("this is a bug of the project: please report it", code=INTERNAL_ERROR) from None
            if code:
                raise Exit(code=code)

        repeatable = [name for name in options if name in REPEATABLE] + settings.pop("repeat", [])
        text = {name: HELP[name] for name in options} | (more or {})
        made: Task[Any] = task(auto_shortflags=False, iterable=repeatable, help=text, **settings)(body)
        return made

    return decorate


@_command("target", "jobs", "dry-run")
def build(_: Context, target: Sequence[str] | None = None, jobs: int = 0, dry_run: bool = False) -> int:
    """Compile klaus-run and libklaus into build/TARGET/."""
    from device_tests import pipeline

    return pipeline.build(target or (), jobs=jobs or None, dry_run=dry_run)


@_command(*MAIN_JOB)
def deploy(
    _: Context,
    target: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    scheme: str = "",
    inventory: str = "",
    dry_run: bool = False,
    yes: bool = False,
) -> int:
    """Send program and models to the devices, no tests."""
    from device_tests import pipeline

    order = pipeline.Order.asked(target, device, model, scheme, inventory=inventory, dry_run=dry_run, yes=yes)
    return pipeline.deploy(order)


@_command(*MAIN_JOB, "profile", "precision", "memory")
def bench(
    _: Context,
    target: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    scheme: str = "",
    profile: str = "",
    precision: Sequence[str] | None = None,
    memory: str = "default",
    inventory: str = "",
    dry_run: bool = False,
    yes: bool = False,
) -> int:
    """Run the timing suite alone and report it."""
    from device_tests import pipeline

    order = pipeline.Order.asked(
        target,
        device,
        model,
        scheme,
        ["timing"],
        profile,
        precisions=precision,
        memory=memory,
        inventory=inventory,
        dry_run=dry_run,
        yes=yes,
    )
    return pipeline.deploy_and_bench(order)


@_command(*MAIN_JOB, "suite", "profile", "photos", "crop", "precision", "memory")
def deploy_and_bench(
    _: Context,
    target: Sequence[str] | None = None,
    device: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    scheme: str = "",
    suite: Sequence[str] | None = None,
    profile: str = "",
    photos: str = "",
    crop: str = "center",
    precision: Sequence[str] | None = None,
    memory: str = "default",
    inventory: str = "",
    dry_run: bool = False,
    yes: bool = False,
) -> int:
    """From sources to a report from every device."""
    from device_tests import pipeline

    order = pipeline.Order.asked(
        target,
        device,
        model,
        scheme,
        suite,
        profile,
        photos=photos,
        crop=crop,
        precisions=precision,
        memory=memory,
        inventory=inventory,
        dry_run=dry_run,
        yes=yes,
    )
    return pipeline.deploy_and_bench(order)


@_command("inventory", name="list", default=True)
def list_devices(_: Context, inventory: str = "") -> int:
    """List the farm and ask each device who it is."""
    from device_tests import pipeline

    return pipeline.list_devices(inventory)


@_command("inventory", "yes", more={"name": "the device in devices.toml"}, positional=["name"])
def enrol(_: Context, name: str, inventory: str = "", yes: bool = False) -> int:
    """Show a device's host key, pin it when you agree."""
    from device_tests import pipeline

    return pipeline.enrol(name, inventory, yes=yes)


@_command()
def models(_: Context) -> int:
    """List models with source and licence, and schemes."""
    from device_tests import pipeline

    return pipeline.list_models()


@_command(
    more={"name": "klaus-2014, squeezenet or lite0", "mirror": "another URL, or a folder, that holds the files"},
    positional=["name"],
)
def fetch_model(_: Context, name: str, mirror: str = "") -> int:
    """Fetch a public model; checked, resumed if cut short."""
    from device_tests import pipeline

    return pipeline.fetch_model(name, mirror)


@_command("scheme", more={"source": "a model's name or file", "out": "folder of the package"}, positional=["source"])
def quantize(_: Context, source: str, scheme: str = "", out: str = "build/packages") -> int:
    """Make a package (sqlite3 + PNG) from a model."""
    from device_tests import pipeline

    return pipeline.quantize(source, scheme, ROOT / out)


@_command(
    "model",
    more={
        "model": "a model's name or file (repeatable; default: lite0)",
        "images": "photos WNID/*.jpg",
        "calibration": "folder of other photos, unlabelled: schemes q6 and below need them",
        "scheme": "a row, as klaus-8, klaus-mixed, q8, q4 (repeatable; default: all that fit)",
        "limit": "only so many photos, the first by class and name",
        "out": "folder of the page and its chart",
    },
    positional=["images"],
    repeat=["scheme"],
)
def quant_table(
    _: Context,
    images: str,
    model: Sequence[str] | None = None,
    calibration: str = "",
    scheme: Sequence[str] | None = None,
    limit: int = 0,
    out: str = "docs",
) -> int:
    """Draw size against accuracy, a row a scheme."""
    from klaus_runtime.cli import main as klaus

    words = [f"--images={images}", f"--out={out}", *(f"--scheme={name}" for name in scheme or ())]
    words += [f"--calibration={calibration}"] if calibration else []
    words += [f"--limit={limit}"] if limit else []
    return max(klaus(["quant-table", source, *words]) for source in model or ("lite0",))


@_command(more={"run": "a folder of results/ (default: the last run)"}, positional=[])
def report(_: Context, run: str = "") -> int:
    """Draw the report of a run again from its journal."""
    from device_tests import pipeline

    return pipeline.redraw(run)


@_command("precision", "memory", "inventory", "yes")
def nightly(
    _: Context,
    precision: Sequence[str] | None = None,
    memory: str = "default",
    inventory: str = "",
    yes: bool = False,
) -> int:
    """Everything on all devices; exit by worst status."""
    from device_tests import pipeline

    order = pipeline.Order.asked(precisions=precision, memory=memory, inventory=inventory, yes=yes)
    return pipeline.nightly(order)


@_command()
def doctor(_: Context) -> int:
    """Say what is missing here and what mends it."""
    from toolchains.doctor import examine

    return examine()


def _run(*argv: str) -> int:
    """Runs a Python tool of this environment in the project's folder; what it says goes straight through."""
    sys.stderr.write(f"$ {argv[0]} {' '.join(a for a in argv[1:] if not a.endswith(('.c', '.h')))}\n")
    return subprocess.run([Path(sys.executable).parent / argv[0], *argv[1:]], cwd=ROOT, check=False).returncode


def _static_checks() -> int:
    """1 where a format, lint, type or import check failed; all of them run."""
    listed = subprocess.run(["git", "ls-files", "*.c", "*.h"], cwd=ROOT, capture_output=True, check=True, text=True)
    sources = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    codes = [
        _run("clang-format", "--dry-run", "-Werror", *sources),
        _run("ruff", "format", "--check", "."),
        _run("ruff", "check", "."),
        _run("mypy"),
        _run("lint-imports", "--no-cache"),
    ]
    return int(any(codes))


@_command("yes")
def check(_: Context, yes: bool = False) -> int:
    """Quick gate: format, lint, types, tests, kernels."""
    from device_tests import pipeline
    from toolchains import setup

    setup.require_developer_tools()
    setup.require_system(ask=not yes)
    return int(any([_static_checks(), pipeline.check_kernels(), _run("pytest", "-q", "-m", "not slow")]))


@_command("yes", name="test")
def run_tests(_: Context, yes: bool = False) -> int:
    """All checks and all tests, the ARM board too."""
    from toolchains import setup

    setup.require_developer_tools()
    setup.require_system(ask=not yes, tests=True)
    setup.require_extra("ios-emulator", "unicorn")
    return int(any([_static_checks(), _run("pytest", "-q")]))  # pytest last: its closing line is the last one


@_command(
    "model",
    "scheme",
    "cpu",
    "precision",
    "memory",
    "job",
    more={
        "isa": "highest instruction set to use, as klaus-run's --isa (default: auto)",
        "precision": "fp32, fp16 or int8 (repeatable; default: all that the core has)",
        "layers": "how many of the most expensive layers to show (default: 8)",
        "update-baseline": "store the counts as the committed baseline and in docs/instructions.md",
    },
)
def count(
    _: Context,
    model: Sequence[str] | None = None,
    scheme: str = "",
    cpu: Sequence[str] | None = None,
    precision: Sequence[str] | None = None,
    isa: str = "auto",
    memory: str = "default",
    job: Sequence[str] | None = None,
    layers: int = 8,
    update_baseline: bool = False,
) -> int:
    """Count what a pass executes, beside the peers."""
    from device_tests.count import job as counting

    return counting.count(
        counting.CountOrder(
            models=tuple(model or ()),
            scheme=scheme,
            cpus=tuple(cpu or ()),
            precisions=tuple(precision or ()),
            isa=isa,
            memory=memory,
            jobs=tuple(job or ()),
            layers=layers,
            update=update_baseline,
        )
    )


@_command(more={"symbol": "loops of functions or files called so (default: gemm)", "cpu": "default: neoverse-n1"})
def mca(_: Context, symbol: str = "", cpu: str = "") -> int:
    """Multiply-adds a cycle of the inner loops."""
    from device_tests.count import mca as loops

    return loops.mca(symbol, cpu)


@_command()
def clean(_: Context) -> None:
    """Remove build/ and tool caches; results/ stays."""
    for name in CLEANED:
        shutil.rmtree(ROOT / name, ignore_errors=True)


devices = Collection("devices")
devices.add_task(list_devices)
devices.add_task(enrol)
namespace = Collection(
    build,
    deploy,
    bench,
    deploy_and_bench,
    devices,
    models,
    fetch_model,
    quantize,
    quant_table,
    report,
    nightly,
    doctor,
    run_tests,
    check,
    count,
    mca,
    clean,
)


class _Tasks(Program):
    """Invoke, except that wrong usage ends with 2, as everywhere in this project."""

    def parse_core(self, argv: list[str] | None) -> None:
        try:
            super().parse_core(argv)
        except ParseError as error:
            raise Exit(_shown(str(error)), code=USAGE_ERROR) from None

    def parse_tasks(self) -> None:
        try:
            super().parse_tasks()
        except (ParseError, ValueError) as error:  # ValueError: an option that must be a number
            raise Exit(_shown(str(error)), code=USAGE_ERROR) from None


def _refuse_bad_values(words: Sequence[str]) -> None:
    """Ends with USAGE_ERROR for a value that is missing, or is no number where one is wanted.

    Invoke takes a repeatable option without a value for one that was not given at all, and its message about a number
    does not say which option is meant.
    """
    for at, word in enumerate(words):
        option, given, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or option not in (*REPEATABLE, *NUMBERS):
            continue
        value = value if given else "".join(words[at + 1 : at + 2])
        next_option = not given and value.startswith("--" if option in NUMBERS else "-")  # -3 is a number
        if not value or next_option:
            raise Exit(f"--{option}: a value is missing; {HELP[option]}", code=USAGE_ERROR)
        if option in NUMBERS and not re.fullmatch("-?[0-9]{1,9}", value):
            raise Exit(_shown(f"--{option} {value!r}: give a whole number"), code=USAGE_ERROR)


def _help_first(words: Sequence[str]) -> list[str]:
    """TASK --help as --help TASK: a task that wants a word would else take --help for it."""
    if {"--help", "-h"} & set(words):
        named = [word for word in words if not word.startswith("-")]
        return ["--help", *named[:1]]
    return list(words)


def main(words: Sequence[str]) -> None:
    """./inv WORDS; ends by SystemExit."""
    os.chdir(ROOT)
    try:
        _refuse_bad_values(words)
    except Exit as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.code)
    _Tasks(name="inv", binary="inv").run(["inv", *_help_first(words)])


if __name__ == "__main__":
    main(sys.argv[1:])
