"""What the formats draw, and that nothing a device says acts on a terminal, a page or a parser."""

from __future__ import annotations

import html.parser
import io
import unicodedata
import xml.etree.ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
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
        "18.20",
    ):  # fmt: skip
        assert said.replace(" ", "") in squeezed, said
    assert max(map(len, text.splitlines())) <= width


def test_markdown_says_it_too() -> None:
    text = markdown.render(make_page(FARM))
    for said in ("14.2 MB", "24.44 bits", "901 ms", "demo: 7 of 7 as expected", "seeded: timing only", "emulated",
                 "| Klaus, as shipped | 19.3 MiB | about 100 MiB |  | 18.20 | 3 s on an iPhone 5 |"):  # fmt: skip
        assert said in text, said
    table = [line for line in text.splitlines() if line.startswith("|")]
    widths = {
        len([bar for number, bar in enumerate(line) if bar == "|" and line[number - 1] != "\\"]) for line in table[:7]
    }
    assert widths == {10}
    assert "<script>" not in text.replace("\\<", "")


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


class _Reader(html.parser.HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def as_read(page: str) -> tuple[str, set[str]]:
    reader = _Reader()
    reader.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(page))
    reader.close()
    return reader.text, reader.tags


ANY_TEXT = st.text(st.characters(), max_size=80) | st.just(HOSTILE)


@settings(deadline=None)
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
    read, tags = as_read(page)
    assert plain(said) in read or not said.strip()
    assert tags <= {
        "h1",
        "h2",
        "p",
        "code",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "pre",
        "strong",
        "br",
    }
    assert _harmless("".join(Xml.fromstring(junit.render(records)).itertext()))


@pytest.mark.parametrize(
    "text",
    ["a_b", "_a_", "*a*", "`a`", "a|b", "[a](http://b)", "![a](b)", "<b>", "&lt;", "&#60;", "a~~b~~", "\\*", "a\\",
     "\\_a_", "a__b__c", "#1", "(n=3)", "https://a.b/c_d_", "a & b", "``a`", "<!--", "\\|", "a]", "]: b"],
)  # fmt: skip
def test_a_text_reads_in_markdown_as_it_stands(text: str) -> None:
    records = [*head(), on("pi5", "photo", subject=text, model=text, attributes={"top5": text})]
    records += [on("pi5", "test", Status.FAIL, subject=text, message=text, **LITE0), record("photo", subject=text)]
    read, tags = as_read(markdown.render(make_page(records)))
    assert read.count(text) >= 6
    assert not tags & {"a", "em", "s", "img", "b"}


def test_markdown_escapes_only_where_it_must() -> None:
    page = markdown.render(make_page([*head(), *device("board"), on("board", "test", Status.FAIL, message="(x) a_b")]))
    assert "\\" not in page
    assert "`klaus_conv_f32_neon_8x12`" in page
    assert page.count("-mcpu=generic") == 1
    assert "; flags `-O3 -mcpu=generic`" in page


def test_the_page_says_when_and_how_right() -> None:
    records = [*head(), on("pi5", "layer_error", Status.PASS, value=0.0, **LITE0)]
    page = make_page(records)
    assert page.started == "2026-01-31 12:00 UTC"
    assert page.rows[0].agreement == (("layers", "exact"),)
    assert ("", "24.44 bits a weight") in page.rows[0].size
    assert any("before ReLU6" in note for note in page.notes)


def test_preprocessing_of_unlike_photos_is_no_noise() -> None:
    (row,) = make_page([on("pi5", "preprocess_ns", value=2e6, samples=(1e6, 2e6, 9e6), **LITE0)]).rows
    assert row.times == (("preprocess", "2.00 ms"),)


def test_tests_that_never_ran_are_one_problem_after_its_cause() -> None:
    missed = [
        on("phone", "test", Status.MISS, suite=s, subject="all tests", message="never ran", **LITE0) for s in "ab"
    ]
    (cause, rest) = make_page([*missed, troubles()[0]]).problems
    assert (cause.status, cause.what, cause.message[:15]) == (Status.ERROR, "", "nobody answers ")
    assert (rest.status, rest.what, rest.message) == (Status.MISS, "a all tests, b all tests", "never ran")


def test_figures_that_cannot_be_true_are_a_problem() -> None:
    page = make_page([*head(), on("pi5", "pass_ns", value=0, samples=(0,), **LITE0)])
    assert (page.exit_code, page.verdict.value) == (1, "invalid")
    (problem,) = page.problems
    assert "clock cannot be trusted" in problem.message


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_of_the_table_is_cut(width: int) -> None:
    text = drawn([*head(), *device("board"), *device("pi5", 0.04)], width)
    for said in ("first run", "10 patches 9.80 s", "7 of 7 as host", "timing only"):
        assert said in text, said


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
