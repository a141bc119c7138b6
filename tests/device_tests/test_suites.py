"""The suites' own arithmetic, and the photos that they show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_tests.errors import InventoryError, SetupError
from device_tests.int8_oracle import Planned
from device_tests.photos import DEMO, Photo, demo_photos, folder_photos
from device_tests.plan import Job
from device_tests.program_records import StepRecord, TopClass, parse_record
from device_tests.results import new_folder, write_text
from device_tests.suites.accuracy import NEAR, class_numbers, reach, same_top
from device_tests.suites.agreement import FUSED_BOUNDS, SAME_BOUND, difference, each_alone, reference
from klaus_runtime.accuracy import interval
from klaus_runtime.images import read_picture
from klaus_runtime.model import Model
from klaus_runtime.pack import pack
from klaus_runtime.reference import NumpyEngine
from tests.device_tests.small_net import build_of, fake_device, small_net, small_plan
from tests.kernels import nets
from tests.kernels.conftest import emulated, ranged, runner

if TYPE_CHECKING:
    from toolchains.build import Build


def top(*pairs: tuple[int, float]) -> list[TopClass]:
    return [TopClass(number, "", probability) for number, probability in pairs]


PROBABILITIES = np.array([0.4, 0.3, 0.3 * (1 - NEAR / 2), 0.1, 0.05], np.float32)


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ([0, 1, 2], True),
        ([0, 2, 1], True),  # nearer than NEAR: may swap
        ([1, 0, 2], False),
        ([0, 1, 3], False),
        ([0, 1, 1], False),  # one class twice
        ([0, 1, 5], False),  # outside the model's
        ([0, 1, -1], False),
    ],
)
def test_the_hosts_first_classes(answer: list[int], same: bool) -> None:
    assert same_top(top(*((number, 0.3) for number in answer)), PROBABILITIES)[0] is same


def test_the_largest_difference_of_a_probability() -> None:
    assert same_top(top((0, 0.4), (1, 0.33)), PROBABILITIES)[1] == pytest.approx(0.1, rel=1e-5)


def test_how_far_a_precision_may_swap_classes() -> None:
    """As far as two errors of the last layer's bound go: here the values about their mean reach 2."""
    values = np.array([2.0, 1.0, 0.0, -1.0, -2.0])
    probabilities = (np.exp(values) / np.exp(values).sum()).astype(np.float32)
    assert reach(probabilities, "fp32") == NEAR
    assert reach(probabilities, "fp16") == pytest.approx(1 - np.exp(-2 * 2e-2 * 2), rel=1e-4)
    assert reach(probabilities, "int8") == pytest.approx(1 - np.exp(-2 * 0.3 * 2), rel=1e-4)
    host = np.array([0.5, 0.3, 0.2], np.float32)
    near = reach(host, "int8")
    assert 0.2 < near < 0.4
    assert same_top(top((0, 0.5), (2, 0.3), (1, 0.2)), host, 0.4)[0]
    assert not same_top(top((0, 0.5), (2, 0.3), (1, 0.2)), host, 0.3)[0]


def test_layers_alone_are_compared_on_what_they_were_given() -> None:
    """A device that is off by a constant from its first layer on is wrong there and nowhere else."""
    net = small_net()
    tensor = np.random.default_rng(0).standard_normal(net.input_shape).astype(np.float32)
    given: list[np.ndarray] = []
    errors = []
    for number, (right, scale) in enumerate(each_alone(net, tensor, given)):
        given.append(right + np.float32(0.1 * scale if number == 0 else 0))
        errors.append(difference(given[-1], right, scale))
    assert errors == [pytest.approx(0.1, rel=1e-3), 0, 0]
    whole = [difference(here, right, scale) for here, (right, scale) in zip(given, reference(net, tensor), strict=True)]
    assert whole[2] > 0  # which is what drift is


@pytest.mark.parametrize("make", [nets.exact_in_int8, nets.every_op])
def test_int8_on_the_host_is_the_programs_to_the_bit(
    host_build: Build, arm_build: Build, tmp_path: Path, make: Callable[[], Model]
) -> None:
    """Of fused and unfused plans, which are not one: judged by the other's numbers either fails."""
    model = ranged(make())
    packed, given, written = pack(model, tmp_path / "net.klaus"), tmp_path / "input.f32", tmp_path / "logits.f32"
    tensor = np.random.default_rng(5).normal(0, 1, model.input_shape).astype(np.float32)
    given.write_bytes(tensor.tobytes())
    for klaus in (runner([host_build.program]), runner(emulated(arm_build.program, "linux-aarch64", "cortex-a76"))):
        planned = {}
        for plan in ((), ("--unfused",)):
            words = ("--model", packed, "--precision", "int8", *plan)
            klaus("bench", *words, "--input", given, "--logits", written, "--runs", 1, "--warmup", 0)
            got = np.fromfile(written, "<f4")
            steps = [step_of(record) for record in klaus("info", "--plan", *words).of("step")]
            planned[plan] = Planned(model, steps).run(tensor).ravel()
            largest = float(np.abs(planned[plan]).max())
            assert difference(got, planned[plan], largest) <= SAME_BOUND
        fused, unfused = planned.values()
        assert difference(fused, unfused, largest) > FUSED_BOUNDS["int8"]


def step_of(record: dict[str, Any]) -> StepRecord:
    step = parse_record(json.dumps(record).encode())
    assert isinstance(step, StepRecord)
    return step


def test_difference_is_of_the_layers_largest_value() -> None:
    expected = np.array([[[1.0, -8.0]]], np.float32)
    assert difference(expected, expected, 8) == 0
    assert difference(expected + np.float32(0.5), expected, 8) == pytest.approx(0.0625)
    assert difference(expected[:, :, :1], expected, 8) == float("inf")
    assert difference(np.full_like(expected, np.nan), expected, 8) == float("inf")
    nothing = np.zeros((1, 1, 2), np.float32)
    assert difference(nothing, nothing, 0) == 0
    assert difference(nothing + 1, nothing, 0) == float("inf")


def test_the_reference_is_the_oracle_and_sees_behind_the_cut() -> None:
    model = small_net()
    tensor = np.random.default_rng(1).standard_normal(model.input_shape).astype(np.float32) * 9
    found = list(reference(model, tensor))
    for (output, _), expected in zip(found, NumpyEngine(model).activations(tensor), strict=True):
        np.testing.assert_array_equal(output, expected)
    assert found[0][0].max() == 6
    assert found[0][1] > 20


@pytest.mark.parametrize(
    ("right", "photos", "low", "high"),
    # R: prop.test(k, n, correct = FALSE)$conf.int
    [(174, 250, 0.6364, 0.7497), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)],
)
def test_the_interval_of_an_accuracy_is_wilsons(right: int, photos: int, low: float, high: float) -> None:
    assert interval(right, photos) == pytest.approx((low, high), abs=1e-4)


def test_classes_are_in_the_models_own_order() -> None:
    photos = [Photo("x", DEMO[2].wnid, Path("x")), Photo("y", DEMO[0].wnid, Path("y"))]
    assert class_numbers(small_net(), photos) == {DEMO[2].wnid: 2, DEMO[0].wnid: 0}
    with pytest.raises(InventoryError, match="no class n99999999"):
        class_numbers(small_net(), [Photo("x", "n99999999", Path("x"))])


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    program = tmp_path / "klaus-run"
    program.write_bytes(b"x")
    job = Job(
        run="r",
        device=fake_device(tmp_path, faults="drop@3"),
        build=build_of(program),
        models=(small_plan(tmp_path),),
        suites=("timing",),
        profile="quick",
        photos=tmp_path,
        crop="none",
        precisions=("fp32", "int8"),
        memory="lean",
        emulated=True,
        work=tmp_path / "work",
    )
    assert Job.from_json(job.to_json()) == job
    assert [trial.id for trial in job.trials] == ["small-float-lean", "small-float-int8-lean"]


def test_demo_photos_are_the_pinned_ones_with_their_credits() -> None:
    photos = demo_photos()
    assert [photo.name for photo in photos] == [photo.name for photo in DEMO]
    for photo, pinned in zip(photos, DEMO, strict=True):
        assert hashlib.sha256(photo.path.read_bytes()).hexdigest() == pinned.sha256
        assert photo.author
        assert photo.licence
        assert photo.source.startswith("scikit-")
        assert read_picture(photo.path).ndim == 3


def test_a_damaged_photo_in_the_cache_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = demo_photos()[0].path.parent.parent / "models"
    monkeypatch.setenv("KLAUS_CACHE", str(tmp_path))
    (tmp_path / "models").symlink_to(wheels)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "chelsea.png").write_bytes(b"damaged")
    assert hashlib.sha256(demo_photos()[0].path.read_bytes()).hexdigest() == DEMO[0].sha256
    assert demo_photos()[0].path == tmp_path / "photos" / "chelsea.png"


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InventoryError, match="photo"):
            folder_photos(folder)


def test_a_file_of_results_that_cannot_be_written_is_a_set_up_error(tmp_path: Path) -> None:
    (tmp_path / "report.md").mkdir()
    with pytest.raises(SetupError, match=r"report\.md.*make room"):
        write_text(tmp_path / "report.md", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    with pytest.raises(SetupError, match="cannot be written"):
        new_folder(Path("/proc/results"))
