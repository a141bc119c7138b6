"""Timing and memory: cold load, first inference, warm-ups, raw samples; one pass, and the 10-patch job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from device_tests.plan import Trial
from device_tests.program import Bench
from device_tests.program_records import PassRecord, Record
from device_tests.suites.context import Context, Remote
from reports.record import Attribute
from reports.stats import median

TIMEOUT_S = 1800.0
THREADS = 1


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a thing is measured."""

    warmup: int
    runs: int


# (profile, the model is one of 10 patches): the quick ones suit an emulator
PASSES = {
    ("quick", False): Repeats(1, 3),
    ("quick", True): Repeats(1, 1),
    ("normal", False): Repeats(5, 50),
    ("normal", True): Repeats(2, 20),
}
TEN_PATCH_JOBS = {"quick": Repeats(0, 1), "normal": Repeats(1, 20)}


def test_passes(context: Context, remote: Remote, trial: Trial) -> None:
    """One patch through the net, in a new process."""
    repeats = PASSES[context.profile, trial.model.patches == 10]
    bench = _bench(context, remote, trial, repeats, patches=None)
    conditions = _conditions(bench)
    load = bench.load
    for metric, value in (
        ("open_ns", load.open_ns),
        ("session_ns", load.session_ns),
        ("load_ns", load.open_ns + load.session_ns),
        ("first_inference_ns", bench.passes[0].ns),
    ):
        context.emit(metric, trial=trial, value=value, attributes=conditions)
    measured = [p for p in bench.passes if not p.warmup]
    _emit_samples(context, "pass_ns", trial, [p.ns for p in measured], conditions)
    _emit_executed(context, trial, measured, conditions)
    for metric, value in (
        ("peak_resident_bytes", bench.memory.peak_resident_bytes),
        ("resident_bytes", bench.memory.resident_bytes),
        ("session_bytes", bench.memory.session_bytes),
    ):
        context.emit(metric, trial=trial, value=value, attributes=conditions)
    _emit_anonymous(context, trial, bench, "")


def test_ten_patches(context: Context, remote: Remote, trial: Trial) -> None:
    """A picture through the whole 10-patch job."""
    if trial.model.patches != 10:
        pytest.skip(f"{trial.model.name} looks at one patch")
    bench = _bench(context, remote, trial, TEN_PATCH_JOBS[context.profile], patches=10)
    conditions = _conditions(bench)
    measured = [p for p in bench.passes if not p.warmup]
    _emit_samples(context, "ten_patch_ns", trial, [p.ns for p in measured], conditions)
    _emit_samples(context, "preprocess_ns", trial, [p.preprocess_ns for p in measured], conditions)
    _emit_executed(context, trial, measured, conditions)
    context.emit(
        "peak_resident_bytes",
        trial=trial,
        subject="10-patch job",
        value=bench.memory.peak_resident_bytes,
        attributes=conditions,
    )
    _emit_anonymous(context, trial, bench, "10-patch job")


def _emit_anonymous(context: Context, trial: Trial, bench: Bench, subject: str) -> None:
    if bench.memory.anonymous_bytes:
        value = bench.memory.anonymous_bytes
        context.emit("anonymous_bytes", trial=trial, subject=subject, value=value, attributes=_conditions(bench))


def _bench(context: Context, remote: Remote, trial: Trial, repeats: Repeats, *, patches: int | None) -> Bench:
    job = "10-patch job" if patches == 10 else "pass"
    context.doing(f"{trial.id}: loading")

    def show(record: Record) -> None:
        if isinstance(record, PassRecord):
            done = record.index + 1
            context.doing(f"{trial.id}: {job} {done} of {repeats.warmup + repeats.runs}, {record.ns / 1e6:.0f} ms")

    return remote.program.bench(
        remote.packed(trial.model),
        runs=repeats.runs,
        warmup=repeats.warmup,
        threads=THREADS,
        precision=trial.precision,
        options=("--memory", trial.memory, "--layer-memory"),
        patches=patches,
        on_record=show,
        timeout_s=TIMEOUT_S,
    )


def _conditions(bench: Bench) -> dict[str, Attribute]:
    result = bench.result
    return {
        "threads": result.threads,
        "isa": result.isa,
        "precision": result.precision,
        "job": result.job,
        "warmup": result.warmup,
        "runs": result.runs,
        "counter": result.counter,
    }


def _emit_samples(
    context: Context, metric: str, trial: Trial, samples: Sequence[int], conditions: dict[str, Attribute]
) -> None:
    context.emit(metric, trial=trial, value=median(samples), samples=samples, attributes=conditions)


def _emit_executed(
    context: Context, trial: Trial, passes: Sequence[PassRecord], conditions: dict[str, Attribute]
) -> None:
    """What the device's own counters saw; nothing where it has none for us."""
    for metric in ("instructions", "cycles"):
        samples = [counted for p in passes if (counted := getattr(p, metric)) is not None]
        if len(samples) == len(passes):
            _emit_samples(context, metric, trial, samples, conditions)
