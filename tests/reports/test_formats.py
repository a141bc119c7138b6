"""What the formats draw, and that nothing a device says acts on a terminal, a page or a parser."""

from __future__ import annotations

import io
import unicodedata
import xml.etree.ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reports.formats import junit, markdown
from reports.formats.console import print_page
from reports.page import make_page
from reports.record import Record, Status
from reports.words import amount, duration, plain, share, signed_share, small
from tests.reports.report_samples import HOSTILE, LITE0, device, head, on, record, troubles

FARM = [*head(), *device("board"), *device("pi5", 0.04), *troubles()]


def drawn(records: list[Record], width: int = 132, *, colours: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours, color_system="truecolor" if colours else None
    )
    print_page(make_page(records), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 132, 200])
def test_console_says_all_that_a_report_must(width: int) -> None:
    text = drawn(FARM, width)
    squeezed = "".join(character for character in text if character not in " \n│")
    for said in (
        "14.2 MB", "24.44 bits", "41.2 MB", "901 ms", "7 of 7 as expected", "selected photos, no accuracy", "1.3e-06",
        "7 of 7 as host", "emulated", "seeded: timing only", "first run", "CC-BY-2.0", "danielbuechele", "Apache-2.0",
        "e5d8eab41f0c", "0123456789abcdef", "nobody answers at 10.0.0.7:22", "invoke deploy-and-bench --device board",
    ):  # fmt: skip
        assert said.replace(" ", "") in squeezed, said
    assert max(map(len, text.splitlines())) <= width


def test_markdown_says_it_too() -> None:
    text = markdown.render(make_page(FARM))
    for said in ("14.2 MB", "24.44 bits", "901 ms", "demo: 7 of 7 as expected", "seeded: timing only", "emulated"):
        assert said in text, said
    table = [line for line in text.splitlines() if line.startswith("|")]
    widths = {
        len([bar for number, bar in enumerate(line) if bar == "|" and line[number - 1] != "\\"]) for line in table[:7]
    }
    assert widths == {10}
    assert "<script>" not in text


def test_every_emulated_time_is_marked_and_no_other() -> None:
    rows = {row.device: row for row in make_page(FARM).rows if row.model == "lite0"}
    assert rows["board"].times[0] == ("", "emulated:")
    assert all("emulated" not in said for _, said in rows["pi5"].times)
    suites = Xml.fromstring(junit.render(FARM))
    for element in suites.iter("property"):
        if element.get("value", "").find(" ns") > 0:
            suite = next(s for s in suites.iter("testsuite") if element in list(s.iter("property")))
            assert ("(emulated)" in element.get("value", "")) == suite.get("name", "").startswith("board")


def test_a_seeded_model_claims_no_accuracy() -> None:
    records = [
        *head(),
        on("pi5", "demo", value=1, attributes={"photos": 1}, model="klaus-mobile", scheme="klaus-mixed"),
    ]
    (row,) = make_page(records).rows
    assert row.accuracy == (("", "seeded: timing only"),)


def test_percentiles_stand_from_twenty_samples_on() -> None:
    def times(count: int) -> str:
        samples = tuple(10_000_000 + n for n in range(count))
        return str(make_page([on("pi5", "pass_ns", value=samples[count // 2], samples=samples, **LITE0)]).rows[0].times)

    assert "p95" not in times(19)
    assert "n=19" in times(19)
    assert "p95" in times(20)


def test_accuracy_comes_with_its_interval_and_count() -> None:
    about = {"photos": 250, "low": 0.6364, "high": 0.7498}
    records = [on("pi5", metric, value=0.696, attributes=about, **LITE0) for metric in ("top1", "top5")]
    text = drawn(records)
    assert "top-1 69.6 % [63.6, 75.0]" in text
    assert "of 250 photos" in text


def test_change_against_the_last_run() -> None:
    before = [on("pi5", "pass_ns", value=100, samples=(100,), **LITE0, run="before")]
    after = [on("pi5", "pass_ns", value=90, samples=(90,), **LITE0)]
    (row,) = make_page(after, [before]).rows
    assert row.change == (("pass", "-10.0 %"), ("", "since"), ("", "before"))
    assert row.better is True
    emulated = [on("board", "pass_ns", value=v, samples=(v,), **LITE0) for v in (100, 90)]
    (row,) = make_page(emulated[1:], [emulated[:1]]).rows
    assert row.change[:2] == (("pass", "-10.0 %"), ("", "emulated, since"))
    assert row.better is None


def test_junit_is_counted_right() -> None:
    root = Xml.fromstring(junit.render(FARM))
    judged = [r for r in FARM if r.status is not Status.DONE]
    assert root.get("tests") == str(len(judged))
    assert root.get("failures") == str(sum(r.status is Status.FAIL for r in judged))
    assert root.get("errors") == str(sum(r.status in (Status.ERROR, Status.MISS) for r in judged))
    assert sum(int(suite.get("tests", "")) for suite in root.iter("testsuite")) == len(judged)
    assert len(list(root.iter("testcase"))) == len(judged)
    skipped = Xml.fromstring(junit.render([on("pi5", "test", Status.SKIP, message="one patch")]))
    assert skipped.get("skipped") == "1"


def _harmless(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or c == "\n" for c in text)


ANY_TEXT = st.text(st.characters(), max_size=80) | st.just(HOSTILE)


@given(ANY_TEXT, ANY_TEXT)
def test_nothing_that_a_device_says_acts(said: str, name: str) -> None:
    name = name[:100]
    records = [
        *head(),
        on("pi5", "device", attributes={"core": said, "isa": said}),
        on("pi5", "layer_error", Status.FAIL, subject=name, message=said, model=name or "x", scheme=said[:20]),
        on("pi5", "kernel_cases", Status.PASS, subject=name, value=1, attributes={"isa": said}),
        on("pi5", "photo", Status.PASS, subject=name, model=name or "x", attributes={"top5": said}),
        on("pi5", "test", Status.SKIP, subject=name, message=said),
        record("photo", subject=name, attributes={"author": said}),
    ]
    assert _harmless(drawn(records))
    page = markdown.render(make_page(records))
    assert _harmless(page)
    assert "<" not in page.replace("\\<", "").replace("<br>", "")
    assert _harmless("".join(Xml.fromstring(junit.render(records)).itertext()))


def test_rich_markup_of_a_device_is_text() -> None:
    text = drawn([on("pi5", "test", Status.FAIL, message="[bold red]x[/] [link=http://a]y[/link]")], colours=True)
    assert "[bold red]x[/] [link=http://a]y[/link]" in text


def test_plain_keeps_what_people_write() -> None:
    assert plain("Grüße, 日本 ± 5 %") == "Grüße, 日本 ± 5 %"
    assert plain("a\x1b[2J\n\u202e\ud800\u200b") == "a\\x1b[2J\\n\\u202e\\ud800\\u200b"
    assert len(plain("x" * 5000)) == 2000


def test_numbers_read_well() -> None:
    assert [duration(ns) for ns in (0, 999, 1500, 35_600_000, 999_999_999, 1_021_400_000, 75e9)] == [
        "0 ns", "999 ns", "1.50 µs", "35.6 ms", "1.00 s", "1.02 s", "75.0 s",
    ]  # fmt: skip
    assert [amount(n) for n in (0, 999, 14_211_003, 2e9)] == ["0 B", "999 B", "14.2 MB", "2.00 GB"]
    assert (share(0.6956), small(0), small(1.3e-6)) == ("69.6 %", "0", "1.3e-06")
    assert [signed_share(f) for f in (0.031, -0.1, 0.0001)] == ["+3.1 %", "-10.0 %", "±0.0 %"]


def test_a_run_without_records_has_no_page() -> None:
    with pytest.raises(ValueError, match="without records"):
        make_page([])
