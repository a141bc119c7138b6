"""Records: the way to JSON and back, and everything that is refused on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reports.record
from reports.record import MAX_TEXT, METRICS, Record, ReportError, Status, clip, json_schema, now
from tests.reports.report_samples import RUN, SHA, device, head, record, troubles

SCHEMA = json.loads((Path(reports.record.__file__).parent / "record.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
TEXTS = st.text(max_size=60)


def test_committed_schema_is_the_one_of_the_code() -> None:
    assert json_schema() == SCHEMA, "run: python -m reports.record > reports/record.schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("sample", [*head(), *device("board"), *troubles()], ids=lambda r: f"{r.metric}-{r.status}")
def test_samples_come_back_and_fit_the_schema(sample: Record) -> None:
    line = sample.to_json()
    assert line.isascii()
    assert line.isprintable()
    VALIDATOR.validate(json.loads(line))
    assert Record.from_json(line) == sample


@given(
    metric=st.sampled_from(list(METRICS)),
    status=st.sampled_from(list(Status)),
    device=st.none() | TEXTS,
    subject=TEXTS,
    message=st.text(st.characters(), max_size=200),
    value=st.none() | NUMBERS,
    samples=st.lists(NUMBERS, max_size=5),
    attributes=st.dictionaries(TEXTS, st.none() | st.booleans() | NUMBERS | TEXTS, max_size=5),
)
def test_any_record_comes_back(**fields: Any) -> None:
    fields["samples"] = tuple(fields["samples"])
    made = record(**fields)
    line = made.to_json()
    assert line.isascii()
    VALIDATOR.validate(json.loads(line))
    assert Record.from_json(line) == made


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("another schema", {"schema": 2}),
    ("schema as a truth value", {"schema": True}),
    ("unknown field", {"colour": "red"}),
    ("no run", {"run": ""}),
    ("run is a number", {"run": 7}),
    ("long run", {"run": "x" * 201}),
    ("time without zone", {"time": "2026-01-31T12:00:00"}),
    ("time elsewhere", {"time": "2026-01-31T12:00:00+01:00"}),
    ("no time", {"time": "yesterday"}),
    ("time is null", {"time": None}),
    ("unknown metric", {"metric": "speed"}),
    ("metric is a list", {"metric": []}),
    ("unknown status", {"status": "GREAT"}),
    ("status is null", {"status": None}),
    ("unit of another metric", {"unit": "bytes"}),
    ("value is text", {"value": "7"}),
    ("value is a truth value", {"value": True}),
    ("samples is null", {"samples": None}),
    ("a sample is null", {"samples": [1, None]}),
    ("emulated is a number", {"emulated": 1}),
    ("hash too short", {"model_sha256": "abc"}),
    ("hash in upper case", {"model_sha256": SHA.upper()}),
    ("long message", {"message": "x" * (MAX_TEXT + 1)}),
    ("attributes is a list", {"attributes": []}),
    ("nested attribute", {"attributes": {"a": {}}}),
    ("too many attributes", {"attributes": {str(n): n for n in range(65)}}),
    ("device is a number", {"device": 5}),
]


@pytest.mark.parametrize(("changes"), [changes for _, changes in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_breaks_the_schema_is_refused_by_both(changes: dict[str, Any]) -> None:
    fields = json.loads(record("pass_ns", value=5, samples=(5,)).to_json()) | changes
    assert not VALIDATOR.is_valid(fields)
    with pytest.raises(ReportError, match="record"):
        Record.from_json(json.dumps(fields))


@pytest.mark.parametrize("name", list(json.loads(record("run").to_json())))
def test_every_field_is_required(name: str) -> None:
    fields = json.loads(record("run").to_json())
    del fields[name]
    assert not VALIDATOR.is_valid(fields)
    with pytest.raises(ReportError, match=name):
        Record.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", "7", '"x"', "\xff", '{"schema":1,"schema":1}', "[" * 100_000, '{"value":NaN}', b"\xff\xfe"],
    ids=lambda line: repr(line[:12]),
)
def test_what_is_no_record_is_refused(line: str | bytes) -> None:
    with pytest.raises(ReportError, match="record"):
        Record.from_json(line)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, -(2**63) - 1])
def test_numbers_that_json_cannot_hold_are_refused_at_once(value: float) -> None:
    with pytest.raises(ReportError, match="out of range"):
        record("pass_ns", value=value)
    with pytest.raises(ReportError, match="out of range"):
        record("pass_ns", samples=(value,))


def test_infinity_written_by_hand_is_refused() -> None:
    line = record("pass_ns", value=5).to_json().replace('"value":5', '"value":Infinity')
    with pytest.raises(ReportError, match="Infinity"):
        Record.from_json(line)


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(line: bytes) -> None:
    with pytest.raises(ReportError):
        Record.from_json(line)


def test_metrics_speak_for_themselves() -> None:
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.meaning
        if metric.unit in ("ns", "s"):
            assert not metric.emulated_counts, f"{name}: an emulated time says nothing about a device"


def test_clip_and_now() -> None:
    assert clip("x" * 10, 10) == "x" * 10
    assert clip("x" * 11, 10) == "x" * 9 + "…"
    assert record("run", time=now()).run == RUN
