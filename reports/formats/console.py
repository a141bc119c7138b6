"""A run's report for people at a terminal. Device texts become rich Text, never markup, with controls escaped."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from reports.page import REFERENCE_TITLES, Checks, Facts, Page, Problem, Row
from reports.record import Status
from reports.verdict import Verdict
from reports.words import NOTHING, plain, share

VERDICT_STYLES = {
    Verdict.SKIPPED: "bold cyan",
    Verdict.PASS: "bold green",
    Verdict.NOISY: "bold yellow",
    Verdict.INVALID: "bold magenta",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red",
}
STATUS_STYLES = {
    Status.PASS: "green",
    Status.DONE: "cyan",
    Status.SKIP: "dim",
    Status.MISS: "magenta",
    Status.FAIL: "bold red",
    Status.ERROR: "bold red",
}
WIDE = 120  # columns that the table with one line a device and model needs
MAX_PROBLEMS = 20
PIPE_WIDTH = 132  # where no terminal tells one


def print_page(page: Page, console: Console | None = None) -> None:
    """Draws the report; a `console` of one's own decides width and colours."""
    out = console or Console()
    if console is None and not out.is_terminal:
        out = Console(width=PIPE_WIDTH)
    out.print(_head(page))
    if page.rows:
        out.print(_wide(page.rows) if out.width >= WIDE else _narrow(page.rows))
    if page.checks:
        out.print(_checks(page.checks))
    if page.answers:
        out.print(_table("what it saw", ("device", "model", "photo", "answers"), page.answers))
    if page.problems:
        out.print(_problems(page.problems))
    if page.references:
        out.print(_table("for comparison: other networks and photos", REFERENCE_TITLES, page.references))
    out.print(_small_print(page))


def _head(page: Page) -> RenderableType:
    title = Text.assemble(("klaus ", "bold"), _text(page.run))
    lines = [
        Text.assemble(
            (page.verdict.heading.upper(), VERDICT_STYLES[page.verdict]),
            (f"  exit code {page.exit_code}  ·  {page.seconds:.0f} s  ·  ", "dim"),
            *_join((Text(f"{count} {status.value}", STATUS_STYLES[status]) for status, count in page.counts), "  "),
        )
    ]
    if page.command:
        lines.append(Text.assemble(("$ ", "dim"), _text(page.command)))
    style = VERDICT_STYLES[page.verdict].replace("bold ", "")
    return Panel(Group(*lines), title=title, title_align="left", border_style=style, box=box.ROUNDED)


def _wide(rows: Iterable[Row]) -> RenderableType:
    table = Table(box=box.HORIZONTALS, header_style="bold", pad_edge=False, show_lines=True, border_style="dim")
    table.add_column("device · model", min_width=14, max_width=28)
    for title in ("size · memory", "times", "accuracy · agreement"):
        table.add_column(title, no_wrap=True)
    table.add_column("verdict, change", max_width=24)
    for row in rows:
        table.add_row(
            _who(row),
            _grid((*row.size, *row.memory)),
            _grid(row.times),
            _grid((*row.accuracy, *row.agreement)),
            Text("\n").join([_verdict(row), _change(row)]),
        )
    return table


def _narrow(rows: Iterable[Row]) -> RenderableType:
    cards = []
    for row in rows:
        card = Table(box=None, show_header=False, pad_edge=False)
        card.add_column(style="dim", no_wrap=True)
        card.add_column()
        for name, cell in (
            ("size", _flow(row.size)),
            ("memory", _flow(row.memory)),
            ("times", _flow(row.times)),
            ("accuracy", _flow(row.accuracy)),
            ("agreement", _flow(row.agreement)),
            ("change", _flow(row.change)),
            ("verdict", _verdict(row)),
        ):
            card.add_row(name, cell)
        title = Text.assemble(_text(row.device), (" · ", "dim"), _text(row.model), (" · ", "dim"), _text(_how(row)))
        cards.append(Panel(card, title=title, title_align="left", box=box.ROUNDED, border_style="dim"))
    return Group(*cards)


def _how(row: Row) -> str:
    return f"{row.scheme} {row.mode}".strip()


def _who(row: Row) -> Text:
    where = f"{row.kind}, {row.target}"
    return Text("\n").join(
        [
            Text(plain(row.device), "bold"),
            Text(plain(row.model) + f" {plain(_how(row))}", "cyan"),
            Text(plain(where), "dim"),
            *([Text("emulated", "yellow")] if row.emulated else []),
        ]
    )


def _verdict(row: Row) -> Text:
    judgement = row.judgement
    text = Text(judgement.heading, VERDICT_STYLES[judgement.verdict])
    if judgement.reasons and judgement.verdict is not Verdict.PASS:
        more = f" (+{len(judgement.reasons) - 1})" if len(judgement.reasons) > 1 else ""
        text.append("\n" + plain(judgement.reasons[0], 60) + more, "dim")
    return text


def _change(row: Row) -> Text:
    style = "" if row.better is None else "green" if row.better else "red"
    lines = [plain(f"{label} {said}".strip()) for label, said in row.change] or [NOTHING]
    return Text.assemble((lines[0], style), *(("\n" + line, "dim") for line in lines[1:]))


def _checks(checks: Iterable[Checks]) -> RenderableType:
    table = Table(title="kernels on the device", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("device")
    table.add_column("instructions")
    for title in ("variants", "cases", "failed"):
        table.add_column(title, justify="right")
    table.add_column("largest error, of its bound")
    for check in checks:
        worst = NOTHING if check.worst is None else f"{share(check.worst)}  {plain(check.worst_of)}"
        failed = Text(str(check.failed), "bold red" if check.failed else "green")
        table.add_row(
            _text(check.device), _text(check.isa), str(check.variants), f"{check.cases:,}", failed, Text(worst)
        )
    return table


def _table(title: str, titles: Iterable[str], rows: Iterable[Iterable[str]]) -> RenderableType:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in titles:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_text(part) for part in row))
    return table


def _problems(problems: tuple[Problem, ...]) -> RenderableType:
    lines: list[RenderableType] = []
    for problem in problems[:MAX_PROBLEMS]:
        where = " · ".join(part for part in (problem.device, problem.model, problem.what) if part)
        lines.append(
            Text.assemble((f"{problem.status.value:5} ", STATUS_STYLES[problem.status]), (plain(where, 600), "bold"))
        )
        if problem.message:
            lines.append(Padding(_text(problem.message), (0, 0, 0, 6)))
    if len(problems) > MAX_PROBLEMS:
        lines.append(Text(f"and {len(problems) - MAX_PROBLEMS} more in records.jsonl", "dim"))
    return Panel(Group(*lines), title="what went wrong", title_align="left", border_style="red", box=box.ROUNDED)


def _small_print(page: Page) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True, vertical="top")
    table.add_column(style="dim", vertical="top")
    table.add_column(style="dim", overflow="fold")
    said = ""
    for origin in page.origins:
        text = "\n".join(plain(part) for part in (origin.text, origin.code) if part)
        table.add_row("" if origin.kind == said else origin.kind, _text(origin.name), Text(text))
        said = origin.kind  # once a block
    lines: list[RenderableType] = [Rule(style="dim"), table]
    lines += [Text(f"skipped  {plain(reason)}", "dim") for reason in page.skipped]
    lines += [Text(plain(note), "dim italic") for note in page.notes]
    lines.append(Text.assemble(("reproduce  ", "dim"), _text(page.reproduce)))
    return Group(*lines)


def _grid(facts: Facts) -> Text:
    """Labels in a column of their own; lines without one begin at the left."""
    width = max((len(label) for label, _ in facts), default=0)
    lines = [
        Text.assemble((f"{plain(label):{width}} ", "dim"), plain(said)) if label else Text(plain(said), "dim")
        for label, said in facts
    ]
    return Text("\n").join(lines) if lines else Text(NOTHING, "dim")


def _flow(facts: Facts) -> Text:
    text = "  ·  ".join(plain(f"{label} {said}".strip()) for label, said in facts)
    return Text(text.replace(":  ·  ", ": ") or NOTHING)


def _text(text: str) -> Text:
    return Text(plain(text))


def _join(texts: Iterable[Text], gap: str) -> list[Text]:
    joined: list[Text] = []
    for text in texts:
        joined += [*([Text(gap)] if joined else []), text]
    return joined
