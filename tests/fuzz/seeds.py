"""Small whole files of every kind: what the fuzzers damage. `python -m tests.fuzz.seeds` writes them as the corpus."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from klaus_runtime import ccv_tables, png
from klaus_runtime.model import CcvFormation, FullConnect, Model
from klaus_runtime.pack import pack
from klaus_runtime.package import write_package
from klaus_runtime.quantize import quantize
from tests.klaus_runtime import net_files, nets, onnx_files, test_safetensors, torch_files, zoo

from . import parts

PACKAGE_NAMES = ("x.sqlite3", "x-layers.png", "x-layer-2.png")
CORPUS = Path(__file__).resolve().parent / "corpus"


def all_seeds() -> Mapping[str, Sequence[bytes]]:
    """Inputs by the name of their target."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "ccv": [_sqlite(folder, half=half) for half in (False, True)],
            "klaus": [_klaus(folder)],
            "package": [
                _package(folder, zoo.everything(), "one"),
                _package(folder, quantize(_small(), "q8"), "two"),
                _package(folder, quantize(_small(), "klaus-4"), "three"),
            ],
            "packed": [pack(model, folder / "x.klaus").read_bytes() for model in (zoo.everything(), _small())],
            "png": [_picture(depth) for depth in (1, 2, 4, 8)],
            "torch-legacy": [torch_files.saved(_tensors())],
            "torch-zip": [torch_files.saved_zip(_tensors())],
            "safetensors": [test_safetensors.GOOD],
            "onnx": [_onnx(0), _onnx(1)],
            "onnx-graph": [bytes(range(0, 200, step)) for step in (1, 3, 7)],
            "net": [net_files.sparse(count=2)[0]],
        }


def _small() -> Model:
    return nets.ccv_like(9, 9)


def _sqlite(folder: Path, *, half: bool) -> bytes:
    return ccv_tables.write_ccv(_small(), folder / f"half-{half}.sqlite3", half=half).read_bytes()


def _klaus(folder: Path) -> bytes:
    """A database whose full connect layer is a picture of 4 bits."""
    model = _small()
    (number, full) = next((n, layer) for n, layer in enumerate(model.layers) if isinstance(layer, FullConnect))
    rng = np.random.default_rng(2)
    indices = rng.integers(0, 16, full.weights.values.shape, dtype=np.uint8)
    path = folder / "klaus.sqlite3"
    assert isinstance(model.formation, CcvFormation)
    with ccv_tables.new_database(path) as db:
        ccv_tables.create(db, "layer_data")
        ccv_tables.create(db, "layer_quant")
        ccv_tables.write_geometry(db, model)
        ccv_tables.write_mean(db, model.formation)
        for index, layer in ccv_tables.weighted(model):
            values = None if index == number else layer.weights.values
            ccv_tables.write_data(db, index, values, layer.weights.bias, half=True)
        entries = rng.standard_normal(16).astype("<f2").tobytes()
        ccv_tables.insert(db, "layer_quant", layer=number, quant=entries)
    return parts.join([path.read_bytes(), png.encode(indices, 4)])


def _package(folder: Path, model: Model, name: str) -> bytes:
    made = {path.name: path.read_bytes() for path in write_package(model, folder / name, name="x").files}
    assert not set(made) - set(PACKAGE_NAMES)
    return parts.join([made.get(file, b"") for file in PACKAGE_NAMES])


def _picture(depth: int) -> bytes:
    samples = np.random.default_rng(depth).integers(0, 1 << depth, (5, 9), dtype=np.uint8)
    return png.encode(samples, depth)


def _tensors() -> dict[str, Any]:
    return {
        "_fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "_fc.bias": np.arange(3, dtype=np.float16),
        "steps": np.array(7, np.int64),
    }


def _onnx(variant: int) -> bytes:
    node = helper.make_node
    draw = np.random.default_rng(variant)
    constants: dict[str, Any] = {
        "w": draw.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "s": np.ones(4, np.float32),
        "d": draw.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "f": draw.standard_normal((16, 3)).astype(np.float32),
        "six": np.array(6, np.float32),
        "zero": np.array(0, np.float32),
        "shape": np.array([0, -1], np.int64),
        "begin": np.array([1], np.int64),
        "end": np.array([3], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"]),
        node("Clip", ["b", "zero", "six"], ["c"]),
        node("Conv", ["c", "d"], ["e"], group=4, auto_pad="SAME_UPPER"),
        node("Add", ["e", "c"], ["g"]),
        node("MaxPool", ["g"], ["h"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ]
    if variant:
        nodes += [
            node("LRN", ["h"], ["i"], size=3),
            node("Slice", ["i", "begin", "end", "begin"], ["j"]),
            node("Split", ["i"], ["k", "l"], axis=1, num_outputs=2),
            node("Concat", ["j", "k"], ["m"], axis=1),
            node("AveragePool", ["m"], ["h2"], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1),
            node("Dropout", ["h2"], ["h3"]),
        ]
    last = "h3" if variant else "h"
    nodes += [
        node("Reshape", [last, "shape"], ["n"]),
        node("MatMul", ["n", "f"], ["o"]),
        node("Softmax", ["o"], ["y"]),
    ]
    made = onnx_files.model(nodes, constants, shape=[1, 3, 8, 8], metadata={"licence": "MIT", "klaus.mean": "1,2,3"})
    data: bytes = made.SerializeToString()
    return data


def write(folder: Path = CORPUS) -> None:
    """Writes all seeds as files; a first byte says that nothing is to be repaired."""
    for name, found in all_seeds().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(found):
            (folder / name / f"seed-{number}").write_bytes(struct.pack("B", 0) + data)


if __name__ == "__main__":
    write()
    sys.stdout.write(f"{CORPUS}\n")
