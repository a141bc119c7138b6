"""One measured fact of a run, and the one table of what can be measured.

A Record is immutable, versioned and flat. It goes to JSON as one object and comes back by `from_json`, which refuses
whatever the committed `record.schema.json` refuses (the schema is made from this module: `python -m reports.record`).
Names and messages may hold text that a device said: it is kept as it came, bounded in length, and every format
escapes it when it draws.

Schema history
    1  the first
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, cast

SCHEMA_VERSION = 1
MAX_TEXT = 4000  # characters of a message or an attribute
MAX_NAME = 200  # characters of every other text
MAX_SAMPLES = 100_000
MAX_ATTRIBUTES = 64

Attribute = str | int | float | bool | None


class ReportError(Exception):
    """Root of what this package raises: a record or journal that breaks its contract. Exit code 2."""

    exit_code = 2


class Status(StrEnum):
    """What became of a test or a measurement (the words of KCIDB)."""

    PASS = "PASS"  # checked, and right  # noqa: S105
    FAIL = "FAIL"  # checked, and wrong
    ERROR = "ERROR"  # could not be checked: a device, the set-up or the harness broke
    MISS = "MISS"  # should have run and never did
    DONE = "DONE"  # measured; there is nothing to be right or wrong
    SKIP = "SKIP"  # does not apply here, with its reason


Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means. `emulated_counts`: the figure of an emulator says something about the real thing."""

    name: str
    unit: str  # "" where a record carries no number
    meaning: str
    better: Better | None = None
    emulated_counts: bool = True


def _time(name: str, meaning: str) -> Metric:
    return Metric(name, "ns", meaning, "lower", emulated_counts=False)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # the run, its devices and models
        Metric("run", "", "what was run: command, commit, versions"),
        Metric("device", "", "what a device says of itself"),
        Metric("build", "", "a build that was deployed: hashes, compiler, flags"),
        Metric(
            "model", "weights", "a model under test: source, licence, attribution, hashes; the number of its weights"
        ),
        Metric("photo", "", "a photo that was shown to the models: author, licence, hash"),
        Metric("reference", "", "a figure as others published it, to stand beside: size, memory, misses in percent"),
        Metric("test", "s", "one test of a suite from its start to its end, transport included", "lower", False),
        Metric("device_job", "", "all suites of one device"),
        # what is shipped and sent
        Metric("package_bytes", "bytes", "every byte of the package: sqlite3 and PNG files", "lower"),
        Metric("packed_bytes", "bytes", "the packed model that is deployed", "lower"),
        Metric("effective_bits", "bits/weight", "8 x package bytes / number of weights", "lower"),
        Metric("sent_bytes", "bytes", "sent to the device by this deployment"),
        Metric("skipped_bytes", "bytes", "already on the device and verified there, so not sent"),
        _time("deploy_ns", "deployment, transport included"),
        # conformance, agreement
        Metric("kernel_error", "of bound", "largest difference of a kernel variant from the reference", "lower"),
        Metric("kernel_cases", "cases", "cases of one op and instruction set that the checker ran on the device"),
        Metric("layer_error", "of layer max", "largest difference of a layer from the host reference", "lower"),
        Metric(
            "fused_error",
            "relative",
            "largest difference between fused and unfused plans, of what `relative_to` says",
            "lower",
        ),
        Metric("drift", "of layer max", "of the last layer in fp16 or int8 from float32 on the host", "lower"),
        Metric("top5_agreement", "photos", "photos whose first five classes on the device are the host's", "higher"),
        # time and memory
        _time("open_ns", "mapping and validating the packed model in a new process"),
        _time("session_ns", "planning, packing for this CPU, allocating"),
        _time("load_ns", "open and session together: from nothing to ready, in a new process"),
        _time("first_inference_ns", "the first pass after loading"),
        _time("pass_ns", "one patch through the whole net, after warm-up"),
        _time("ten_patch_ns", "a picture through the 10-patch job: two scans, ten patches"),
        _time("preprocess_ns", "from RGB picture to tensor: resize, crop, mean"),
        Metric("peak_resident_bytes", "bytes", "largest memory that the program held", "lower"),
        Metric("resident_bytes", "bytes", "memory that the program held at the end", "lower"),
        Metric("anonymous_bytes", "bytes", "the most that no file backed at the end of a layer", "lower"),
        Metric("session_bytes", "bytes", "activations, packed weights and scratch", "lower"),
        # counted by an emulator, which repeats to the instruction, or by the CPU
        Metric(
            "instructions",
            "instructions",
            "executed by one job; an emulator leaves prefetches out and gives classes as attributes, a CPU does not",
            "lower",
        ),
        Metric("cycles", "cycles", "of the core that one job took, by the CPU's own counter", "lower"),
        Metric("slots", "slots", "issue slots that an in-order core with one vector unit cannot do without", "lower"),
        # accuracy
        Metric("top1", "fraction", "photos whose first class is the right one", "higher"),
        Metric("top5", "fraction", "photos whose right class is among the first five", "higher"),
        Metric("demo", "photos", "demonstration photos named as expected (selected photos, no accuracy)", "higher"),
    )
}


@dataclass(frozen=True, slots=True)
class Record:
    """One measured fact.

    device, kind, target: None for facts of the run itself. subject: the layer, kernel variant, photo, test or job
    that is meant, "" for the whole model. value: the headline number in the metric's unit; samples: every raw one.
    """

    run: str
    time: str  # ISO 8601 in UTC, such as 2026-01-31T12:00:00.123456+00:00
    metric: str
    status: Status
    device: str | None = None
    kind: str | None = None
    target: str | None = None
    emulated: bool = False
    suite: str = ""
    model: str | None = None
    model_sha256: str | None = None  # of the packed model
    scheme: str | None = None
    subject: str = ""
    value: int | float | None = None
    samples: tuple[int | float, ...] = ()
    message: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check(self)

    @property
    def unit(self) -> str:
        """The unit of `value` and `samples`."""
        return METRICS[self.metric].unit

    def to_json(self) -> str:
        """One line of pure ASCII without a line end: control characters stand escaped."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS if name != "unit"}
        fields |= {"unit": self.unit, "samples": list(self.samples), "attributes": dict(self.attributes)}
        return json.dumps({name: fields[name] for name in _FIELDS}, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(line: str | bytes) -> Record:
        """Reads what to_json wrote; raises ReportError for anything else."""
        try:
            value = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ReportError(f"record: a JSON object was expected, but {clip(str(error), 200)}") from error
        return from_fields(value)


# Every field in the order of a journal line, with its JSON Schema.
_NAME = {"type": "string", "maxLength": MAX_NAME}
_MAYBE_NAME = {"type": ["string", "null"], "maxLength": MAX_NAME}
_NUMBER = {"type": "number"}
_FIELDS: dict[str, dict[str, Any]] = {
    "schema": {"const": SCHEMA_VERSION},
    "run": _NAME | {"minLength": 1},
    "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00$"},
    "device": _MAYBE_NAME,
    "kind": _MAYBE_NAME,
    "target": _MAYBE_NAME,
    "emulated": {"type": "boolean"},
    "suite": _NAME,
    "model": _MAYBE_NAME,
    "model_sha256": {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
    "scheme": _MAYBE_NAME,
    "metric": {"enum": list(METRICS)},
    "subject": _NAME,
    "value": {"type": ["number", "null"]},
    "samples": {"type": "array", "items": _NUMBER, "maxItems": MAX_SAMPLES},
    "unit": {"enum": sorted({metric.unit for metric in METRICS.values()})},
    "status": {"enum": [status.value for status in Status]},
    "message": {"type": "string", "maxLength": MAX_TEXT},
    "attributes": {
        "type": "object",
        "maxProperties": MAX_ATTRIBUTES,
        "propertyNames": {"maxLength": MAX_NAME},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"], "maxLength": MAX_TEXT},
    },
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a journal line; `record.schema.json` is this, committed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "klaus record",
        "description": "One line of results/RUN/records.jsonl: one measured fact of a run.",
        "type": "object",
        "properties": _FIELDS,
        "required": list(_FIELDS),
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"metric": {"enum": [m.name for m in METRICS.values() if m.unit == unit]}}},
                "then": {"properties": {"unit": {"const": unit}}},
            }
            for unit in sorted({metric.unit for metric in METRICS.values()})
        ],
    }


def from_fields(value: object) -> Record:
    """A Record from a decoded JSON object; raises ReportError."""
    if not isinstance(value, dict):
        raise ReportError(f"record: a JSON object was expected, found {type(value).__name__}")
    unknown = sorted(set(value) - set(_FIELDS))
    missing = sorted(set(_FIELDS) - set(value))
    if unknown or missing:
        raise ReportError(
            f"record: fields do not fit schema {SCHEMA_VERSION} (unknown {clip(str(unknown), 200)}, "
            f"missing {missing}); it was written by another version"
        )
    fields = cast("dict[str, Any]", value)
    if fields["schema"] != SCHEMA_VERSION or isinstance(fields["schema"], bool):
        raise ReportError(
            f"record: schema {SCHEMA_VERSION} was expected, found {clip(str(fields['schema']), 40)}; "
            "read it with the version that wrote it"
        )
    if not isinstance(fields["samples"], list):
        raise ReportError("record: samples must be a list")
    unit = fields.pop("unit")
    try:
        status = Status(fields.pop("status"))
    except ValueError as error:
        raise ReportError(f"record: {clip(str(error), 200)}") from error
    record = Record(**{**fields, "status": status, "samples": tuple(fields["samples"])})
    if unit != record.unit:
        raise ReportError(f"record: unit of {record.metric} is {record.unit!r}, found {clip(str(unit), 40)!r}")
    return record


def _check(record: Record) -> None:
    for name in ("run", "suite", "subject"):
        _text(name, getattr(record, name), MAX_NAME)
    for name in ("device", "kind", "target", "model", "scheme", "model_sha256"):
        if getattr(record, name) is not None:
            _text(name, getattr(record, name), MAX_NAME)
    _text("message", record.message, MAX_TEXT)
    if not record.run:
        raise ReportError("record: run has no name")
    digest = record.model_sha256
    if digest is not None and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise ReportError("record: model_sha256 must be 64 lower-case hexadecimal digits")
    _check_time(record.time)
    if not isinstance(record.emulated, bool):
        raise ReportError("record: emulated must be true or false")
    if not isinstance(record.metric, str) or record.metric not in METRICS:
        raise ReportError(
            f"record: metric {clip(str(record.metric), 80)!r} is unknown; METRICS lists {', '.join(METRICS)}"
        )
    if record.value is not None:
        _number("value", record.value)
    if len(record.samples) > MAX_SAMPLES:
        raise ReportError(f"record: {len(record.samples)} samples, at most {MAX_SAMPLES} fit")
    for sample in record.samples:
        _number("samples", sample)
    _check_attributes(record.attributes)


def _check_time(time: object) -> None:
    _text("time", time, MAX_NAME)
    text = cast("str", time)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ReportError(f"record: time {clip(text, 40)!r} is not ISO 8601") from error
    if not text.isascii() or text[10:11] != "T" or not text.endswith("+00:00") or moment.utcoffset() is None:
        raise ReportError(f"record: time {clip(text, 40)!r} must be in UTC and end in +00:00")


def _check_attributes(attributes: object) -> None:
    if not isinstance(attributes, Mapping) or len(attributes) > MAX_ATTRIBUTES:
        raise ReportError(f"record: attributes must be an object of at most {MAX_ATTRIBUTES} entries")
    for name, value in attributes.items():
        _text("attribute name", name, MAX_NAME)
        if isinstance(value, str):
            _text(f"attribute {name}", value, MAX_TEXT)
        elif value is not None and not isinstance(value, bool):
            _number(f"attribute {name}", value)


def _text(what: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise ReportError(f"record: {clip(what, 80)} must be text, found {type(value).__name__}")
    if len(value) > limit:
        raise ReportError(f"record: {clip(what, 80)} has {len(value)} characters, at most {limit} fit")


def _number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"record: {clip(what, 80)} must be a number, found {type(value).__name__}")
    if not -(2**63) <= value < 2**64 if isinstance(value, int) else not math.isfinite(value):
        raise ReportError(f"record: {clip(what, 80)} is out of range")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return fields


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters; what was cut is marked by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def now() -> str:
    """The time as records write it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
