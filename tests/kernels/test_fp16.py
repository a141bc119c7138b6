"""Half-precision activations: what they cost in exactness, under qemu's user mode as a core that computes in halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from klaus_runtime import images, pack
from klaus_runtime.errors import SetupError
from klaus_runtime.model import F32, Model
from klaus_runtime.reference import NumpyEngine
from klaus_runtime.registry import load_model
from tests.kernels import nets
from tests.kernels.conftest import QUANT_FORMS, Klaus, emulated, runner
from tests.klaus_runtime import golden
from tests.klaus_runtime.golden import TINY, TINY_QUANT, difference, large, only, ranks, tensor, worst_difference

if TYPE_CHECKING:
    from toolchains.build import Build

HALF = ("--precision", "fp16")
WORST = 1e-2  # of a layer's largest value
TARGET = "linux-aarch64"


@pytest.fixture(scope="session")
def a76(arm_build: Build) -> Klaus:
    """klaus-run on a core with half-precision arithmetic."""
    return runner(emulated(arm_build.program, TARGET, "cortex-a76"))


def dumped(klaus: Klaus, model: Path, given: F32, folder: Path, *options: object) -> Iterator[F32]:
    """Every layer's output, one step a layer."""
    given.astype("<f4").tofile(folder / "input.f32")
    said = klaus(
        "activations", "--model", model, "--input", folder / "input.f32", "--out", folder / "out", *HALF, *options
    )
    for record in said.records:
        yield np.fromfile(folder / "out" / record["file"], "<f4")


def outputs(klaus: Klaus, model: Path, folder: Path, *options: object) -> F32:
    """What the last layer gives, of fixed pseudo-random values or --input."""
    klaus("bench", "--model", model, "--runs", 1, "--warmup", 0, "--logits", folder / "logits.f32", *HALF, *options)
    return np.fromfile(folder / "logits.f32", "<f4")


def cosine(got: F32, wanted: F32) -> float:
    """Of the angle between two vectors."""
    a, b = got.ravel().astype(np.float64), wanted.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("form", ["fp32", "fp16"])
def test_activations_of_the_golden_net(a76: Klaus, models: dict[str, Path], tmp_path: Path, form: str) -> None:
    for number in range(3):
        given = tensor(only(TINY, f"input-{number}-*"))
        wanted = [tensor(path) for path in sorted((TINY / f"acts-{form}-{number}").iterdir())]
        got = list(dumped(a76, models[f"tiny{form[2:]}"], given, tmp_path))
        assert worst_difference(got, wanted) <= WORST
        assert cosine(got[-1], wanted[-1]) >= 0.999


@pytest.mark.parametrize("form", QUANT_FORMS)
def test_activations_from_codebooks(a76: Klaus, models: dict[str, Path], tmp_path: Path, form: str) -> None:
    wanted = map(tensor, sorted((TINY_QUANT / "acts-0").iterdir()))
    assert worst_difference(dumped(a76, models[form], tensor(only(TINY, "input-0-*")), tmp_path), wanted) <= WORST


@pytest.mark.parametrize("make", [nets.every_op, nets.ends_in_softmax, nets.scanned])
def test_every_operation_against_the_oracle(a76: Klaus, tmp_path: Path, make: Callable[[], Model]) -> None:
    """Operations without kernels for halves run in float32 between casts."""
    model = make()
    path = pack.pack(model, tmp_path / "net.klaus")
    given = np.random.default_rng(5).normal(0, 1, model.input_shape).astype(np.float32)
    wanted = list(NumpyEngine(model).activations(given))
    assert worst_difference(dumped(a76, path, given, tmp_path), iter(wanted)) <= WORST


@pytest.mark.parametrize("name", ["every_op", "scanned", "tiny16", "b-depth4-index"])
def test_fused_plans_and_threads_agree(a76: Klaus, models: dict[str, Path], tmp_path: Path, name: str) -> None:
    unfused = outputs(a76, models[name], tmp_path, "--unfused")
    fused = outputs(a76, models[name], tmp_path)
    assert np.abs(fused - unfused).max() <= WORST * np.abs(unfused).max()
    for threads in ("3", "7"):
        assert np.array_equal(outputs(a76, models[name], tmp_path, "--threads", threads), fused)


def test_layers_run_in_halves(a76: Klaus, models: dict[str, Path]) -> None:
    """From the float32 input to float32 results, halves in between and no casts."""
    steps = a76("info", "--plan", "--model", models["tiny16"], *HALF).of("step")
    assert [step["dtypes"] for step in steps if step["op"] != "softmax"] == [
        ["f32", "f16"],
        *[["f16", "f16"]] * (len(steps) - 2),
        ["f16", "f32"],
    ]
    assert all(step["isa"] == "neon_fp16" for step in steps)


def test_a_core_without_halves_says_so(arm_build: Build, models: dict[str, Path]) -> None:
    klaus = runner(emulated(arm_build.program, TARGET, "cortex-a53"))
    said = klaus("bench", "--model", models["tiny16"], *HALF, code=2)
    assert "precision fp16 needs neon_fp16, which this CPU does not have; use fp32" in said.stderr


@pytest.mark.slow
def test_the_large_golden_net(a76: Klaus, shared: Path, tmp_path: Path) -> None:
    folder, model = large(shared)
    path = pack.pack(model, tmp_path / "klaus.klaus")
    given = tensor(only(folder, "input-0-*"))
    wanted = [tensor(file) for file in sorted((folder / "acts-0").iterdir())]
    got = list(dumped(a76, path, given, tmp_path, "--threads", "2"))
    shares = [difference(output, want) for output, want in zip(got, wanted, strict=True)]
    assert max(shares) <= WORST, shares
    assert cosine(got[-1], wanted[-1]) >= 0.999
    assert int(got[-1].argmax()) == int(wanted[-1].argmax())
    photo = images.read_picture(folder / "n01440764_tench.decoded.png")
    batch = pack.write_batch(tmp_path / "batch", [("tench", photo)])
    said = a76("classify", "--model", path, "--images", batch, "--top", 5, "--threads", 2, *HALF)
    first, _ = ranks(folder / "n01440764_tench.classify-sym1.txt")[0]
    assert said.one("picture")["top"][0]["id"] == first


@pytest.mark.slow
def test_the_logits_of_lite0(a76: Klaus, shared: Path, tmp_path: Path) -> None:
    """Four photos of ImageNet, fed without crop, beside what the weights' own code gave in float32."""
    try:
        model = load_model("lite0")
    except SetupError as error:
        pytest.skip(f"needs lite0's weights: {error}")
    path = pack.pack(model, tmp_path / "lite0.klaus")
    for name, wanted in golden.lite0_logits(shared)[::63]:
        images.form(model, images.read_picture(name), "none").astype("<f4").tofile(tmp_path / "input.f32")
        got = outputs(a76, path, tmp_path, "--input", tmp_path / "input.f32", "--threads", "2")
        assert cosine(got, wanted) >= 0.999
        assert int(got.argmax()) == int(wanted.argmax())
        probabilities = [np.exp(each - each.max()) / np.exp(each - each.max()).sum() for each in (wanted, got)]
        assert float((probabilities[0] * np.log(probabilities[0] / probabilities[1])).sum()) <= 0.002  # nats
