"""The same claim on the large nets: Klaus' geometry with a photo's 10 patches, a trained net, lite0's real logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import accuracy, images, labels, registry
from klaus_runtime.engine import Engine
from klaus_runtime.errors import SetupError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import FullConnect, Model
from klaus_runtime.native import NativeEngine
from klaus_runtime.pack import pack
from klaus_runtime.readers import ccv, klaus
from klaus_runtime.reference import NumpyEngine
from toolchains.build import Build

from . import golden
from .golden import ENGINES

MakeEngine = Callable[[Model], Engine]


@pytest.fixture(scope="module")
def klaus_golden(shared: Path) -> Path:
    return shared / "data" / "ccv-golden" / "klaus"


@pytest.fixture(scope="module")
def mobile(klaus_golden: Path) -> Model:
    return klaus.read(klaus_golden / "model.sqlite3")


@pytest.fixture(scope="module")
def lite0() -> Model:
    try:
        return registry.load_model("lite0")
    except SetupError as error:
        pytest.skip(f"needs lite0's weights: {error}")


def test_klaus_own_picture_names_are_found(mobile: Model) -> None:
    coded = [layer.weights.codebook for layer in mobile.layers if isinstance(layer, FullConnect)]
    assert [len(codebook.values) for codebook in coded if codebook is not None] == [16, 255, 256]
    assert mobile.patches == 10
    assert mobile.labels == labels.ilsvrc2012()


@pytest.mark.slow
@pytest.mark.parametrize("make", ENGINES)
def test_klaus_equals_ccv(make: MakeEngine, mobile: Model, klaus_golden: Path) -> None:
    engine = make(mobile)
    given = golden.tensor(golden.only(klaus_golden, "input-0-*.f32"))
    assert golden.worst_activation(engine, given, klaus_golden / "acts-0") <= 1e-5
    picture = images.read_picture(klaus_golden / "n01440764_tench.JPEG")
    np.testing.assert_array_equal(picture, images.read_picture(klaus_golden / "n01440764_tench.decoded.png"))
    formed = images.ccv_formed(picture, 257, 257)
    np.testing.assert_allclose(formed, golden.tensor(golden.only(klaus_golden, "*formed-*")), atol=1e-3)
    wanted = golden.ranks(klaus_golden / "n01440764_tench.classify-sym1.txt")
    assert len(wanted) == 1000
    golden.assert_ranks(engine.probabilities(picture, patches=10), wanted, first=5)


def test_trained_net_in_klaus_geometry_knows_its_classes(shared: Path) -> None:
    model = ccv.read(shared / "data" / "klaus-nette" / "klaus-nette.sqlite3")
    engine = FastEngine(model)
    photos = images.find_photos(shared / "data" / "photos" / "imagenet-val-250")[::25]
    ids = accuracy.positions(model.labels, photos)
    hits = 0
    for wanted, (_, photo) in zip(ids, photos, strict=True):
        hits += wanted in accuracy.top(engine.probabilities(images.read_picture(photo), patches=10), 5)
    assert hits >= 8  # of 10; ccv itself has 93.6 % on all 250


def test_lite0_logits_of_the_c_library(lite0: Model, shared: Path, host_build: Build, tmp_path: Path) -> None:
    engine = NativeEngine(pack(lite0, tmp_path / "lite0.klaus"), host_build.shared, threads=2)
    photos = golden.lite0_logits(shared)[::50]
    tensors = np.stack([images.form(lite0, images.read_picture(path), "none") for path, _ in photos])
    got = engine.logits(tensors)
    assert np.isfinite(got).all()
    assert np.abs(got - np.stack([wanted for _, wanted in photos])).max() <= 1e-3
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("make", ENGINES)
def test_lite0_logits_equal_the_original(make: MakeEngine, lite0: Model, shared: Path) -> None:
    folder = shared / "data" / "photos"
    paths = {photo.name: photo for _, photo in images.find_photos(folder / "imagenet-val-250")}
    with np.load(folder / "lite0-float-logits-val-250.npz") as given:
        files, classes, wanted = given["files"], given["labels"], given["logits"]
    if make is NumpyEngine:  # the oracle is slow: one photo a class, a gray one among them
        picked = slice(0, None, 25)
        files, classes, wanted = files[picked], classes[picked], wanted[picked]
    tensors = np.stack([images.form(lite0, images.read_picture(paths[name]), "none") for name in files])
    got = make(lite0).logits(tensors)
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= 1e-3
    assert [lite0.labels[index].id for index in classes] == [paths[name].parent.name for name in files]
    if len(files) == 250:
        order = np.argsort(-got, axis=1, kind="stable")[:, :5]
        assert (order[:, 0] == classes).mean() == pytest.approx(0.696)
        assert (order == classes[:, None]).any(axis=1).mean() == pytest.approx(0.896)
