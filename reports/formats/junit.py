"""junit.xml: one test suite a device and suite, one test case a judged record; valid XML whatever a device says."""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from collections.abc import Sequence

from reports.record import METRICS, Record, Status
from reports.verdict import mode, unusual
from reports.words import plain

_OUTCOMES = {
    Status.FAIL: ("failure", "check failed"),
    Status.ERROR: ("error", "could not be checked"),
    Status.MISS: ("error", "never ran"),
    Status.SKIP: ("skipped", "does not apply"),
}


def render(records: Sequence[Record]) -> str:
    """JUnit's XML as CI servers read it. Facts that carry no verdict (DONE) become properties of their suite."""
    root = Xml.Element("testsuites", name="klaus")
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.device or "run", record.suite or "run"), []).append(record)
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for (device, suite), group in groups.items():
        name = f"{device}.{suite}"
        element = Xml.SubElement(root, "testsuite", name=plain(name), timestamp=group[0].time[:19])
        counts = _fill(element, name, group)
        for key, count in counts.items():
            element.set(key, str(count))
            totals[key] += count
    for key, count in totals.items():
        root.set(key, str(count))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _fill(element: Xml.Element, name: str, group: Sequence[Record]) -> dict[str, int]:
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    facts = [record for record in group if record.status is Status.DONE and record.value is not None]
    if facts:
        properties = Xml.SubElement(element, "properties")
        for record in facts:
            emulated = " (emulated)" if record.emulated and not METRICS[record.metric].emulated_counts else ""
            value = f"{record.value} {record.unit}".strip() + emulated
            Xml.SubElement(properties, "property", name=plain(_title(record)), value=plain(value))
    for record in group:
        if record.status is Status.DONE:
            continue
        counts["tests"] += 1
        seconds = record.value if record.metric == "test" and record.value is not None else 0
        case = Xml.SubElement(
            element, "testcase", classname=plain(name), name=plain(_title(record)), time=f"{seconds:.3f}"
        )
        outcome = _OUTCOMES.get(record.status)
        if outcome is not None:
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[outcome[0]]] += 1
            detail = Xml.SubElement(case, outcome[0], message=plain(record.message or outcome[1]), type=record.status)
            detail.text = plain(record.message, 4000)
    return counts


def _title(record: Record) -> str:
    how = "" if record.metric == "test" else unusual(mode(record))  # a test's name holds it
    return " ".join(part for part in (record.metric, record.model or "", how, record.subject) if part)
