"""The exactness claim, in every clone: both Python engines against what ccv computed, on the tiny synthetic nets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import forward, images
from klaus_runtime.engine import Engine
from klaus_runtime.model import FullConnect, Model
from klaus_runtime.readers import ccv, klaus
from klaus_runtime.reference import NumpyEngine

from . import golden
from .golden import DATA, ENGINES, TINY, TINY_QUANT

MakeEngine = Callable[[Model], Engine]
PICTURES = sorted(path for path in (TINY / "images").glob("*.png"))
FORMS = ("a-depth8-index", "b-depth4-index", "c-depth4-expanded")


def _stem(picture: Path) -> str:
    return picture.stem.rpartition("-")[0]


def test_golden_files_are_the_ones_that_were_made() -> None:
    listed = dict(line.split(maxsplit=1)[::-1] for line in (DATA / "SHA256SUMS").read_text().splitlines())
    found = {
        str(path.relative_to(DATA)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA.rglob("*")
        if path.is_file() and path.name not in ("SHA256SUMS", "README.md")
    }
    assert found == listed


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_tiny_activations_equal_ccv(make: MakeEngine, kind: str, number: int) -> None:
    engine = make(ccv.read(TINY / f"model-{kind}.sqlite3"))
    given = golden.tensor(golden.only(TINY, f"input-{number}-*.f32"))
    assert golden.worst_activation(engine, given, TINY / f"acts-{kind}-{number}") <= 1e-5


@pytest.mark.parametrize("picture", PICTURES, ids=_stem)
def test_pictures_are_formed_and_fed_as_ccv_does(picture: Path) -> None:
    model = ccv.read(TINY / "model-fp16.sqlite3")
    folder = TINY / "images" / _stem(picture)
    pixels = images.read_picture(picture)
    for got, wanted in (
        (images.ccv_formed(pixels, 55, 55), golden.tensor(golden.only(folder, "formed-*"))),
        (images.feed(model, pixels), golden.tensor(golden.only(folder, "fed-*"))),
    ):
        assert got.shape == wanted.shape
        # ccv computes in float32: its own rounding is up to 3e-4 of 255 where positions are computed that way.
        assert np.abs(got - wanted).max() <= 1e-3


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
@pytest.mark.parametrize("picture", PICTURES, ids=_stem)
def test_ten_patches_rank_as_ccv_does(make: MakeEngine, kind: str, picture: Path) -> None:
    engine = make(ccv.read(TINY / f"model-{kind}.sqlite3"))
    got = engine.probabilities(images.read_picture(picture), patches=10)
    golden.assert_ranks(got, golden.ranks(TINY / "images" / f"{_stem(picture)}.classify-{kind}-sym1.txt"), first=10)


@pytest.mark.parametrize("picture", PICTURES, ids=_stem)
def test_five_patches_rank_as_ccv_does(picture: Path) -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    engine = NumpyEngine(model)
    outputs = forward.run_patches(model, engine._run, images.read_picture(picture), mirrored=False)
    assert len(outputs) == 5
    wanted = golden.ranks(TINY / "images" / f"{_stem(picture)}.classify-fp32-sym0.txt")
    golden.assert_ranks(forward.average(model, outputs), wanted, first=10)


@pytest.mark.parametrize("form", FORMS)
def test_quantized_forms_hold_the_same_weights(form: str) -> None:
    plain = ccv.read(TINY_QUANT / "equivalent-fp16.sqlite3")
    coded = klaus.read(TINY_QUANT / form / "model.sqlite3")
    entries = {}
    for index, (ours, theirs) in enumerate(zip(coded.layers, plain.layers, strict=True)):
        if isinstance(ours, FullConnect) and isinstance(theirs, FullConnect):
            assert ours.weights.codebook is not None
            assert ours.weights.codebook.values.dtype == np.float16
            entries[index] = len(ours.weights.codebook.values)
            np.testing.assert_array_equal(ours.weights.stored(), theirs.weights.stored())
            np.testing.assert_array_equal(ours.weights.bias, theirs.weights.bias)
    assert entries == {8: 16, 9: 256, 10: 4, 11: 255}


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("form", FORMS)
def test_quantized_forms_compute_as_ccv_does(make: MakeEngine, form: str) -> None:
    engine = make(klaus.read(TINY_QUANT / form / "model.sqlite3"))
    given = golden.tensor(golden.only(TINY, "input-0-*.f32"))
    assert golden.worst_activation(engine, given, TINY_QUANT / "acts-0") <= 1e-5
    got = engine.probabilities(images.read_picture(TINY / "images" / "landscape-97x160.png"), patches=10)
    golden.assert_ranks(got, golden.ranks(TINY_QUANT / "landscape.classify-sym1.txt"), first=10)


def test_one_patch_is_the_middle_of_what_ccv_feeds() -> None:
    model = ccv.read(TINY / "model-fp32.sqlite3")
    pixels = images.read_picture(TINY / "images" / "landscape-97x160.png")
    fed = golden.tensor(golden.only(TINY / "images" / "landscape", "fed-*"))
    np.testing.assert_allclose(images.form(model, pixels), fed[4:51, 20:67], atol=1e-3)
