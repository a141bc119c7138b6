"""int8 arithmetic: the same integers on every CPU, close to float32 on the large nets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from klaus_runtime import images, pack
from klaus_runtime.calibrate import calibrate
from klaus_runtime.errors import SetupError
from klaus_runtime.model import F32, Convolution, FullConnect, Model
from klaus_runtime.reference import NumpyEngine
from klaus_runtime.registry import load_model
from tests.kernels import nets
from tests.kernels.conftest import Klaus, emulated, ranged, runner
from tests.klaus_runtime.golden import difference, large, lite0_logits, only, tensor

if TYPE_CHECKING:
    from toolchains.build import Build

CPUS = ("cortex-a53", "cortex-a76", "max")  # without and with dot products, with matrix multiplies


@pytest.fixture(scope="session", params=CPUS)
def arm(request: pytest.FixtureRequest, arm_build: Build) -> Klaus:
    """klaus-run under qemu's user mode."""
    return runner(emulated(arm_build.program, "linux-aarch64", request.param))


def logits(klaus: Klaus, model: Path, given: Path, *options: object, precision: str = "int8") -> F32:
    path = given.with_suffix(".logits")
    words = ("--model", model, "--input", given, "--precision", precision, "--runs", 1, "--warmup", 0, "--logits", path)
    klaus("bench", *words, *options)
    return np.fromfile(path, "<f4")


def activations(klaus: Klaus, model: Path, given: F32, folder: Path) -> Iterator[F32]:
    given.astype("<f4").tofile(folder / "input.f32")
    words = ("--model", model, "--input", folder / "input.f32", "--out", folder / "out", "--precision", "int8")
    for record in klaus("activations", *words).of("activation"):
        values = np.fromfile(folder / "out" / record["file"], "<f4")
        yield values.reshape(record["rows"], record["cols"], record["channels"])


def test_integers_are_the_same_on_every_cpu(klaus: Klaus, arm: Klaus, tmp_path: Path) -> None:
    """Convolutions of every form and full connects from indices follow one definition to the bit, on any threads."""
    model = ranged(nets.exact_in_int8())
    path, given = pack.pack(model, tmp_path / "net.klaus"), tmp_path / "input.f32"
    np.random.default_rng(5).normal(0, 1, model.input_shape).astype("<f4").tofile(given)
    wanted = logits(klaus, path, given)
    assert difference(wanted, list(NumpyEngine(model).activations(tensor_of(given, model)))[-1]) < 0.1
    for threads in (1, 3):
        np.testing.assert_array_equal(logits(arm, path, given, "--threads", threads), wanted)
    steps = arm("info", "--plan", "--model", path, "--precision", "int8").of("step")
    assert {word for step in steps for word in step["dtypes"] if step["op"] != "cast"} == {"i8", "f32"}
    assert [step["dtypes"] for step in steps if step["op"] == "full_connect"][-1] == ["i8", "f32"]


def test_corrections_are_for_int8_alone(klaus: Klaus, arm: Klaus, tmp_path: Path) -> None:
    """A correction is added to the bias in int8, to the bit on every CPU; float32 does not see it."""
    plain = ranged(nets.exact_in_int8())
    given, random = tmp_path / "input.f32", np.random.default_rng(6)
    random.normal(0, 1, plain.input_shape).astype("<f4").tofile(given)
    layers = []
    for layer in plain.layers:
        if isinstance(layer, Convolution | FullConnect):
            drawn = random.normal(0, 0.1, len(layer.weights.bias)).astype(np.float32)
            layer = replace(layer, weights=replace(layer.weights, correction=drawn))  # noqa: PLW2901
        layers.append(layer)
    both = (plain, replace(plain, layers=tuple(layers)))
    first, second = (pack.pack(net, tmp_path / f"{number}.klaus") for number, net in enumerate(both))
    for program in (klaus, arm):
        for precision in ("fp32", "int8"):
            without, corrected = (logits(program, path, given, precision=precision) for path in (first, second))
            assert np.array_equal(without, corrected) == (precision == "fp32")
    np.testing.assert_array_equal(logits(klaus, second, given), logits(arm, second, given))


def tensor_of(path: Path, model: Model) -> F32:
    return np.fromfile(path, "<f4").reshape(model.input_shape)


def test_every_operation_is_near_the_oracle(arm: Klaus, tmp_path: Path) -> None:
    model = ranged(nets.every_op())
    given = np.random.default_rng(5).normal(0, 1, model.input_shape).astype(np.float32)
    wanted = NumpyEngine(model).activations(given)
    path = pack.pack(model, tmp_path / "net.klaus")
    for got, want in zip(activations(arm, path, given, tmp_path), wanted, strict=True):
        assert difference(got, want) < 0.1


@pytest.mark.slow
def test_klaus_in_int8_is_near_ccv(arm: Klaus, shared: Path, tmp_path: Path) -> None:
    """Every layer within 5 % of its largest value, the same first class."""
    folder, model = large(shared)
    path = pack.pack(calibrate(model, [folder / "n01440764_tench.JPEG"]), tmp_path / "klaus.klaus")
    given = tensor(only(folder, "input-0-*.f32"))
    wanted = [tensor(file).ravel() for file in sorted((folder / "acts-0").iterdir())]
    got = [values.ravel() for values in activations(arm, path, given, tmp_path)]
    for one, other in zip(got, wanted, strict=True):
        assert difference(one, other) <= 0.05
    assert got[-1].argmax() == wanted[-1].argmax()
    assert got[-1] @ wanted[-1] >= 0.99 * np.linalg.norm(got[-1]) * np.linalg.norm(wanted[-1])


@pytest.mark.slow
def test_lite0_in_int8_answers_as_in_float(arm_build: Build, shared: Path, tmp_path: Path) -> None:
    """Ten labelled photos: the float weights' own logits, and int8 ranges from other photos."""
    try:
        model = load_model("lite0")
    except SetupError as error:
        pytest.skip(f"needs lite0's weights: {error}")
    photos = sorted((shared / "data" / "photos" / "calibration-256").iterdir())[::16]
    path = pack.pack(calibrate(model, photos), tmp_path / "lite0.klaus")
    arm = runner(emulated(arm_build.program, "linux-aarch64", "cortex-a76"))
    chosen = lite0_logits(shared)[::25]
    same = 0
    for photo, wanted in chosen:
        images.form(model, images.read_picture(photo), "none").astype("<f4").tofile(tmp_path / "input.f32")
        got = logits(arm, path, tmp_path / "input.f32")
        assert np.corrcoef(got, wanted)[0, 1] >= 0.95
        same += got.argmax() == wanted.argmax()
    assert same >= len(chosen) - 2
