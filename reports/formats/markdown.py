"""report.md: the same page for repositories and pull requests. Every text is escaped: a device writes no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.page import Facts, Page
from reports.words import NOTHING, plain, share

_SPECIAL = set("\\`*_{}[]<>()#+!|~&@$^")


def render(page: Page) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    parts = [
        f"# klaus {_inline(page.run)}: {page.verdict.value}",
        f"{_inline(page.started)}, {page.seconds:.0f} s, exit code {page.exit_code}, "
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
                        _cell((row.model, row.scheme)),
                        _facts(row.size),
                        _facts(row.memory),
                        _facts(row.times),
                        _facts(row.accuracy),
                        _facts(row.agreement),
                        _cell((row.judgement.verdict.value, *row.judgement.reasons[:1])),
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
                        NOTHING if check.worst is None else f"{share(check.worst)} {_inline(check.worst_of)}",
                    )
                    for check in page.checks
                ],
            ),
        ]
    if page.answers:
        parts += [
            "## What it saw",
            _table(("device", "model", "photo", "answers"), [tuple(map(_inline, answer)) for answer in page.answers]),
        ]
    if page.problems:
        parts += [
            "## What went wrong",
            _table(
                ("status", "device", "model", "suite", "what", "message"),
                [
                    (
                        problem.status.value,
                        *map(_inline, (problem.device, problem.model, problem.suite, problem.what)),
                        _inline(problem.message),
                    )
                    for problem in page.problems
                ],
            ),
        ]
    parts.append("## Where it comes from")
    for title, pairs in (
        ("device", page.devices),
        ("build", page.builds),
        ("model", page.models),
        ("photo", page.photos),
    ):
        parts += [f"- {title} **{_inline(name)}**: {_inline(text)}" for name, text in pairs]
    parts += [f"- skipped {_inline(problem.suite)}: {_inline(problem.message)}" for problem in page.skipped]
    parts += [f"- {_inline(note)}" for note in page.notes]
    parts.append(f"Reproduce: {_inline(page.reproduce)}")
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
    return "".join(f"\\{character}" if character in _SPECIAL else character for character in plain(text))


def _code(text: str) -> str:
    return "    " + plain(text)
