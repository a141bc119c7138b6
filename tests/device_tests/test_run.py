"""Whole runs: what devices, programs and harness processes do wrong costs their own records only."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import reports.record
from device_tests import run
from device_tests.devices.spec import DeviceSpec
from device_tests.errors import InventoryError, SetupError
from device_tests.plan import RunPlan
from device_tests.progress import Display
from device_tests.run import RunResult, run_suites
from reports import journal
from reports.formats.console import print_page
from reports.record import Record, Status
from tests.device_tests.small_net import LABELS, build_of, calibrated_plan, deep_plan, fake_device, plan_of, small_plan
from tests.device_tests.stand_in import write_stand_in
from toolchains.build import Build


def quiet(plan: RunPlan) -> RunResult:
    return run_suites(plan, display=Display(Console(file=io.StringIO(), width=200)), draw=False)


def of(result: RunResult, device: str, metric: str = "test") -> list[Record]:
    return [record for record in result.records if record.device == device and record.metric == metric]


def statuses(result: RunResult, device: str) -> dict[str, int]:
    return dict(Counter(record.status.value for record in of(result, device)))


def value(result: RunResult, metric: str, device: str = "one") -> float:
    (record,) = of(result, device, metric)
    assert record.value is not None
    return record.value


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three folders WNID of a photo each: 120 photos would be too slow here."""
    return make_photos(tmp_path / "photos", 3)


def make_photos(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / LABELS[number % 3].id
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(place / f"{number}.PNG")
    return folder


def test_a_run_leaves_journal_and_reports(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"))
    result = quiet(plan)
    assert result.exit_code == 0
    assert statuses(result, "one") == {"PASS": 5, "SKIP": 1}
    assert journal.read(result.folder / journal.NAME) == list(result.records)
    schema = json.loads((Path(reports.record.__file__).parent / "record.schema.json").read_text())
    for line in (result.folder / journal.NAME).read_text().splitlines():
        jsonschema.validate(json.loads(line), schema)
    assert value(result, "layer_error") <= 1e-5
    assert value(result, "fused_error") <= 1e-5
    assert value(result, "top5_agreement") == 7
    assert len(of(result, "one", "pass_ns")[0].samples) == 3  # quick, as the device is emulated
    assert {r.subject for r in result.records if r.metric == "photo" and r.device is None} >= {"chelsea", "china"}
    text = (result.folder / "report.md").read_text()
    assert "as expected" in text
    assert "\x1b" not in text
    assert "as host" in text
    Xml.parse(result.folder / "junit.xml")
    assert (result.folder / "logs" / "one.log").exists()

    again = quiet(plan)
    (sent,) = of(again, "one", "sent_bytes")
    assert sent.value == 0  # nothing is sent twice
    assert result.folder.name[:15] in (again.folder / "report.md").read_text().replace("\\", "")


def test_what_a_devices_own_counters_say_is_a_record(tmp_path: Path) -> None:
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run", "counts"), suites=("timing",)))
    assert result.exit_code == 0
    (executed,) = of(result, "one", "instructions")
    assert executed.samples == (150_000_001, 150_000_002, 150_000_003)  # the warm-up left out
    assert executed.value == 150_000_002
    assert executed.attributes["counter"] == "perf_event"
    assert value(result, "cycles") == 100_000_000
    text = (result.folder / "report.md").read_text()
    assert "pass 150 M instructions<br>1.50 a cycle" in text

    without = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), suites=("timing",)))
    assert without.exit_code == 0
    assert not of(without, "one", "instructions")
    assert "instructions" not in (without.folder / "report.md").read_text().partition("####")[0]


@pytest.mark.slow
def test_a_seeded_model_is_timed_and_nothing_is_claimed(tmp_path: Path) -> None:
    models = (small_plan(tmp_path, seeded=True),)
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), models=models))
    assert result.exit_code == 0
    assert value(result, "top5_agreement") == 1
    assert not of(result, "one", "demo")
    assert not of(result, "one", "top1")
    assert "seeded: timing only" in (result.folder / "report.md").read_text()


@pytest.mark.slow
def test_one_device_dies_in_the_middle_and_the_other_goes_on(tmp_path: Path) -> None:
    devices = [fake_device(tmp_path), fake_device(tmp_path, "two", "reboot@9")]
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), *devices))
    assert result.exit_code == 4
    assert statuses(result, "one") == {"PASS": 5, "SKIP": 1}
    found = statuses(result, "two")
    assert found["ERROR"] == 1
    assert found["PASS"] >= 1
    assert found["MISS"] >= 1
    assert sum(found.values()) == 6
    (error,) = [record for record in of(result, "two") if record.status is Status.ERROR]
    assert "two: the device went away" in error.message
    assert all("lost" in r.message for r in of(result, "two") if r.status is Status.MISS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"), [("refuse", "refused"), ("hostkey", "SHA256"), ("full", "no room"), ("drop-put", "lost")]
)
def test_a_device_that_cannot_be_used(tmp_path: Path, fault: str, said: str) -> None:
    result = quiet(
        plan_of(
            tmp_path, write_stand_in(tmp_path / "klaus-run"), fake_device(tmp_path, faults=fault), suites=("timing",)
        )
    )
    assert result.exit_code == 4
    first = of(result, "one")[0]
    assert first.status is Status.ERROR
    assert said in first.message


def test_kill_minus_nine_of_the_harness_process(tmp_path: Path) -> None:
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run", "classify:kill-harness")))
    assert result.exit_code == 4
    assert statuses(result, "one") == {"PASS": 4, "SKIP": 1, "MISS": 1}
    (job,) = of(result, "one", "device_job")
    assert "SIGKILL" in job.message
    assert "one.log" in job.message
    assert of(result, "one")[-1].message == "ended in the middle"
    wait_gone(f"{tmp_path}.*classify", 3)  # though it has a session of its own
    assert journal.read(result.folder / journal.NAME) == list(result.records)


@pytest.mark.slow
def test_a_hang_ends_at_the_deadline(tmp_path: Path) -> None:
    program = write_stand_in(tmp_path / "klaus-run", "bench:hang")
    started = time.monotonic()
    result = quiet(plan_of(tmp_path, program, suites=("conformance", "timing"), job_timeout_s=8))
    assert time.monotonic() - started < 40
    assert result.exit_code == 4
    assert statuses(result, "one") == {"PASS": 2, "MISS": 2}
    (job,) = of(result, "one", "device_job")
    assert "more than 8 s" in job.message
    assert "timing, test_passes" in job.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "suite", "said"),
    [
        ("wrong-kernel", "conformance", "klaus_lrn_f32_ref"),
        ("wrong-layer", "agreement", "layer"),
        ("wrong-answers", "accuracy", "otherwise than on the host"),
        ("bench:die", "timing", "SIGKILL"),
        ("verify:hostile", "conformance", "broke its contract"),
        ("verify:hostile-stderr", "conformance", "exit status 5"),
    ],
)
def test_a_wrong_program_fails_and_says_nothing_to_a_terminal(
    tmp_path: Path, fault: str, suite: str, said: str
) -> None:
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run", fault), suites=(suite,)))
    assert result.exit_code == 1
    failed = [record for record in of(result, "one") if record.status is Status.FAIL]
    assert any(said in record.message for record in failed), [record.message for record in failed]
    screen = io.StringIO()
    print_page(run.write_reports(result.folder), Console(file=screen, width=140, color_system=None))
    for text in (
        screen.getvalue(),
        (result.folder / "report.md").read_text(),
        (result.folder / "junit.xml").read_text(),
    ):
        assert "\x1b" not in text
        assert "\x07" not in text


@pytest.mark.slow
def test_a_deep_net_gets_no_wider_bound(tmp_path: Path) -> None:
    program = write_stand_in(tmp_path / "klaus-run", "nearly-right-layer")
    result = quiet(plan_of(tmp_path, program, models=(deep_plan(tmp_path, 60),), suites=("agreement",)))
    assert result.exit_code == 1
    assert "bound is 1e-05" in of(result, "one", "layer_error")[0].message


@pytest.mark.slow
def test_accuracy_is_claimed_from_a_hundred_photos_on(tmp_path: Path, photos: Path) -> None:
    program = write_stand_in(tmp_path / "klaus-run")
    few = quiet(plan_of(tmp_path, program, photos=photos, suites=("accuracy",)))
    assert few.exit_code == 0
    assert value(few, "demo") <= 3
    assert not of(few, "one", "top1")
    many = quiet(plan_of(tmp_path, program, photos=make_photos(tmp_path / "many", 100), suites=("accuracy",)))
    assert many.exit_code == 0
    (top5,) = of(many, "one", "top5")
    assert top5.attributes["photos"] == 100
    assert isinstance(top5.attributes["low"], float)
    assert "of 100 photos" in (many.folder / "report.md").read_text()


@pytest.mark.slow
def test_photos_of_unknown_classes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "n12345678"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(folder / "x.jpg")
    plan = plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), photos=folder.parent, suites=("accuracy",))
    result = quiet(plan)
    assert result.exit_code == 2
    assert "n12345678" in of(result, "one")[0].message


def test_an_empty_folder_of_photos_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InventoryError, match="photos"):
        quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), photos=tmp_path / "photos"))
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_no_build_for_a_device_costs_that_device(tmp_path: Path) -> None:
    devices = [fake_device(tmp_path), fake_device(tmp_path, "two", target="ios")]
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), *devices, suites=("conformance",)))
    assert result.exit_code == 2
    assert statuses(result, "one") == {"PASS": 2}
    assert "--target ios" in of(result, "two", "device_job")[0].message


@contextmanager
def hanging_run(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own, whose device's program hangs in `verify`."""
    write_stand_in(folder / "klaus-run", "verify:hang")
    script = (
        "import signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "from tests.device_tests.small_net import *; from device_tests.run import run_suites\n"
        "run_suites(plan_of(Path(sys.argv[1]), Path(sys.argv[1]) / 'klaus-run', suites=('conformance',)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stderr is not None
            assert b"test_kernels" in process.stderr.readline()
            yield process
        finally:  # else a test that fails waits for what hangs
            process.kill()


def runs_somewhere(pattern: str) -> bool:
    """Whether a process has a command line that the pattern finds (a bare Debian has no pgrep)."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if re.search(pattern, line.read_bytes().replace(b"\0", b" ").decode(errors="replace")):
                return True
    return False


def wait_gone(pattern: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while runs_somewhere(pattern):
        assert time.monotonic() < deadline, "the device's program still runs"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_device_does_one_job_at_a_time(tmp_path: Path) -> None:
    with hanging_run(tmp_path) as first:
        plan = plan_of(tmp_path, tmp_path / "klaus-run", suites=("conformance",))
        second = quiet(plan)
        assert second.exit_code == 4
        assert "another run" in of(second, "one", "device_job")[0].message
        first.send_signal(signal.SIGINT)
        assert first.wait(40) != 0
    left = sorted((tmp_path / "results").glob("*/records.jsonl"))
    assert len(left) == 2
    interrupted = journal.read(left[0])  # what was measured before the interrupt is kept
    assert any(record.metric == "test" and record.status is Status.PASS for record in interrupted)
    assert quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), suites=("conformance",))).exit_code == 0


@pytest.mark.slow
def test_a_killed_run_leaves_no_job_behind(tmp_path: Path) -> None:
    with hanging_run(tmp_path) as first:
        first.kill()
    wait_gone(f"{tmp_path}.*verify", 30)
    assert quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), suites=("conformance",))).exit_code == 0


@pytest.mark.slow
def test_reports_are_drawn_again_from_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), suites=("conformance",)))
    (result.folder / "report.md").unlink()
    with (result.folder / journal.NAME).open("ab") as file:
        file.write(b'{"torn')
    assert run.redraw(tmp_path / "results") == 0
    assert "klaus_lrn_f32_ref" in capsys.readouterr().out
    assert (result.folder / "report.md").exists()
    assert run.redraw(tmp_path / "results", result.folder.name) == 0
    with pytest.raises(InventoryError, match="no run"):
        run.redraw(tmp_path / "results", "yesterday")
    with pytest.raises(InventoryError, match="no run is there yet"):
        run.redraw(tmp_path / "elsewhere")


def test_plans_that_make_no_sense(tmp_path: Path) -> None:
    program = write_stand_in(tmp_path / "klaus-run")
    with pytest.raises(InventoryError, match="not known"):
        plan_of(tmp_path, program, suites=("speed",))
    with pytest.raises(InventoryError, match="twice"):
        plan_of(tmp_path, program, fake_device(tmp_path), fake_device(tmp_path))
    with pytest.raises(InventoryError, match="needs a model"):
        plan_of(tmp_path, program, models=())
    with pytest.raises(InventoryError, match="needs a device"):
        plan_of(tmp_path, program, devices=())
    with pytest.raises(InventoryError, match="one name and scheme"):
        plan_of(tmp_path, program, models=(small_plan(tmp_path), small_plan(tmp_path)))
    with pytest.raises(InventoryError, match="needs a precision"):
        plan_of(tmp_path, program, precisions=())
    with pytest.raises(InventoryError, match=r"model small: int8 needs .* `klaus calibrate SOURCE --images DIR"):
        plan_of(tmp_path, program, precisions=("fp32", "int8"))


def test_every_precision_is_a_row(tmp_path: Path) -> None:
    """And what a device has no instructions for is left out with its reason, without harm to the run."""
    program = write_stand_in(tmp_path / "klaus-run")
    models = (calibrated_plan(tmp_path),)
    suites = ("conformance", "agreement", "timing")
    result = quiet(
        plan_of(tmp_path, program, models=models, suites=suites, precisions=("fp32", "fp16", "int8"), memory="lean")
    )
    assert result.exit_code == 0
    tests = [record for record in of(result, "one") if record.suite in ("agreement", "timing")]
    how = {(r.attributes["precision"], r.attributes["memory"], r.status) for r in tests if "layers" in r.subject}
    assert how == {("fp32", "lean", Status.PASS), ("fp16", "lean", Status.SKIP), ("int8", "lean", Status.PASS)}
    (skipped,) = {record.message for record in tests if record.attributes["precision"] == "fp16"}
    assert skipped == "one: the CPU has no arithmetic in fp16 (any: ref)"
    bounds = [record.attributes["bound"] for record in of(result, "one", "layer_error")]
    assert bounds == [1e-5, 8e-3]
    assert [record.attributes["precision"] for record in of(result, "one", "pass_ns")] == ["fp32", "int8"]
    intact = [record for record in of(result, "one") if "intact" in record.subject]
    assert len(intact) == 1  # of the model, whatever its precision
    text = (result.folder / "report.md").read_text()
    rows = re.findall(r"small<br>float<br>(\w+) lean .* (pass \(emulated times\)|skipped<br>)", text)
    assert rows == [("fp32", "pass (emulated times)"), ("fp16", "skipped<br>"), ("int8", "pass (emulated times)")]

    nothing = quiet(plan_of(tmp_path, program, suites=suites, precisions=("fp16",)))
    assert nothing.exit_code == 4


def test_a_device_lost_costs_each_precision_its_own_tests(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        write_stand_in(tmp_path / "klaus-run"),
        fake_device(tmp_path, "one", "reboot@6"),
        models=(calibrated_plan(tmp_path),),
        suites=("agreement", "timing"),
        precisions=("fp32", "int8"),
    )
    result = quiet(plan)
    assert result.exit_code == 4
    missed = {r.attributes.get("precision") for r in of(result, "one") if r.status is Status.MISS}
    assert missed == {"fp32", "int8"}


@pytest.mark.slow
def test_the_real_program_in_every_precision(tmp_path: Path, arm_build: Build) -> None:
    """Under qemu, on a core with arithmetic in halves and on one without."""
    devices = [
        DeviceSpec(name, "qemu-user", "linux-aarch64", {"cpu": f"cortex-{name}"}, tmp_path / "cache")
        for name in ("a76", "a53")
    ]
    result = quiet(
        plan_of(
            tmp_path,
            arm_build.program,
            *devices,
            builds={"linux-aarch64": build_of(arm_build.program, "linux-aarch64")},
            models=(calibrated_plan(tmp_path),),
            suites=("agreement", "timing", "accuracy"),
            precisions=("fp32", "fp16", "int8"),
        )
    )
    wrong = [record.message for record in result.records if record.status in (Status.FAIL, Status.ERROR, Status.MISS)]
    assert not wrong
    assert result.exit_code == 0
    for name, done in (("a76", ("fp32", "fp16", "int8")), ("a53", ("fp32", "int8"))):
        drift = {"fp16": 2e-2, "int8": 0.3}
        for metric, bounds in (
            ("layer_error", {"fp32": 1e-5, "fp16": 1e-2, "int8": 8e-3}),
            ("fused_error", {"fp32": 1e-5, "fp16": 1e-6, "int8": 1e-6}),  # nothing of this net can be fused
            ("drift", drift),
        ):
            found = {r.attributes["precision"]: r for r in of(result, name, metric)}
            assert tuple(found) == tuple(precision for precision in done if precision in bounds)
            for precision, record in found.items():
                assert record.value is not None
                assert record.value <= bounds[str(precision)] == record.attributes["bound"]
        drifts = {r.attributes["precision"]: r.value or 0 for r in of(result, name, "drift")}
        assert drifts["int8"] > 1e-3  # the option reached the program
        assert {r.attributes["precision"] for r in of(result, name, "pass_ns")} == set(done)
        agreeing = {r.attributes["precision"]: r for r in of(result, name, "top5_agreement")}
        assert agreeing["fp32"].status is Status.PASS
        assert agreeing["int8"].status is Status.DONE
        assert {r.status for r in of(result, name) if r.attributes["precision"] not in done} <= {Status.SKIP}


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(SetupError, match="cannot be written"):
        quiet(plan_of(tmp_path, write_stand_in(tmp_path / "klaus-run"), suites=("conformance",)))


@pytest.mark.slow
def test_the_real_program_on_this_computer_and_under_qemu(
    tmp_path: Path, host_build: object, arm_build: object
) -> None:
    builds = {
        target: build_of(build.program, target)  # type: ignore[attr-defined]
        for target, build in (("host", host_build), ("linux-aarch64", arm_build))
    }
    devices = [
        fake_device(tmp_path, "here"),
        DeviceSpec("arm", "qemu-user", "linux-aarch64", {}, tmp_path / "cache"),
    ]
    result = quiet(plan_of(tmp_path, builds["host"].program, *devices, builds=builds))
    for name in ("here", "arm"):
        wrong = [r for r in result.records if r.status in (Status.FAIL, Status.ERROR, Status.MISS) and r.device == name]
        assert not wrong, [record.message for record in wrong]
        assert value(result, "top5_agreement", name) == 7
        assert value(result, "layer_error", name) <= 1e-5
    assert result.exit_code == 0
