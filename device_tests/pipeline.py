"""The main job and its parts as the tasks call them: each function is one task and returns its exit code.

build -> fetch, quantize, package, pack -> deploy -> suites -> report. What a step makes is kept under a key of its
content, so that a second run repeats the measurements and little else.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from device_tests import inventory, prepare, run
from device_tests.deploy import PROGRAM, planned
from device_tests.deploy import deploy as send
from device_tests.devices import make_device, open_device
from device_tests.devices.spec import DeviceSpec, OfferedKey
from device_tests.devices.text import printable, shown
from device_tests.errors import HarnessError, InventoryError
from device_tests.plan import (
    MEMORIES,
    PRECISIONS,
    SUITES,
    BuildPlan,
    Crop,
    Memory,
    ModelPlan,
    Precision,
    Profile,
    RunPlan,
)
from device_tests.program import Program
from klaus_runtime.package import write_package
from klaus_runtime.quantize import SCHEMES
from klaus_runtime.registry import MODELS
from klaus_runtime.registry import fetch_model as fetch_files
from toolchains import detect, setup
from toolchains.build import Build
from toolchains.build import build as compile_targets
from toolchains.errors import ToolchainError
from toolchains.manifest import read_manifest
from toolchains.target import load_targets, select_targets

ROOT = Path(__file__).resolve().parent.parent
BUILD, CACHE, RESULTS = ROOT / "build", ROOT / ".cache", ROOT / "results"
DEFAULT_MODELS = ("lite0", "klaus-mobile")
CHECKED_TARGET = "linux-aarch64"
USAGE_ERROR = 2


def _say(message: str) -> None:
    """Progress, for people: on stderr. What paths, files and devices say in it is escaped."""
    sys.stderr.write(shown(message) + "\n")
    sys.stderr.flush()


def _print(line: str) -> None:
    """An answer: on stdout, escaped too."""
    sys.stdout.write(shown(line) + "\n")


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked of the main job; every word is checked before anything runs."""

    targets: tuple[str, ...]
    devices: tuple[DeviceSpec, ...]
    models: tuple[str, ...]
    scheme: str
    suites: tuple[str, ...]
    profile: Profile | None
    photos: Path | None
    crop: Crop
    precisions: tuple[Precision, ...]
    memory: Memory
    dry_run: bool
    yes: bool

    @staticmethod
    def asked(
        targets: Sequence[str] | None = None,
        devices: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        scheme: str = "",
        suites: Sequence[str] | None = None,
        profile: str = "",
        *,
        photos: str = "",
        crop: str = "center",
        precisions: Sequence[str] | None = None,
        memory: str = "default",
        inventory: str = "",
        dry_run: bool = False,
        yes: bool = False,
    ) -> Order:
        """From options as they were typed, "" and None where one was not; raises InventoryError, InputError."""
        known = load_targets()
        chosen = [target.name for target in select_targets(tuple(targets or ()), known)]
        farm = _inventory(inventory).select(devices or ())
        if chosen and not devices:
            farm = [spec for spec in farm if spec.target in chosen]
            if not farm:
                raise InventoryError(f"no device of the farm runs {', '.join(chosen)}; add one to devices.toml")
        for source in models or ():
            if source not in MODELS and not Path(source).is_file():
                raise InventoryError(f"model {source!r}: no file, and no name of {', '.join(MODELS)}")
        for suite in suites or ():
            _one_of("suite", suite, SUITES)
        for precision in precisions or ():
            _one_of("precision", precision, PRECISIONS)
        if photos and not Path(photos).is_dir():
            raise InventoryError(f"photos: {photos} is no folder; give one that holds WNID/*.jpg")
        for source in models or DEFAULT_MODELS:
            prepare.scheme_for(source, scheme)
        return Order(
            targets=tuple(chosen),
            devices=tuple(farm),
            models=tuple(dict.fromkeys(models or DEFAULT_MODELS)),
            scheme=scheme,
            suites=tuple(dict.fromkeys(suites or SUITES)),
            profile=cast(Profile, _one_of("profile", profile, get_args(Profile))) if profile else None,
            photos=Path(photos).resolve() if photos else None,
            crop=cast(Crop, _one_of("crop", crop, get_args(Crop))),
            precisions=cast("tuple[Precision, ...]", tuple(dict.fromkeys(precisions or ("fp32",)))),
            memory=cast(Memory, _one_of("memory", memory, MEMORIES)),
            dry_run=dry_run,
            yes=yes,
        )


def _one_of(what: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise InventoryError(f"{what} {given!r} is unknown: there are {', '.join(known)}")
    return given


def _inventory(file: str) -> inventory.Inventory:
    return inventory.load(Path(file) if file else None, cache=CACHE)


def build(targets: Sequence[str], *, jobs: int | None, dry_run: bool) -> int:
    """Builds targets, by default all that this computer can build. Raises InventoryError for jobs below 1."""
    if jobs is not None and jobs < 1:
        raise InventoryError(f"jobs {jobs}: give 1 or more commands at once, or none for one a core")
    for made in compile_targets(targets, root=ROOT, out=BUILD, jobs=jobs, dry_run=dry_run, progress=_say):
        if not dry_run:
            _print(f"{made.target.name}: {made.program.relative_to(ROOT)}, {made.program.stat().st_size} bytes")
    return 0


def deploy(order: Order) -> int:
    """Builds and prepares what the devices need and sends it; a device that fails does not stop the others."""
    if order.dry_run:
        return _show(order, suites=())
    setup.require_system(ask=not order.yes)
    builds, models = _builds(order), _models(order)
    worst = 0
    for spec in order.devices:
        files = {PROGRAM: builds[spec.target].program, **{model.packed.name: model.packed for model in models}}
        try:
            with open_device(spec) as device:
                done = send(device, files)
        except HarnessError as error:
            _say(f"error: {error}")
            worst = max(worst, error.exit_code)
        else:
            _print(f"{spec.name}: {done.sent_bytes} bytes sent, {done.skipped_bytes} were there already")
    return worst


def deploy_and_bench(order: Order) -> int:
    """The main job; the report goes to stdout and results/RUN."""
    if order.dry_run:
        return _show(order, order.suites)
    setup.require_system(ask=not order.yes)
    builds = {target: _build_plan(made) for target, made in _builds(order).items()}
    plan = RunPlan(
        devices=order.devices,
        builds=builds,
        models=tuple(_models(order)),
        results=RESULTS,
        suites=order.suites,
        profile=order.profile,
        photos=order.photos,
        crop=order.crop,
        precisions=order.precisions,
        memory=order.memory,
        command=shlex.join(["./inv", *sys.argv[1:]]),
        commit=next((made.commit for made in builds.values()), ""),
    )
    return run.run_suites(plan).exit_code


def nightly(order: Order) -> int:
    """Builds all that this computer can build, then does the main job; what does not build costs no measurement."""
    setup.require_system(ask=not order.yes)
    try:
        built = build((), jobs=None, dry_run=False)
    except ToolchainError as error:
        _say(f"error: {error}")
        built = error.exit_code
    return max(built, deploy_and_bench(order))


def _builds(order: Order) -> dict[str, Build]:
    """What was asked for and what the devices need, by target.

    A target that only some device needs and that cannot be built here costs that device's records, not the run.
    """
    targets = load_targets()
    names = list(order.targets)
    for name in dict.fromkeys(spec.target for spec in order.devices):
        obstacle = detect.why_not(targets[name]) if name in targets else f"no target {name}"
        if name not in names and obstacle and len({spec.target for spec in order.devices}) > 1:
            _say(f"devices of target {name} are left out: {obstacle}")
        elif name not in names:
            names.append(name)
    _say(f"building {', '.join(names)}")
    return {made.target.name: made for made in compile_targets(names, root=ROOT, out=BUILD)}


def _build_plan(made: Build) -> BuildPlan:
    told = read_manifest(made.manifest)
    return BuildPlan(
        target=told.target,
        program=made.program,
        program_sha256=told.files[made.program.name].sha256,
        commit=told.commit + ("+changes" if told.dirty else ""),
        compiler=f"{told.compiler} {told.compiler_version}",
        flags=shlex.join(told.flags.get("common", [])),
    )


def _models(order: Order) -> list[ModelPlan]:
    return [
        prepare.prepare(source, order.scheme, CACHE, _say, calibrated=_calibrated(order, source))
        for source in order.models
    ]


def _calibrated(order: Order, source: str) -> bool:
    """int8 needs activation ranges: models known by name get them here, from the demonstration photos.

    A user's file does not: which photos its ranges are measured on is not ours to choose.
    """
    return "int8" in order.precisions and source in MODELS


def _show(order: Order, suites: Sequence[str]) -> int:
    """--dry-run: the compiler's command lines, then those that would copy to each device and run there."""
    names = tuple(dict.fromkeys([*order.targets, *(spec.target for spec in order.devices)]))
    compile_targets(names, root=ROOT, out=BUILD, dry_run=True)
    packed = [
        prepare.planned(source, order.scheme, CACHE, calibrated=_calibrated(order, source)) for source in order.models
    ]
    for spec in order.devices:
        device = make_device(spec)
        plan = planned(device, {PROGRAM: BUILD / spec.target / PROGRAM, **{path.name: path for path in packed}})
        for line in plan.lines:
            _print(line)
        program = str(plan.paths[PROGRAM])
        for name in suites:
            for model in (str(plan.paths[path.name]) for path in packed):
                words = [program, *(model if word == "MODEL" else word for word in _COMMANDS[name])]
                for options in _options(order) if name != "conformance" else [()]:
                    _print(device.describe([*words, *options]))
    return 0


def _options(order: Order) -> list[tuple[str, ...]]:
    """Of the program, for each precision; nothing where that is what it does anyway."""
    usual = ("--precision", "fp32", "--memory", "default")
    found = [("--precision", precision, "--memory", order.memory) for precision in order.precisions]
    return [() if options == usual else options for options in found]


# What each suite mainly runs on a device, for --dry-run.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "conformance": ("verify", "MODEL"),
    "agreement": ("activations", "--model", "MODEL", "--input", "X.f32", "--out", "DIR"),
    "timing": ("bench", "--model", "MODEL"),
    "accuracy": ("classify", "--model", "MODEL", "--images", "BATCH"),
}


def list_devices(file: str) -> int:
    """Asks every device whether it is there and, where its program is built, who it is."""
    worst = 0
    for spec in _inventory(file).select():
        try:
            answer = _ask(spec)
        except HarnessError as error:
            answer = f"no: {error}"
            worst = max(worst, error.exit_code)
        _print(f"{spec.name:<16} {spec.kind:<10} {spec.target:<14} {answer}")
    return worst


def _ask(spec: DeviceSpec) -> str:
    program = BUILD / spec.target / PROGRAM
    with open_device(spec) as device:
        if not program.exists():
            return "answers"
        told = Program(device, send(device, {PROGRAM: program}).program).info()
    memory = f"{told.memory_bytes / 2**30:.1f} GiB"
    return printable(f"answers: {told.cpus} x {told.core}, {memory}, {' '.join(told.isa)}", 200)


def enrol(name: str, file: str, *, yes: bool) -> int:
    """Pins the host key of a device once a person has agreed."""

    def confirm(spec: DeviceSpec, offered: OfferedKey) -> bool:
        _say(f"{spec.name} shows the host key {offered.fingerprint}")
        _say(
            "compare it with what the device itself says, for example: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
        )
        if yes:
            return True
        if not setup.someone_is_there():
            _say("nobody is there to agree; run it in a terminal, or with --yes once you have compared")
            return False
        return setup.agreed("Is it the same? Pin it?", default=False)

    if inventory.enrol(name, confirm, path=Path(file) if file else None) is None:
        _say("nothing was pinned")
        return USAGE_ERROR
    _say(f"pinned; ./inv devices asks {name} now")
    return 0


def list_models() -> int:
    """Names, sources and licences, then the schemes."""
    for entry in MODELS.values():
        default = prepare.DEFAULT_SCHEMES.get(entry.name, prepare.AS_IT_IS)
        _print(f"{entry.name:<14} {entry.description}")
        _print(f"{'':<14} source: {entry.source}; licence: {entry.licence}; quantized by default as {default}")
        _print(f"{'':<14} {entry.digest}")
    _print("")
    _print(f"{prepare.AS_IT_IS:<14} weights as the source has them")
    for name, description in SCHEMES.items():
        _print(f"{name:<14} {description}")
    return 0


def fetch_model(name: str, mirror: str) -> int:
    """Fetches a model's files and says where they are; progress goes to stderr."""
    done: dict[str, int] = {}

    def progress(file: str, have: int, total: int | None) -> None:
        tenth = 10 * have // total if total else have >> 20
        if done.get(file) != tenth:  # a line a tenth, or a MiB where the size is not known
            done[file] = tenth
            share = f"{have / total:.0%} of {total:,}" if total else f"{have:,}"
            sys.stderr.write(f"{file}: {share} bytes\n")

    for path in fetch_files(name, mirror=mirror or None, progress=progress):
        _print(f"{path.stat().st_size:>12,}  {path}")
    return 0


def quantize(source: str, scheme: str, out: Path) -> int:
    """Writes the package of a model and says what it weighs."""
    chosen = prepare.scheme_for(source, scheme)
    package = write_package(prepare.quantized(source, chosen, _say), out, effort="best")
    for path in package.files:
        _print(f"{path.stat().st_size:>12,}  {path}")
    _print(f"{package.total_bytes:>12,}  bytes in all, scheme {chosen}")
    return 0


def redraw(name: str) -> int:
    """Draws the report of a run again from its journal; without a name, of the last one."""
    return run.redraw(RESULTS, name)


def check_kernels() -> int:
    """Every kernel variant against its reference, under qemu's user mode."""
    compile_targets([CHECKED_TARGET], root=ROOT, out=BUILD)
    spec = DeviceSpec("kernel-check", "qemu-user", CHECKED_TARGET, {}, CACHE)
    with open_device(spec) as device:
        done = Program(device, send(device, {PROGRAM: BUILD / CHECKED_TARGET / PROGRAM}).program).check()
    for variant in done.variants:
        if not variant.ok:
            _say(printable(f"{variant.variant} ({variant.op}, {variant.isa}): {variant.message}", 400))
    _say(f"klaus-run check: {done.summary.passed} variants passed, {done.summary.failed} failed")
    return int(done.summary.failed > 0)
