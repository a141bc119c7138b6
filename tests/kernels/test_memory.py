"""Memory modes: the same answers with more or fewer threads, fused or not, and less memory where that is asked for."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from klaus_runtime import pack
from klaus_runtime.reference import NumpyEngine
from tests.kernels import nets
from tests.kernels.conftest import Klaus, Said, emulated, ranged, runner

if TYPE_CHECKING:
    from toolchains.build import Build

Models = dict[str, Path]
MODES = ("default", "lean")
CPUS = ("cortex-a53", "cortex-a76")


def _top(said: Said) -> list[tuple[int, float]]:
    return [(entry["id"], entry["probability"]) for entry in said.one("bench")["top"]]


def _steps(run: Klaus, model: Path, *options: object) -> list[dict[str, Any]]:
    return run("info", "--plan", "--model", model, *options).of("step")


@pytest.fixture(scope="module", params=CPUS)
def arm(request: pytest.FixtureRequest, arm_build: Build) -> Klaus:
    """klaus-run on one class of core."""
    return runner(emulated(arm_build.program, "linux-aarch64", request.param))


@pytest.mark.parametrize("name", ["every_op", "scanned", "softmax", "tiny32", "a-depth8-index", "b-depth4-index"])
def test_answers_depend_on_no_number_of_threads(klaus: Klaus, arm: Klaus, models: Models, name: str) -> None:
    for run, mode in product((klaus, arm), MODES):
        patches = (1, 10) if name in ("scanned", "tiny32") else (1,)
        for count in patches:
            options = ("--model", models[name], "--memory", mode, "--runs", 1, "--warmup", 1, "--patches", count)
            one, *more = (_top(run("bench", *options, "--threads", threads)) for threads in (1, 2, 3, 5))
            assert all(answers == one for answers in more), (mode, count)


@pytest.mark.parametrize("name", ["every_op", "scanned", "softmax", "tiny32", "a-depth8-index", "b-depth4-index"])
def test_fused_is_unfused_in_every_mode(klaus: Klaus, arm: Klaus, models: Models, tmp_path: Path, name: str) -> None:
    """The last layer's output, within 1e-5 of its largest value."""
    for run in (klaus, arm):
        logits = {}
        for mode, more in product(MODES, ((), ("--unfused",))):
            path = tmp_path / "logits.f32"
            run("bench", "--model", models[name], "--memory", mode, "--runs", 1, "--logits", path, *more)
            logits[mode, more] = np.fromfile(path, "<f4")
        first = logits["default", ()]
        for found in logits.values():
            assert np.abs(found - first).max() <= 1e-5 * np.abs(first).max()


def test_lean_memory_packs_no_full_connects(arm: Klaus, models: Models) -> None:
    for name in ("a-depth8-index", "b-depth4-index", "tiny16"):
        connects = [s for s in _steps(arm, models[name], "--memory", "lean") if s["op"] == "full_connect"]
        assert connects
        assert all(step["packed_bytes"] == 0 for step in connects)
        assert all("_mapped_" in step["variant"] for step in connects)
    eight = [s for s in _steps(arm, models["a-depth8-index"]) if s["op"] == "full_connect"]
    assert any(step["packed_bytes"] > 0 for step in eight)


def test_what_is_not_needed_again_is_overwritten(klaus: Klaus, models: Models) -> None:
    steps = _steps(klaus, models["every_op"])
    for before, step in pairwise(steps):
        if step["op"] == "lrn":
            assert step["in_place"]
            assert step["output_offset"] == before["output_offset"]
    assert any(step["op"] == "lrn" for step in steps)


def test_a_residual_around_one_convolution_keeps_its_input(klaus: Klaus, arm: Klaus, tmp_path: Path) -> None:
    """Fused, the addend is what the convolution reads: its output must not stand there."""
    model = nets.adds_its_input()
    path, given, out = pack.pack(ranged(model), tmp_path / "net.klaus"), tmp_path / "input.f32", tmp_path / "logits.f32"
    tensor = np.random.default_rng(3).normal(0, 1, model.input_shape).astype("<f4")
    tensor.tofile(given)
    wanted = list(NumpyEngine(model).activations(tensor))[-1].ravel()
    for run, precision, bound in ((klaus, "fp32", 1e-5), (arm, "fp32", 1e-5), (klaus, "int8", 0.1), (arm, "int8", 0.1)):
        for more in ((), ("--threads", 3), ("--memory", "lean"), ("--unfused",)):
            options = ("--precision", precision, "--runs", 1, "--warmup", 0, "--logits", out, *more)
            run("bench", "--model", path, "--input", given, *options)
            error = np.abs(np.fromfile(out, "<f4") - wanted).max() / np.abs(wanted).max()
            assert error <= bound, (precision, more)


def test_memory_that_no_file_backs_is_told(klaus: Klaus, models: Models) -> None:
    plain = klaus("bench", "--model", models["scanned"], "--runs", 1).one("memory")
    assert "anonymous_bytes" not in plain
    told = klaus("bench", "--model", models["scanned"], "--runs", 1, "--layer-memory").one("memory")
    assert 0 < told["anonymous_bytes"] <= told["peak_resident_bytes"]


def test_bands_change_no_bit(klaus: Klaus, arm: Klaus, tmp_path: Path) -> None:
    """Large maps that never stand in memory whole: chains of steps by bands of rows, for any number of threads."""
    model = pack.pack(nets.tall(), tmp_path / "tall.klaus")
    for run in (klaus, arm):
        steps = _steps(run, model, "--memory", "lean")
        banded = [step["index"] for step in steps if step["band_rows"] > 0]
        assert banded
        held = [step for step in steps if step["held_rows"] < step["rows"]]
        assert len(held) >= 2
        whole = _steps(run, model, "--memory", "lean", "--unfused")
        assert all(step["held_rows"] == step["rows"] and step["band_rows"] == 0 for step in whole)
        assert sum(step["output_bytes"] for step in steps) < sum(step["output_bytes"] for step in whole) / 2
        found = []
        for more in (("--unfused",), (), ("--threads", 3), ("--threads", 5)):
            out = tmp_path / "logits.f32"
            run("bench", "--model", model, "--memory", "lean", "--runs", 2, "--warmup", 0, "--logits", out, *more)
            found.append(np.fromfile(out, "<f4"))
        assert np.abs(found[1] - found[0]).max() <= 1e-6 * np.abs(found[0]).max()  # the addition is fused
        assert all(np.array_equal(logits, found[1]) for logits in found[2:])
        if run is klaus:  # the reference reads the same weights in both modes: whole maps give the same bits
            run("bench", "--model", model, "--runs", 2, "--warmup", 0, "--logits", out)
            assert np.array_equal(np.fromfile(out, "<f4"), found[1])


LARGE = {"fp16": (nets.tall(171, 166), nets.broad(263, 263)), "int8": (nets.tall(242, 234), nets.broad(383, 367))}


@pytest.mark.parametrize("number", [0, 1], ids=["tall", "broad"])
@pytest.mark.parametrize(
    ("precision", "cpu"),
    [("int8", "cortex-a53"), ("int8", "cortex-a76"), pytest.param("fp16", "cortex-a76", marks=pytest.mark.slow)],
)
def test_bands_change_no_bit_of_halves_and_integers(
    arm_build: Build, tmp_path: Path, precision: str, cpu: str, number: int
) -> None:
    """Chains by bands against whole maps of a default session, which has the same kernels, on any threads."""
    run = runner(emulated(arm_build.program, "linux-aarch64", cpu))
    net = LARGE[precision][number]
    model = pack.pack(ranged(net) if precision == "int8" else net, tmp_path / "large.klaus")
    lean, whole = (_steps(run, model, "--memory", mode, "--precision", precision) for mode in ("lean", "default"))
    assert [step["variant"] for step in lean] == [step["variant"] for step in whole]
    in_bands = [step["op"] for step in lean if step["held_rows"] < step["rows"]]
    assert in_bands == (["conv"] * 4, ["conv", "lrn", "conv", "average_pool"])[number]
    assert all(step["held_rows"] == step["rows"] for step in whole)
    found = []
    for mode, threads in (("default", 1), ("lean", 1), ("lean", 3)):
        out = tmp_path / f"{mode}-{threads}.f32"
        options = ("--memory", mode, "--threads", threads, "--precision", precision, "--runs", 1, "--warmup", 0)
        run("bench", "--model", model, "--logits", out, *options)
        found.append(np.fromfile(out, "<f4"))
    assert np.ptp(found[0]) > 0
    assert all(np.array_equal(logits, found[0]) for logits in found[1:])


def test_what_lean_memory_reads_from_the_file(arm: Klaus, tmp_path: Path) -> None:
    model = pack.pack(nets.tall(), tmp_path / "tall.klaus")
    lean = _steps(arm, model, "--memory", "lean")
    pointwise = [s for s in lean if s["layers"] and s["layers"][0] in (2, 3, 4)]
    assert len(pointwise) == 3
    assert all("pointwise_mapped" in step["variant"] and step["packed_bytes"] == 0 for step in pointwise)
    assert not any("mapped" in step["variant"] and step["op"] == "conv" for step in _steps(arm, model))
