"""libklaus through cffi: the same answers as ccv and the oracle, and its errors as ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import images, native
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.model import Model
from klaus_runtime.native import NativeEngine, find_library, require_library
from klaus_runtime.pack import pack
from klaus_runtime.quantize import quantize
from klaus_runtime.readers import ccv, klaus
from klaus_runtime.reference import NumpyEngine
from toolchains.build import Build

from . import golden
from .golden import TINY, TINY_QUANT
from .zoo import everything


@pytest.fixture(scope="module")
def library(host_build: Build) -> Path:
    return host_build.shared


def _engine(model: Model, folder: Path, library: Path, isa: str = "ref") -> NativeEngine:
    return NativeEngine(pack(model, folder / "x.klaus"), library, isa=isa)


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_tiny_activations_equal_ccv(kind: str, number: int, library: Path, tmp_path: Path) -> None:
    engine = _engine(ccv.read(TINY / f"model-{kind}.sqlite3"), tmp_path, library)
    given = golden.tensor(golden.only(TINY, f"input-{number}-*.f32"))
    assert golden.worst_activation(engine, given, TINY / f"acts-{kind}-{number}") <= 1e-5
    engine.verify()
    engine.close()


@pytest.mark.parametrize("form", ["a-depth8-index", "b-depth4-index", "c-depth4-expanded"])
def test_codebooks_equal_ccv(form: str, library: Path, tmp_path: Path) -> None:
    folder = TINY_QUANT / form
    pictures = {int(path.stem.split("-")[1]): path for path in folder.glob("layer-*.png")}
    engine = _engine(klaus.read(folder / "model.sqlite3", pictures), tmp_path, library, "auto")
    given = golden.tensor(golden.only(TINY, "input-0-*.f32"))
    assert golden.worst_activation(engine, given, TINY_QUANT / "acts-0") <= 1e-5
    picture = images.read_picture(TINY / "images" / "landscape-97x160.png")
    wanted = golden.ranks(TINY_QUANT / "landscape.classify-sym1.txt")
    golden.assert_ranks(engine.probabilities(picture, patches=10), wanted, first=5)


@pytest.mark.parametrize("scheme", [None, "klaus-mixed", "klaus-2", "q8"])
def test_agrees_with_the_oracle(scheme: str | None, library: Path, tmp_path: Path) -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    model = model if scheme is None else quantize(model, scheme)
    engine, oracle = _engine(model, tmp_path, library, "auto"), NumpyEngine(model)
    tensors = np.stack([golden.tensor(golden.only(TINY, f"input-{n}-*.f32")) for n in (0, 1)])
    wanted = oracle.logits(tensors)
    assert np.abs(engine.logits(tensors) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    for picture in sorted((TINY / "images").glob("*.png")):
        pixels = images.read_picture(picture)
        got = engine.probabilities(pixels, patches=10)
        assert np.allclose(got, oracle.probabilities(pixels, patches=10), rtol=2e-5)


def test_every_kind_of_layer_agrees_with_the_oracle(library: Path, tmp_path: Path) -> None:
    model = everything()
    engine = _engine(model, tmp_path, library, "auto")
    tensor = np.random.default_rng(0).standard_normal(model.input_shape).astype(np.float32)
    outputs = list(engine.activations(tensor))
    wanted = list(NumpyEngine(model).activations(tensor))
    assert len(outputs) == len(wanted)
    for got, want in zip(outputs, wanted, strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1e-5 * max(1e-30, float(np.abs(want).max()))
    picture = np.random.default_rng(1).integers(0, 256, (31, 47, 3)).astype(np.uint8)
    for crop in ("center", "none"):
        got = engine.probabilities(picture, patches=1, crop=crop)
        assert np.allclose(got, NumpyEngine(model).probabilities(picture, patches=1, crop=crop), rtol=1e-4, atol=1e-7)


def test_bad_input_is_one_error(library: Path, tmp_path: Path) -> None:
    path = pack(everything(), tmp_path / "x.klaus")
    engine = NativeEngine(path, library)
    with pytest.raises(InputError, match="this network reads"):
        engine.logits(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(InputError):
        engine.probabilities(np.zeros((4, 4, 3), np.uint8), patches=10)  # not a ccv network
    with pytest.raises(InputError, match="uint8"):
        engine.probabilities(np.zeros((4, 4), np.uint8), patches=1)
    with pytest.raises(InputError, match="'mmx' is unknown: there are auto, ref"):
        NativeEngine(path, library, isa="mmx")
    with pytest.raises(InputError):
        NativeEngine(path, library, threads=0).logits(np.zeros((1, 9, 9, 3), np.float32))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError):
        NativeEngine(path, library)
    with pytest.raises(InputError):
        NativeEngine(tmp_path / "absent", library)


def test_a_missing_or_foreign_library_is_named_with_the_next_step(tmp_path: Path) -> None:
    assert find_library(tmp_path) is None
    with pytest.raises(SetupError, match="build --target host"):
        require_library(tmp_path)
    fake = tmp_path / native.LIBRARY_NAMES[0]
    fake.write_bytes(b"no library")
    with pytest.raises(SetupError, match="is not a libklaus for this computer"):
        NativeEngine(tmp_path / "x.klaus", require_library(tmp_path))
