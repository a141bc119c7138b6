"""Reading golden data made with ccv: tensors, activations, ranks; and comparing with them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from klaus_runtime import images
from klaus_runtime.engine import Engine
from klaus_runtime.evaluate import FastEngine
from klaus_runtime.model import F32, Model
from klaus_runtime.reference import NumpyEngine
from klaus_runtime.registry import load_model

DATA = Path(__file__).resolve().parent.parent / "data" / "ccv-golden"
TINY, TINY_QUANT = DATA / "tiny", DATA / "tiny-quant"
ENGINES = (NumpyEngine, FastEngine)

_SHAPE = re.compile(r"-(\d+)x(\d+)x(\d+)\.f32(?:\.gz)?$")


def tensor(path: Path) -> F32:
    """A .f32 or .f32.gz file in the shape that its name says."""
    found = _SHAPE.search(path.name)
    assert found, path
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    rows, cols, channels = map(int, found.groups())
    return np.frombuffer(data, "<f4").reshape(rows, cols, channels).astype(np.float32)


def only(folder: Path, pattern: str) -> Path:
    """The one file of a folder that a pattern fits."""
    (path,) = folder.glob(pattern)
    return path


def ranks(path: Path) -> list[tuple[int, float]]:
    """(id, confidence) a rank of a .classify file."""
    lines = (line.split() for line in path.read_text().splitlines() if not line.startswith("#"))
    return [(int(line[0]), float(line[1])) for line in lines]


def listed(top: Iterable[tuple[int, float]], count: int) -> F32:
    """Probabilities by id from (id, probability) pairs of klaus-run; what is not listed stays 0."""
    probabilities = np.zeros(count, np.float32)
    for index, probability in top:
        probabilities[index] = probability
    return probabilities


def large(shared: Path) -> tuple[Path, Model]:
    """The golden net in Klaus' geometry, codebooks of 4 and 8 bits: its folder in ../shared, and the model."""
    folder = shared / "data" / "ccv-golden" / "klaus"
    pictures = {10: "layer-10-4bit.png", 11: "layer-11.png", 12: "layer-12.png"}
    layers = {layer: folder / name for layer, name in pictures.items()}
    return folder, load_model(str(folder / "model.sqlite3"), layers=layers)


def lite0_logits(shared: Path) -> list[tuple[Path, F32]]:
    """lite0's 1000 float logits for 250 photos of ImageNet, fed without crop, as the weights' own code gave them."""
    folder = shared / "data" / "photos"
    paths = {path.name: path for _, path in images.find_photos(folder / "imagenet-val-250")}
    with np.load(folder / "lite0-float-logits-val-250.npz") as given:
        return [(paths[name], logits) for name, logits in zip(given["files"], given["logits"], strict=True)]


def difference(got: F32, wanted: F32) -> float:
    """Largest difference as a part of the largest value wanted; fails where anything is infinite or not a number.

    A comparison with NaN is false and max() forgets it, so it must not come that far.
    """
    assert got.size == wanted.size, (got.shape, wanted.shape)
    assert np.isfinite(got).all(), "infinite or not a number"
    assert np.isfinite(wanted).all(), "what is wanted is infinite or not a number"
    largest = float(np.abs(wanted).max())
    assert largest > 0, "all that is wanted is zero"
    return float(np.abs(got.ravel() - wanted.ravel()).max()) / largest


def worst_difference(outputs: Iterable[F32], wanted: Iterable[F32]) -> float:
    """The largest `difference` of any layer; fails where there are more layers on one side."""
    pairs = zip(outputs, wanted, strict=True)
    return max(difference(output, want) for output, want in pairs)


def worst_activation(engine: Engine, given: F32, folder: Path) -> float:
    """Largest difference of any layer's output from ccv's, as a part of the layer's largest value."""
    return worst_difference(engine.activations(given), (tensor(path) for path in sorted(folder.iterdir())))


def assert_ranks(probabilities: F32, wanted: Iterable[tuple[int, float]], *, first: int) -> None:
    """The first ids equal, confidences within 2e-5 relative, elsewhere only neighbours closer than that swapped."""
    wanted = list(wanted)
    order = np.argsort(-probabilities, kind="stable")
    for index, confidence in wanted:
        assert abs(probabilities[index] - confidence) <= 2e-5 * confidence
    assert [int(index) for index in order[:first]] == [index for index, _ in wanted[:first]]
    for got, (index, confidence) in zip(order[: len(wanted)], wanted, strict=True):
        assert got == index or abs(probabilities[got] - confidence) <= 2e-5 * confidence
