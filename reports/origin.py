"""Where what a run used comes from: devices, builds, models, photos; and what a reader must know of its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.record import METRICS, Attribute, Record
from reports.stats import PERCENTILE_SAMPLES
from reports.verdict import USUAL_MODE, mode
from reports.words import NOTHING, amount, word

SEEDED = "seeded: timing only"
EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a device, build, model or photo comes from. code: what a reader may paste, "" for nothing."""

    kind: str  # device, build, model or photo
    name: str
    text: str
    code: str = ""


def origins(records: Sequence[Record]) -> tuple[Origin, ...]:
    """Of all that a run used, each once, kind by kind."""
    found = [Origin("device", r.device or NOTHING, _device(r)) for r in records if r.metric == "device"]
    found += [
        Origin("build", r.subject, _build(r), word(r.attributes.get("flags"))) for r in records if r.metric == "build"
    ]
    found += [Origin("model", _model_name(r), _provenance(r)) for r in records if r.metric == "model"]
    found += [Origin("photo", r.subject, _credit(r)) for r in records if r.metric == "photo" and r.device is None]
    return tuple(dict.fromkeys(found))


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
    parts = [word(given.get(name)) for name in ("source", "licence", "attribution")]
    if record.value:
        parts.append(f"{record.value:,} weights")
    if given.get("seeded") is True and not any(SEEDED in part for part in parts):
        parts.append(SEEDED)
    if record.model_sha256:
        parts.append(f"packed sha256 {record.model_sha256[:16]}")
    return "; ".join(part for part in parts if part)


def _credit(record: Record) -> str:
    given = record.attributes
    return "; ".join(word(given.get(name)) for name in ("author", "licence", "source") if given.get(name))


def _build(record: Record) -> str:
    given = record.attributes
    parts = [word(given.get("compiler"))]
    if given.get("program_sha256"):
        parts.append(f"klaus-run sha256 {word(given['program_sha256'])[:16]}")
    return "; ".join(part for part in parts if part)


def reproduce(records: Sequence[Record], head: Record) -> str:
    """Commit, command and the hashes of what was deployed. head: the run's first record."""
    parts = [f"commit {word(head.attributes.get('commit')) or 'unknown'}"]
    if head.attributes.get("command"):
        parts.append(word(head.attributes["command"]))
    for record in records:
        if record.metric == "build":
            parts.append(f"{record.subject} klaus-run {word(record.attributes.get('program_sha256'))[:16]}")
        elif record.metric == "model" and record.device is None and record.model_sha256:
            parts.append(f"{_model_name(record)} {record.model_sha256[:16]}")
    return " · ".join(parts)


def notes(records: Sequence[Record]) -> tuple[str, ...]:
    """How to read the figures of these records."""
    said = []
    if any(record.emulated for record in records):
        said.append(f"Times marked '{EMULATED}' come from an emulator: they say nothing about a device's speed.")
    if any(record.kind == "qemu-user" and record.metric == "peak_resident_bytes" for record in records):
        said.append("Peak memory on a qemu-user device holds the emulator's own; a board's does not.")
    if any(record.metric == "model" and record.attributes.get("seeded") is True for record in records):
        said.append(f"'{SEEDED}': weights come from a seed, so that model's answers mean nothing.")
    if any(record.metric == "layer_error" for record in records):
        said.append(
            "Layers: the largest difference from the host's, of the layer's largest value before ReLU6 cuts it off."
        )
    if any(record.metric == "top5_agreement" and mode(record) not in ("", USUAL_MODE) for record in records):
        said.append(
            "fp16 and int8: layers are compared on what the device gave them; drift and how many photos keep their "
            "first five classes are figures, and fail only where they cannot be rounding any more (docs/devices.md)."
        )
    if any(METRICS[record.metric].unit == "ns" and len(record.samples) > 1 for record in records):
        said.append(
            f"Times are medians; ± is the scaled median absolute deviation; percentiles from {PERCENTILE_SAMPLES} "
            "samples on."
        )
    return tuple(said)
