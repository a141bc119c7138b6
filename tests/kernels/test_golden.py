"""The C engine against ccv's golden data and against the numpy oracle, here and under qemu's user mode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from klaus_runtime import images, pack
from klaus_runtime.calibrate import calibrate
from klaus_runtime.engine import Crop
from klaus_runtime.errors import SetupError
from klaus_runtime.model import F32, CropFormation, Model
from klaus_runtime.reference import NumpyEngine
from klaus_runtime.registry import load_model
from tests.kernels import nets
from tests.kernels.conftest import QUANT_FORMS, Klaus, emulated, runner
from tests.klaus_runtime import golden
from tests.klaus_runtime.golden import (
    TINY,
    TINY_QUANT,
    assert_ranks,
    large,
    listed,
    only,
    ranks,
    tensor,
    worst_difference,
)

if TYPE_CHECKING:
    from toolchains.build import Build

Models = dict[str, Path]
PICTURES = sorted((TINY / "images").glob("*.png"))


@pytest.fixture(scope="session", params=["host", "linux-aarch64", "linux-aarch64 cortex-a53", "linux-armv7"])
def anywhere(request: pytest.FixtureRequest, built: Callable[[str], Build]) -> Klaus:
    """klaus-run of this computer and of the ARM targets; cortex-a53: kernels for in-order cores, no fp16."""
    target, _, cpu = request.param.partition(" ")
    build = built(target)
    return runner([build.program]) if target == "host" else runner(emulated(build.program, target, cpu or None))


def dumped(klaus: Klaus, model: Path, given: F32, folder: Path, *options: str) -> Iterator[F32]:
    given.astype("<f4").tofile(folder / "input.f32")
    said = klaus("activations", "--model", model, "--input", folder / "input.f32", "--out", folder / "out", *options)
    for index, record in enumerate(said.records):
        assert (record["record"], record["layer"]) == ("activation", index)
        values = np.fromfile(folder / "out" / record["file"], "<f4")
        yield values.reshape(record["rows"], record["cols"], record["channels"])
    assert not list((folder / "out").glob("*.part"))


@pytest.mark.parametrize("form", ["fp32", "fp16"])
def test_activations_of_the_golden_net(anywhere: Klaus, models: Models, tmp_path: Path, form: str) -> None:
    for number in range(3):
        given = tensor(only(TINY, f"input-{number}-*"))
        wanted = map(tensor, sorted((TINY / f"acts-{form}-{number}").iterdir()))
        assert worst_difference(dumped(anywhere, models[f"tiny{form[2:]}"], given, tmp_path), wanted) <= 1e-5


@pytest.mark.parametrize("form", QUANT_FORMS)
def test_activations_from_codebooks(anywhere: Klaus, models: Models, tmp_path: Path, form: str) -> None:
    wanted = map(tensor, sorted((TINY_QUANT / "acts-0").iterdir()))
    assert worst_difference(dumped(anywhere, models[form], tensor(only(TINY, "input-0-*")), tmp_path), wanted) <= 1e-5


@pytest.mark.parametrize("form", ["fp32", "fp16"])
def test_ten_patches_of_the_golden_pictures(anywhere: Klaus, models: Models, tmp_path: Path, form: str) -> None:
    """Exact size, area, cubic, one side small, wide: whole crops of seven sizes in one session."""
    batch = pack.write_batch(tmp_path / "batch", [(path.stem, images.read_picture(path)) for path in PICTURES])
    said = anywhere("classify", "--model", models[f"tiny{form[2:]}"], "--images", batch, "--top", 10)
    assert [record["id"] for record in said.records] == [path.stem for path in PICTURES]
    for record, path in zip(said.records, PICTURES, strict=True):
        name = path.stem.rpartition("-")[0]
        probabilities = listed(((entry["id"], entry["probability"]) for entry in record["top"]), 10)
        assert_ranks(probabilities, ranks(path.parent / f"{name}.classify-{form}-sym1.txt"), first=5)


# How far halves and int8 may be from float32: at most of a probability, and on average of what nine patches left out
# move. They round each of twelve layers to 2^-11 of a number, and to 255 steps of the layer's range. Measured: 9e-4 and
# 1/270; 0.045 and 1/12.
TEN_PATCHES = {"fp16": (2e-3, 1 / 100), "int8": (0.06, 1 / 8)}


@pytest.mark.parametrize(("precision", "cpu"), [("fp16", "a76"), ("int8", "a76"), ("int8", "a53")])
def test_ten_patches_in_halves_and_integers(arm_build: Build, tmp_path: Path, precision: str, cpu: str) -> None:
    """The golden pictures as in float32, whether activations are fused or not, on any threads."""
    net = calibrate(nets.apart(load_model(str(TINY / "model-fp16.sqlite3"))), PICTURES)
    model = pack.pack(net, tmp_path / "tiny.klaus")
    batch = pack.write_batch(tmp_path / "batch", [(path.stem, images.read_picture(path)) for path in PICTURES])
    klaus = runner(emulated(arm_build.program, "linux-aarch64", f"cortex-{cpu}"))
    most, on_average = TEN_PATCHES[precision]

    def answers(*options: object) -> F32:
        said = klaus("classify", "--model", model, "--images", batch, "--top", 10, *options).of("picture")
        tops = [{entry["id"]: entry["probability"] for entry in record["top"]} for record in said]
        return np.array([[top[number] for number in range(10)] for top in tops], np.float32)

    wanted, middle = answers(), answers("--patches", 1)
    for plan in ((), ("--unfused",)):
        found = answers("--precision", precision, *plan)
        distance = np.abs(found - wanted)
        assert distance.max() <= most
        assert distance.mean() <= on_average * np.abs(middle - wanted).mean()
        assert np.array_equal(answers("--precision", precision, "--threads", 3, *plan), found)


@pytest.mark.parametrize("make", [nets.every_op, nets.ends_in_softmax, nets.scanned])
def test_every_operation_against_the_oracle(anywhere: Klaus, tmp_path: Path, make: Callable[[], Model]) -> None:
    model = make()
    path = pack.pack(model, tmp_path / "net.klaus")
    given = np.random.default_rng(5).normal(0, 1, model.input_shape).astype(np.float32)
    wanted = list(NumpyEngine(model).activations(given))
    for threads in ("1", "3"):
        assert worst_difference(dumped(anywhere, path, given, tmp_path, "--threads", threads), iter(wanted)) <= 2e-6


def last_outputs(klaus: Klaus, model: Path, folder: Path, *options: object) -> F32:
    said = klaus("bench", "--model", model, "--runs", 2, "--warmup", 0, "--logits", folder / "logits.f32", *options)
    assert said.one("bench")["fused"] == ("--unfused" not in options)
    return np.fromfile(folder / "logits.f32", "<f4")


@pytest.mark.parametrize("name", ["every_op", "scanned", "tiny16", "a-depth8-index"])
def test_fused_plans_and_threads_agree(anywhere: Klaus, models: Models, tmp_path: Path, name: str) -> None:
    unfused = last_outputs(anywhere, models[name], tmp_path, "--unfused")
    fused = last_outputs(anywhere, models[name], tmp_path)
    assert np.abs(fused - unfused).max() <= 1e-5 * np.abs(unfused).max()
    for threads in ("2", "7"):
        assert np.array_equal(last_outputs(anywhere, models[name], tmp_path, "--threads", threads), fused)


def test_plans_are_fused(klaus: Klaus, models: Models) -> None:
    said = klaus("info", "--plan", "--model", models["every_op"])
    assert [2, 3] in [step["layers"] for step in said.of("step")]  # convolution and residual addition
    assert [9, 10] in [step["layers"] for step in said.of("step")]  # convolution and activation
    unfused = klaus("info", "--plan", "--unfused", "--model", models["every_op"])
    assert [step["layers"] for step in unfused.of("step")] == [[layer] for layer in range(15)]


def test_memory_is_used_again(klaus: Klaus, models: Models) -> None:
    """No two steps whose outputs are needed at once share memory; all together take less than their sum.

    A step may overwrite an input that nothing reads later.
    """
    steps = klaus("info", "--plan", "--unfused", "--model", models["every_op"]).of("step")
    model = nets.every_op()
    last_read = {i: max([i] + [k for k, layer in enumerate(model.layers) if i in layer.inputs]) for i in range(15)}
    spans = [(s["output_offset"], s["output_offset"] + s["output_bytes"]) for s in steps[:-1]]
    for (a, first), (b, second) in itertools.combinations(enumerate(spans), 2):
        if b == last_read[a] and steps[b]["in_place"] and first == second:
            assert a in model.layers[b].inputs
        elif b <= last_read[a]:
            assert first[1] <= second[0] or second[1] <= first[0], (a, b)
    assert max(end for _, end in spans) < sum(end - begin for begin, end in spans)


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("size", [(25, 22), (61, 40), (10, 90), (1, 1), (300, 200)])
def test_crop_networks_classify_as_the_oracle_does(
    klaus: Klaus, models: Models, tmp_path: Path, size: tuple[int, int], crop: Crop
) -> None:
    model = nets.every_op()
    assert isinstance(model.formation, CropFormation)
    picture = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    batch = pack.write_batch(tmp_path / "batch", [("random", picture)])
    said = klaus("classify", "--model", models["every_op"], "--images", batch, "--crop", crop, "--top", 99)
    wanted = NumpyEngine(model).probabilities(picture, patches=1, crop=crop)
    top = said.one("picture")["top"]
    assert len(top) == nets.CLASSES
    for entry in top:
        assert entry["probability"] == pytest.approx(float(wanted[entry["id"]]), rel=2e-4, abs=1e-6)
        assert entry["label"] == model.labels[entry["id"]].name


@pytest.mark.parametrize("patches", [1, 10])
@pytest.mark.parametrize("pools", [True, False])
def test_patches_behind_the_scan_layer(anywhere: Klaus, tmp_path: Path, pools: bool, patches: int) -> None:
    model = nets.scanned(pools=pools)
    path = pack.pack(model, tmp_path / "scanned.klaus")
    picture = np.random.default_rng(3).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    batch = pack.write_batch(tmp_path / "batch", [("random", picture)])
    said = anywhere("classify", "--model", path, "--images", batch, "--patches", patches, "--threads", 2)
    wanted = NumpyEngine(model).probabilities(picture, patches=10 if patches == 10 else 1)
    for entry in said.one("picture")["top"]:
        assert entry["probability"] == pytest.approx(float(wanted[entry["id"]]), rel=1e-4, abs=1e-6)


def on(built: Callable[[str], Build], target: str) -> Klaus:
    """klaus-run of this computer or of an ARM target under qemu's user mode."""
    program = built(target).program
    return runner([program] if target == "host" else emulated(program, target))


@pytest.mark.parametrize(
    ("target", "isa", "variants"),
    [("host", "ref", "_ref"), pytest.param("linux-aarch64", "auto", "_neon", marks=pytest.mark.slow)],
)
def test_the_large_golden_net(
    built: Callable[[str], Build], shared: Path, tmp_path: Path, target: str, isa: str, variants: str
) -> None:
    """Scalar kernels here and NEON under qemu's user mode; tests/device_tests/test_board_golden.py: NEON on a board."""
    klaus = on(built, target)
    folder, model = large(shared)
    path = pack.pack(model, tmp_path / "klaus.klaus")
    steps = klaus("info", "--plan", "--isa", isa, "--model", path).of("step")
    assert all(variants in step["variant"] for step in steps if step["op"] in ("conv", "full_connect", "lrn"))
    given = tensor(only(folder, "input-0-*"))
    wanted = map(tensor, sorted((folder / "acts-0").iterdir()))
    assert worst_difference(dumped(klaus, path, given, tmp_path, "--threads", "2", "--isa", isa), wanted) <= 1e-5
    photo = images.read_picture(folder / "n01440764_tench.decoded.png")
    batch = pack.write_batch(tmp_path / "batch", [("tench", photo)])
    said = klaus("classify", "--model", path, "--images", batch, "--top", 1000, "--threads", 2, "--isa", isa)
    answers = ((entry["id"], entry["probability"]) for entry in said.one("picture")["top"])
    assert_ranks(listed(answers, 1000), ranks(folder / "n01440764_tench.classify-sym1.txt"), first=5)


@pytest.mark.slow
def test_the_logits_of_lite0_from_neon(built: Callable[[str], Build], shared: Path, tmp_path: Path) -> None:
    """Two photos of ImageNet, fed without crop: the numbers that the weights' own code gave."""
    try:
        model = load_model("lite0")
    except SetupError as error:
        pytest.skip(f"needs lite0's weights: {error}")
    klaus = on(built, "linux-aarch64")
    path = pack.pack(model, tmp_path / "lite0.klaus")
    for name, wanted in golden.lite0_logits(shared)[::125]:
        images.form(model, images.read_picture(name), "none").astype("<f4").tofile(tmp_path / "input.f32")
        got = last_outputs(klaus, path, tmp_path, "--input", tmp_path / "input.f32", "--threads", "2")
        assert np.isfinite(got).all()
        assert np.abs(got - wanted).max() <= 1e-3
