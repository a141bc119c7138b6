"""What the command says, and how: harmless for a terminal, as text or as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import Progress

from klaus_runtime.model import Model

Report = Callable[[str, int, int], None]  # told what is done, how far, of how much
SEEDED = "seeded: timing only, the answers mean nothing"


def clean(text: str) -> str:
    """Text from a file or a path made harmless for a terminal: what cannot be printed becomes a question mark."""
    # device_tests and reports share reports/words.py; this package sees neither of them, and a line is enough here.
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def complain(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"klaus: {clean(message)}\n")


def say(line: str) -> None:
    """One line of the answer."""
    sys.stdout.write(clean(line) + "\n")


def say_json(value: Mapping[str, Any]) -> None:
    """The whole answer as one JSON object."""
    sys.stdout.write(json.dumps(value) + "\n")


def facts(model: Model) -> dict[str, Any]:
    """What every JSON answer says of its model."""
    return {"model": model.name, "provenance": asdict(model.provenance)}


def say_origin(model: Model) -> None:
    """Where a model comes from, and what that allows."""
    origin = model.provenance
    say(f"{model.name} ({origin.scheme}): {origin.source}; licence {origin.licence}; {origin.attribution}")
    if origin.seeded:
        say(SEEDED)


def times(sizes: Sequence[int]) -> str:
    """Sizes as people write them: 225 x 225 x 3."""
    return " x ".join(str(size) for size in sizes)


def console() -> Console:
    """Where tables go; as wide as a page where stdout is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Report]:
    """A bar on stderr while a job runs, where a person watches."""
    bars = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bars:
        bar = bars.add_task(clean(what), total=total)
        yield lambda said, done, of: bars.update(bar, description=clean(said), completed=done, total=of)
