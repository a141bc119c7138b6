"""Timing and memory: cold load, first inference, warm-ups, raw samples; one pass, and the 10-patch job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from device_tests.plan import ModelPlan
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


def test_passes(context: Context, remote: Remote, model: ModelPlan) -> None:
    """One patch through the net, in a new process."""
    repeats = PASSES[context.profile, model.patches == 10]
    bench = _bench(context, remote, model, repeats, patches=None)
    conditions = _conditions(bench)
    load = bench.load
    for metric, value in (
        ("open_ns", load.open_ns),
        ("session_ns", load.session_ns),
        ("load_ns", load.open_ns + load.session_ns),
        ("first_inference_ns", bench.passes[0].ns),
    ):
        context.emit(metric, model=model, value=value, attributes=conditions)
    measured = [p for p in bench.passes if not p.warmup]
    _emit_samples(context, "pass_ns", model, [p.ns for p in measured], conditions)
    _emit_executed(context, model, measured, conditions)
    for metric, value in (
        ("peak_resident_bytes", bench.memory.peak_resident_bytes),
        ("resident_bytes", bench.memory.resident_bytes),
        ("session_bytes", bench.memory.session_bytes),
    ):
        context.emit(metric, model=model, value=value, attributes=conditions)


def test_ten_patches(context: Context, remote: Remote, model: ModelPlan) -> None:
    """A picture through the whole 10-patch job."""
    if model.patches != 10:
        pytest.skip(f"{model.name} looks at one patch")
    bench = _bench(context, remote, model, TEN_PATCH_JOBS[context.profile], patches=10)
    conditions = _conditions(bench)
    measured = [p for p in bench.passes if not p.warmup]
    _emit_samples(context, "ten_patch_ns", model, [p.ns for p in measured], conditions)
    _emit_samples(context, "preprocess_ns", model, [p.preprocess_ns for p in measured], conditions)
    _emit_executed(context, model, measured, conditions)
    context.emit(
        "peak_resident_bytes",
        model=model,
        subject="10-patch job",
        value=bench.memory.peak_resident_bytes,
        attributes=conditions,
    )


def _bench(context: Context, remote: Remote, model: ModelPlan, repeats: Repeats, *, patches: int | None) -> Bench:
    job = "10-patch job" if patches == 10 else "pass"
    context.doing(f"{model.id}: loading")

    def show(record: Record) -> None:
        if isinstance(record, PassRecord):
            done = record.index + 1
            context.doing(f"{model.id}: {job} {done} of {repeats.warmup + repeats.runs}, {record.ns / 1e6:.0f} ms")

    return remote.program.bench(
        remote.packed(model),
        runs=repeats.runs,
        warmup=repeats.warmup,
        threads=THREADS,
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
    context: Context, metric: str, model: ModelPlan, samples: Sequence[int], conditions: dict[str, Attribute]
) -> None:
    context.emit(metric, model=model, value=median(samples), samples=samples, attributes=conditions)


def _emit_executed(
    context: Context, model: ModelPlan, passes: Sequence[PassRecord], conditions: dict[str, Attribute]
) -> None:
    """What the device's own counters saw; nothing where it has none for us."""
    for metric in ("instructions", "cycles"):
        samples = [counted for p in passes if (counted := getattr(p, metric)) is not None]
        if len(samples) == len(passes):
            _emit_samples(context, metric, model, samples, conditions)
