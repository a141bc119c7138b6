"""What a report says, worked out once from a run's records; the formats only draw it.

A Page holds finished texts where all formats show the same text, and numbers where a format may choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from reports.compare import Change, last_change
from reports.record import METRICS, Attribute, Record, Status
from reports.stats import PERCENTILE_SAMPLES, Summary, summarise
from reports.verdict import REPEATED, Judgement, Verdict, exit_code, judge
from reports.words import NOTHING, amount, duration, share, signed_share, small

SEEDED = "seeded: timing only"
EMULATED = "emulated"


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
    """A record that is not as it should be."""

    status: Status
    device: str
    model: str
    suite: str
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
    devices: tuple[tuple[str, str], ...]  # name, what it says of itself
    builds: tuple[tuple[str, str], ...]  # target, hashes and compiler
    models: tuple[tuple[str, str], ...]  # name, source, licence, attribution
    photos: tuple[tuple[str, str], ...]  # name, author, licence
    answers: tuple[tuple[str, str, str, str], ...]  # device, model, photo, top-5
    problems: tuple[Problem, ...]
    skipped: tuple[Problem, ...]
    counts: tuple[tuple[Status, int], ...]
    notes: tuple[str, ...]


def make_page(records: Sequence[Record], earlier: Sequence[Sequence[Record]] = ()) -> Page:
    """The page of one run. `earlier`: records of older runs, newest first. Raises ValueError without records."""
    if not records:
        raise ValueError("a run without records has no report")
    head = next((record for record in records if record.metric == "run"), records[0])
    seconds = _seconds(records)
    records = _by_device(records, head)
    rows = tuple(_row(group, records, earlier) for group in _groups(records))
    code = exit_code(records)
    worst = max([row.judgement.verdict for row in rows], key=list(Verdict).index, default=Verdict.PASS)
    if code:
        worst = max([worst, Verdict.FAIL if code == 1 else Verdict.ERROR], key=list(Verdict).index)
    return Page(
        run=head.run,
        started=head.time,
        seconds=seconds,
        exit_code=code,
        verdict=worst,
        command=_text(head.attributes.get("command")),
        reproduce=_reproduce(records, head),
        rows=rows,
        checks=_checks(records),
        devices=tuple((r.device or NOTHING, _device(r)) for r in records if r.metric == "device"),
        builds=_unique((r.subject, _build(r)) for r in records if r.metric == "build"),
        models=_unique((_model_name(r), _provenance(r)) for r in records if r.metric == "model"),
        photos=_unique((r.subject, _credit(r)) for r in records if r.metric == "photo" and r.device is None),
        answers=tuple(
            (r.device or NOTHING, r.model or NOTHING, r.subject, _text(r.attributes.get("top5")))
            for r in records
            if r.metric == "photo" and r.device is not None
        ),
        problems=tuple(_problem(r) for r in records if r.status in (Status.FAIL, Status.ERROR, Status.MISS)),
        skipped=tuple(_problem(r) for r in records if r.status is Status.SKIP),
        counts=tuple(
            (status, count) for status in Status if (count := sum(record.status is status for record in records))
        ),
        notes=_notes(records),
    )


def _by_device(records: Sequence[Record], head: Record) -> list[Record]:
    """In the order in which the devices were asked for; each device's own order stays."""
    asked = _text(head.attributes.get("devices")).split()
    place = {name: number for number, name in enumerate(asked)}
    return sorted(records, key=lambda record: -1 if record.device is None else place.get(record.device, len(asked)))


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.device is not None and record.model is not None:
            groups.setdefault((record.device, record.model, record.scheme or ""), []).append(record)
    return list(groups.values())


def _row(group: Sequence[Record], records: Sequence[Record], earlier: Sequence[Sequence[Record]]) -> Row:
    head = group[0]
    seeded = any(
        record.metric == "model" and record.model == head.model and record.attributes.get("seeded") is True
        for record in records
    )
    judged = [*group, *(r for r in records if r.device == head.device and r.model is None and r.suite == "conformance")]
    change = _change(group, earlier)
    return Row(
        device=head.device or NOTHING,
        kind=head.kind or NOTHING,
        target=head.target or NOTHING,
        emulated=head.emulated,
        model=head.model or NOTHING,
        scheme=head.scheme or "float",
        seeded=seeded,
        judgement=judge(judged),
        size=_size(group, records),
        memory=_memory(group),
        times=_times(group),
        accuracy=(("", SEEDED),) if seeded else _accuracy(group),
        agreement=_agreement(group),
        change=_change_facts(change, head.emulated),
        better=change[1].better if change else None,
    )


def _measured(group: Sequence[Record], metric: str) -> list[Record]:
    return [record for record in group if record.metric == metric and record.value is not None]


def _size(group: Sequence[Record], records: Sequence[Record]) -> Facts:
    head = group[0]
    same = [r for r in records if r.model == head.model and r.scheme == head.scheme and r.device is None]
    lines = [("package", amount(r.value or 0)) for r in _measured(same, "package_bytes")]
    lines += [("a weight", f"{r.value:.2f} bits") for r in _measured(same, "effective_bits")]
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
    return tuple([("", f"{EMULATED}:"), *lines] if lines and group[0].emulated else lines)


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
    return f"{100 * value:.1f}" if isinstance(value, int | float) else _text(value)


def _agreement(group: Sequence[Record]) -> Facts:
    lines = []
    for metric, name in (("layer_error", "layers"), ("fused_error", "fused")):
        values = [r.value for r in _measured(group, metric) if r.value is not None]
        if values:
            lines.append((name, small(max(values))))
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
            groups.setdefault((record.device or NOTHING, _text(record.attributes.get("isa"))), []).append(record)
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


def _device(record: Record) -> str:
    parts = [f"{record.kind}, {record.target}"]
    for name, shape in _DEVICE_SHAPES.items():
        value = record.attributes.get(name)
        if value not in (None, ""):
            parts.append(shape(value))
    return ", ".join(parts) + (f" ({EMULATED})" if record.emulated else "")


_DEVICE_SHAPES: dict[str, Callable[[Attribute], str]] = {
    "core": lambda value: f"{value}",
    "cpus": lambda value: f"{value} CPUs",
    "isa": lambda value: f"{value}",
    "memory_bytes": lambda value: amount(value) if isinstance(value, int | float) else f"{value}",
    "version": lambda value: f"klaus-run {value}",
}


def _model_name(record: Record) -> str:
    return f"{record.model} {record.scheme or ''}".strip()


def _provenance(record: Record) -> str:
    given = record.attributes
    parts = [_text(given.get(name)) for name in ("source", "licence", "attribution")]
    if record.value:
        parts.append(f"{record.value:,} weights")
    if given.get("seeded") is True:
        parts.append(SEEDED)
    if record.model_sha256:
        parts.append(f"packed sha256 {record.model_sha256[:16]}")
    return "; ".join(part for part in parts if part)


def _credit(record: Record) -> str:
    given = record.attributes
    return "; ".join(_text(given.get(name)) for name in ("author", "licence", "source") if given.get(name))


def _build(record: Record) -> str:
    given = record.attributes
    parts = [_text(given.get("compiler")), _text(given.get("flags"))]
    if given.get("program_sha256"):
        parts.append(f"klaus-run sha256 {_text(given['program_sha256'])[:16]}")
    return "; ".join(part for part in parts if part)


def _reproduce(records: Sequence[Record], head: Record) -> str:
    parts = [f"commit {_text(head.attributes.get('commit')) or 'unknown'}"]
    if head.attributes.get("command"):
        parts.append(_text(head.attributes["command"]))
    for record in records:
        if record.metric == "build":
            flags = _text(record.attributes.get("flags"))
            digest = _text(record.attributes.get("program_sha256"))[:16]
            parts.append(f"{record.subject} klaus-run {digest}" + (f" ({flags})" if flags else ""))
        elif record.metric == "model" and record.device is None and record.model_sha256:
            parts.append(f"{_model_name(record)} {record.model_sha256[:16]}")
    return " · ".join(parts)


def _problem(record: Record) -> Problem:
    metric = "" if record.metric == "test" and record.subject else record.metric
    what = f"{metric} {record.subject}".strip()
    return Problem(record.status, record.device or NOTHING, record.model or "", record.suite, what, record.message)


def _notes(records: Sequence[Record]) -> tuple[str, ...]:
    notes = []
    if any(record.emulated for record in records):
        notes.append(f"Times marked '{EMULATED}' come from an emulator: they say nothing about a device's speed.")
    if any(record.kind == "qemu-user" and record.metric == "peak_resident_bytes" for record in records):
        notes.append("Peak memory on a qemu-user device holds the emulator's own; a board's does not.")
    if any(record.metric == "model" and record.attributes.get("seeded") is True for record in records):
        notes.append(f"'{SEEDED}': weights come from a seed, so that model's answers mean nothing.")
    if any(METRICS[record.metric].unit == "ns" and len(record.samples) > 1 for record in records):
        notes.append(
            f"Times are medians; ± is the scaled median absolute deviation; percentiles from {PERCENTILE_SAMPLES} "
            "samples on."
        )
    return tuple(notes)


def _seconds(records: Sequence[Record]) -> float:
    return (datetime.fromisoformat(records[-1].time) - datetime.fromisoformat(records[0].time)).total_seconds()


def _unique(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(pairs))


def _text(value: Attribute) -> str:
    return "" if value is None else "yes" if value is True else "no" if value is False else str(value)
