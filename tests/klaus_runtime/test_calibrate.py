"""Activation ranges, and how they reach a package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klaus_runtime import calibrate, images
from klaus_runtime.cli import main
from klaus_runtime.errors import InputError
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import Range
from klaus_runtime.package import read_package, write_package

from . import nets
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
