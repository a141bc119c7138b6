"""report.md: the same page for repositories and pull requests. Every text is escaped: a device writes no markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reports.page import REFERENCE_TITLES, Facts, Page
from reports.words import NOTHING, plain, share

# What Markdown acts on inside a line; an underscore within a word, brackets and the like stand as they are.
_SPECIAL = re.compile(
    r"""[`*<|~$]            # code, emphasis, tags, cells, strikethrough, formulas
    | \\(?=[!-/:-@\[-`{-~]|\Z)  # a backslash that would escape
    | \](?=[(\[:])           # a link's middle
    | &(?=[#\w])              # entities
    | (?<!\w)@(?=\w)          # mentions
    | (?<![^\W_])_ | _(?![^\W_])  # emphasis at a word's edge
    """,
    re.VERBOSE,
)
_IDENTIFIER = re.compile(r"[\w.=/+-]*_[\w.=/+-]*", re.ASCII)


def render(page: Page) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    parts = [
        f"# klaus {_inline(page.run)}: {page.verdict.heading}",
        f"{page.started}, {page.seconds:.0f} s, exit code {page.exit_code}, "
        + ", ".join(f"{count} {status.value}" for status, count in page.counts),
    ]
    if page.command:
        parts.append(_code(page.command))
    if page.rows:
        parts.append(
            _table(
                ("device", "model", "size", "memory", "times", "accuracy", "agreement", "verdict", "change"),
                [
                    (
                        _cell((row.device, f"{row.kind}, {row.target}", *(["emulated"] if row.emulated else []))),
                        _cell((row.model, row.scheme, *([row.mode] if row.mode else []))),
                        _facts(row.size),
                        _facts(row.memory),
                        _facts(row.times),
                        _facts(row.accuracy),
                        _facts(row.agreement),
                        _cell((row.judgement.heading, *row.judgement.reasons[:1])),
                        _facts(row.change),
                    )
                    for row in page.rows
                ],
            )
        )
    if page.checks:
        parts += [
            "## Kernels on the device",
            _table(
                ("device", "instructions", "variants", "cases", "failed", "largest error, of its bound"),
                [
                    (
                        _inline(check.device),
                        _inline(check.isa),
                        str(check.variants),
                        str(check.cases),
                        str(check.failed),
                        NOTHING if check.worst is None else f"{share(check.worst)} {_name(check.worst_of)}",
                    )
                    for check in page.checks
                ],
            ),
        ]
    if page.answers:
        parts += [
            "## What it saw",
            _table(("device", "model", "photo", "answers"), [tuple(map(_name, answer)) for answer in page.answers]),
        ]
    if page.problems:
        parts += [
            "## What went wrong",
            _table(
                ("status", "device", "model", "what", "message"),
                [
                    (
                        problem.status.value,
                        *map(_inline, (problem.device, problem.model, problem.what, problem.message)),
                    )
                    for problem in page.problems
                ],
            ),
        ]
    if page.references:
        parts += [
            "## For comparison, as published",
            "Other networks, other photos (misses on ImageNet's 50,000).",
            _table(REFERENCE_TITLES, [tuple(map(_inline, reference)) for reference in page.references]),
        ]
    parts.append("## Where it comes from")
    parts += [
        f"- {origin.kind} **{_inline(origin.name)}**: {_inline(origin.text)}"
        + (f"; flags {_span(origin.code)}" if origin.code else "")
        for origin in page.origins
    ]
    parts += [f"- skipped {_inline(reason)}" for reason in page.skipped]
    parts += [f"- {_inline(note)}" for note in page.notes]
    parts.append(f"Reproduce: {_span(page.reproduce)}")
    return _paragraphs(parts)


def _paragraphs(parts: Iterable[str]) -> str:
    text = ""
    previous = ""
    for part in parts:
        gap = "" if not text else "\n" if part.startswith("- ") and previous.startswith("- ") else "\n\n"
        text += gap + part
        previous = part
    return text + "\n"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(lines: Iterable[str]) -> str:
    return "<br>".join(_inline(line) for line in lines) or NOTHING


def _facts(facts: Facts) -> str:
    return _cell(f"{label} {said}".strip() for label, said in facts)


def _inline(text: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], plain(text))


def _name(text: str) -> str:
    """A file's or variant's name with underscores as code, any other text as it reads."""
    return _span(text) if _IDENTIFIER.fullmatch(text) else _inline(text)


def _span(text: str) -> str:
    """Code in a line, outside of tables: fenced by more backticks than it holds."""
    shown = plain(text) or NOTHING
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    gap = " " if "`" in shown else ""
    return f"{fence}{gap}{shown}{gap}{fence}"


def _code(text: str) -> str:
    return "    " + plain(text)
