"""What counts are compared with: the committed baseline, the peers' figures and the goals, all TSV files beside the
plugin's source. Lines that begin with # are comments; the first other line names the columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_tests.count.measure import Setting
from device_tests.devices.counting import COLUMNS, SOURCE, Counts
from device_tests.devices.text import printable
from device_tests.errors import InventoryError
from device_tests.results import write_text

BASELINE, PEERS, GOALS = SOURCE / "baseline.tsv", SOURCE / "peers.tsv", SOURCE / "goals.tsv"
MAX_RISE = 0.005  # what a count may rise above its baseline
_BASELINE_HEAD = """\
# What this project's own kernels execute: one thread, pass 2, under qemu's user mode, counted by class.
# Written by `./inv count --update-baseline`; a rise of more than 0.5 % against it fails, so a commit that costs
# instructions brings its new baseline and says why.
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """What another engine executes for the same work."""

    network: str
    job: str
    cpu: str
    mode: str
    peer: str
    options: str
    instructions: int  # without `other`, which is nearly all prefetches
    slots: int
    multiply_adds: int
    vector_load_bytes: int


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach: millions of a metric, or a share of ten passes."""

    network: str
    job: str
    cpu: str
    mode: str
    metric: str  # instructions, slots, of-ten-passes
    figure: float


def read_baseline(path: Path = BASELINE) -> dict[Setting, Counts]:
    """The committed counts; none where there is no file yet. Raises InventoryError for a broken one."""
    if not path.exists():
        return {}
    names = tuple(Setting.__dataclass_fields__)
    found: dict[Setting, Counts] = {}
    for row in _read(path, (*names, *COLUMNS)):
        setting = Setting(**{name: row[name] for name in names})
        found[setting] = Counts({name: _number(path, row[name]) for name in COLUMNS})
    return found


def write_baseline(baseline: Mapping[Setting, Counts], path: Path = BASELINE) -> None:
    """Replaces the baseline, whole or not at all."""
    names = tuple(Setting.__dataclass_fields__)
    lines = ["\t".join((*names, *COLUMNS))]
    for setting, counts in sorted(baseline.items()):
        words = [str(getattr(setting, name)) for name in names]
        lines.append("\t".join([*words, *(str(counts.of[name]) for name in COLUMNS)]))
    write_text(path, _BASELINE_HEAD + "\n".join(lines) + "\n")


def read_peers(path: Path = PEERS) -> list[Peer]:
    """Every row of peers.tsv."""
    words = ("network", "job", "cpu", "mode", "peer", "options")
    numbers = ("instructions", "other", "slots", "multiply_adds", "vector_load_bytes")
    found = []
    for row in _read(path, (*words, *numbers, "peak_mib")):
        figures = {name: _number(path, row[name]) for name in numbers}
        figures["instructions"] -= figures.pop("other")
        found.append(Peer(**{name: row[name] for name in words}, **figures))  # type: ignore[arg-type]
    return found


def read_goals(path: Path = GOALS) -> list[Goal]:
    """Every row of goals.tsv."""
    found = []
    for row in _read(path, ("network", "job", "cpu", "mode", "metric", "goal")):
        if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", row["goal"]) is None:
            raise InventoryError(f"{path}: {printable(row['goal'], 40)!r} is no figure")
        figure = float(row.pop("goal"))
        found.append(Goal(row["network"], row["job"], row["cpu"], row["mode"], row["metric"], figure))
    return found


def rises(measured: Mapping[Setting, Counts], baseline: Mapping[Setting, Counts]) -> list[str]:
    """One line for each count that rose by more than MAX_RISE; settings without a baseline are left out."""
    found = []
    for setting, counts in measured.items():
        before = baseline.get(setting)
        if before is None:
            continue
        for name, was, now in (
            ("instructions", before.instructions, counts.instructions),
            ("slots", before.slots, counts.slots),
        ):
            if now > was * (1 + MAX_RISE):
                found.append(f"{setting}: {now:,} {name}, {100 * (now / was - 1):.2f} % above the baseline's {was:,}")
    return found


def _read(path: Path, columns: Sequence[str]) -> Iterable[dict[str, str]]:
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(f"{path}: cannot be read ({error}); restore it from git") from error
    if not lines or lines[0].split("\t") != list(columns):
        raise InventoryError(f"{path}: its columns must be {' '.join(columns)}; restore it from git")
    for line in lines[1:]:
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise InventoryError(f"{path}: {printable(line, 80)!r} has {len(fields)} fields, not {len(columns)}")
        yield dict(zip(columns, fields, strict=True))


def _number(path: Path, text: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise InventoryError(f"{path}: {printable(text, 40)!r} is no whole number")
    return int(text)
