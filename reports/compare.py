"""What changed since the last run on the same device. Unlike things are refused, not compared.

Alike are two records of one metric and subject, on one device, kind and target, of one packed model (by hash), under
the same conditions (threads, instruction set, precision, job, ...), both emulated or both not. A time under emulation
is compared with the same emulator's only, and its change is an indication, never better or worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import journal
from reports.record import METRICS, Attribute, Record, ReportError

CONDITIONS = ("threads", "isa", "precision", "memory", "job", "counter", "patches", "crop", "photos_sha256", "emulator")
USUAL = {"precision": "fp32", "memory": "default"}  # what is meant where a record does not say it
MAX_EARLIER_RUNS = 50


class UnlikeError(ReportError):
    """Two records that say nothing about each other."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one run to the next."""

    metric: str
    before: float
    after: float
    since: str  # the earlier run
    better: bool | None  # None: equal, no direction, or not to be judged (emulated time)

    @property
    def fraction(self) -> float:
        """(after - before) / before; 0 where before is 0."""
        return self.after / self.before - 1 if self.before else 0.0


def differences(before: Record, after: Record) -> list[str]:
    """What makes two records unlike, each as 'target: ios / linux-aarch64'; empty where they may be compared."""
    pairs = [
        (name, getattr(before, name), getattr(after, name))
        for name in ("metric", "subject", "device", "kind", "target", "emulated", "model", "model_sha256", "scheme")
    ]
    pairs += [(name, _condition(before, name), _condition(after, name)) for name in CONDITIONS]
    return [f"{name}: {old} / {new}" for name, old, new in pairs if old != new]


def _condition(record: Record, name: str) -> Attribute:
    return record.attributes.get(name, USUAL.get(name))


def compare(before: Record, after: Record) -> Change:
    """The change of a metric's value. Raises UnlikeError naming what differs."""
    unlike = differences(before, after)
    if unlike:
        raise UnlikeError(f"{after.metric}: not comparable, {'; '.join(unlike)}; compare runs of one device and model")
    if before.value is None or after.value is None:
        raise UnlikeError(f"{after.metric}: not comparable, one of the two has no value")
    metric = METRICS[after.metric]
    judged = metric.better is not None and before.value != after.value
    if after.emulated and not metric.emulated_counts:
        judged = False
    better = (after.value < before.value) == (metric.better == "lower") if judged else None
    return Change(after.metric, float(before.value), float(after.value), before.run, better)


def last_change(record: Record, earlier: Iterable[Sequence[Record]]) -> Change | None:
    """Against the newest of the earlier runs (newest first) that measured the same; None where none did."""
    if record.value is None:
        return None
    for run in earlier:
        for candidate in run:
            if candidate.metric == record.metric and candidate.value is not None:
                if differences(candidate, record):
                    continue
                return compare(candidate, record)
    return None


def earlier_runs(results: Path, run: str) -> Iterator[list[Record]]:
    """Records of the runs below `results` that are older than `run`, newest first, unreadable ones left out."""
    if not results.is_dir():
        return
    names = sorted((path.name for path in results.iterdir() if (path / journal.NAME).is_file()), reverse=True)
    for name in [name for name in names if name < run][:MAX_EARLIER_RUNS]:
        try:
            yield journal.read(results / name / journal.NAME)
        except ReportError:
            continue  # a broken old journal must not spoil today's report
