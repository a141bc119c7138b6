"""One word for a device and model, with its reasons: pass, fail, noisy, invalid or error; and a run's exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reports.record import METRICS, Record, Status
from reports.stats import ACCURACY_PHOTOS, summarise
from reports.words import share

NOISE_LIMIT = 0.05  # scaled MAD / median on hardware
EMULATED_NOISE_LIMIT = 0.25  # an emulator shares its host with everything else
NOISE_SAMPLES = 3  # fewer say nothing about noise
REPEATED = ("pass_ns", "ten_patch_ns")  # samples of one and the same work; preprocessing differs with the photo


class Verdict(StrEnum):
    """Best first."""

    PASS = "pass"  # noqa: S105
    NOISY = "noisy"  # right, but its times vary too much to be quoted
    INVALID = "invalid"  # its figures cannot be true, or claim more than was measured
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


def judge(records: Sequence[Record]) -> Judgement:
    """Of one device and model: the worst that its records say."""
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for record in records:
        metric = "" if record.metric == "test" and record.subject else record.metric
        what = " ".join(part for part in (record.suite, metric, record.subject) if part)
        if record.status is Status.ERROR or record.status is Status.MISS:
            found[Verdict.ERROR].append(f"{what}: {record.message or record.status.value}")
        elif record.status is Status.FAIL:
            found[Verdict.FAIL].append(f"{what}: {record.message or 'failed'}")
        impossible = _impossible(record)
        if impossible:
            found[Verdict.INVALID].append(f"{what}: {impossible}")
        noise = _noise(record)
        if noise:
            found[Verdict.NOISY].append(f"{what}: {noise}")
    if not any(record.status in (Status.PASS, Status.DONE, Status.FAIL) for record in records):
        found[Verdict.ERROR].append("nothing was measured")
    for verdict in sorted(Verdict, key=list(Verdict).index, reverse=True):
        if found[verdict]:
            return Judgement(verdict, tuple(found[verdict]))
    return Judgement(Verdict.PASS)


def exit_code(records: Iterable[Record]) -> int:
    """0 all right, 1 a check failed, 3 set-up, 4 infrastructure, 5 internal error: the worst of a run."""
    worst = 0
    for record in records:
        code = 0
        if record.status is Status.FAIL:
            code = 1
        elif record.status is Status.MISS:
            code = 4
        elif record.status is Status.ERROR:
            given = record.attributes.get("exit_code")
            code = given if isinstance(given, int) and given in (1, 2, 3, 4, 5) else 4
        worst = max(worst, code)
    return worst


def _impossible(record: Record) -> str:
    unit = METRICS[record.metric].unit
    numbers = [*record.samples, *([] if record.value is None else [record.value])]
    if unit == "ns" and any(number <= 0 for number in numbers) and record.metric != "preprocess_ns":
        return "a time that is not positive: the device's clock cannot be trusted"
    if unit == "bytes" and any(number < 0 for number in numbers):
        return "a negative size"
    if unit == "fraction":
        photos = record.attributes.get("photos")
        if any(not 0 <= number <= 1 for number in numbers):
            return "a fraction outside 0..1"
        if not isinstance(photos, int) or photos < ACCURACY_PHOTOS:
            return f"an accuracy of {photos} photos; {ACCURACY_PHOTOS} are the least"
    return ""


def _noise(record: Record) -> str:
    if record.metric not in REPEATED or len(record.samples) < NOISE_SAMPLES:
        return ""
    spread = summarise(record.samples).spread
    limit = EMULATED_NOISE_LIMIT if record.emulated else NOISE_LIMIT
    return f"spread {share(spread)} of the median, at most {share(limit)} is quiet" if spread > limit else ""
