"""Statistics, verdicts, exit codes and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import compare, journal, stats
from reports.record import Record, Status
from reports.verdict import Verdict, exit_code, judge, judge_all, mode
from tests.reports.report_samples import LITE0, MOBILE, SHA, on

TIMES = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)


@given(TIMES)
def test_statistics_are_those_of_numpy(samples: list[int]) -> None:
    found = stats.summarise(samples)
    assert found.median == pytest.approx(np.median(samples))
    assert found.mad == pytest.approx(np.median(np.abs(np.array(samples) - np.median(samples))))
    assert (found.minimum, found.maximum, found.count) == (min(samples), max(samples), len(samples))
    if len(samples) >= 20:
        assert found.p5 == pytest.approx(np.percentile(samples, 5))
        assert found.p95 == pytest.approx(np.percentile(samples, 95))
    else:
        assert found.p5 is found.p95 is None


def test_percentiles_begin_at_twenty_samples() -> None:
    assert stats.percentile(range(19), 95) is None
    assert stats.percentile(range(20), 95) == pytest.approx(18.05)
    with pytest.raises(ValueError, match=r"0\.\.100"):
        stats.percentile([1], 101)
    with pytest.raises(ValueError, match="no samples"):
        stats.median([])


def timed(device: str = "pi5", samples: tuple[int, ...] = (100, 101, 102), **fields: Any) -> Record:
    fields = {"value": stats.median(samples), "samples": samples, "attributes": {"threads": 1}} | fields
    return on(device, "pass_ns", **LITE0 | fields)


def accuracy(share: float, *, photos: int, claim_from: int | None = 100) -> Record:
    return on("pi5", "top1", value=share, attributes={"photos": photos, "claim_from": claim_from}, **LITE0)


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([timed()], Verdict.PASS),
        ([timed(samples=(100, 150, 200))], Verdict.NOISY),
        ([timed("board", samples=(100, 200, 300))], Verdict.PASS),  # an emulator's noise says nothing
        ([timed(samples=(100, 200))], Verdict.PASS),  # two samples say nothing about noise
        ([timed(samples=(0, 0, 0))], Verdict.INVALID),
        ([accuracy(0.7, photos=99)], Verdict.INVALID),
        ([accuracy(0.7, photos=100)], Verdict.PASS),
        ([accuracy(1.7, photos=100)], Verdict.INVALID),
        ([accuracy(0.7, photos=100, claim_from=None)], Verdict.INVALID),
        ([timed(samples=(100, 150, 200)), on("pi5", "layer_error", Status.FAIL, **LITE0)], Verdict.FAIL),
        ([on("pi5", "layer_error", Status.FAIL, **LITE0), on("pi5", "test", Status.MISS, **LITE0)], Verdict.ERROR),
        ([on("pi5", "test", Status.SKIP, **LITE0)], Verdict.ERROR),
        ([], Verdict.ERROR),
    ],
)
def test_verdicts(records: list[Record], verdict: Verdict) -> None:
    judgement = judge(records)
    assert judgement.verdict is verdict
    assert bool(judgement.reasons) == (verdict is not Verdict.PASS)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([], 0),
        ([on("pi5", "test", Status.PASS), on("pi5", "test", Status.SKIP), on("pi5", "demo")], 0),
        ([on("pi5", "test", Status.FAIL)], 1),
        ([on("pi5", "test", Status.FAIL), on("phone", "test", Status.MISS)], 4),
        ([on("pi5", "test", Status.ERROR, attributes={"exit_code": 3})], 3),
        ([on("pi5", "test", Status.ERROR, attributes={"exit_code": 5}), on("pi5", "test", Status.MISS)], 5),
        ([on("pi5", "test", Status.ERROR, attributes={"exit_code": 77})], 4),
        ([on("pi5", "test", Status.ERROR)], 4),
        ([timed(samples=(0, 0, 0))], 1),  # invalid
        ([accuracy(0.7, photos=99)], 1),
        ([timed(samples=(100, 150, 200))], 0),  # noisy
        ([timed(), on("pi5", "test", Status.SKIP, **MOBILE)], 4),  # nothing was measured of one model
        ([on("pi5", "test", Status.SKIP)], 4),  # nor of a device
        ([on("pi5", "kernel_cases", Status.PASS), on("pi5", "test", Status.SKIP, **LITE0)], 4),
        ([on("pi5", "deploy_ns", value=-1), timed()], 1),
    ],
)
def test_exit_code_is_the_worst(records: list[Record], code: int) -> None:
    assert exit_code(records) == code


UNABLE: dict[str, Any] = {"attributes": {"precision": "fp16", "memory": "default", "unable": True}}
HALVES: dict[str, Any] = {"attributes": {"precision": "fp16", "memory": "default"}}


def test_what_a_device_cannot_do_is_no_failure_unless_it_is_all() -> None:
    skipped = on("pi5", "test", Status.SKIP, message="no fp16", **UNABLE, **LITE0)
    intact = on("pi5", "test", Status.PASS, subject="intact", **LITE0)
    whole = timed(attributes={"precision": "fp32"})
    judged = judge_all([intact, skipped, whole])
    assert {key[3]: one.verdict for key, one in judged.items()} == {"fp16": Verdict.SKIPPED, "fp32": Verdict.PASS}
    assert judged["pi5", "lite0", "klaus-8", "fp16"].reasons == ("no fp16",)
    assert exit_code([intact, skipped, whole]) == 0
    assert exit_code([intact, skipped]) == 4  # nothing was measured at all
    damaged = on("pi5", "test", Status.FAIL, subject="intact", **LITE0)
    assert exit_code([damaged, skipped, whole]) == 1
    assert {one.verdict for one in judge_all([damaged, skipped, whole]).values()} == {Verdict.FAIL}


def test_a_mode_is_judged_by_its_own_records() -> None:
    wrong = on("pi5", "layer_error", Status.FAIL, **HALVES, **LITE0)
    judged = judge_all([wrong, timed(attributes={"precision": "fp32"}), timed(attributes={"precision": "int8"})])
    assert {key[3]: one.verdict for key, one in judged.items()} == {
        "fp16": Verdict.FAIL,
        "fp32": Verdict.PASS,
        "int8": Verdict.PASS,
    }
    assert mode(timed(attributes={"precision": "int8", "memory": "lean"})) == "int8 lean"
    assert mode(on("pi5", "kernel_cases", attributes={"precision": "fp16"})) == ""


def test_records_of_before_precisions_are_of_the_usual_one() -> None:
    """Old journals hold no mode for some records; they are not lost to comparison."""
    old, new = timed(), timed(attributes={"threads": 1, "precision": "fp32", "memory": "default"})
    assert compare.compare(old, new).fraction == 0
    lean = timed(attributes={"threads": 1, "precision": "fp32", "memory": "lean"})
    with pytest.raises(compare.UnlikeError, match="memory: default / lean"):
        compare.compare(new, lean)


def test_a_cause_stands_before_what_followed_from_it() -> None:
    missed = [on("phone", "test", Status.MISS, suite=suite, subject="all tests", **LITE0) for suite in ("a", "b", "a")]
    lost = on("phone", "device_job", Status.ERROR, message="phone: another run is using this device; wait for its end")
    judgement = judge_all([*missed, lost])["phone", "lite0", "klaus-8", ""]
    assert judgement.reasons == (
        "another run is using this device; wait for its end",
        "a all tests, b all tests: never ran",
    )


def test_headings_say_what_noise_and_emulated_times_are() -> None:
    assert judge([timed(samples=(100, 150, 200))]).heading == "pass, timing noisy"
    assert judge([timed("board", samples=(100, 200, 300))]).heading == "pass (emulated times)"
    assert judge([timed()]).heading == "pass"
    assert judge([on("board", "layer_error", Status.FAIL, **LITE0), timed("board")]).heading == "fail"


def test_change_between_runs_of_one_device() -> None:
    change = compare.compare(timed(samples=(200,), run="a"), timed(samples=(100,)))
    assert (change.fraction, change.better, change.since) == (-0.5, True, "a")
    change = compare.compare(timed(samples=(100,)), timed(samples=(110,)))
    assert change.fraction == pytest.approx(0.1)
    assert change.better is False


def test_an_emulated_time_is_never_better_or_worse() -> None:
    assert compare.compare(timed("board", (200,)), timed("board", (100,))).better is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_sha256": SHA[::-1]}, "model_sha256"),
        ({"emulated": True}, "emulated"),
        ({"target": "ios"}, "target"),
        ({"kind": "board"}, "kind"),
        ({"scheme": "q8"}, "scheme"),
        ({"subject": "x"}, "subject"),
        ({"attributes": {"threads": 4}}, "threads"),
        ({"attributes": {"threads": 1, "isa": "ref"}}, "isa"),
    ],
)
def test_unlike_things_are_not_compared(change: dict[str, Any], named: str) -> None:
    with pytest.raises(compare.UnlikeError, match=named):
        compare.compare(timed(), timed(**change))


def test_another_device_is_not_compared() -> None:
    with pytest.raises(compare.UnlikeError, match="device: pi5 / board"):
        compare.compare(timed(), timed("board"))


def test_another_metric_or_no_value_is_not_compared() -> None:
    with pytest.raises(compare.UnlikeError, match="metric"):
        compare.compare(on("pi5", "load_ns", value=1, **LITE0), timed(attributes={}))
    with pytest.raises(compare.UnlikeError, match="no value"):
        compare.compare(timed(value=None), timed())


def test_last_change_takes_the_newest_like_run(tmp_path: Path) -> None:
    for run, samples, digest in (("run-1", (400,), SHA), ("run-2", (200,), SHA), ("run-3", (50,), SHA[::-1])):
        (tmp_path / run).mkdir()
        with journal.Journal(tmp_path / run / journal.NAME) as writer:
            writer.append(timed(samples=samples, run=run, model_sha256=digest))
    (tmp_path / "run-2b").mkdir()
    (tmp_path / "run-2b" / journal.NAME).write_text("broken\n")  # must not spoil the report
    (tmp_path / "notes.txt").write_text("not a run")
    earlier = list(compare.earlier_runs(tmp_path, "run-4"))
    assert [run[0].run for run in earlier] == ["run-3", "run-2", "run-1"]
    change = compare.last_change(timed(samples=(100,), run="run-4"), earlier)
    assert change is not None
    assert (change.since, change.fraction) == ("run-2", -0.5)
    assert compare.last_change(timed(samples=(1,), scheme="q8"), earlier) is None
    assert list(compare.earlier_runs(tmp_path / "nowhere", "x")) == []
