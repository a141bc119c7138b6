"""`./inv count`: what a pass of a network executes on this project's kernels, layer by layer and class by class.

The device program runs under qemu's user mode with the instruction counter. Counts say nothing about time, but they
repeat to the instruction: that is what the committed baseline and the comparison with the peers rest on.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from device_tests import prepare
from device_tests.count.files import (
    BASELINE,
    read_baseline,
    read_goals,
    read_peers,
    rises,
    write_baseline,
)
from device_tests.count.measure import FULL_CONNECTS, JOBS, Counted, Setting, full_connects, measure
from device_tests.count.tables import document, tables_of
from device_tests.deploy import PROGRAM, deploy
from device_tests.devices.counting import Counts
from device_tests.devices.qemu_user import make as make_qemu_user
from device_tests.devices.spec import DeviceSpec, check_word
from device_tests.errors import InventoryError
from device_tests.plan import PRECISIONS, ModelPlan
from device_tests.program import Program
from device_tests.results import new_folder, write_text
from reports import journal
from reports.formats.table_console import print_tables
from reports.record import Attribute, Record, Status, clip, now
from toolchains.build import build

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD, CACHE, RESULTS, DOCUMENT = ROOT / "build", ROOT / ".cache", ROOT / "results", ROOT / "docs" / "instructions.md"
TARGET = "linux-aarch64"
DEFAULT_ROWS = (("lite0", "float"), ("lite0", "q4"), ("klaus-mobile", "klaus-mixed"))
DEFAULT_CPUS = ("cortex-a53", "cortex-a76", "max")
# What is counted where nothing else is asked: the A53 does not compute in halves; max stands for cores that multiply
# matrices of int8 and is no other than the A76 besides.
PRECISIONS_OF = {"cortex-a53": ("fp32", "int8"), "max": ("int8",)}


@dataclass(frozen=True, slots=True)
class CountOrder:
    """What was asked of `./inv count`; empty fields mean the defaults."""

    models: tuple[str, ...] = ()
    scheme: str = ""
    cpus: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    isa: str = "auto"
    memory: str = "default"
    jobs: tuple[str, ...] = ()
    layers: int = 8  # the most expensive ones that are shown
    update: bool = False

    def __post_init__(self) -> None:
        for what, given, known in (("job", self.jobs, tuple(JOBS)), ("precision", self.precisions, PRECISIONS)):
            unknown = [word for word in given if word not in known]
            if unknown:
                raise InventoryError(f"{what} {', '.join(unknown)!r} is unknown: there are {', '.join(known)}")
        for word in (*self.cpus, self.isa, self.memory):
            if check_word(word) is not None:
                raise InventoryError(f"{word!r}: {check_word(word)}")
        for model, scheme in self.rows():
            prepare.scheme_for(model, scheme)

    def rows(self) -> list[tuple[str, str]]:
        """Models with their schemes."""
        usual = [row for row in DEFAULT_ROWS if not self.models or row[0] in self.models]
        if self.scheme:
            return [(model, self.scheme) for model in self.models or dict.fromkeys(row[0] for row in DEFAULT_ROWS)]
        return usual + [(model, "") for model in self.models if model not in {row[0] for row in DEFAULT_ROWS}]

    def precisions_of(self, cpu: str) -> Sequence[str]:
        """What is counted on a CPU."""
        return self.precisions or PRECISIONS_OF.get(cpu, PRECISIONS)


def count(order: CountOrder) -> int:
    """Builds, prepares, counts, prints, journals; 1 where a count rose above the committed baseline."""
    (made,) = build([TARGET], root=ROOT, out=BUILD, progress=_say)
    calibrated = not order.precisions or "int8" in order.precisions
    models = [prepare.prepare(*row, CACHE, _say, calibrated=calibrated) for row in order.rows()]
    counted = measure_all(order, made.program, models)
    folder = _journal(counted, models)
    baseline = read_baseline()
    print_tables(tables_of(counted, baseline, read_goals(), read_peers(), order.layers))
    _say(f"records: {folder.relative_to(ROOT)}/{journal.NAME}")
    measured = {each.setting: each.counts for each in counted if each.parts}
    if order.update:
        baseline |= measured
        write_baseline(baseline)
        write_text(DOCUMENT, document(read_baseline(), read_goals(), read_peers()))  # in the order of the file
        _say(f"written: {BASELINE.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")
        return 0
    risen = rises(measured, baseline)
    for line in risen:
        _say(f"error: {line}")
    if risen:
        _say("a change that is worth it brings its new baseline: ./inv count --update-baseline")
    return int(bool(risen))


def measure_all(order: CountOrder, program: Path, models: Sequence[ModelPlan]) -> list[Counted]:
    """Every setting of the order, CPUs side by side; results by model, then job, CPU and precision."""
    cpus = order.cpus or DEFAULT_CPUS
    with ThreadPoolExecutor(len(cpus)) as pool:
        found = list(pool.map(lambda cpu: list(_measure_cpu(order, cpu, program, models)), cpus))
    each = [counted for one in found for counted in one]
    place = {(model.name, model.scheme): number for number, model in enumerate(models)}
    jobs = [*JOBS, FULL_CONNECTS]
    return sorted(
        each,
        key=lambda one: (
            place[one.setting.model, one.setting.scheme],
            jobs.index(one.setting.job),
            cpus.index(one.setting.cpu),
            PRECISIONS.index(one.setting.precision),
        ),
    )


def _measure_cpu(order: CountOrder, cpu: str, program: Path, models: Sequence[ModelPlan]) -> Iterator[Counted]:
    device = make_qemu_user(DeviceSpec(f"count-{cpu}", "qemu-user", TARGET, {"cpu": cpu, "count": True}, CACHE))
    device.open()
    try:
        sent = deploy(device, {PROGRAM: program, **{_file(model): model.packed for model in models}})
        for model in models:
            for job in order.jobs or JOBS:
                if JOBS[job] > model.patches:
                    continue
                for precision in order.precisions_of(cpu):
                    setting = Setting(model.name, model.scheme, job, cpu, precision, order.isa, order.memory)
                    _say(f"counting {setting}")
                    counted = measure(device, Program(device, sent.program), sent.paths[_file(model)], setting)
                    yield counted
                    if job == "10-patch" and counted.parts:
                        yield full_connects(counted)
    finally:
        device.close()


def _file(model: ModelPlan) -> str:
    return f"{model.id}.klaus"


def _journal(counted: Sequence[Counted], models: Sequence[ModelPlan]) -> Path:
    """The run's records, below results/count/."""
    folder = new_folder(RESULTS / "count")
    with journal.Journal(folder / journal.NAME) as writer:
        for record in records_of(folder.name, counted, models):
            writer.append(record)
    return folder


def records_of(run: str, counted: Sequence[Counted], models: Sequence[ModelPlan]) -> Iterator[Record]:
    """Instructions and slots of each pass, and of each layer of it with its classes as attributes."""
    hashes = {(model.name, model.scheme): model.sha256 for model in models}
    command = {"command": clip(shlex.join(["./inv", *sys.argv[1:]]))}
    yield Record(run=run, time=now(), metric="run", status=Status.DONE, attributes=command)
    for each in counted:
        setting = each.setting
        told: dict[str, Attribute] = {
            "job": setting.job,
            "cpu": setting.cpu,
            "precision": setting.precision,
            "isa": setting.isa,
            "memory": setting.memory,
            "threads": 1,
        }

        def fact(
            metric: str,
            counts: Counts | None,
            *,
            of: Setting = setting,
            told: Mapping[str, Attribute] = told,
            subject: str = "",
            message: str = "",
        ) -> Record:
            value = None if counts is None else counts.slots if metric == "slots" else counts.instructions
            return Record(
                run=run,
                time=now(),
                metric=metric,
                status=Status.SKIP if counts is None else Status.DONE,
                device=f"count-{of.cpu}",
                kind="qemu-user",
                target=TARGET,
                emulated=True,
                suite="count",
                model=of.model,
                model_sha256=hashes.get((of.model, of.scheme)),
                scheme=of.scheme,
                subject=clip(subject, 200),
                value=value,
                message=clip(message),
                attributes={**told, **(counts.of if counts is not None and metric == "instructions" else {})},
            )

        if each.unavailable:
            yield fact("instructions", None, message=each.unavailable)
            continue
        yield fact("instructions", each.counts)
        yield fact("slots", each.counts)
        for part in each.parts:
            subject = part.name if part.index is None else f"layer {part.index} {part.name}"
            yield fact("instructions", part.counts, subject=subject)


def _say(message: str) -> None:
    """Progress, for people: on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
