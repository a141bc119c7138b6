"""What a report says, worked out once from a run's records; the formats only draw it.

A Page holds finished texts where all formats show the same text, and numbers where a format may choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reports.compare import Change, last_change
from reports.origin import EMULATED, SEEDED, Origin, notes, origins, reproduce
from reports.record import METRICS, Attribute, Record, Status
from reports.stats import PERCENTILE_SAMPLES, Summary, summarise
from reports.verdict import (
    REPEATED,
    Judgement,
    Key,
    Verdict,
    bare,
    by_message,
    causes_first,
    exit_code,
    judge_all,
    mode,
    place,
    tests,
    unusual,
)
from reports.words import NOTHING, amount, duration, many, share, signed_share, small, word

REFERENCE_TITLES = ("as published", "size", "memory", "top-1 miss, %", "top-5 miss, %", "note")
_MISSES = ("top1_miss", "top5_miss")
Facts = tuple[tuple[str, str], ...]  # lines of one cell: a label, "" for none, and what it says


@dataclass(frozen=True, slots=True)
class Row:
    """One device and model."""

    device: str
    kind: str
    target: str
    emulated: bool
    model: str
    scheme: str
    mode: str  # "" for fp32 in the default use of memory
    seeded: bool
    judgement: Judgement
    size: Facts
    memory: Facts
    times: Facts
    accuracy: Facts
    agreement: Facts
    change: Facts
    better: bool | None  # of the change


@dataclass(frozen=True, slots=True)
class Checks:
    """A device's kernel checker, one instruction set."""

    device: str
    isa: str
    variants: int
    cases: int
    failed: int
    worst: float | None  # fraction of the bound
    worst_of: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that is not as it should be, or several tests of a device that never ran for one reason."""

    status: Status
    device: str
    model: str
    what: str
    message: str


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    run: str
    started: str
    seconds: float
    exit_code: int
    verdict: Verdict
    command: str
    reproduce: str
    rows: tuple[Row, ...]
    checks: tuple[Checks, ...]
    origins: tuple[Origin, ...]
    answers: tuple[tuple[str, str, str, str], ...]  # device, model, photo, top-5
    references: tuple[tuple[str, str, str, str, str, str], ...]  # published: what, size, memory, misses, note
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    counts: tuple[tuple[Status, int], ...]
    notes: tuple[str, ...]


def make_page(records: Sequence[Record], earlier: Sequence[Sequence[Record]] = ()) -> Page:
    """The page of one run. `earlier`: records of older runs, newest first. Raises ValueError without records."""
    if not records:
        raise ValueError("a run without records has no report")
    head = next((record for record in records if record.metric == "run"), records[0])
    seconds = _seconds(records)
    records = _by_device(records, head)
    judgements = judge_all(records)
    rows = tuple(_row(key, judgement, records, earlier) for key, judgement in judgements.items() if key[1] is not None)
    worst = max([one.verdict for one in judgements.values()], key=list(Verdict).index, default=Verdict.PASS)
    return Page(
        run=head.run,
        started=f"{datetime.fromisoformat(head.time):%Y-%m-%d %H:%M} UTC",
        seconds=seconds,
        exit_code=exit_code(records),
        verdict=worst,
        command=word(head.attributes.get("command")),
        reproduce=reproduce(records, head),
        rows=rows,
        checks=_checks(records),
        origins=origins(records),
        answers=tuple(
            (r.device or NOTHING, _model(r) or NOTHING, r.subject, word(r.attributes.get("top5")))
            for r in records
            if r.metric == "photo" and r.device is not None
        ),
        references=tuple(_reference(record) for record in records if record.metric == "reference"),
        problems=_problems(records, judgements),
        skipped=tuple(dict.fromkeys(f"{r.suite}: {r.message}" for r in records if r.status is Status.SKIP)),
        counts=tuple(
            (status, count) for status in Status if (count := sum(record.status is status for record in records))
        ),
        notes=notes(records),
    )


def _by_device(records: Sequence[Record], head: Record) -> list[Record]:
    """In the order in which the devices were asked for; each device's own order stays."""
    asked = word(head.attributes.get("devices")).split()
    place = {name: number for number, name in enumerate(asked)}
    return sorted(records, key=lambda record: -1 if record.device is None else place.get(record.device, len(asked)))


def _row(key: Key, judgement: Judgement, records: Sequence[Record], earlier: Sequence[Sequence[Record]]) -> Row:
    group = [
        record
        for record in records
        if (record.device, record.model, record.scheme) == key[:3] and mode(record) in ("", key[3])
    ]
    head = group[0]
    seeded = any(
        record.metric == "model" and record.model == head.model and record.attributes.get("seeded") is True
        for record in records
    )
    change = _change(group, earlier)
    return Row(
        device=head.device or NOTHING,
        kind=head.kind or NOTHING,
        target=head.target or NOTHING,
        emulated=head.emulated,
        model=head.model or NOTHING,
        scheme=head.scheme or "float",
        mode=unusual(key[3]),
        seeded=seeded,
        judgement=judgement,
        size=_size(group, records),
        memory=_memory(group),
        times=_times(group),
        accuracy=(("", SEEDED),) if seeded else _accuracy(group),
        agreement=_agreement(group),
        change=_change_facts(change, head.emulated),
        better=change[1].better if change else None,
    )


def _reference(record: Record) -> tuple[str, str, str, str, str, str]:
    given = record.attributes
    size, memory, note = (word(given.get(name) or "") for name in ("size", "memory", "note"))
    top1, top5 = (f"{miss:.2f}" if isinstance(miss := given.get(name), int | float) else "" for name in _MISSES)
    return record.subject, size, memory, top1, top5, note


def _model(record: Record) -> str:
    """The model's name, and its mode where that is not the usual one."""
    return f"{record.model or ''} {unusual(mode(record))}".strip()


def _measured(group: Sequence[Record], metric: str) -> list[Record]:
    return [record for record in group if record.metric == metric and record.value is not None]


def _size(group: Sequence[Record], records: Sequence[Record]) -> Facts:
    head = group[0]
    same = [r for r in records if r.model == head.model and r.scheme == head.scheme and r.device is None]
    lines = [("package", amount(r.value or 0)) for r in _measured(same, "package_bytes")]
    lines += [("", f"{r.value:.2f} bits a weight") for r in _measured(same, "effective_bits")]
    lines += [("packed", amount(r.value or 0)) for r in _measured(same, "packed_bytes")]
    return tuple(lines)


def _memory(group: Sequence[Record]) -> Facts:
    lines = []
    for metric, name in (("peak_resident_bytes", "peak"), ("session_bytes", "session")):
        values = [r.value for r in _measured(group, metric) if r.value is not None]
        if values:
            lines.append((name, amount(max(values))))
    return tuple(lines)


_TIMES = (
    ("load_ns", "load"),
    ("first_inference_ns", "first"),
    ("pass_ns", "pass"),
    ("ten_patch_ns", "10 patches"),
    ("preprocess_ns", "preprocess"),
)


def _times(group: Sequence[Record]) -> Facts:
    lines = [
        (name, timing(record.value or 0, summarise(record.samples) if metric in REPEATED and record.samples else None))
        for metric, name in _TIMES
        for record in _measured(group, metric)[:1]
    ]
    lines = [("", f"{EMULATED}:"), *lines] if lines and group[0].emulated else lines
    return (*lines, *_executed(group))


def _executed(group: Sequence[Record]) -> Facts:
    """What the device's own counters say, where it lent them."""
    cycles = {r.attributes.get("job"): r.value for r in _measured(group, "cycles")}
    lines = []
    for record in _measured(group, "instructions"):
        job, executed = record.attributes.get("job"), record.value or 0
        lines.append(("10 patches" if job == "10-patch" else "pass", f"{many(executed)} instructions"))
        if cycles.get(job):
            lines.append(("", f"{executed / (cycles[job] or 1):.2f} a cycle"))
    return tuple(lines)


def timing(value: float, summary: Summary | None) -> str:
    """Median, and its spread or its tails where enough samples were taken."""
    if summary is None or summary.count == 1:
        return duration(value)
    if summary.p95 is not None and summary.count >= PERCENTILE_SAMPLES:
        return f"{duration(value)} (p95 {duration(summary.p95)}, n={summary.count})"
    return f"{duration(value)} ±{100 * summary.spread:.0f} % (n={summary.count})"


def _accuracy(group: Sequence[Record]) -> Facts:
    lines = []
    for metric, name in (("top1", "top-1"), ("top5", "top-5")):
        for record in _measured(group, metric):
            low, high = record.attributes.get("low"), record.attributes.get("high")
            interval = f" [{_percent(low)}, {_percent(high)}]" if low is not None and high is not None else ""
            lines.append((name, share(record.value or 0) + interval))
            if metric == "top5":
                lines.append(("", f"of {record.attributes.get('photos')} photos"))
    for record in _measured(group, "demo"):
        lines.append(("", f"demo: {record.value} of {record.attributes.get('photos')} as expected"))
        lines.append(("", "(selected photos, no accuracy)"))
    return tuple(lines)


def _percent(value: Attribute) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) else word(value)


def _agreement(group: Sequence[Record]) -> Facts:
    lines = []
    for metric, name in (("layer_error", "layers"), ("fused_error", "fused")):
        values = [r.value for r in _measured(group, metric) if r.value is not None]
        if values:
            lines.append((name, small(max(values)) if max(values) else "exact"))
    lines += [
        ("drift", f"{small(r.value or 0)}, cosine {cosine:.4f}")
        for r in _measured(group, "drift")
        if isinstance(cosine := r.attributes.get("cosine"), float)
    ]
    lines += [
        ("top-5", f"{r.value} of {r.attributes.get('photos')} as host") for r in _measured(group, "top5_agreement")
    ]
    return tuple(lines)


_CHANGES = (("pass_ns", "pass"), ("ten_patch_ns", "10 patches"), ("peak_resident_bytes", "peak"), ("top1", "top-1"))


def _change(group: Sequence[Record], earlier: Sequence[Sequence[Record]]) -> tuple[str, Change] | None:
    for metric, name in _CHANGES:
        for record in _measured(group, metric)[:1]:
            change = last_change(record, earlier)
            if change is not None:
                return name, change
    return None


def _change_facts(change: tuple[str, Change] | None, emulated: bool) -> Facts:
    if change is None:
        return (("", "first run"),)
    mark = f"{EMULATED}, " if emulated and not METRICS[change[1].metric].emulated_counts else ""
    since = change[1].since[:15]
    return ((change[0], signed_share(change[1].fraction)), ("", f"{mark}since"), ("", since))


def _checks(records: Sequence[Record]) -> tuple[Checks, ...]:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.metric == "kernel_cases":
            groups.setdefault((record.device or NOTHING, word(record.attributes.get("isa"))), []).append(record)
    checks = []
    for (device, isa), group in groups.items():
        worst: float | None = None
        worst_of = ""
        for record in group:
            error = record.attributes.get("worst_of_bound")
            if isinstance(error, int | float) and (worst is None or error > worst):
                worst, worst_of = float(error), record.subject
        checks.append(
            Checks(
                device=device,
                isa=isa,
                variants=len(group),
                cases=sum(int(record.value or 0) for record in group),
                failed=sum(record.status is Status.FAIL for record in group),
                worst=worst,
                worst_of=worst_of,
            )
        )
    return tuple(checks)


def _problems(records: Sequence[Record], judgements: Mapping[Key, Judgement]) -> tuple[Problem, ...]:
    """Device by device, what caused the rest first; tests that never ran for one reason are one problem."""
    groups: dict[str | None, list[Record]] = {}
    for record in records:
        groups.setdefault(record.device, []).append(record)
    problems = []
    for name, group in groups.items():
        who = name or NOTHING
        for record in causes_first(group):
            if record.status in (Status.FAIL, Status.ERROR):
                what = "" if record.metric == "device_job" else place(record)
                problems.append(Problem(record.status, who, _model(record), what, bare(record.message, name)))
        for message, missed in by_message(group):
            (only, *others) = {_model(record) for record in missed}
            problems.append(Problem(Status.MISS, who, "" if others else only, tests(missed), message))
    for (device, model, _, how), judgement in judgements.items():
        name = f"{model or ''} {unusual(how)}".strip()
        told = any(problem.device == device and problem.model in ("", model, name) for problem in problems)
        if judgement.exit_code and not told:  # no status says it, only the figures
            status = Status.FAIL if judgement.verdict is Verdict.INVALID else Status.ERROR
            problems.append(Problem(status, device, name, "", "; ".join(judgement.reasons)))
    return tuple(problems)


def _seconds(records: Sequence[Record]) -> float:
    return (datetime.fromisoformat(records[-1].time) - datetime.fromisoformat(records[0].time)).total_seconds()
