"""The package that comes with the project: whole, small, licensed, and right about photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_tests import prepare
from device_tests.errors import InventoryError
from device_tests.photos import Photo, demo_photos
from device_tests.prepare import scheme_for
from klaus_runtime import images, registry, shapes, shipped
from klaus_runtime.errors import SetupError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Convolution, FullConnect, Model
from klaus_runtime.native import NativeEngine
from klaus_runtime.package import read_package
from klaus_runtime.quantize.calibrated import is_fine
from klaus_runtime.quantize.gradient import kl_divergence
from toolchains.build import Build

MOST_BYTES = 2_450_000
MOST_LOSS = 0.10  # nats of KL(float || quantized)
SOME_PHOTOS = 40


@pytest.fixture(scope="module")
def path() -> Path:
    found = shipped.package_of("lite0", "q4")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return read_package(path)


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    try:
        return demo_photos()
    except SetupError as error:
        pytest.skip(f"needs the demo photos: {error}")


def test_it_is_lite0_at_four_bits(path: Path, model: Model) -> None:
    assert shapes.weight_count(model) == 4_608_992
    assert sum(file.stat().st_size for file in shipped.files_of(path)) <= MOST_BYTES
    assert len(shipped.files_of(path)) == 2
    for layer in model.layers:
        if isinstance(layer, Convolution | FullConnect):
            assert layer.weights.codebook is not None
            assert len(layer.weights.codebook.values) <= (256 if is_fine(layer) else 16)


def test_it_says_where_it_comes_from_and_holds_ranges(path: Path, model: Model) -> None:
    assert model.provenance.licence == "Apache-2.0"
    assert model.provenance.scheme.startswith("q4 (calibrated on 256 photos")
    assert "Apache License" in (path.parent / "LICENSE").read_text("utf-8")
    notice = (path.parent / "NOTICE").read_text("utf-8")
    assert "--scheme q4" in notice
    assert "klaus calibrate" in notice
    assert len(model.ranges) == len(model.layers) + 1
    for found in model.ranges:
        assert found is not None
        assert found.low < found.high


def test_demo_photos_are_named_as_the_float_network_names_them(model: Model, photos: list[Photo]) -> None:
    tensors = np.stack([images.form(model, images.read_picture(photo.path)) for photo in photos])
    order = np.argsort(-FastEngine(model).logits(tensors), axis=1)
    named = [[model.labels[answer].id for answer in row[:2]] for row in order]
    # The float network is torn between a tiger cat and a tabby, 0.41 and 0.34: there the second place will do.
    assert all(photo.wnid in ids for photo, ids in zip(photos, named, strict=True))
    assert sum(photo.wnid == ids[0] for photo, ids in zip(photos, named, strict=True)) >= len(photos) - 1


def test_the_c_library_has_the_same_five_first(
    path: Path, model: Model, photos: list[Photo], host_build: Build, tmp_path: Path
) -> None:
    made = prepare.prepare("lite0", "q4", tmp_path / "cache", lambda _: None)
    assert made.package_bytes == sum(file.stat().st_size for file in shipped.files_of(path))
    assert made.scheme.startswith("q4")
    tensors = np.stack([images.form(model, images.read_picture(photo.path)) for photo in photos[:3]])
    fast = FastEngine(model).logits(tensors)
    engine = NativeEngine(made.packed, host_build.shared)
    try:
        native = engine.logits(tensors)
    finally:
        engine.close()
    for ours, theirs in zip(fast, native, strict=True):
        assert np.argsort(-ours)[:5].tolist() == np.argsort(-theirs)[:5].tolist()


@pytest.mark.slow
def test_its_answers_stay_near_the_float_networks(model: Model, shared: Path) -> None:
    folder = shared / "data" / "photos" / "imagenet-val-250"
    known = np.load(shared / "data" / "photos" / "lite0-float-logits-val-250.npz")
    named = dict(zip((str(name) for name in known["files"]), known["logits"], strict=True))
    chosen = sorted(named)[:: len(named) // SOME_PHOTOS]
    found = {photo.name: photo for photo in folder.glob("*/*.JPEG")}
    tensors = np.stack([images.form(model, images.read_picture(found[name]), "none") for name in chosen])
    exact = np.stack([named[name] for name in chosen])
    assert kl_divergence(exact, FastEngine(model).logits(tensors)).mean() <= MOST_LOSS


def test_a_scheme_that_needs_photos_and_has_no_package_says_so() -> None:
    assert scheme_for("lite0", "q4") == "q4"
    assert scheme_for("lite0", "") == "q4"
    for source, scheme in (("lite0", "q3"), ("squeezenet", "q4"), ("lite0", "auto")):
        with pytest.raises(InventoryError, match="--calibration DIR") as told:
            scheme_for(source, scheme)
        assert "\n" not in str(told.value)


def test_nothing_is_fetched_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise AssertionError("the float weights were asked for")

    monkeypatch.setattr(registry, "fetch", refuse)
    assert prepare.quantized("lite0", "q4", lambda _: None).provenance.scheme.startswith("q4")
