"""One word for a device and model, with its reasons: pass, fail, noisy, invalid or error; and a run's exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reports.record import METRICS, Record, Status
from reports.stats import summarise
from reports.words import share

NOISE_LIMIT = 0.05  # scaled MAD / median; not asked of an emulator, which shares its host with everything else
NOISE_SAMPLES = 3  # fewer say nothing about noise
REPEATED = ("pass_ns", "ten_patch_ns")  # samples of one and the same work; preprocessing differs with the photo
NEVER_RAN = 4  # exit codes
UNKNOWN_ERROR = 4
CHECK_FAILED = 1

USUAL_MODE = "fp32"
Key = tuple[str, str | None, str | None, str]  # device, model, scheme, mode


class Verdict(StrEnum):
    """Best first."""

    SKIPPED = "skipped"  # the device cannot do what was asked, and says so: nothing is wrong, nothing was measured
    PASS = "pass"  # noqa: S105
    NOISY = "noisy"  # right, but its times vary too much to be quoted
    INVALID = "invalid"  # its figures cannot be true, or claim more than was measured
    FAIL = "fail"
    ERROR = "error"

    @property
    def heading(self) -> str:
        """As a heading: that noise fails nothing is said."""
        return "pass, timing noisy" if self is Verdict.NOISY else self.value


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, why (what caused the rest comes first), and the exit code that it stands for."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    exit_code: int = 0
    emulated_times: bool = False  # it passed, and its times are an emulator's: nothing is said about them

    @property
    def heading(self) -> str:
        """As a cell of a report."""
        emulated = self.verdict is Verdict.PASS and self.emulated_times
        return "pass (emulated times)" if emulated else self.verdict.heading


def mode(record: Record) -> str:
    """Arithmetic and use of memory: fp32, fp16, int8 lean; "" where a record says nothing of how a model ran."""
    precision, memory = record.attributes.get("precision"), record.attributes.get("memory", "default")
    if record.model is None or precision is None:
        return ""
    return f"{precision}" if memory == "default" else f"{precision} {memory}"


def unusual(how: str) -> str:
    """A mode as names have it: the usual one is not said."""
    return "" if how == USUAL_MODE else how


def judge(records: Sequence[Record], around: Sequence[Record] = ()) -> Judgement:
    """Of one device, model and mode: the worst that its records say.

    around: what is known of the device or the model otherwise. It is judged too, but measures nothing of this.
    """
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    codes = [0]
    judged = [*around, *records]
    for record in causes_first(judged):
        said = "" if record.metric == "device_job" else f"{place(record)}: "
        code = status_code(record)
        if code:
            codes.append(code)
        if record.status is Status.ERROR:
            found[Verdict.ERROR].append(said + bare(record.message or "could not be checked", record.device))
        elif record.status is Status.FAIL:
            found[Verdict.FAIL].append(said + (record.message or "failed"))
        impossible = _impossible(record)
        if impossible:
            found[Verdict.INVALID].append(said + impossible)
            codes.append(CHECK_FAILED)
        noise = _noise(record)
        if noise:
            found[Verdict.NOISY].append(said + noise)
    found[Verdict.ERROR] += [f"{tests(missed)}: {message}" for message, missed in by_message(judged)]
    measured = any(r.status in (Status.PASS, Status.DONE, Status.FAIL) for r in records)
    if not measured and any(record.attributes.get("unable") is True for record in records):
        found[Verdict.SKIPPED] += dict.fromkeys(r.message for r in records if r.attributes.get("unable") is True)
    elif not found[Verdict.ERROR] and not measured:
        why = next((f": {record.message}" for record in records if record.message), "")
        found[Verdict.ERROR].append(f"nothing was measured{why}")
        codes.append(UNKNOWN_ERROR)
    said_of = [verdict for verdict in Verdict if found[verdict]]
    worst = max(said_of, key=list(Verdict).index, default=Verdict.PASS)
    times = any(record.emulated and METRICS[record.metric].unit == "ns" for record in records)
    return Judgement(worst, tuple(found[worst]), max(codes), times)


def judge_all(records: Iterable[Record]) -> dict[Key, Judgement]:
    """Each device, model and mode of a run; a device without any model is judged alone, with None as its model.

    What is known of a model whatever its mode, as that its file arrived whole, belongs to each of its modes.
    """
    groups: dict[Key, list[Record]] = {}
    whole: dict[Key, list[Record]] = {}
    around: dict[str, list[Record]] = {}
    for record in records:
        if record.device is None:
            continue
        alone = around.setdefault(record.device, [])
        if record.model is None:
            alone.append(record)
        elif mode(record):
            groups.setdefault((record.device, record.model, record.scheme, mode(record)), []).append(record)
        else:
            whole.setdefault((record.device, record.model, record.scheme, ""), []).append(record)
    moded = {(*key[:3], "") for key in groups}
    groups |= {key: group for key, group in whole.items() if key not in moded}
    judgements = {
        key: judge(group, [*around[key[0]], *(whole.get((*key[:3], ""), []) if key[3] else [])])
        for key, group in groups.items()
    }
    lonely = around.keys() - {key[0] for key in groups}
    return judgements | {(name, None, None, ""): judge(alone) for name, alone in around.items() if name in lonely}


def exit_code(records: Iterable[Record]) -> int:
    """0 all right, 1 a check failed, 2 bad input, 3 set-up, 4 infrastructure, 5 internal error: the worst of a run.

    A figure that cannot be true is a failed check; where nothing was measured, the infrastructure failed. That one of
    several devices or modes cannot be is no failure; a run in which none can has measured nothing.
    """
    records = list(records)
    own = [status_code(record) for record in records if record.device is None]
    judgements = judge_all(records).values()
    if judgements and all(judgement.verdict is Verdict.SKIPPED for judgement in judgements):
        own.append(UNKNOWN_ERROR)
    return max([0, *own, *(judgement.exit_code for judgement in judgements)])


def status_code(record: Record) -> int:
    """The exit code that a record's status stands for."""
    if record.status is Status.FAIL:
        return CHECK_FAILED
    if record.status is Status.MISS:
        return NEVER_RAN
    if record.status is Status.ERROR:
        given = record.attributes.get("exit_code")
        return given if isinstance(given, int) and given in (1, 2, 3, 4, 5) else UNKNOWN_ERROR
    return 0


def causes_first(records: Iterable[Record]) -> list[Record]:
    """What went wrong with a whole job stands before what followed from it."""
    return sorted(records, key=lambda record: record.metric != "device_job" or record.status is not Status.ERROR)


def by_message(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """Tests that never ran, those with one and the same message together."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status is Status.MISS:
            groups.setdefault(record.message or "never ran", []).append(record)
    return list(groups.items())


def tests(records: Sequence[Record]) -> str:
    """Their names, each once."""
    return ", ".join(dict.fromkeys(place(record) for record in records))


def place(record: Record) -> str:
    """Suite, metric and subject; 'test' is not said where its name is."""
    metric = "" if record.metric == "test" and record.subject else record.metric
    return " ".join(part for part in (record.suite, metric, record.subject) if part)


def bare(message: str, device: str | None) -> str:
    """A message without its device's name in front, for a line that names the device already."""
    return message.removeprefix(f"{device}: ")


def _impossible(record: Record) -> str:
    unit = METRICS[record.metric].unit
    numbers = [*record.samples, *([] if record.value is None else [record.value])]
    if unit == "ns" and any(number <= 0 for number in numbers) and record.metric != "preprocess_ns":
        return "a time that is not positive: the device's clock cannot be trusted"
    if unit == "bytes" and any(number < 0 for number in numbers):
        return "a negative size"
    if unit == "fraction":
        photos, least = record.attributes.get("photos"), record.attributes.get("claim_from")
        if any(not 0 <= number <= 1 for number in numbers):
            return "a fraction outside 0..1"
        if not isinstance(photos, int) or not isinstance(least, int) or photos < least:
            return f"an accuracy of {photos} photos; {'an unknown number' if least is None else least} are the least"
    return ""


def _noise(record: Record) -> str:
    if record.emulated or record.metric not in REPEATED or len(record.samples) < NOISE_SAMPLES:
        return ""
    spread = summarise(record.samples).spread
    if spread <= NOISE_LIMIT:
        return ""
    return f"spread {share(spread)} of the median, at most {share(NOISE_LIMIT)} is quiet"
