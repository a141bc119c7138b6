"""The records of klaus-run, and the strict reader of one line of them. docs/device-program.md is the contract."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from dataclasses import dataclass
from functools import cache

from device_tests.devices.text import printable
from reports.words import visible

MAX_TEXT = 4000  # characters of one string in a record
MAX_ITEMS = 10_000  # elements of one list in a record


class Record:
    """Any record of the device program."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class InfoRecord(Record):
    """`info`: the device as the program sees it."""

    version: str
    target: str
    arch: str
    cpus: int
    core: str
    core_class: str
    midr: str
    isa: tuple[str, ...]
    format_version: int
    page_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class StepRecord(Record):
    """`info --plan`: one step of a session."""

    index: int
    layers: tuple[int, ...]
    op: str
    variant: str
    isa: str
    dtypes: tuple[str, ...]  # of what it reads and of what it gives
    layout: int
    rows: int
    cols: int
    channels: int
    packed_bytes: int
    packed_in_file: bool
    scratch_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class VerifyRecord(Record):
    """`verify`: whether every byte of a packed model is as it was written."""

    model: str
    ok: bool
    file_bytes: int
    sha256: str
    layers: int
    name: str
    seeded: bool


@dataclass(frozen=True, slots=True)
class LoadRecord(Record):
    """`bench`: the cold start."""

    open_ns: int
    session_ns: int
    file_bytes: int
    session_bytes: int


@dataclass(frozen=True, slots=True)
class PassRecord(Record):
    """`bench`: one pass or one 10-patch job."""

    index: int
    warmup: bool
    job: str
    ns: int
    preprocess_ns: int
    instructions: int | None = None  # where the system lends the CPU's counters
    cycles: int | None = None


@dataclass(frozen=True, slots=True)
class LayerRecord(Record):
    """`bench --profile`: one layer."""

    index: int
    name: str
    op: str
    ns: int
    multiplies: int
    instructions: int | None = None  # mean of the measured passes


@dataclass(frozen=True, slots=True)
class MemoryRecord(Record):
    """`bench`: memory of the whole process and of the session."""

    peak_resident_bytes: int
    resident_bytes: int
    session_bytes: int
    anonymous_bytes: int = 0  # the most at a layer's end; only with --layer-memory, 0 where the system does not tell


@dataclass(frozen=True, slots=True)
class TopClass:
    """One class of an answer."""

    id: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class BenchRecord(Record):
    """`bench`: what was run, and its answer."""

    model: str
    runs: int
    warmup: int
    threads: int
    isa: str
    precision: str
    job: str
    fused: bool
    seeded: bool  # weights from a seed: the answer means nothing
    top: tuple[TopClass, ...]
    counter: str | None = None  # whose instructions the passes have


@dataclass(frozen=True, slots=True)
class PictureRecord(Record):
    """`classify`: one picture's answer; id is the one it has in the batch."""

    id: str
    preprocess_ns: int
    forward_ns: int
    top: tuple[TopClass, ...]


@dataclass(frozen=True, slots=True)
class ActivationRecord(Record):
    """`activations`: one layer's file, float32 HWC."""

    layer: int
    name: str
    file: str
    rows: int
    cols: int
    channels: int


@dataclass(frozen=True, slots=True)
class CheckRecord(Record):
    """`check`: one kernel variant against its reference; worst_error and bound are None for integer kernels."""

    variant: str
    op: str
    isa: str
    cases: int
    failed: int
    worst_error: float | None
    bound: float | None
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class CheckBenchRecord(Record):
    """`check --bench`: one timing of a variant."""

    variant: str
    ns: int
    multiplies: int


@dataclass(frozen=True, slots=True)
class VariantRecord(Record):
    """`check --list`: one variant of this build."""

    variant: str
    op: str
    isa: str
    core: str
    available: bool


@dataclass(frozen=True, slots=True)
class SummaryRecord(Record):
    """`check`: the end."""

    passed: int
    failed: int


@dataclass(frozen=True, slots=True)
class HashRecord(Record):
    """`hash`: one file."""

    file: str
    sha256: str
    bytes: int


_KINDS: typing.Mapping[str, type[Record]] = {
    "info": InfoRecord,
    "step": StepRecord,
    "verify": VerifyRecord,
    "load": LoadRecord,
    "pass": PassRecord,
    "layer": LayerRecord,
    "memory": MemoryRecord,
    "bench": BenchRecord,
    "picture": PictureRecord,
    "activation": ActivationRecord,
    "check": CheckRecord,
    "check_bench": CheckBenchRecord,
    "variant": VariantRecord,
    "summary": SummaryRecord,
    "hash": HashRecord,
}


def parse_record(line: bytes) -> Record:
    """One line of stdout as a record; ValueError says what is wrong with it. Unknown fields are left out."""
    try:
        data = json.loads(line.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from error
    if not isinstance(data, dict) or not isinstance(data.get("record"), str):
        raise ValueError('no JSON object with "record"')  # noqa: TRY004 - what the line holds, not what we passed
    kind = _KINDS.get(data["record"])
    if kind is None:
        raise ValueError(f"unknown record '{printable(data['record'], 40)}'")
    return typing.cast(Record, _build(kind, data, data["record"]))


def _build(kind: type, data: object, where: str) -> object:
    """A dataclass from a JSON object, every field checked against its annotation; those with a default may lack."""
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004
    values = {}
    for name, hint, may_be_absent in _hints(kind):
        if name not in data:
            if may_be_absent:
                continue
            raise ValueError(f"{where} has no {name!r}")
        values[name] = _value(hint, data[name], f"{where}.{name}")
    return kind(**values)


@cache
def _hints(kind: type) -> list[tuple[str, object, bool]]:
    """Name and type of each field, and whether it has a default: then it may be absent."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return [(field.name, hints[field.name], field.default is not missing) for field in dataclasses.fields(kind)]


def _value(hint: object, value: object, where: str) -> object:
    """A JSON value as the annotated type: bool, int, float, str, a union of these and None, a tuple, a dataclass."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise ValueError(f"{where} is no list of at most {MAX_ITEMS}")
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    allowed = arguments or (hint,)
    if value is None and type(None) in allowed:
        return None
    if isinstance(value, bool):
        if bool in allowed:
            return value
    elif isinstance(value, int):
        if int in allowed and 0 <= value < 1 << 63:
            return value
        if float in allowed and abs(value) < 1 << 53:
            return float(value)
    elif isinstance(value, float):
        if float in allowed and math.isfinite(value):
            return value
    elif isinstance(value, str) and str in allowed and len(value) <= MAX_TEXT:
        return visible(value)
    raise ValueError(f"{where} is {printable(repr(value), 60)}, not what the contract says")


def _no_constant(name: str) -> typing.NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice")
    return data
