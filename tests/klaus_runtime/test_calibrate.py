"""Activation ranges, and how they reach a package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klaus_runtime import calibrate, images, int8
from klaus_runtime.cli import main
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine, prepare
from klaus_runtime.model import Convolution, FullConnect, Range
from klaus_runtime.package import read_package, write_package
from klaus_runtime.quantize import quantize
from klaus_runtime.readers.ccv import read

from . import nets
from .golden import TINY
from .zoo import assert_same


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (30, 26, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_ranges_hold_every_value_and_no_more(photos: list[Path]) -> None:
    model = nets.everything()
    steps: list[int] = []
    found = calibrate.calibrate(model, photos, report=steps.append)
    assert steps == [1, 2, 3]
    assert len(found.ranges) == len(model.layers) + 1
    tensors = [images.form(model, images.read_picture(photo)) for photo in photos]
    layers = list(zip(*(FastEngine(model).activations(tensor) for tensor in tensors), strict=True))
    for measured, values in zip(found.ranges, [tensors, *layers], strict=True):
        together = np.stack(values)
        assert measured == Range(float(together.min()), float(together.max()))
    narrow = calibrate.calibrate(model, photos, method="percentile")
    for inner, outer in zip(narrow.ranges, found.ranges, strict=True):
        assert inner is not None
        assert outer is not None
        assert outer.low <= inner.low <= inner.high <= outer.high
        assert inner.method == "percentile"


def test_every_layer_with_weights_gets_corrections_of_a_byte(photos: list[Path]) -> None:
    model = nets.everything()
    found = calibrate.calibrate(model, photos)
    for before, after in zip(model.layers, found.layers, strict=True):
        if not isinstance(after, Convolution | FullConnect):
            assert before is after
            continue
        correction = after.weights.correction
        assert correction is not None
        assert correction.any()
        assert not (correction.astype(np.float16).view(np.uint16) & 0xFF).any()
        assert_same(replace(after, weights=replace(after.weights, correction=None)), before)
    again = calibrate.calibrate(found, photos)
    assert_same(again, found)


def test_corrections_restore_the_means_that_rounding_shifts(photos: list[Path]) -> None:
    """Weights too small for int8 beside large ones are lost to it; what they gave on average comes back."""
    model = nets.coarse()
    found = calibrate.calibrate(model, photos)
    layers = list(zip(model.layers, found.layers, strict=True))
    tensors = np.stack([images.form(model, images.read_picture(photo)) for photo in photos])
    means, grids = [], int8.grids(found)
    for corrected in (False, True):
        exact, rounded = tensors, grids[0].widen(grids[0].round(tensors)) if grids[0] else tensors
        for (before, after), grid in zip(layers, grids[1:], strict=True):
            assert isinstance(before, Convolution | FullConnect)
            assert isinstance(after, Convolution | FullConnect)
            assert after.weights.correction is not None
            bias = before.weights.bias + corrected * after.weights.correction
            exact = prepare(before)([exact])
            rounded = prepare(int8.rounded_layer(before, bias, before.activation))([rounded])
            rounded = grid.widen(grid.round(rounded)) if grid else rounded
        means.append(np.abs((exact - rounded).mean(axis=0)).max())
    assert means[1] < 0.2 * means[0]


def test_few_bits_stay_within_an_eighth() -> None:
    values = np.concatenate([np.geomspace(1e-4, 1e6, 500), [0, -0.3, -7, 57344]]).astype(np.float32)
    rounded = calibrate._few_bits(values)
    held = np.clip(values, -57344, 57344)
    assert (np.abs(rounded - held) <= np.abs(held) / 8).all()
    assert np.array_equal(calibrate._few_bits(rounded), rounded)


def test_small_corrections_keep_their_bits() -> None:
    """Where binary16 would have none left for them."""
    values = np.random.default_rng(1).normal(0, 1e-6, 500).astype(np.float32)
    kept = calibrate._few_bits(values)
    assert np.abs(kept - values).max() <= np.abs(values).max() / 8
    assert (np.abs(kept - values) <= np.abs(values) / 8).all()
    assert np.array_equal(calibrate._few_bits(np.zeros(3, np.float32)), np.zeros(3, np.float32))


def test_quantizing_drops_the_corrections_of_other_weights(photos: list[Path]) -> None:
    model = read(TINY / "model-fp32.sqlite3")
    made = calibrate.calibrate(model, photos)
    assert any(layer.weights.correction is not None for layer in made.layers if isinstance(layer, Convolution))
    for scheme in ("klaus-4", "klaus-mixed", "q8"):
        for layer in quantize(made, scheme).layers:
            assert not isinstance(layer, Convolution | FullConnect) or layer.weights.correction is None


def test_a_file_that_is_no_package_is_not_replaced(tmp_path: Path) -> None:
    plain = tmp_path / "plain.sqlite3"
    plain.write_bytes((TINY / "model-fp32.sqlite3").read_bytes())
    command = [sys.executable, "-m", "klaus_runtime.cli", "calibrate", str(plain), "--images", str(TINY / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no package that ranges could be written into: say where by -o DIR" in done.stderr
    assert plain.read_bytes() == (TINY / "model-fp32.sqlite3").read_bytes()


def test_refusals(photos: list[Path]) -> None:
    with pytest.raises(InputError, match="minmax and percentile"):
        calibrate.calibrate(nets.everything(), photos, method="median")
    with pytest.raises(InputError, match="give a folder"):
        calibrate.calibrate(nets.everything(), [])


def test_the_command_writes_them_into_a_package(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nets.everything()
    made = write_package(model, tmp_path / "package", name="net")
    before = read_package(made.path)
    assert main(["calibrate", str(made.path), "--images", str(photos[0].parent), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["photos"] == 3
    assert len(answer["ranges"]) == len(model.layers) + 1
    assert_same(read_package(made.path), calibrate.calibrate(before, photos))
    other = tmp_path / "other"
    assert main(["calibrate", str(made.path), "--images", str(photos[0].parent), "-o", str(other)]) == 0
    assert_same(read_package(other / "net.sqlite3"), read_package(made.path))
    assert main(["calibrate", "lite0", "--images", str(photos[0].parent)]) == 2
    assert "-o DIR" in capsys.readouterr().err
